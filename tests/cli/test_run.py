"""`haproxy-py run`: a file or flags, checked before anything starts, then given to the supervisor."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from haproxy_py.cli import main
from haproxy_py.config_file import from_flags, parse
from tests.test_config import TEN_MISTAKES, write

Supervised = list[tuple[Any, Any, bool]]


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> Supervised:
    """What the supervisor would have been given; it is replaced by one that fails at once."""
    calls: Supervised = []
    supervisor = ModuleType("haproxy_py.control.supervisor")

    def supervise(config: Any, source: Any, *, takeover: bool) -> int:
        calls.append((config, source, takeover))
        return 1

    supervisor.supervise = supervise  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "haproxy_py.control.supervisor", supervisor)
    return calls


def test_a_file_is_supervised_with_its_path_so_that_it_can_be_read_again(
    supervised: Supervised, tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(write())
    assert main(["run", "--config", str(path)]) == 1
    assert supervised == [(parse(write(), str(path)), str(path), False)]


def test_flags_are_supervised_without_a_path(supervised: Supervised) -> None:
    flags = "--listen 127.0.0.1:0 --replica http://a --replica http://b --ha --ops 127.0.0.1:0 --workers 2"
    assert main(["run", *flags.split()]) == 1
    config = from_flags("127.0.0.1:0", ["http://a", "http://b"], True, "127.0.0.1:0", "2")
    assert supervised == [(config, None, False)]
    assert main(["run", *flags.split(), "--takeover"]) == 1
    assert supervised[1:] == [(config, None, True)]


def test_a_wrong_file_is_not_supervised_and_gives_exit_code_2(
    supervised: Supervised, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(TEN_MISTAKES)
    assert main(["run", "--config", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 10
    assert supervised == []


def test_a_wrong_flag_is_named_and_gives_exit_code_2(
    supervised: Supervised, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--listen", "127.0.0.1:0", "--replica", "a:1880"]) == 2
    assert capsys.readouterr().err.startswith("--replica: expected a URL like http://127.0.0.1:1880")
    assert supervised == []


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--listen", "127.0.0.1:0"],
        ["--replica", "http://a"],
        ["--config", "c.yaml", "--ha"],
        ["--config", "c.yaml", "--listen", "127.0.0.1:0"],
        ["--config", "c.yaml", "--replica", "http://a"],
        ["--config", "c.yaml", "--ops", ""],
        ["--config", "c.yaml", "--workers", "2"],
    ],
)
def test_neither_file_nor_flags_or_both_is_wrong_usage(
    supervised: Supervised, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *flags]) == 2
    assert "usage: haproxy-py run --config FILE" in capsys.readouterr().err
    assert supervised == []

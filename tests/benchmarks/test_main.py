"""The command line, and what is left when a run ends early."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks import __main__ as suite
from benchmarks.machine import UnavailableError
from benchmarks.proxies import list_proxies
from benchmarks.results import Micro, Results


def test_a_peer_needs_a_name_and_a_path() -> None:
    assert suite.read_arguments(["--peer", "haproxy-9=/opt/haproxy"]).peer == [("haproxy-9", "/opt/haproxy")]
    with pytest.raises(SystemExit):
        suite.read_arguments(["--peer", "haproxy-9"])


def test_an_unknown_scenario_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suite.read_arguments(["--scenario", "smal"])
    assert "realistic" in capsys.readouterr().err


def test_quick_takes_the_four_and_the_newest() -> None:
    options = suite.read_arguments(["--quick"])
    proxies = list_proxies(Path("/x"), {"nginx-9": "/opt/nginx"})
    chosen = [proxy.name for proxy in suite.choose_proxies(proxies, options)]
    assert chosen == ["relay", "haproxy_py", "haproxy", "nginx", "nginx-9"]


@pytest.mark.parametrize(("arguments", "most"), [(["--quick"], 120), ([], 30 * 60)])
def test_a_run_is_expected_to_end_in_time(arguments: list[str], most: float) -> None:
    options = suite.read_arguments(arguments)
    builds = {} if options.quick else {"nginx-9": "/opt/nginx", "haproxy-9": "/opt/haproxy"}
    proxies = suite.choose_proxies(list_proxies(Path("/x"), builds), options)
    assert suite.plan(options, proxies).seconds <= most


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A run that is interrupted after its first figure, and the folder it writes to."""

    def measure(options: argparse.Namespace, folder: Path, results: Results) -> None:
        results.micros.append(Micro("parse", 50.0))
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "measure", measure)
    monkeypatch.setattr(suite, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmarks", "--out", "x"])
    return tmp_path / "results"


def test_what_was_measured_before_an_interrupt_is_written(interrupted: Path) -> None:
    assert suite.main() == 130
    assert "| parse | 50 |" in (interrupted / "x.md").read_text()
    assert "interrupted" in (interrupted / "x.json").read_text()


def test_without_a_compiler_there_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(options: argparse.Namespace, folder: Path, results: Results) -> None:
        raise UnavailableError("a C compiler is not on this machine")

    monkeypatch.setattr(suite, "measure", measure)
    monkeypatch.setattr("sys.argv", ["benchmarks"])
    assert suite.main() == 1
    assert capsys.readouterr().err == "a C compiler is not on this machine\nnothing could be measured\n"

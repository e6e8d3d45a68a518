"""Which files with a secret are complained of because others may read them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from haproxy_py.cli import main
from haproxy_py.config import Tls
from haproxy_py.config_file import from_flags
from haproxy_py.control import private_files
from haproxy_py.control.private_files import explain_exposure, find_exposed
from tests.control.conftest import FILE, WITHIN, Start, get_status

WORLD_READABLE = 0o644


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    file.chmod(WORLD_READABLE)
    return file


@pytest.mark.parametrize(("mode", "who"), [(0o644, "every user"), (0o604, "every user"), (0o640, "its group")])
def test_file_that_others_may_read_is_named_with_its_mode_and_the_advice(secret: Path, mode: int, who: str) -> None:
    secret.chmod(mode)
    assert explain_exposure(str(secret)) == f"{secret} may be read by {who} (mode {mode:04o}): chmod 600 {secret}"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o622])
def test_file_that_nobody_else_may_read_is_right(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    assert explain_exposure(str(secret)) is None


def test_file_that_another_user_shares_with_a_group_is_meant_so(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret.chmod(0o640)
    owner = secret.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert explain_exposure(str(secret)) is None
    secret.chmod(WORLD_READABLE)
    assert "give it to the proxy's user, and chmod 600" in str(explain_exposure(str(secret)))


def test_file_behind_a_link_is_judged_not_the_link(secret: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(secret)
    assert f"{link} may be read by every user" in str(explain_exposure(str(link)))
    secret.chmod(0o600)
    assert explain_exposure(str(link)) is None


def test_file_on_a_read_only_mount_is_left_alone(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(private_files.os, "statvfs", lambda path: ReadOnly)  # type: ignore[attr-defined]
    assert explain_exposure(str(secret)) is None


def test_file_that_is_not_there_is_no_matter_of_its_mode(tmp_path: Path) -> None:
    assert explain_exposure(str(tmp_path / "none")) is None


def test_keys_and_tokens_are_found_with_their_places(secret: Path) -> None:
    config = from_flags("127.0.0.1:0", ["http://127.0.0.1:9"], True, "127.0.0.1:0")
    listen = replace(config.listen[0], tls=Tls(certificate="none.crt", key=str(secret)))
    config = replace(config, listen=(listen,), ops=replace(config.ops, token_file=str(secret)))
    assert [warning.split(": ")[0] for warning in find_exposed(config)] == ["ops.token_file", "listen[0].tls.key"]


def test_check_warns_and_finds_the_file_right(secret: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "listen: [{address: '127.0.0.1:0'}]\nops: {token_file: token}\n"
        "instances: [{name: one, ha: false, replicas: {static: ['http://127.0.0.1:9']}}]\n"
    )
    assert main(["check", str(file)]) == 0
    assert f"warning: ops.token_file: {secret} may be read by every user (mode 0644)" in capsys.readouterr().err


def test_status_tells_it_for_as_long_as_it_is_so(secret: Path, file: Path, start: Start) -> None:
    file.write_text(FILE.replace("ops: {", f"ops: {{token_file: {secret}, "))
    secret.chmod(0o600)
    control = start()
    url = control.expect_ready()
    assert get_status(url)["warnings"] == []
    secret.chmod(WORLD_READABLE)
    control.expect(rf"warning ops\.token_file: {secret} may be read by every user")
    assert get_status(url)["warnings"] == [f"ops.token_file: {explain_exposure(str(secret))}"]
    secret.chmod(0o600)
    deadline = time.monotonic() + WITHIN
    while get_status(url)["warnings"]:
        assert time.monotonic() < deadline


def test_running_proxy_says_it_at_the_start(secret: Path, file: Path, start: Start) -> None:
    file.write_text(FILE.replace("ops: {", f"ops: {{token_file: {secret}, "))
    start().expect(rf"warning ops\.token_file: {secret} may be read by every user \(mode 0644\): chmod 600")

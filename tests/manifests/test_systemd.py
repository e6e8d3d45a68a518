"""The unit for systemd: understood by systemd itself where it is installed, and right in what it must say anywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from haproxy_py.cli import build_parser

UNIT = Path(__file__).parents[2] / "config" / "systemd" / "haproxy-py@.service"
COMMAND = "/opt/haproxy-py/bin/haproxy-py"

Sections = dict[str, dict[str, list[str]]]


@pytest.fixture
def unit() -> Sections:
    """By section and key; a key may stand more than once."""
    sections: Sections = {}
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


def test_commands_of_the_unit_are_those_of_the_program(unit: Sections) -> None:
    service = unit["Service"]
    commands = [line for key in ("ExecStart", "ExecReload") for line in service[key] if line.startswith(COMMAND)]
    assert len(commands) == 2
    for line in commands:
        args = build_parser().parse_args(line.removeprefix(COMMAND).split())
        assert str(getattr(args, "config", None) or args.file) == "/etc/haproxy-py/haproxy-py.yaml"


def test_unit_fits_takeovers(unit: Sections) -> None:
    service = unit["Service"]
    assert service["Type"] == ["notify"]
    assert service["NotifyAccess"] == ["all"]  # who takes over within a unit is not its main process yet
    assert service["ExecStart"][0].endswith(" --takeover")
    assert service["Restart"] == ["on-failure"]  # whom another has taken over ends with status 0, and stays away
    assert service["KillMode"] == ["mixed"]  # control drains its workers itself
    assert "User" in service  # both sides of a takeover belong to one user
    assert not {"PrivateNetwork", "DynamicUser", "RemainAfterExit"} & set(service)


def test_unit_may_open_low_ports_and_no_more(unit: Sections) -> None:
    service = unit["Service"]
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"] == ["CAP_NET_BIND_SERVICE"]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]
    assert "AF_UNIX" in service["RestrictAddressFamilies"][0]  # takeovers, and the service manager itself


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze: apt-get install systemd")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / "haproxy-py@a.service"
    copy.write_text(UNIT.read_text().replace(COMMAND, sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze: apt-get install systemd")
def test_systemd_finds_little_that_is_exposed(tmp_path: Path) -> None:
    copy = tmp_path / "haproxy-py@a.service"
    copy.write_text(UNIT.read_text().replace(COMMAND, sys.executable))
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=25", "--no-pager", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr

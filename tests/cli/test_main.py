"""The command line as a whole: which commands there are, exit codes, help."""

from __future__ import annotations

import subprocess
import sys

import pytest

from haproxy_py import __version__
from haproxy_py.cli import main


def test_without_arguments_help_is_printed_and_the_exit_code_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: haproxy-py")


def test_help_is_printed_with_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "exit codes: 0 fine, 1 failed, 2 wrong usage or configuration" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "demo", "check", "status", "drain", "undrain"])
def test_every_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"examples:\n  haproxy-py {command}" in capsys.readouterr().out


def test_only_commands_that_exist_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bogus"]) == 2
    said = capsys.readouterr().err.replace("'", "")  # Python 3.12 leaves the quotes out
    assert "(choose from run, demo, check, config, status, drain, undrain, gate)" in said


def test_an_abbreviated_flag_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--conf", "c.yaml"]) == 2
    assert "unrecognized arguments: --conf" in capsys.readouterr().err


def test_the_version_is_printed_with_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"haproxy-py {__version__}\n"


def test_python_m_haproxy_py_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "haproxy_py"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()[:2]) == (2, ["usage:", "haproxy-py"])

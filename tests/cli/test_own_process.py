"""No command shows a traceback for what is no mistake of the program: each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

TIMEOUT = 60.0
CHECKOUT = Path(__file__).parents[2]
EXAMPLE = str(CHECKOUT / "config" / "example.yaml")
COMMANDS = (
    ["--help"],
    ["--version"],
    [],
    ["check", EXAMPLE],
    ["gate", "test", EXAMPLE, "GET", "/flows"],
    ["run", "--help"],
)
INTERRUPTED = 130


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""argparse ignores what it cannot write at once, so that there is nothing to fail."""


def make_command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "haproxy_py", *arguments]


def run_code(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        cwd=CHECKOUT,
    )


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_reader_that_has_left_ends_a_command_silently(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            make_command(arguments),
            stdout=writing,
            stderr=subprocess.PIPE,
            env=BUFFERED,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, _leave_out_warnings(done.stderr)) == (1, "")


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_full_disk_ends_a_command_with_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            make_command(arguments),
            stdout=full,
            stderr=subprocess.PIPE,
            env=BUFFERED,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert (done.returncode, _leave_out_warnings(done.stderr)) == (
        1,
        "haproxy-py: the output could not be written: No space left on device\n",
    )


def test_errors_that_cannot_be_written_leave_no_traceback(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("listen: 1\n")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            make_command(["check", str(wrong)]), stdout=full, stderr=full, timeout=TIMEOUT, check=False
        )
    assert done.returncode == 1


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_ascii_terminal_gets_escapes(arguments: list[str]) -> None:
    environment = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(make_command(arguments), env=environment, capture_output=True, timeout=TIMEOUT, check=False)
    assert b"Traceback" not in done.stderr
    assert (done.stdout + done.stderr).isascii()


def test_character_that_cannot_be_spelt_is_escaped() -> None:
    done = run_code(
        "import sys; sys.stdout.reconfigure(encoding='ascii', errors='strict'); "
        "from haproxy_py.cli.own_process import own_process; own_process(); print('two replicas \u2026')"
    )
    assert (done.returncode, done.stdout) == (0, "two replicas \\u2026\n")


@pytest.mark.parametrize("where", ["json", "yaml", "argparse", "haproxy_py.cli.status", "haproxy_py.config_file"])
def test_interrupt_during_an_import_ends_with_one_line(where: str) -> None:
    done = run_code(
        """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.modules.pop(sys.argv[1], None)
sys.meta_path.insert(0, Interrupting())
where, sys.argv = sys.argv[1], ["haproxy-py", "check", "config/example.yaml"]
sys.argv.insert(1, where)
from haproxy_py import cli
start = cli._run
cli._run = lambda arguments: start(arguments[1:])
sys.exit(cli.main())
""",
        where,
    )
    assert (done.returncode, done.stderr) == (INTERRUPTED, "haproxy-py: interrupted\n")


def test_interrupt_while_python_ends_shows_no_traceback() -> None:
    done = run_code(
        "import atexit, os, signal, sys; from haproxy_py.cli import main; "
        "atexit.register(os.kill, os.getpid(), signal.SIGINT); sys.argv[1:] = ['--version']; sys.exit(main())"
    )
    assert (done.returncode, done.stderr) == (INTERRUPTED, "haproxy-py: interrupted\n")


def test_interrupt_that_is_ignored_stays_ignored() -> None:
    done = run_code(
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "from haproxy_py.cli.own_process import own_process; own_process(); os.kill(os.getpid(), signal.SIGINT)"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_closed_standard_streams_are_never_taken_by_sockets() -> None:
    done = subprocess.run(
        [
            "sh",
            "-c",
            'exec "$0" -c "import os, socket; from haproxy_py.cli.own_process import own_process; own_process(); '
            'os._exit(socket.socket().fileno() < 3)" <&- >&- 2>&-',
            sys.executable,
        ],
        timeout=TIMEOUT,
        check=False,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0


def test_former_python_is_refused_in_one_line() -> None:
    done = run_code("import sys; sys.version_info = (3, 10, 14, 'final', 0); import haproxy_py.cli")
    assert done.returncode == 1
    assert done.stderr == f"haproxy-py needs Python 3.11 or newer; this is Python 3.10 ({sys.executable})\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_the_loop_runs_ends_the_proxy_with_status_0(number: signal.Signals) -> None:
    done = run_code(
        f"""
import os, sys
from haproxy_py import config_file
from haproxy_py.control import supervisor
build = supervisor.Supervisor.__init__
def build_interrupted(*args, **more):
    os.kill(os.getpid(), {int(number)})
    build(*args, **more)
supervisor.Supervisor.__init__ = build_interrupted
config = config_file.from_flags("127.0.0.1:0", ["http://127.0.0.1:9"], True, "127.0.0.1:0", "1")
sys.exit(supervisor.supervise(config, None))
"""
    )
    assert done.returncode == 0, done.stderr
    assert f"{number.name}: draining" in done.stderr
    assert "Traceback" not in done.stderr


def _leave_out_warnings(text: str) -> str:
    """What `check` says of the file itself."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("warning: "))

"""`-` in place of a configuration file: standard input, which can be read once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from haproxy_py.config_tree import MAX_BYTES
from tests.test_config import write

WITHIN = 30.0


def check(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "haproxy_py", "check", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, cwd=folder, check=False, timeout=WITHIN)


def test_check_judges_standard_input(tmp_path: Path) -> None:
    done = check(write(), tmp_path)
    assert (done.returncode, done.stdout.split(". ")[0]) == (0, "standard input is right")


def test_mistakes_are_placed_in_standard_input(tmp_path: Path) -> None:
    done = check(write(top="nonsense: 1"), tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith('standard input:9:1: unknown key "nonsense"')


def test_standard_input_without_an_end_is_read_as_far_as_a_file_may_go(tmp_path: Path) -> None:
    done = check("#" * (MAX_BYTES + 2), tmp_path)
    assert (done.returncode, done.stderr) == (2, "standard input: the file is larger than 1MiB\n")


def test_standard_input_that_is_closed_is_empty(tmp_path: Path) -> None:
    command = f"{sys.executable} -m haproxy_py check - <&-"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=WITHIN
    )
    assert (done.returncode, done.stderr) == (2, "standard input: the file is empty\n")


def test_relative_path_counts_from_the_current_folder(tmp_path: Path) -> None:
    done = check(write(top="ops: {token_file: token}"), tmp_path)
    assert done.returncode == 2
    assert "token does not exist" in done.stderr or "token cannot be read" in done.stderr
    (tmp_path / "token").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "token").chmod(0o600)
    assert check(write(top="ops: {token_file: token}"), tmp_path).returncode == 0


def test_reload_says_that_standard_input_cannot_be_read_again_and_keeps_what_is_in_force(tmp_path: Path) -> None:
    text = write(
        address="127.0.0.1:0", top="ops: {address: '127.0.0.1:0'}\nworkers: 1\ndrain: {delay: 0s, deadline: 1s}"
    )
    command = [sys.executable, "-m", "haproxy_py", "run", "--config", "-"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, process_group=0
    )
    ending = threading.Timer(WITHIN, process.kill)  # ends every wait below
    ending.start()
    try:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(text)
        process.stdin.close()
        seen = [next(line for line in process.stderr if "accepts connections" in line)]
        process.send_signal(signal.SIGHUP)
        seen.append(next(line for line in process.stderr if "SIGHUP" in line))
        assert seen[-1].endswith(
            "SIGHUP: the configuration came from standard input, which cannot be read again; nothing was changed\n"
        )
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(WITHIN) == 0
    finally:
        ending.cancel()
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()

"""A control process under test: real processes, real signals, and a log to wait for."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WITHIN = 20.0
"""Seconds that a test waits for something that usually takes milliseconds."""

FILE = """
listen: [{address: '127.0.0.1:0'}]
ops: {address: '127.0.0.1:0'}
workers: 2
instances:
  - name: one
    ha: true
    replicas: {static: [http://127.0.0.1:1880, http://127.0.0.1:1881]}
    health: {type: off}  # nobody listens there, and these tests count tables
drain: {delay: 300ms, deadline: 5s}
"""


class Control:
    """A control process with stand-in workers."""

    def __init__(self, file: Path, mode: str, *flags: str) -> None:
        self._broken = file.with_name("broken")
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "STAND_IN_MODE": mode,
            "STAND_IN_BROKEN": str(self._broken),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(HERE / "run_control.py"), str(file), *flags],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.lines: list[str] = []
        self._seen = 0
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def expect(self, pattern: str, within: float = WITHIN) -> re.Match[str]:
        """The next line of the log that matches; the lines before it are passed over."""
        deadline = time.monotonic() + within
        with self._changed:
            while True:
                for index in range(self._seen, len(self.lines)):
                    if found := re.search(pattern, self.lines[index]):
                        self._seen = index + 1
                        return found
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise AssertionError(f"no line matches {pattern!r} in:\n" + "\n".join(self.lines))

    def expect_ready(self, workers: int = 2) -> str:
        """Wait for the workers; the URL of the operators' port."""
        url = self.expect(r"operators' port on (http://[^:]+:\d+)")[1]
        for _ in range(workers):
            self.expect("accepts connections")
        return url

    def break_next_workers(self) -> None:
        """Whatever worker is started from now on ends at once."""
        self._broken.touch()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        status = self.process.wait(WITHIN)
        self._reader.join(WITHIN)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


Start = Callable[..., Control]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "proxy.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def start(file: Path) -> Iterator[Start]:
    """Start a control process: `start(mode="normal", *flags)`."""
    running: list[Control] = []

    def start_one(mode: str = "normal", *flags: str) -> Control:
        running.append(Control(file, mode, *flags))
        return running[-1]

    yield start_one
    for control in running:
        control.close()


def get(url: str) -> tuple[int, str]:
    """Status and body of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def get_status(url: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(get(f"{url}/api/v1/status")[1])
    return body


def get_metric(url: str, series: str) -> float | None:
    """The value of a series, written as in the text format; None if it is absent."""
    for line in get(f"{url}/metrics")[1].splitlines():
        name, _, value = line.rpartition(" ")
        if name == series:
            return float(value)
    return None

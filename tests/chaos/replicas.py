"""Demo replicas as processes that can be killed, and a proxy in front of them to which nobody says so."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.load import Load
from tests.proxy_process import ProxyProcess, describe_instance, find_free_ports

START_WITHIN = 60.0
"""Seconds that a replica has to start."""


class Replicas:
    """Demo replicas as processes of their own, each on its own port for ever."""

    def __init__(self, count: int) -> None:
        self.ports = find_free_ports(count)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Replicas:
        for index in range(len(self.ports)):
            self.start(index)
        return self

    def __exit__(self, *facts: object) -> None:
        for index in list(self._processes):
            self.kill(index)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def start(self, index: int) -> None:
        command = [sys.executable, "-m", "haproxy_py.demo.replica", "--host", "127.0.0.1"]
        command += ["--port", str(self.ports[index]), "--name", f"replica-{index}"]
        self._processes[index] = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def kill(self, index: int) -> None:
        process = self._processes.pop(index)
        process.kill()
        process.wait()


@contextlib.contextmanager
def run_proxy(tmp_path: Path, replicas: Replicas, **settings: Any) -> Iterator[ProxyProcess]:
    """`settings` are further keys of the instance."""
    with ProxyProcess(tmp_path, [describe_instance(replicas.urls, **settings)], workers=2) as proxy:
        yield proxy


def wait_for_all(load: Load, count: int) -> None:
    """Until every replica has answered lately."""
    end = time.monotonic() + START_WITHIN
    while time.monotonic() < end:
        began, done = load.run_for(60)
        if len(load.count_replicas(began, done)) == count:
            return
    raise AssertionError(f"not every replica answers: {load.count_replicas(began, done)}")

"""The whole proxy as a process of its own, for tests that look at it from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START_TIMEOUT = 30.0
"""Seconds until /readyz answers 200. A worker starts in well under one; the rest is for a busy machine."""

PROBE_INTERVAL = 0.02
DRAIN = {"delay": "0s", "deadline": "5s"}
STOP_TIMEOUT = 15.0
"""Seconds from SIGTERM to the end: the drain's deadline and room."""


class ProxyFailedError(AssertionError):
    """The proxy did not start or did not end as it should; the text ends with what it logged."""


def describe_instance(
    replicas: Sequence[str], *, name: str = "test", ha: bool = True, gate: Mapping[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """One entry of `instances` with static replicas (URLs). `more` are further keys: hosts, balance, timeouts, …"""
    entry: dict[str, Any] = {"name": name, "ha": ha, "replicas": {"static": list(replicas)}}
    if gate is not None:
        entry["gate"] = dict(gate)
    return entry | more


def find_free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class ProxyProcess:
    """`python -m haproxy_py run --config FILE` on free ports of loopback: a context manager, ready inside.

    Leaving the context sends SIGTERM and asserts exit status 0, unless `kill` came first. `extra` is laid over the top
    level of the configuration (`log`, `drain`, `listen`, …); the file is `config_file`, and may be rewritten before a
    SIGHUP.
    """

    def __init__(
        self,
        folder: Path,
        instances: Sequence[Mapping[str, Any]],
        *,
        workers: int = 1,
        extra: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self.ops_port = find_free_ports(2)
        self.config: dict[str, Any] = {
            "listen": [{"address": f"127.0.0.1:{self.port}"}],
            "ops": {"address": f"127.0.0.1:{self.ops_port}"},
            "workers": workers,
            "instances": list(instances),
            "drain": DRAIN,
            **(extra or {}),
        }
        self.config_file = folder / "proxy.yaml"
        self.log_file = folder / "proxy.log"
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def add_environment(self, **variables: str) -> None:
        """For the next start."""
        self._environment |= variables

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ops_url(self) -> str:
        return f"http://127.0.0.1:{self.ops_port}"

    @property
    def pid(self) -> int:
        """The control process."""
        return self._running().pid

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The control process, while it runs; `kill` ends it, if it still does."""
        return self._running()

    @property
    def log(self) -> str:
        """All that the proxy wrote to its standard output and error so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if error is not None:  # the test has failed: its own error is the one to see
            self.kill()
            return
        self.stop()

    def start(self) -> None:
        """Returns when the proxy is ready. Raises ProxyFailedError if it ends before, or is not ready in time."""
        process = self.spawn()
        deadline = time.monotonic() + START_TIMEOUT
        while not self.is_ready():
            status = process.poll()
            if status is not None:
                self._process = None
                raise ProxyFailedError(f"the proxy ended with status {status} before it was ready\n{self.log}")
            if time.monotonic() > deadline:
                self.kill()
                raise ProxyFailedError(f"the proxy was not ready after {START_TIMEOUT:.0f} s\n{self.log}")
            time.sleep(PROBE_INTERVAL)

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process and wait for nothing."""
        self.write_config()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.make_command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self._environment,
                start_new_session=True,  # a group of its own, so that `kill` reaches the workers too
            )
        return self._process

    def make_command(self) -> list[str]:
        """What is started; a subclass may start it otherwise."""
        return [sys.executable, "-m", "haproxy_py", "run", "--config", str(self.config_file)]

    def write_config(self) -> None:
        """Writes `config` to the file. JSON is YAML."""
        self.config_file.write_text(json.dumps(self.config, indent=2))

    def is_ready(self) -> bool:
        """Whether /readyz answers 200 now."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get_ops("/readyz")[0] == 200
        return False

    def get_ops(self, path: str) -> tuple[int, str]:
        """Status and body of one GET to the operators' port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ops_port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the control process."""
        self._running().send_signal(number)

    def stop(self) -> None:
        """SIGTERM; raises ProxyFailedError unless the proxy then ends in time with status 0."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ProxyFailedError(f"the proxy still ran {STOP_TIMEOUT:.0f} s after SIGTERM\n{self.log}") from None
        self._process = None
        if status != 0:
            raise ProxyFailedError(f"the proxy ended with status {status}\n{self.log}")

    def kill(self) -> None:
        """SIGKILL to control and workers at once."""
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the proxy does not run")
        return self._process

"""A constant load of mixed methods, on kept connections and on new ones, and what became of every request.

The clients run in a process of their own (`load_clients.py`), so what a test does meanwhile does not slow them down.
"""

from __future__ import annotations

import marshal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from tests.load_clients import GIVE_UP

KEPT = 300_000
"""Results that are kept, the latest: about 200 octets each."""

KEPT_FAILURES = 100_000
"""Failures that are kept, the first; all are counted."""

END_WITHIN = GIVE_UP + 10.0
"""Seconds from the end of a load to that of its process, which waits for what is under way."""


class Result(NamedTuple):
    method: str
    began: float  # monotonic seconds
    took: float
    status: int  # 0: no answer
    replica: str  # as its answer tells; empty: none answered
    detail: str  # the proxy's reason, or what broke


class Load:
    """A context manager: `threads` clients that each send a request, wait for the answer and then `pause` seconds.

    Every fourth client takes a new connection for each request. With `rate` there are so many requests a second at most,
    evenly. An answer that is not complete, is followed by anything, or belongs to another request is a failure.
    `results` has the latest results in the order of their ends, `total` counts all, `failed` all failures.
    """

    def __init__(
        self, port: int, *, threads: int = 4, pause: float = 0.015, host: str = "test.example.com", rate: float = 0.0
    ) -> None:
        self.results: list[Result] = []
        self.total = 0
        self.failed = 0
        self._failures: list[Result] = []
        program = Path(__file__).with_name("load_clients.py")
        self._command = [sys.executable, str(program), *map(str, (port, host, threads, pause, rate))]
        self._process: subprocess.Popen[bytes] | None = None
        self._reading: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._reading = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reading.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._reading is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(END_WITHIN)
        finally:
            self._process.kill()
            self._process.wait()
            self._reading.join()
            self._process.stdout.close()
        assert status == 0 or error is not None, f"the load's process ended with status {status}"

    def list_failures(self, since: float = 0.0, until: float = float("inf")) -> list[Result]:
        """All but 200 and what was answered wrongly, of those sent in that time."""
        assert self.failed <= KEPT_FAILURES, f"{self.failed} requests failed, too many to keep"
        return [one for one in list(self._failures) if since <= one.began <= until]

    def count_replicas(self, since: float, until: float) -> Counter[str]:
        """Requests by replica, of those sent in that time."""
        return Counter(one.replica for one in self.list_results(since, until) if one.replica)

    def list_results(self, since: float, until: float = float("inf")) -> list[Result]:
        """Those sent in that time, in the order of their ends. Costs no more for what was over before."""
        results = list(self.results)
        found: list[Result] = []
        for one in reversed(results):
            if one.began + one.took < since:
                break
            if since <= one.began <= until:
                found.append(one)
        return found[::-1]

    def run_for(self, requests: int, within: float = 30.0) -> tuple[float, float]:
        """Let so many requests be sent; the moments of begin and end."""
        began = time.monotonic()
        wanted = self.total + requests
        while self.total < wanted:
            assert self._process is not None
            assert self._process.poll() is None, f"the load's process ended with status {self._process.poll()}"
            assert time.monotonic() - began < within, f"{requests} requests took more than {within} s"
            time.sleep(0.01)
        return began, time.monotonic()

    def _read(self, pipe: IO[bytes]) -> None:
        """What the clients tell, until they have ended."""
        while True:
            try:
                outcomes = marshal.load(pipe)
            except EOFError:
                return
            results = [Result._make(outcome) for outcome in outcomes]
            failures = [one for one in results if one.status != 200]
            self.results += results
            self._failures += failures[: max(0, KEPT_FAILURES - len(self._failures))]
            self.failed += len(failures)
            self.total += len(results)
            if len(self.results) > KEPT:
                del self.results[: KEPT // 4]

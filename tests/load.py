"""A constant load of mixed methods on kept connections, and what became of every request."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Self

METHODS = ("GET", "POST", "PUT", "DELETE")
BODY = b'{"temperature": 21.5}'


@dataclass(frozen=True)
class Result:
    method: str
    began: float  # monotonic seconds
    took: float
    status: int  # 0: no answer
    replica: str  # as its answer tells; empty: none answered
    detail: str  # the proxy's reason, or what broke


class Load:
    """A context manager: `threads` clients that each send a request, wait for the answer and then `pause` seconds."""

    def __init__(self, port: int, *, threads: int = 4, pause: float = 0.015, host: str = "test.example.com") -> None:
        self.results: list[Result] = []
        self._port = port
        self._pause = pause
        self._host = host
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._send_forever, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def list_failures(self, since: float = 0.0, until: float = float("inf")) -> list[Result]:
        return [one for one in list(self.results) if one.status != 200 and since <= one.began <= until]

    def count_replicas(self, since: float, until: float) -> Counter[str]:
        """Requests by replica, of those sent in that time."""
        return Counter(one.replica for one in list(self.results) if one.replica and since <= one.began <= until)

    def run_for(self, requests: int, within: float = 30.0) -> tuple[float, float]:
        """Let so many requests be sent; the moments of begin and end."""
        began = time.monotonic()
        wanted = len(self.results) + requests
        while len(self.results) < wanted:
            assert time.monotonic() - began < within, f"{requests} requests took more than {within} s"
            time.sleep(0.01)
        return began, time.monotonic()

    def _send_forever(self, number: int) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)) as connection:
            while not self._ending.wait(self._pause):
                self.results.append(self._send(connection, METHODS[number % len(METHODS)]))
                number += 1

    def _send(self, connection: http.client.HTTPConnection, method: str) -> Result:
        began = time.monotonic()
        try:
            body = BODY if method in ("POST", "PUT") else None
            connection.request(method, "/api/hello", body=body, headers={"Host": self._host})
            answer = connection.getresponse()
            data = answer.read()
            found = json.loads(data) if answer.headers.get_content_type() == "application/json" else {}
            detail = str(found.get("reason", "")) if answer.status != 200 else ""
            return Result(method, began, time.monotonic() - began, answer.status, str(found.get("replica", "")), detail)
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            return Result(method, began, time.monotonic() - began, 0, "", repr(error))

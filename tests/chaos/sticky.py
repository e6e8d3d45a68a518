"""Clients that keep their cookie, beside the load, whose clients keep none."""

from __future__ import annotations

import contextlib
import http.client
import threading


class StickyClients:
    """A context manager: clients that stick to their replica, each in a thread and on a connection of its own."""

    def __init__(self, port: int, count: int = 4, pause: float = 0.01) -> None:
        self.answers = 0
        self.moves = 0  # to another replica
        self.failures: list[str] = []
        self._port = port
        self._pause = pause
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask_forever) for _ in range(count)]

    def __enter__(self) -> StickyClients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *facts: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _ask_forever(self) -> None:
        cookie = ""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)) as connection:
            while not self._ending.wait(self._pause):
                try:
                    connection.request("GET", "/api/hello", headers={"Cookie": cookie} if cookie else {})
                    answer = connection.getresponse()
                    body = answer.read()
                except (OSError, http.client.HTTPException) as error:
                    self.failures.append(repr(error))
                    connection.close()
                    continue
                self.answers += 1
                if answer.status != 200:
                    self.failures.append(f"{answer.status} {body[:200]!r}")
                if given := answer.getheader("Set-Cookie", "").partition(";")[0]:
                    self.moves += cookie not in ("", given)
                    cookie = given

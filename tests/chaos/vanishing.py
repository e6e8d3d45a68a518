"""Clients that vanish: a connection that ends at some point of an exchange, in every way a connection can end."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import struct
import threading
from types import TracebackType
from typing import Self

_RESET = struct.pack("ii", 1, 0)
_HOST = b"Host: test.example.com\r\n"
_KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

UPGRADE = b"GET /ws/echo HTTP/1.1\r\n" + _HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + _KEY + b"\r\n"
FRAME = b"\x81\x85" + bytes(4) + b"hello"
_PIECES = b"10\r\n" + b"x" * 16 + b"\r\n8\r\nyyyyyyyy\r\n0\r\n\r\n"

REQUESTS = (
    b"GET /api/hello HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"POST /api/hello HTTP/1.1\r\n" + _HOST + b"Content-Length: 21\r\n\r\n" + b'{"temperature": 21.5}',
    b"PUT /api/hello HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n" + _PIECES,
    b"GET /api/hello HTTP/1.1\r\n" + _HOST + b"\r\n" + b"GET /api/hello HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GET /api/slow HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GET /events HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"POST /api/echo HTTP/1.1\r\n" + _HOST + b"Content-Length: 300000\r\n\r\n" + b"z" * 1000,
    b"POST /api/echo HTTP/1.1\r\n" + _HOST + b"Content-Length: 300000\r\n\r\n" + b"z" * 300000,
    b"GET /flows HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GARBAGE\r\n\r\n",
    UPGRADE + FRAME,
)
"""Complete but for one; each is cut at every octet in turn, the long ones where their bodies are mere filling."""

ENDS = ("fin", "reset", "half")
"""How a client goes: it closes, it resets, or it sends FIN first and closes when the answer begins."""

CUTS_OF_BODY = 40


def list_cuts(request: bytes) -> list[int]:
    """Where to cut: at every octet of a head and a short body, at some of a long one; and not at all."""
    if len(request) <= 500:
        return list(range(len(request) + 1))
    head = request.index(b"\r\n\r\n") + 4
    step = (len(request) - head) // CUTS_OF_BODY
    return [*range(head + 1), *range(head + step, len(request), step), len(request)]


class Vanishing:
    """A context manager: `threads` clients that come and vanish, all points of all requests in turn."""

    def __init__(self, port: int, threads: int = 8) -> None:
        self.count = 0
        self.refused: list[OSError] = []  # no connection could be made
        self._port = port
        points = [(request, cut) for request in REQUESTS for cut in list_cuts(request)]
        random.Random(5).shuffle(points)  # not one request for a minute
        self.points = len(points) * len(ENDS) * 2
        self._turns = itertools.cycle(itertools.product(points, ENDS, (True, False)))
        self._turning = threading.Lock()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._come_and_go) for _ in range(threads)]

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

    def _come_and_go(self) -> None:
        while not self._ending.wait(0.005):
            with self._turning:
                (request, cut), end, reads = next(self._turns)
                self.count += 1
            try:
                client = socket.create_connection(("127.0.0.1", self._port), timeout=5)
            except OSError as error:
                self.refused.append(error)
                continue
            with client, contextlib.suppress(OSError):
                client.settimeout(0.05 if reads else 0.0)  # some answers begin in that time, some do not
                if cut:
                    client.send(request[:cut])  # of a long one, what the socket takes
                if end == "half":
                    client.shutdown(socket.SHUT_WR)
                if reads:
                    with contextlib.suppress(TimeoutError):
                        client.recv(100)
                if end == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

"""A replica that records every octet it gets and answers from a script, whole or cut in two."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections import defaultdict
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

PAUSE = 0.002
"""Seconds between two pieces of a message that is sent cut in two: long enough to be read as two."""

TAG = re.compile(rb"tag=(\d{7})")
START_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """One complete request, octet for octet."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def lines(self) -> list[bytes]:
        """The field lines."""
        return self.head.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]

    def values(self, name: bytes) -> list[bytes]:
        """The values of every line with this name, whatever its case."""
        parts = (line.partition(b": ") for line in self.lines)
        return [value for field, _, value in parts if field.lower() == name.lower()]


@dataclass(frozen=True, slots=True)
class Script:
    """What to answer, and what then becomes of the connection."""

    answer: bytes
    then: str = "keep"  # keep | close | reset
    cut: int = 0  # octets that are sent first; 0: everything at once
    pause: float = PAUSE  # seconds behind them
    early: bool = False  # answer when the head is there, without waiting for the body
    at_head: bytes = b""  # sent when the head is there, in front of the answer


OK = Script(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class ScriptedReplica:
    """A context manager: listens on a free port of loopback inside, on a thread of its own.

    A request is answered by the script of its path (`scripts`, without the query), else with 200. Requests are recorded
    under the tag that their head holds (`tag=0000001` anywhere); those without one under -1.
    """

    def __init__(self) -> None:
        self.scripts: dict[bytes, Script] = {}
        self.requests: defaultdict[int, list[Request]] = defaultdict(list)
        self.unread: list[bytes] = []  # what arrived and was no request: the proxy and this replica disagree
        self.ends: dict[
            int, int
        ] = {}  # by the tag of its last request: how many octets followed before a connection ended
        self.port = 0
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="replica")
        self.connections: set[_Connection] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(START_TIMEOUT), "the replica did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        lost = [connection.lost for connection in self.connections]
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.gather(*(each.wait() for each in lost))


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, replica: ScriptedReplica) -> None:
        self._replica = replica
        self._data = b""
        self._head: bytes | None = None  # of the request whose body is coming
        self._switched = False
        self._tag = -1
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._replica.connections.add(self)

    def connection_lost(self, problem: Exception | None) -> None:
        self._replica.connections.discard(self)
        self.lost.set()
        self._replica.ends[self._tag] = len(self._data)

    def data_received(self, data: bytes) -> None:
        if self._switched:
            self.transport.write(data)  # an echo
            return
        self._data += data
        while self._take_request():
            pass

    def _take_request(self) -> bool:
        if self._head is None:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._head, self._data = self._data[: end + 4], self._data[end + 4 :]
            script = self._script(self._head)
            if script.at_head:
                self.transport.write(script.at_head)
            if script.early:
                self._send(script)
        size = measure_body(self._head, self._data)
        if size is None:
            return False
        head, body = self._head, self._data[:size]
        self._head, self._data = None, self._data[size:]
        if not head.split(b"\r\n", 1)[0].endswith(b" HTTP/1.1"):
            self._replica.unread.append(head)
        found = TAG.search(head)
        self._tag = int(found[1]) if found else -1
        self._replica.requests[self._tag].append(Request(head, body))
        script = self._script(head)
        if not script.early:
            self._send(script)
        return True

    def _script(self, head: bytes) -> Script:
        return self._replica.scripts.get(head.split(b" ", 2)[1].partition(b"?")[0], OK)

    def _send(self, script: Script) -> None:
        self._switched = script.answer.startswith(b"HTTP/1.1 101")
        if not script.cut:
            self._finish(script, script.answer)
            return
        self.transport.write(script.answer[: script.cut])
        asyncio.get_running_loop().call_later(script.pause, self._finish, script, script.answer[script.cut :])

    def _finish(self, script: Script, rest: bytes) -> None:
        if self.transport.is_closing():
            return
        if rest:
            self.transport.write(rest)
        if script.then == "close":
            self.transport.close()
        elif script.then == "reset":
            asyncio.get_running_loop().call_later(PAUSE, self._reset)

    def _reset(self) -> None:
        channel = self.transport.get_extra_info("socket")
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def measure_body(head: bytes, data: bytes) -> int | None:
    """Octets of the body that stands at the start of `data`; None while it is incomplete."""
    if re.search(rb"(?i)\r\ntransfer-encoding:[ \t]*chunked", head):
        return _measure_chunks(data)
    found = re.search(rb"(?i)\r\ncontent-length:[ \t]*(\d+)", head)
    size = int(found[1]) if found else 0
    return size if size <= len(data) else None


def _measure_chunks(data: bytes) -> int | None:
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(data[at:end], 16)
        at = end + 2
        if size == 0:
            break
        at += size + 2
    while True:  # trailers
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        if end == at:
            return at + 2
        at = end + 2


def dechunk(data: bytes) -> bytes:
    """The data of a chunked body, without trailers."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2

"""Many WebSockets that are open all the time, each asked for an echo again and again."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.wire.scripted import Wire, open_wire
from tests.wire.test_tunnels import HANDSHAKE

T = TypeVar("T")

OPEN_AT_ONCE = 50
WITHIN = 120.0
"""Seconds for everything that is done with all of them."""


class Tunnels:
    """A context manager: `count` WebSockets to `/ws/echo`, on a thread of their own."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._wires: list[Wire] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < count + 200:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._do(self._close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def count_alive(self) -> int:
        """Ask every one of them for an echo: how many gave it."""
        return sum(self._do(self._ask_all()))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WITHIN)

    async def _open(self) -> None:
        while len(self._wires) < self._count:
            some = min(OPEN_AT_ONCE, self._count - len(self._wires))
            self._wires += await asyncio.gather(*(self._open_one() for _ in range(some)))

    async def _open_one(self) -> Wire:
        wire = await open_wire(self._port)
        wire.send(HANDSHAKE.replace(b"GET /ws ", b"GET /ws/echo "))
        head = await wire.read_head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return wire

    async def _ask_all(self) -> list[bool]:
        return await asyncio.gather(*(_ask(wire) for wire in self._wires))

    async def _close(self) -> None:
        for wire in self._wires:
            wire.reset()
        await asyncio.gather(*(wire.close() for wire in self._wires))


async def _ask(wire: Wire) -> bool:
    text = os.urandom(4).hex().encode()
    # A client masks what it sends (RFC 6455 section 5.3); with a key of zeros it stays as it is.
    wire.send(bytes((0x81, 0x80 | len(text))) + bytes(4) + text)
    try:
        return await wire.read(2 + len(text)) == bytes((0x81, len(text))) + text
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        return False

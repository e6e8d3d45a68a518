"""What bounds the connections to the operators' port, so that slow or many clients cannot lock Prometheus out.

- At most `MAX_CONNECTIONS`. One more is let in by closing the one that has waited longest for its next exchange.
- A connection on which no exchange is running, and none has ended for `EXCHANGE_WITHIN`, is reset: that covers a slow
  head, an idle client, and a client that does not read the end of its answer.
- How long one exchange may take is bounded where it is answered (`answers.bound_exchange`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from typing import cast

from aiohttp.web_protocol import RequestHandler

MAX_CONNECTIONS = 128
"""Prometheus, probes, a few browsers and the commands need a tenth of this."""

KEEP_ALIVE = 30.0
"""Seconds after which an idle connection is closed politely. Above the usual scrape interval of 15 s."""

EXCHANGE_WITHIN = 40.0
"""Seconds. Above `KEEP_ALIVE`, so that only who does not take the polite end is reset."""

SWEEP_EVERY = 5.0
"""Seconds between two looks for connections that are over their time."""


class _Connection(asyncio.Protocol):
    """One connection to the operators' port: passes everything to aiohttp and keeps the time."""

    def __init__(self, connections: OpsConnections, handler: RequestHandler) -> None:
        self.handler = handler
        self.transport: asyncio.Transport | None = None
        self.running = 0  # exchanges
        self.since = time.monotonic()  # of the connection, or of the end of its last exchange
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self.handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.handler.data_received(data)

    def eof_received(self) -> None:
        self.handler.eof_received()

    def pause_writing(self) -> None:
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        self.handler.resume_writing()

    def connection_lost(self, error: BaseException | None) -> None:
        self._connections.discard(self)
        self.handler.connection_lost(error)


class OpsConnections:
    """The open connections of the operators' port."""

    def __init__(self, make_handler: Callable[[], RequestHandler]) -> None:
        self._make_handler = make_handler
        self._open: dict[RequestHandler, _Connection] = {}

    def __len__(self) -> int:
        return len(self._open)

    def accept(self) -> asyncio.Protocol:
        """The protocol factory of the port."""
        return _Connection(self, self._make_handler())

    def add(self, connection: _Connection) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            waiting = [one for one in self._open.values() if not one.running] or list(self._open.values())
            self._reset(min(waiting, key=lambda one: one.since))
        self._open[connection.handler] = connection

    def discard(self, connection: _Connection) -> None:
        self._open.pop(connection.handler, None)

    def begin_exchange(self, handler: RequestHandler) -> None:
        if connection := self._open.get(handler):
            connection.running += 1

    def end_exchange(self, handler: RequestHandler) -> None:
        if connection := self._open.get(handler):
            connection.running -= 1
            connection.since = time.monotonic()

    async def sweep_forever(self) -> None:
        """Reset connections that are over their time. Ends by being cancelled."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            self.sweep(time.monotonic())

    def sweep(self, now: float) -> None:
        """Reset every connection that is over its time at `now`."""
        for connection in list(self._open.values()):
            if not connection.running and now - connection.since > EXCHANGE_WITHIN:
                self._reset(connection)

    def reset_all(self) -> None:
        for connection in list(self._open.values()):
            self._reset(connection)

    def _reset(self, connection: _Connection) -> None:
        self.discard(connection)
        if connection.transport is not None:
            reset_connection(connection.transport)


def reset_connection(transport: asyncio.Transport) -> None:
    """Close now, with a reset: otherwise the kernel goes on offering the rest of an answer to a stuck client."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()

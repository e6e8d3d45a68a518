"""A replica that closes a kept connection in the very moment when a request arrives on it: `python racing.py PORT IDLE`.

It does so if the connection was idle for IDLE seconds, one time by FIN and the next by RST. Says on standard output, for each
line on standard input, how often.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import sys
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_RESET = struct.pack("ii", 1, 0)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"

races = 0


class Racing(asyncio.Protocol):
    """One connection."""

    def __init__(self, idle: float) -> None:
        self._idle = idle
        self._idle_since = 0.0  # 0: nothing has been answered yet
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        global races
        assert self._transport is not None
        if self._idle_since and time.monotonic() - self._idle_since >= self._idle:
            races += 1
            if races % 2:
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
            return
        self._idle_since = 0.0
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if end and len(body) >= (int(length[1]) if length else 0):
            self._data = b""
            self._transport.write(_HEAD if head.startswith(b"HEAD ") else _HEAD + b"ok")
            self._idle_since = time.monotonic()


async def main() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Racing(float(sys.argv[2])), "127.0.0.1", int(sys.argv[1]), backlog=4096)
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while await orders.readline():
        sys.stdout.write(f"{races}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())

"""A replica that misbehaves as it is told: `python misbehaving.py PORT NAME`, then one way per line on standard input.

For each line it says on standard output how many requests it has got since the line before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import sys
from enum import Enum

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_RESET = struct.pack("ii", 1, 0)


class Way(Enum):
    """What it does with a request."""

    WELL = "well"  # answers it
    SILENT = "silent"  # never answers
    HALF = "half"  # sends half an answer, then FIN
    RESET = "reset"  # sends half an answer, then RST
    GARBAGE = "garbage"  # sends something that is not HTTP


class Misbehaving:
    def __init__(self, name: str) -> None:
        self.way = Way.WELL
        self.asked = 0
        body = json.dumps({"replica": name}).encode()
        self._head = (
            f"HTTP/1.1 200 OK\r\nX-Replica: {name}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        self._body = body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if length := _LENGTH.search(head):
                    await reader.readexactly(int(length[1]))
                self.asked += 1
                if not await self._answer(head.startswith(b"HEAD "), reader, writer):
                    break
        writer.close()

    async def _answer(self, to_head: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        if self.way is Way.WELL:
            writer.write(self._head if to_head else self._head + self._body)
            return True
        if self.way is Way.SILENT:
            await reader.read()
        elif self.way is Way.GARBAGE:
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        else:
            writer.write(self._head[: len(self._head) // 2] if to_head else self._head + self._body[:5])
            if self.way is Way.RESET:
                await asyncio.sleep(0.01)  # or it would overtake the half
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
        return False


async def main() -> None:
    """Serve until standard input ends."""
    replica = Misbehaving(sys.argv[2])
    await asyncio.start_server(replica.serve, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        sys.stdout.write(f"{replica.asked}\n")
        sys.stdout.flush()
        replica.asked = 0
        replica.way = Way(line.decode().strip())


if __name__ == "__main__":
    asyncio.run(main())

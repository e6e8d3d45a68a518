"""A replica that writes down every request head that arrives and marks every answer as its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self

MARK = "X-Recorded"


@dataclass(frozen=True, slots=True)
class Head:
    """A request head as it arrived."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The first field of that name."""
        return next((value for field, value in self.fields if field.lower() == name.lower()), None)


class RecordingReplica:
    """An async context manager: listens on a free port of loopback inside. Answers 200 to everything."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.garbled: list[bytes] = []  # what arrived and was no request: the proxy and this replica disagree
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        if self._server is None:
            raise RuntimeError("the replica does not listen")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (head := await self._read_head(reader)) is not None:
                await _skip_body(reader, head)
                self._answer(writer, head)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the proxy left
        except asyncio.CancelledError:
            pass  # the test is over; asyncio.streams would log a cancelled connection as an error
        finally:
            writer.close()
            self._connections.discard(task)

    async def _read_head(self, reader: asyncio.StreamReader) -> Head | None:
        """None when the connection ended, or carries something else than a request."""
        try:
            octets = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                self.garbled.append(error.partial)
            return None
        start, *lines = octets.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        parts = start.split(" ")
        if len(parts) != 3 or parts[2] != "HTTP/1.1" or not all(":" in line for line in lines):
            self.garbled.append(octets)
            return None
        fields = tuple((name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines))
        head = Head(parts[0], parts[1], fields)
        self.heads.append(head)
        return head

    def _answer(self, writer: asyncio.StreamWriter, head: Head) -> None:
        body = b"" if head.method == "HEAD" else b"recorded"
        writer.write(f"HTTP/1.1 200 OK\r\n{MARK}: {len(self.heads)}\r\nContent-Length: 8\r\n\r\n".encode() + body)


async def _skip_body(reader: asyncio.StreamReader, head: Head) -> None:
    if (head.get("Transfer-Encoding") or "").lower() != "chunked":
        await reader.readexactly(int(head.get("Content-Length") or 0))
        return
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        await reader.readexactly(size + 2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass

"""Both ends of the wire under a test's control: a client that sends octets, a replica that does what a script says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

WITHIN = 10.0
"""Seconds that a test waits for something that usually takes milliseconds."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_RESET = struct.pack("ii", 1, 0)


class Wire:
    """One connection: reads and writes octets, every wait bounded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self, size: int) -> bytes:
        """Exactly so many octets."""
        async with asyncio.timeout(WITHIN):
            return await self.reader.readexactly(size)

    async def read_until(self, end: bytes) -> bytes:
        async with asyncio.timeout(WITHIN):
            return await self.reader.readuntil(end)

    async def read_head(self) -> bytes:
        return await self.read_until(b"\r\n\r\n")

    async def read_answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of an answer that is framed by Content-Length or chunks."""
        head = await self.read_head()
        status = int(head.split(b" ", 2)[1])
        length = get_field(head, "Content-Length")
        if length is not None:
            return status, head, await self.read(int(length))
        body = b""
        if get_field(head, "Transfer-Encoding") is not None:
            while size := int((await self.read_until(b"\r\n")), 16):
                body += (await self.read(size + 2))[:-2]
            await self.read_until(b"\r\n")
        return status, head, body

    async def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        self.send(request)
        return await self.read_answer()

    async def read_rest(self, within: float = WITHIN) -> bytes:
        """Everything up to the FIN. Raises ConnectionResetError at a reset."""
        async with asyncio.timeout(within):
            return await self.reader.read()

    async def wait_end(self, within: float = WITHIN) -> str:
        """`fin` or `reset`, whichever ends the connection; what comes before is thrown away."""
        async with asyncio.timeout(within):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionResetError:
                return "reset"
            return "fin"

    def finish(self) -> None:
        """Send FIN."""
        self.writer.write_eof()

    def reset(self) -> None:
        """End with a reset."""
        if (sock := self.writer.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()

    async def close(self) -> None:
        if self.writer.transport.get_write_buffer_size():
            self.writer.transport.abort()  # nobody takes it
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


Script = Callable[[Wire, int], Awaitable[None]]
"""What a replica does with a connection: the connection, and its number from 0 on."""


class ScriptedReplica:
    """Listens on a free port of loopback; runs the script on every connection. An async context manager."""

    def __init__(self, script: Script, port: int = 0) -> None:
        self._script = script
        self._wanted_port = port
        self._server: asyncio.Server | None = None
        self._running: dict[asyncio.Task[None], Wire] = {}
        self.accepted = 0
        self.problems: list[BaseException] = []

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._wanted_port, backlog=4096)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if error is None and self.problems:
            raise self.problems[0]

    async def stop(self) -> None:
        """Close the port and reset every connection, as a killed process would."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task, wire in list(self._running.items()):
            wire.reset()
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        wire = Wire(reader, writer)
        self._running[task] = wire
        number = self.accepted
        self.accepted += 1
        try:
            await self._script(wire, number)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the proxy left, or the test is over
        except BaseException as problem:
            self.problems.append(problem)
        finally:
            writer.close()
            del self._running[task]


def answer_each(answer: bytes = OK) -> Script:
    """Answers every request the same; bodies by Content-Length are read."""

    async def script(wire: Wire, number: int) -> None:
        while True:
            head = await wire.reader.readuntil(b"\r\n\r\n")
            await wire.reader.readexactly(int(get_field(head, "Content-Length") or 0))
            wire.send(answer)
            await wire.writer.drain()

    return script


def get_field(head: bytes, name: str) -> str | None:
    """The value of the first field of that name."""
    for line in head.decode("latin-1").split("\r\n")[1:]:
        field, _, value = line.partition(":")
        if field.lower() == name.lower():
            return value.strip()
    return None


async def open_wire(port: int, *, receive_buffer: int = 0, limit: int = 2**16) -> Wire:
    """A client's connection. `receive_buffer`: octets of the kernel's buffer, for clients that are slow."""
    sock = socket.socket()
    try:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        async with asyncio.timeout(WITHIN):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return Wire(*await asyncio.open_connection(sock=sock, limit=limit))
    except BaseException:
        sock.close()
        raise


async def eventually(is_true: Callable[[], object], within: float = WITHIN) -> None:
    """Wait until the condition holds, or fail. It is looked at again after every few turns of the loop."""
    try:
        async with asyncio.timeout(within):
            while not is_true():  # noqa: ASYNC110 - it looks at counters, which tell nobody
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"still not true after {within:g} s") from None

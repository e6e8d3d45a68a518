"""A worker inside the test's own process, told what control would tell it: a test of a millisecond instead of a second.

What needs a process of its own (memory, signals, `kill -9`) uses `tests.proxy_process`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import mmap
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from haproxy_py import channel, config_file, counters, session_table
from haproxy_py.certificates import Certificate
from haproxy_py.config import Config
from haproxy_py.control.segments import Segment, SessionMemory
from haproxy_py.control.tables import TableBuilder
from haproxy_py.discovery.found import find_static
from haproxy_py.table import Table
from haproxy_py.worker import Worker
from tests.proxy_process import describe_instance
from tests.wire.scripted import WITHIN, Wire, eventually, open_wire


def map_sessions(shared: SessionMemory | None) -> mmap.mmap:
    """The memory of sessions that is shared, or a new one."""
    memory = shared or SessionMemory()
    try:
        return mmap.mmap(memory.fd, session_table.TABLE_BYTES)
    finally:
        if shared is None:
            memory.close()


class InnerWorker:
    """An async context manager; accepts on `port` inside. Leaving it asserts that nothing is left over.

    The access log goes to `log_file` or `log_fd`; without either there is none.
    `sessions`: what it shares with other workers; by default it is alone.
    """

    def __init__(
        self,
        replicas: Sequence[str] = (),
        *,
        instances: Sequence[Mapping[str, Any]] | None = None,
        connections: int = 100_000,
        log_file: Path | None = None,
        log_fd: int = -1,
        certificate: Certificate | None = None,
        sessions: SessionMemory | None = None,
        **settings: Any,
    ) -> None:
        self._instances = instances if instances is not None else [describe_instance(replicas, **settings)]
        self._segment = Segment(1)
        self._builder = TableBuilder([self._segment], time.monotonic)
        self._connections = connections
        self._certificate = certificate
        self._own_log_fd = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if log_file else -1
        self._has_log = log_file is not None or log_fd >= 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._our_sockets, their_sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._their_sockets = their_sockets
        memory = mmap.mmap(self._segment.fd, counters.SEGMENT_BYTES)
        known = map_sessions(sessions)
        self._worker = Worker(
            asyncio.get_running_loop(), theirs, their_sockets, memory, known, max(log_fd, self._own_log_fd)
        )
        self._task: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._messages: list[Any] = []
        self._mistakes: list[Any] = []

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def context(self) -> Any:
        return self._worker.context

    @property
    def notices(self) -> list[channel.Notice]:
        return [message for message in self._messages if isinstance(message, channel.Notice)]

    def take_mistakes(self) -> list[Any]:
        """The mistakes of ours that a test has provoked; any other fails it."""
        mistakes, self._mistakes = self._mistakes, []
        return mistakes

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, details: self._mistakes.append(details))
        self._task = loop.create_task(self._worker.run())
        self._listening = loop.create_task(self._listen())
        self.table = self._build(self._instances)
        await self._say(channel.Start(1, self.table, "haproxy_py-test"))
        await eventually(lambda: any(isinstance(message, channel.Ready) for message in self._messages))
        await self.listen(self.describe(), sockets=[self._listener])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        assert self._listening is not None
        try:
            if error is None:
                await self.settle()
        finally:
            if not self._task.done():
                await self._say(channel.Stop())
            await asyncio.wait({self._task}, timeout=WITHIN)
            self._listening.cancel()
            await asyncio.wait({self._listening})
            self._ours.close()
            self._our_sockets.close()
            self._their_sockets.close()
            self._listener.close()
            if self._own_log_fd >= 0:
                os.close(self._own_log_fd)
        if error is None:
            self._task.result()
            assert not self._mistakes, self._mistakes
            assert not [notice for notice in self.notices if notice.level == "error"]

    async def settle(self) -> None:
        """Wait until no exchange, no tunnel, no attempt to connect and nobody in a queue is left: every test ends like that."""
        context = self.context
        if context is None:
            return
        busy = (counters.REPLICA_ACTIVE_REQUESTS, counters.REPLICA_ACTIVE_TUNNELS)
        slots = [slot for slot in range(16) for gauge in busy if self._cell(counters.replica_at(slot) + gauge)]
        try:
            await eventually(
                lambda: (
                    not context.dials
                    and not any(self._cell(counters.instance_at(slot) + counters.INSTANCE_QUEUED) for slot in range(16))
                    and not any(self._cell(counters.replica_at(slot) + gauge) for slot in range(16) for gauge in busy)
                )
            )
        except AssertionError:
            raise AssertionError(f"exchanges or tunnels are left over: {slots}, dials {context.dials}") from None

    async def publish(
        self, *instances: Mapping[str, Any], marks: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """A new table; returns when it is in force. `marks`: by name of a replica, what else the table says of it."""
        table = self.table = self._build(instances, marks or {})
        await self._say(channel.Publish(table))
        await eventually(
            lambda: any(
                isinstance(message, channel.Applied) and message.version == table.version for message in self._messages
            )
        )

    async def renew(self, certificate: Certificate) -> None:
        """A new certificate; connections get it soon after."""
        self._certificate = certificate
        await self.listen(self.describe())

    def describe(self, number: int = 1) -> channel.Listener:
        """The listener that every test begins with."""
        host, port = self._listener.getsockname()
        scheme = "https" if self._certificate else "http"
        return channel.Listener(number, scheme, host, port, self._connections, self._certificate)

    async def listen(
        self,
        *listeners: channel.Listener,
        sockets: Sequence[socket.socket] = (),
        delay: float = 0.0,
        deadline: float = 5.0,
        surviving: Sequence[int] = (),
    ) -> None:
        """Accept on these and no others; `sockets` are of those that are new. Returns when it is so."""
        channel.send_sockets(self._our_sockets, [sock.fileno() for sock in sockets])
        await self._say(channel.Listen(listeners, self._has_log, delay, deadline, frozenset(surviving)))
        await eventually(lambda: self._worker.listening == {listener.number for listener in listeners})

    def copy_socket(self) -> socket.socket:
        """The first listener's socket, as another process would have it."""
        return self._listener.dup()

    async def switch_log(self, on: bool) -> None:
        self._has_log = on
        await self.listen(self.describe())
        await eventually(lambda: (self.context.log is not None) == on)

    async def drain(self, delay: float, deadline: float, surviving: Sequence[int] = ()) -> None:
        await self._say(channel.Drain(delay, deadline, not surviving, frozenset(surviving)))
        await eventually(lambda: self.context.draining)

    async def wait_ended(self) -> None:
        """Until the worker has finished by itself."""
        assert self._task is not None
        await asyncio.wait_for(asyncio.shield(self._task), WITHIN)

    async def open(self, *, receive_buffer: int = 0) -> Wire:
        return await open_wire(self.port, receive_buffer=receive_buffer)

    # --- counters ---

    def count_replies(self, reason: str, slot: int = 1) -> int:
        """Exchanges that the proxy ended itself for that reason, in the (first) instance."""
        return self._cell(counters.instance_at(slot) + counters.INSTANCE_PROXY_REPLIES + counters.REASONS.index(reason))

    def list_replies(self) -> dict[str, int]:
        """Every reason that was counted, in any instance."""
        found = {reason: sum(self.count_replies(reason, slot) for slot in range(4)) for reason in counters.REASONS}
        return {reason: count for reason, count in found.items() if count}

    def count_replica(self, cell: int, slot: int = 0) -> int:
        return self._cell(counters.replica_at(slot) + cell)

    def count_answers(self, status: int, slot: int = 0) -> int:
        start = counters.replica_at(slot) + counters.REPLICA_REQUESTS
        start += (status - counters.FIRST_CODE) * len(counters.METHODS)
        return sum(self._cell(start + method) for method in range(len(counters.METHODS)))

    def count_worker(self, cell: int) -> int:
        return self._cell(cell)

    def _cell(self, at: int) -> int:
        return self._segment.cells[at]

    def _build(
        self, instances: Sequence[Mapping[str, Any]], marks: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Table:
        found = [find_static(instance) for instance in self._parse(instances).instances]
        return self._builder.build(
            [
                replace(one, replicas=tuple(replace(each, **(marks or {}).get(each.name, {})) for each in one.replicas))
                for one in found
            ]
        )

    def _parse(self, instances: Sequence[Mapping[str, Any]]) -> Config:
        config = {"listen": [{"address": "127.0.0.1:1"}], "instances": list(instances)}
        return config_file.parse(json.dumps(config), "test")

    async def _say(self, message: channel.Message) -> None:
        await asyncio.get_running_loop().sock_sendall(self._ours, channel.encode(message))

    async def _listen(self) -> None:
        decoder = channel.Decoder()
        while data := await asyncio.get_running_loop().sock_recv(self._ours, 65536):
            self._messages += decoder.feed(data)


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The access log, each line as the object it must be."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def count_open_files(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def count_objects(kind: str) -> int:
    """The objects of a compiled class, by its name, that are alive in this process."""
    gc.collect()
    return sum(type(one).__name__ == kind for one in gc.get_objects())


def read_memory(pid: int) -> int:
    """Resident memory of a process in octets."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024


def find_workers(control: int) -> list[int]:
    """The processes that a control process has started."""
    return [int(pid) for pid in Path(f"/proc/{control}/task/{control}/children").read_text().split()]

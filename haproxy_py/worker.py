"""One data-plane process: accepts connections on the sockets it inherited, and carries traffic until control ends it.

Started by control as `python -m haproxy_py.worker CHANNEL COUNTERS`, two file descriptors. It imports the data path, uvloop
and little else, and does nothing that could be slow. If control is gone (the channel ends), nobody could replace this
process or give it a new table: it finishes what runs and exits.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import faulthandler
import gc
import mmap
import os
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Collection
from typing import Any

import uvloop

from haproxy_py import channel, counters
from haproxy_py.certificates import Certificate, make_context
from haproxy_py.datapath.access_log import AccessLog
from haproxy_py.datapath.client import ClientConnection
from haproxy_py.datapath.context import Context, Entrance
from haproxy_py.datapath.count import Counters
from haproxy_py.datapath.deadlines import TICK, Clock
from haproxy_py.datapath.listener import Listener
from haproxy_py.table import Table

IDLE_CLOSED_PER_TICK = 500
"""Idle client connections that a drain closes at once: their clients reconnect elsewhere, and not all in one moment."""

TUNNEL_WINDOW = 10.0
"""Seconds before a drain's deadline over which the ends of tunnels are spread (DRN-9): the proxy's drain or a replica's."""

TUNNELS_SPARE = 0.5
"""Seconds before that deadline at which the last tunnel is told to close."""

LAST_ACCEPTS = 0.3
"""Seconds in which those that have begun to connect are still accepted, while control closes its sockets."""

ROOM_AGAIN = 0.95
"""Share of the connection limit down to which accepting does not go on, so that it does not flap at the limit."""

ACCEPT_AGAIN = 0.1
"""Seconds until accepting is tried again after the kernel could give no connection."""

COMPLAIN_AGAIN = 10.0
"""Seconds between two warnings about that."""

_SO_ATTACH_FILTER = 26  # linux/asm-generic/socket.h

_NO_NEW_CLIENT = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the flags of the TCP header
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # a SYN alone, the first segment of a connection,
        (0x06, 0, 0, 0),  # is dropped;
        (0x06, 0, 0, 0xFFFFFFFF),  # everything else passes
    )
)
"""A filter for a listening socket (linux/filter.h, `struct sock_filter`)."""


class Door:
    """One listener: accepts while there is room, and pauses without losing the kernel's queue."""

    def __init__(self, worker: Worker, listener: channel.Listener) -> None:
        self._worker = worker
        self._refuses = False
        self._shut = False
        limit = max(1, listener.connections)
        self.entrance = Entrance(
            listener.scheme, listener.host, listener.port, limit, int(limit * ROOM_AGAIN), self._look, self._fail
        )
        if listener.certificate is not None:
            self.renew(listener.certificate)
        self._listener = Listener(worker.context, self.entrance, listener.fd)
        self._name = f"{listener.host}:{listener.port}"
        self._complained = 0.0  # monotonic seconds
        self._again: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Accept from now on."""
        self._listener.open()

    def renew(self, certificate: Certificate) -> None:
        """Use it for new connections; those that stand keep what they began with."""
        self.entrance.tls = make_context(certificate)

    def refuse(self) -> None:
        """Let no further client begin to connect, and go on accepting those that have begun.

        Closing a listening socket resets the connections in its queue, and its clients have sent requests on them. So
        for the last moments the kernel drops whoever comes new: the port is closed when that client tries again.
        """
        if self._refuses or self._shut:
            return
        self._refuses = True
        with contextlib.suppress(OSError):  # a kernel without socket filters: some clients are reset
            program = array.array("B", _NO_NEW_CLIENT)  # lives until the kernel has copied it
            address, size = program.buffer_info()
            with socket.socket(fileno=os.dup(self._listener.fd)) as own:
                own.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", size // 8, address))

    def shut(self) -> None:
        """Accept no more."""
        self._shut = True
        if self._again is not None:
            self._again.cancel()
        self._listener.close()

    def _look(self) -> None:
        """The number of open connections has come to the limit, or there is room again."""
        if self.entrance.open >= self.entrance.limit:
            self._listener.pause()
            self._worker.count(counters.WORKER_ACCEPT_PAUSES)
            self._worker.say(
                channel.Notice(
                    "warning",
                    f"{self._name}: {self.entrance.open} client connections are open, the most that are allowed; new "
                    "ones wait until some end. Raise listen[].connections or the limit of open files if this is "
                    "normal load.",
                )
            )
        elif not self._shut:
            self._listener.open()

    def _fail(self, number: int) -> None:
        """The kernel gives no connection: no file descriptor or no memory is left. Try again when some may be."""
        self._listener.pause()
        self._again = self._worker.loop.call_later(ACCEPT_AGAIN, self._look_again)
        now = time.monotonic()
        if now - self._complained >= COMPLAIN_AGAIN:
            self._complained = now
            self._worker.count(counters.WORKER_ACCEPT_PAUSES)
            self._worker.say(
                channel.Notice(
                    "warning",
                    f"{self._name}: no connection can be accepted: {os.strerror(number)}. New ones wait until some "
                    "end. Raise the limit of open files (ulimit -n) or of memory if this is normal load.",
                )
            )

    def _look_again(self) -> None:
        if not self._shut and self.entrance.open < self.entrance.limit:
            self._listener.open()


class Worker:
    """Everything one worker process owns."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: socket.socket, memory: mmap.mmap, log_fd: int = 1
    ) -> None:
        self.loop = loop
        self.context: Any = None  # a Context, once control has said Start
        self._link = link
        self._memory = memory
        self._log_fd = log_fd  # the access log's
        self._cells = memoryview(memory).cast("Q")
        self._decoder = channel.Decoder()
        self._clock = Clock()
        self._writer: asyncio.StreamWriter | None = None
        self._doors: list[Door] = []
        self._number = 0
        self._deadline = 0.0  # seconds that it goes on without control
        self._drain_ends: float | None = None  # monotonic seconds of the clock's time
        self._accept_ends: float | None = None
        self._draining: list[Any] = []  # replicas that drain, and those that left doing so while they have tunnels
        self._ticking: asyncio.TimerHandle | None = None
        self._finished = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to end."""
        reader, self._writer = await asyncio.open_connection(sock=self._link)
        listening = self.loop.create_task(self._listen(reader))
        finished = self.loop.create_task(self._finished.wait())
        try:
            await asyncio.wait({listening, finished}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done() and not self._finished.is_set():
                listening.result()  # raises if obeying control went wrong
                await finished
        finally:
            listening.cancel()
            finished.cancel()
            await asyncio.wait({listening, finished})
            for door in self._doors:
                door.shut()
            self._abort()
            if self._ticking is not None:
                self._ticking.cancel()
            if self.context is not None and self.context.log is not None:
                self.context.log.flush()
                self.context.log.close()
            self._writer.close()

    def say(self, message: channel.Message) -> None:
        """Tell control. If it is gone there is nobody to tell."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(channel.encode(message))

    def count(self, cell: int) -> None:
        """Add one to a cell of the worker's own block."""
        self._cells[cell] += 1

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Obey control."""
        while data := await self._read(reader):
            for message in self._decoder.feed(data):
                await self._obey(message)
        self._begin_drain(0.0, self._deadline)

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        """What control says next; nothing once it is gone, however it went."""
        try:
            return await reader.read(65536)
        except ConnectionError:  # killed before it had read what this worker said
            return b""

    async def _obey(self, message: Any) -> None:
        match message:
            case channel.Start():
                await self._start(message)
            case channel.Publish(table):
                self._put(table)
                self.say(channel.Applied(table.version))
            case channel.Renew(listener, certificate):
                if self._doors:  # none are left at the end of a drain
                    self._doors[listener].renew(certificate)
            case channel.Drain(delay, deadline):
                self._begin_drain(delay, deadline)
            case channel.Stop():
                self._finished.set()

    async def _start(self, start: channel.Start) -> None:
        self._number = start.worker
        self._deadline = start.deadline
        log = AccessLog(self._log_fd) if start.access_log else None
        self.context = Context(self.loop, self._clock, Counters(self._memory), start.via, log)
        self._put(start.table)
        self._tick()
        for listener in start.listeners:
            door = Door(self, listener)
            self._doors.append(door)
            door.open()
        # What exists now lives as long as the process: the collector need not look at it again, and what comes later
        # is freed by reference counting alone but for rare cycles.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        self.say(channel.Ready(start.worker, os.getpid()))

    def _put(self, table: Table) -> None:
        """Bring a table into force."""
        self.context.publish(table)
        draining = self.context.routes.list_draining()
        left = [one for one in self._draining if one.gone and one.tunnels]
        self._draining = [*draining, *left]

    def _tick(self) -> None:
        """Everything that happens by the clock."""
        self._ticking = self.loop.call_later(TICK, self._tick)
        self._cells[counters.WORKER_TICKS] += 1
        self._clock.tick()
        self.context.refresh_date()
        if self.context.log is not None:
            self.context.log.flush()
            self._cells[counters.WORKER_LOG_LINES_DROPPED] = self.context.log.dropped
        for replica in self._draining:
            self._end_tunnels(replica.tunnels, replica.drain_ends)
        if self._drain_ends is not None:
            self._drain_on()

    # --- draining (DRN-7 to DRN-10) ---

    def _begin_drain(self, delay: float, deadline: float) -> None:
        if self.context is None:
            self._finished.set()
            return
        if self._drain_ends is not None:
            return  # control is gone while draining: the deadline stays
        self.context.draining = True
        self._accept_ends = self._clock.now + delay
        self._drain_ends = self._clock.now + deadline

    def _drain_on(self) -> None:
        """One step of the drain."""
        now = self._clock.now
        assert self._accept_ends is not None
        assert self._drain_ends is not None
        if now < self._accept_ends:
            return
        for door in self._doors:
            if now < self._accept_ends + LAST_ACCEPTS:
                door.refuse()
            else:
                door.shut()
        if now >= self._accept_ends + LAST_ACCEPTS:
            self._doors.clear()
        clients = [client for client in self.context.clients if isinstance(client, ClientConnection)]
        closed = 0
        for client in clients:
            closed += client.drain()
            if closed >= IDLE_CLOSED_PER_TICK:
                break
        self._end_tunnels(
            [client for client in self.context.clients if not isinstance(client, ClientConnection)], self._drain_ends
        )
        if not (self._doors or self.context.clients) or now >= self._drain_ends:
            self._finished.set()

    def _end_tunnels(self, tunnels: Collection[Any], ends: float) -> None:
        """One tick's share of the tunnels that must be closed by a moment (DRN-9): as late as an even spread allows."""
        left = ends - self._clock.now
        if not tunnels or left > TUNNEL_WINDOW:
            return
        lasting = [tunnel for tunnel in tunnels if not tunnel.ended_by]
        ticks_left = max(1, int((left - TUNNELS_SPARE) / TICK))
        for tunnel in lasting[: len(lasting) // ticks_left]:
            tunnel.drain()

    def _abort(self) -> None:
        """End what is left, without another word."""
        if self.context is None:
            return
        for dial in list(self.context.dials):
            dial.cancel()
        for client in list(self.context.clients):
            client.abort()
        for connection in list(self.context.spare):
            connection.abort()
        self.context.poller.close()  # what was aborted learns of it, and writes its line

    def report(self, loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
        """A mistake of ours: the connection it happened on is gone, everything else goes on."""
        problem = details.get("exception")
        text = details.get("message", "")
        if problem is not None:
            text += "\n" + "".join(traceback.format_exception(problem))
        self.say(channel.Notice("error", f"worker {self._number}: internal error, please report it: {text.rstrip()}"))


def main(arguments: list[str]) -> int:
    """Run one worker. The arguments are file descriptors: the channel to control, the shared counters, and a pipe that
    takes the stack of this process when control asks for it by SIGUSR1.

    The exit status is 0 however control ended it, 2 if it was not control that started it.
    """
    try:
        channel_fd, counters_fd, stacks_fd = map(int, arguments)
    except ValueError:
        print("haproxy_py.worker is started by `haproxy-py run`, which is what you want", file=sys.stderr)
        return 2
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, stacks_fd, all_threads=False)  # whatever the loop is busy with
    # Signals are control's business: a Ctrl-C on a terminal reaches every process of the group.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    link = socket.socket(fileno=channel_fd)
    memory = mmap.mmap(counters_fd, counters.SEGMENT_BYTES)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        worker = Worker(loop, link, memory)
        loop.set_exception_handler(worker.report)
        await worker.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

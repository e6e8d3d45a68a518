"""One data-plane process: accepts connections on the sockets it is handed, and carries traffic until control ends it.

Started by control as `python -m haproxy_py.worker CHANNEL SOCKETS COUNTERS SESSIONS STACKS`, five file descriptors. It
imports the data path, uvloop and little else, and does nothing that could be slow. If control is gone (the channel ends),
nobody could replace this process or give it a new table: it finishes what runs and exits.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import mmap
import os
import signal
import socket
import sys
import time
import traceback
from typing import Any

import uvloop

from haproxy_py import channel, counters, session_table
from haproxy_py.datapath.access_log import AccessLog
from haproxy_py.datapath.context import Context
from haproxy_py.datapath.count import Counters
from haproxy_py.datapath.deadlines import TICK, Clock
from haproxy_py.datapath.sessions import Sessions
from haproxy_py.door import Door, Farewell, end_tunnels
from haproxy_py.table import Table

COMPLAIN_AGAIN = 10.0
"""Seconds between two warnings about the same."""

SPARE_FILES = 8
"""File descriptors that are kept back: a listener that is added, or a certificate that is renewed, must not end a worker whose
connections have taken all others."""


class Worker:
    """Everything one worker process owns."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: socket.socket,
        sockets: socket.socket,
        memory: mmap.mmap,
        sessions: mmap.mmap,
        log_fd: int = 1,
    ) -> None:
        """`link` is the channel, `sockets` the way by which listening sockets come; `memory` is that of the counters,
        `sessions` what all workers know of sessions."""
        self.loop = loop
        self.context: Any = None  # a Context, once control has said Start
        self._link = link
        self._sockets = sockets
        self._memory = memory
        self._sessions = sessions
        self._log_fd = log_fd  # the access log's
        self._cells = memoryview(memory).cast("Q")
        self._decoder = channel.Decoder()
        self._complaints: dict[str, float] = {}  # and when they were said: monotonic seconds
        self._clock = Clock()
        self._writer: asyncio.StreamWriter | None = None
        self._doors: dict[int, Door] = {}  # by the number of the listener: what is accepted from
        self._number = 0
        self._farewells: list[Farewell] = []  # to listeners that are left
        self._drain: Farewell | None = None  # to everything
        self._deadline = 0.0  # seconds that it goes on without control
        self._draining: list[Any] = []  # replicas that drain, and those that left doing so while they have tunnels
        self._ticking: asyncio.TimerHandle | None = None
        self._spare: list[int] = []  # up to SPARE_FILES
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
            for door in self._doors.values():
                door.shut()
            self._abort()
            if self._ticking is not None:
                self._ticking.cancel()
            self._close_log()
            self._give_spare()
            self._writer.close()

    @property
    def listening(self) -> set[int]:
        """The listeners that it accepts on, by number."""
        return set(self._doors)

    def say(self, message: channel.Message) -> None:
        """Tell control. If it is gone there is nobody to tell."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(channel.encode(message))

    def complain(self, text: str) -> bool:
        """A warning about a state that lasts: said once, and from time to time again. Whether it was said now."""
        now = time.monotonic()
        self._complaints = {told: moment for told, moment in self._complaints.items() if now - moment < COMPLAIN_AGAIN}
        if text in self._complaints:
            return False
        self.say(channel.Notice("warning", text))
        self._complaints[text] = now
        return True

    def count(self, cell: int) -> None:
        """Add one to a cell of the worker's own block."""
        self._cells[cell] += 1

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Obey control."""
        while data := await self._read(reader):
            for message in self._decoder.feed(data):
                await self._obey(message)
        self._begin_drain(channel.Drain(0.0, self._deadline))

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
            case channel.Listen():
                self._give_spare()
                self._listen_on(message)
                self._keep_spare()
            case channel.Drain():
                self._begin_drain(message)
            case channel.Stop():
                self._finished.set()

    async def _start(self, start: channel.Start) -> None:
        self._number = start.worker
        self.context = Context(
            self.loop,
            self._clock,
            Counters(self._memory),
            Sessions(self._sessions),
            start.via,
            None,
            self._run_out,
        )
        self._put(start.table)
        self._keep_spare()
        self._tick()
        # What exists now lives as long as the process: the collector need not look at it again, and what comes later
        # is freed by reference counting alone but for rare cycles.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        self.say(channel.Ready(start.worker, os.getpid()))

    def _listen_on(self, wanted: channel.Listen) -> None:
        """Accept as control says now."""
        numbers = {listener.number for listener in wanted.listeners}
        new = [listener for listener in wanted.listeners if listener.number not in self._doors]
        fds = channel.receive_sockets(self._sockets, len(new))
        if self._drain is not None:
            for fd in fds:
                os.close(fd)
            return
        self._deadline = wanted.deadline
        self._switch_log(wanted.access_log)
        left = [self._doors.pop(number) for number in set(self._doors) - numbers]
        if left:
            for door in left:
                door.entrance.leaving = True
            now = self._clock.now
            farewell = Farewell(self.context, left, now, wanted.delay, wanted.deadline, False, wanted.surviving)
            farewell.step(now)  # before a new listener accepts from the socket of one that is left
            self._farewells.append(farewell)
        for listener in wanted.listeners:
            if listener.number in self._doors:
                self._doors[listener.number].adjust(listener)
        for listener, fd in zip(new, fds, strict=True):
            self._doors[listener.number] = Door(self, listener, fd)

    def _keep_spare(self) -> None:
        """As many as there are."""
        with contextlib.suppress(OSError):
            while len(self._spare) < SPARE_FILES:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _give_spare(self) -> None:
        while self._spare:
            os.close(self._spare.pop())

    def _switch_log(self, on: bool) -> None:
        if on and self.context.log is None:
            self.context.log = AccessLog(self._log_fd)
        elif not on and self.context.log is not None:
            self._close_log()

    def _close_log(self) -> None:
        if self.context is not None and self.context.log is not None:
            self.context.log.flush()
            self.context.log.close()
            self.context.log = None

    def _put(self, table: Table) -> None:
        """Bring a table into force."""
        self.context.publish(table)
        draining = self.context.routes.list_draining()
        left = [one for one in self._draining if one.gone and (one.tunnels or one.active)]  # an exchange may become one
        self._draining = [*draining, *left]

    def _tick(self) -> None:
        """Everything that happens by the clock."""
        self._ticking = self.loop.call_later(TICK, self._tick)
        self._cells[counters.WORKER_TICKS] += 1
        for door in self._doors.values():
            door.go_on()
        self._keep_spare()
        self._tell_shortage()
        self.context.poller.tick()
        self.context.refresh_date()
        if self.context.log is not None:
            self.context.log.flush()
            self._cells[counters.WORKER_LOG_LINES_DROPPED] = self.context.log.dropped
        now = self._clock.now
        for replica in self._draining:
            end_tunnels(replica.tunnels, now, replica.drain_ends, TICK)
        self._farewells = [farewell for farewell in self._farewells if not farewell.step(now)]
        if self._drain is not None and self._drain.step(now):
            self._finished.set()

    def _tell_shortage(self) -> None:
        """Say that memory ran out. If there is none even for that, a later tick does."""
        if not self.context.poller.lacks_memory:
            return
        try:
            self.complain(
                "no memory was left: the connections that needed some were cut. Raise the limit of memory, or lower "
                "limits.buffer and listen[].connections, if this is normal load."
            )
            self.context.poller.lacks_memory = False
        except MemoryError:
            return

    def _begin_drain(self, drain: channel.Drain) -> None:
        if self.context is None:
            self._finished.set()
            return
        if self._drain is not None:  # a second signal, or control is gone: the deadline stays
            if drain.surviving:
                self._drain.leave_sockets(drain.surviving, self._clock.now)
            return
        self.context.draining = True
        now = self._clock.now
        farewell = Farewell(
            self.context, self._doors.values(), now, drain.delay, drain.deadline, drain.accepting, drain.surviving
        )
        self._drain = farewell.of_everything()
        self._doors.clear()

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

    def _run_out(self, number: int) -> None:
        self.complain(
            f"no connection to a replica can be opened: {os.strerror(number)}. Requests that need a new one are answered "
            "502. Raise the limit of open files (ulimit -n), or lower listen[].connections, if this is normal load."
        )

    def report(self, loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
        """A mistake of ours: the connection it happened on is gone, everything else goes on."""
        problem = details.get("exception")
        if isinstance(problem, MemoryError) and self.context is not None:
            self.context.poller.lacks_memory = True
            return
        text = details.get("message", "")
        if problem is not None:
            text += "\n" + "".join(traceback.format_exception(problem))
        self.say(channel.Notice("error", f"worker {self._number}: internal error, please report it: {text.rstrip()}"))


def main(arguments: list[str]) -> int:
    """Run one worker. The arguments are file descriptors: the channel to control, the way of sockets, the shared counters,
    the shared sessions, and a pipe that takes the stack of this process when control asks for it by SIGUSR1.

    The exit status is 0 however control ended it, 2 if it was not control that started it.
    """
    try:
        channel_fd, sockets_fd, counters_fd, sessions_fd, stacks_fd = map(int, arguments)
    except ValueError:
        print("haproxy_py.worker is started by `haproxy-py run`, which is what you want", file=sys.stderr)
        return 2
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, stacks_fd, all_threads=False)  # whatever the loop is busy with
    # Signals are control's business: a Ctrl-C on a terminal reaches every process of the group.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    link, sockets = socket.socket(fileno=channel_fd), socket.socket(fileno=sockets_fd)
    memory = mmap.mmap(counters_fd, counters.SEGMENT_BYTES)
    sessions = mmap.mmap(sessions_fd, session_table.TABLE_BYTES)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        worker = Worker(loop, link, sockets, memory, sessions)
        loop.set_exception_handler(worker.report)
        await worker.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

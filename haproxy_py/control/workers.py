"""One place for a worker: the process that fills it, what is said to it, and what happens when it ends.

- A process that ends, however, is replaced: the first time at once, then after a growing pause while processes keep
  ending soon after they began.
- Its gauges are zeroed before the next begins; its counters stay.
- One whose loop stands still is reported, and killed if it stays so (`watchdog`).
- A process that is not ready within `READY_WITHIN` is killed and replaced.
- If the first `START_ATTEMPTS` processes of a place all end before they are ready, something is wrong that no further
  attempt will repair: `WorkerFailedError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol, cast

from haproxy_py import channel, counters
from haproxy_py.child import make_command, make_environment
from haproxy_py.config import Watchdog
from haproxy_py.control.log import Log
from haproxy_py.control.segments import Segment, SessionMemory
from haproxy_py.control.watchdog import StackPipe, Verdict, Watch, read_activity

WORKER_COMMAND: tuple[str, ...] = make_command("haproxy_py.worker")
"""What is started as a worker; the file descriptors of its channel and of its counters follow."""

READY_WITHIN = 10.0
"""Seconds from the start of a process to `Ready`. Importing the data path takes a tenth of a second on a free CPU."""

START_ATTEMPTS = 5

PAUSES = (0.0, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds before the first, second, ... replacement in a row; the last for all that follow."""

SETTLED = 5.0
"""Seconds of readiness after which the next end counts as the first again."""

HANG_UP_GRACE = 1.0
"""Seconds between the end of the channel and SIGKILL: a process without a channel obeys nobody."""

MAX_UNREAD = 64 * 1024 * 1024
"""Bytes of messages that a process has not read. A table of 2,000 replicas has half a megabyte."""


class Phase(Enum):
    """Where a process is in its life."""

    STARTING = "starting"  # has its Start; has not said Ready
    READY = "ready"  # accepts connections
    ENDED = "ended"  # no process any more


class Duty(Enum):
    """Whether a process that ends is replaced."""

    KEEP = "keep"  # always
    LEAVE = "leave"  # draining, still accepting: unless it ended with status 0, because then it has finished
    GONE = "gone"  # never


class WorkerFailedError(Exception):
    """No process in this place ever became ready."""


class Orders(Protocol):
    """What a place asks of the supervisor."""

    def make_start(self, worker: int) -> channel.Start:
        """The first message, with the newest table."""

    def note_ready(self, worker: int) -> None:
        """A process can take listeners, and has none yet."""

    def list_instance_slots(self) -> list[int]:
        """Slots of instances whose gauges may not be zero."""

    def list_replica_slots(self) -> list[int]:
        """Slots of replicas whose gauges may not be zero."""

    def note_applied(self) -> None:
        """A worker has put a table into force."""


class WorkerProcess(asyncio.Protocol):
    """One spawned process and its channel."""

    def __init__(self, worker: int, receive: Callable[[WorkerProcess, Any], None], log: Log) -> None:
        self.worker = worker
        self.phase = Phase.STARTING
        self.ready_at: float | None = None  # loop time
        self.table_version = 0  # in force there
        self.watch = Watch()
        self._stacks = StackPipe()
        self._asked_stack = False
        self._first_table = 0
        self._listeners: set[int] = set()  # by number: those it has
        self._sockets: socket.socket | None = None  # our end of the way by which listening sockets go there
        self._receive = receive
        self._log = log
        self._decoder = channel.Decoder()
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the process has not been spawned")
        return self._process.pid

    def __str__(self) -> str:
        return f"worker {self.worker} (pid {self.pid})"

    async def spawn(self, counters_fd: int, sessions_fd: int) -> None:
        """Start the process and open the channel. Raises OSError."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        try:
            self._sockets, their_sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._stacks.open()
            with theirs, their_sockets:
                # A session of its own: the terminal's interrupt must reach control alone, which drains.
                self._process = await asyncio.create_subprocess_exec(
                    *WORKER_COMMAND,
                    str(theirs.fileno()),
                    str(their_sockets.fileno()),
                    str(counters_fd),
                    str(sessions_fd),
                    str(self._stacks.write_fd),
                    env=make_environment(os.environ),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(
                        theirs.fileno(),
                        their_sockets.fileno(),
                        counters_fd,
                        sessions_fd,
                        self._stacks.write_fd,
                    ),
                    start_new_session=True,
                )
            self._stacks.keep_reading_end()
            ours.setblocking(False)
            await loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            if self._sockets is not None:
                self._sockets.close()
            self._stacks.close()
            raise
        self._timer = loop.call_later(READY_WITHIN, self._end_waiting)

    def start(self, start: channel.Start) -> None:
        """Send the first message. When the process is ready, the table in it is in force."""
        self._first_table = start.table.version
        self.send(start)

    def listen(self, message: channel.Listen, fds: Mapping[int, int]) -> None:
        """Have it accept like this. `fds`: sockets of these listeners, by number."""
        numbers = [listener.number for listener in message.listeners]
        new = [fds[number] for number in numbers if number not in self._listeners]
        if self._sockets is None or self.phase is Phase.ENDED:
            return
        try:
            channel.send_sockets(self._sockets, new)
        except OSError as error:  # it does not take them, or has just ended
            self._log.error(f"{self} takes no listening sockets: {error.strerror}; it is killed")
            self.kill()
            return
        self._listeners = set(numbers)
        self.send(message)

    def send(self, message: channel.Message) -> None:
        """Hand over a message; if nobody reads them, end the process."""
        self.write(channel.encode(message))

    def write(self, encoded: bytes) -> None:
        """Hand over a message that is encoded already."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(encoded)
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            self._log.error(f"{self} does not read its messages; it is killed")
            self.kill()

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._process is not None and self.phase is not Phase.ENDED:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def wait(self) -> int:
        """Wait for the end. The exit status, or the negative number of the signal that ended it."""
        if self._process is None:
            raise RuntimeError("the process has not been spawned")
        status = await self._process.wait()
        self.phase = Phase.ENDED
        self._set_timer(None)
        self._stacks.close()
        if self._transport is not None:
            self._transport.abort()
        if self._sockets is not None:
            self._sockets.close()
        return status

    def look(self, now: float, ticks: int, limits: Watchdog) -> Verdict:
        """One look of the watchdog. A stack that was asked for at the one before is told now."""
        if self.phase is not Phase.READY or self._transport is None or self._transport.is_closing():
            return Verdict.TURNS
        if self._asked_stack:
            self._asked_stack = False
            self._report_stall(limits)
        verdict = self.watch.look(now, ticks, lambda: read_activity(self.pid), limits)
        if verdict is Verdict.REPORT and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGUSR1)
            self._asked_stack = True
        elif verdict is Verdict.AGAIN:
            self._log.warning(f"{self} goes on after it stood still for {self.watch.stalled:.1f} s")
        elif verdict is Verdict.REPLACE:
            self._log.error(f"{self} has stood still for {self.watch.stalled:.1f} s (watchdog.replace); it is killed")
            self.kill()
        return verdict

    def _report_stall(self, limits: Watchdog) -> None:
        activity = self.watch.activity
        stack = self._stacks.read()
        self._log.error(
            f"{self} stands still: its loop has not turned for {self.watch.stalled:.1f} s, and its clients wait. It "
            f"{activity.doing if activity else 'has ended'}. "
            + (f"Its stack: {stack}. " if stack else "It does not tell its stack. ")
            + (f"It is killed and replaced after {limits.replace:g} s" if limits.replace else "watchdog.replace is off")
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            match message:
                case channel.Ready():
                    self._become_ready()
                case channel.Applied(version):
                    self.table_version = version
                case channel.Notice(level, text):
                    self._log.say(level, f"{self}: {text}")
            self._receive(self, message)

    def connection_lost(self, error: BaseException | None) -> None:
        if self.phase is not Phase.ENDED:
            self._set_timer(asyncio.get_running_loop().call_later(HANG_UP_GRACE, self.kill))

    def _become_ready(self) -> None:
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY
            self.ready_at = asyncio.get_running_loop().time()
            self.table_version = max(self.table_version, self._first_table)
            self._set_timer(None)

    def _end_waiting(self) -> None:
        self._log.error(f"{self} was not ready within {READY_WITHIN:g} s; it is killed")
        self.kill()

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer


class Worker:
    """A place for a worker: its number and its counters stay, processes come and go."""

    def __init__(
        self,
        number: int,
        segment: Segment,
        sessions: SessionMemory,
        orders: Orders,
        log: Log,
        *,
        is_needed: bool = True,
    ) -> None:
        """`is_needed`: if no process ever becomes ready here, that is an error that ends the proxy."""
        self.number = number
        self.segment = segment
        self.process: WorkerProcess | None = None  # set once it has its Start
        self.restarts = 0
        self.stalls = 0
        self._sessions = sessions
        self._orders = orders
        self._is_needed = is_needed
        self._log = log
        self._duty = Duty.KEEP
        self._gone = asyncio.Event()  # set with Duty.GONE
        self._was_ever_ready = False

    @property
    def is_ready(self) -> bool:
        return self.process is not None and self.process.phase is Phase.READY

    def send(self, message: channel.Message) -> None:
        """To the process, if there is one. One that is just starting gets the newest table with its Start."""
        if self.process is not None:
            self.process.send(message)

    def write(self, encoded: bytes) -> None:
        """As `send`, for a message that goes to all workers and is encoded once."""
        if self.process is not None:
            self.process.write(encoded)

    def listen(self, message: channel.Listen, fds: Mapping[int, int]) -> None:
        """To the process, if it is ready. One that is not will be told the newest when it is."""
        if self.process is not None and self.process.phase is Phase.READY:
            self.process.listen(message, fds)

    def leave(self, drain: channel.Drain) -> None:
        """Finish: what is ready drains, what is starting is told when it is ready."""
        self._duty = Duty.LEAVE
        if self.is_ready:
            self.send(drain)

    def end_replacing(self) -> None:
        """From now on whoever ends is not replaced."""
        self._duty = Duty.GONE
        self._gone.set()

    def look(self, now: float, limits: Watchdog) -> None:
        """One look of the watchdog at the process, if there is one."""
        if self.process is not None:
            verdict = self.process.look(now, self.segment.cells[counters.WORKER_TICKS], limits)
            self.stalls += verdict is Verdict.REPORT

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    async def run(self) -> None:
        """Keep the place filled until it is given up. Raises WorkerFailedError. Cancelling it kills the process."""
        loop = asyncio.get_running_loop()
        in_a_row = 0
        while not self._gone.is_set():
            process = WorkerProcess(self.number, self._receive, self._log)
            end, finished = await self._run_process(process)
            self.segment.zero_gauges(self._orders.list_instance_slots(), self._orders.list_replica_slots())
            if self._gone.is_set() or (self._duty is Duty.LEAVE and finished):
                self._log.say("info" if finished else "warning", f"{end}; it is not replaced")
                return
            self.restarts += 1
            settled = process.ready_at is not None and loop.time() - process.ready_at >= SETTLED
            in_a_row = 0 if settled else in_a_row
            if (
                self._is_needed
                and self._duty is Duty.KEEP
                and not self._was_ever_ready
                and in_a_row + 1 >= START_ATTEMPTS
            ):
                raise WorkerFailedError(f"{end}; {START_ATTEMPTS} attempts to start worker {self.number} have failed")
            pause = PAUSES[min(in_a_row, len(PAUSES) - 1)]
            in_a_row += 1
            when = f"in {pause:g} s" if pause else "at once"
            self._log.error(f"{end}; its connections are lost, another is started {when}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), pause)

    async def _run_process(self, process: WorkerProcess) -> tuple[str, bool]:
        """From spawn to end: what happened in words, and whether it ended by itself with status 0."""
        try:
            await process.spawn(self.segment.fd, self._sessions.fd)
        except OSError as error:
            return f"worker {self.number} could not be started: {error.strerror}", False
        try:
            process.start(self._orders.make_start(self.number))
            self.process = process
            status = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        finally:
            self.process = None
        return f"{process} {_describe_status(status)}", status == 0

    def _receive(self, process: WorkerProcess, message: object) -> None:
        match message:
            case channel.Ready():
                self._was_ever_ready = True
                self._orders.note_ready(self.number)
                self._orders.note_applied()
            case channel.Applied(version):
                self._log.debug(f"{process}: table {version} is in force")
                self._orders.note_applied()


def _describe_status(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"

"""What the service manager is told (systemd's sd_notify(3)): datagrams of lines to the socket that NOTIFY_SOCKET names.

- READY=1 when /readyz would say so, or when this process has taken over; with MAINPID, because then another one was the main
  process. Until then the wait is told (STATUS) and extended, so that slow discovery is no failed start and a dead process is.
- RELOADING=1, with the time, while a configuration is read and applied; READY=1 again, whatever came of it.
- STOPPING=1 when a drain begins, with the time that it may take. Not if another process of the same unit has taken over.
- WATCHDOG=1 twice within WATCHDOG_USEC: the loop of control turns.

Nobody is waited for. What could not be sent is sent with the next message.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator, MutableMapping
from enum import Enum
from pathlib import Path

from haproxy_py.control.log import Log

UNTIL_READY = 0.1
"""Seconds between two looks whether the proxy is ready."""

LOOK_EVERY = 1.0
"""Seconds between two looks at what the status says, afterwards."""

START_EXTENSION = 15.0
"""Seconds within which a process that is not ready says again that it waits."""

MAX_STATUS = 512
"""Characters of the status: it is a line for people."""

MAX_UNSENT = 8
"""Messages that are kept; those after them say the same again, or are out of date."""


class _State(Enum):
    STARTING = "starting"  # has not said READY
    READY = "ready"
    RELOADING = "reloading"  # has said RELOADING, and will say READY
    GONE = "gone"  # has said STOPPING, or another process speaks for the unit


class Notifier:
    """Tells the service manager, if there is one."""

    def __init__(self, address: str, watchdog: float, log: Log) -> None:
        """`address` as in NOTIFY_SOCKET, empty: nobody is told. `watchdog`: seconds, 0: it does not ask for signs of life."""
        self._log = log
        self._address = address
        self._watchdog = watchdog
        self._state = _State.STARTING
        self._status = ""  # that was told last
        self._extended: float | None = None  # monotonic: when the wait was told last
        self._living = 0.0  # monotonic: the last sign of life
        self._unsent: list[str] = []
        self._complained = False

    @property
    def is_on(self) -> bool:
        return bool(self._address)

    @property
    def is_starting(self) -> bool:
        """READY=1 has not been said."""
        return self._state is _State.STARTING

    @property
    def pause(self) -> float:
        """Seconds until the next `look`."""
        pause = UNTIL_READY if self._state is _State.STARTING else LOOK_EVERY
        return min(pause, self._watchdog / 4) if self._watchdog else pause

    def look(self, waits: list[str], status: str, now: float) -> None:
        """What is due at this moment (monotonic): `waits` say why the proxy is not ready, `status` what it is when it is."""
        lines = []
        if self._state is _State.STARTING and waits:
            status = f"not ready: {'; '.join(waits)}"
            if self._extended is None or now - self._extended >= START_EXTENSION / 3:
                self._extended = now
                lines.append(f"EXTEND_TIMEOUT_USEC={START_EXTENSION * 1e6:.0f}")
        elif self._state is _State.STARTING:
            self._state = _State.READY
            lines.append("READY=1")
        if self._state is not _State.GONE and status != self._status:
            self._status = status
            lines.append(_spell_status(status))
        if self._watchdog and now - self._living >= self._watchdog / 4:
            self._living = now
            lines.append("WATCHDOG=1")
        self._tell(*lines)

    def become_main(self) -> None:
        """This process has taken over, and accepts."""
        self._state = _State.READY
        self._tell(f"MAINPID={os.getpid()}", "READY=1")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """A configuration is read and applied."""
        if self._state is _State.READY:
            self._state = _State.RELOADING
            monotonic = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._tell("RELOADING=1", f"MONOTONIC_USEC={monotonic}")
        try:
            yield
        finally:
            if self._state is _State.RELOADING:
                self._state = _State.READY
                self._tell("READY=1")

    def stop(self, within: float) -> None:
        """This process drains, and ends within so many seconds."""
        if self._state is not _State.GONE:
            self._state = _State.GONE
            self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={within * 1e6:.0f}", _spell_status("draining"))

    def hand_over(self, process: int, within: float) -> None:
        """Another process has taken over; if it is one of the same unit, it speaks from now on."""
        if self.is_on and _read_unit(process) == _read_unit(os.getpid()):
            self._state, self._watchdog = _State.GONE, 0.0
            self._unsent.clear()
        else:
            self.stop(within)

    def _tell(self, *lines: str) -> None:
        if not self.is_on:
            return
        if lines:
            self._unsent = [*self._unsent, "\n".join(lines)][:MAX_UNSENT]
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                while self._unsent:
                    sock.sendto(self._unsent[0].encode(errors="replace"), socket.MSG_DONTWAIT, address)
                    del self._unsent[0]
        except OSError as error:
            if not self._complained and not isinstance(error, BlockingIOError):
                self._complained = True
                self._log.warning(f"the service manager cannot be told (NOTIFY_SOCKET): {error.strerror or error}")


def make_notifier(environment: MutableMapping[str, str], log: Log, *, takeover: bool) -> Notifier:
    """What the environment asks for. It is taken out there: no child may speak for this process.

    `takeover`: this process is to become the main one, so what was meant for that is meant for it.
    """
    address = environment.pop("NOTIFY_SOCKET", "")
    interval, process = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
    if address and not address.startswith(("/", "@")):
        log.warning(f"NOTIFY_SOCKET is {address[:100]!r}, which is no UNIX socket: the service manager is told nothing")
        address = ""
    is_asked = bool(re.fullmatch("[0-9]{1,15}", interval)) and (takeover or process in ("", str(os.getpid())))
    return Notifier(address, int(interval) / 1e6 if address and is_asked else 0.0, log)


def _spell_status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())[:MAX_STATUS]


def _read_unit(process: int) -> str | None:
    """The control group of a process, which is what a unit is; None if it has ended."""
    try:
        return Path(f"/proc/{process}/cgroup").read_text()
    except OSError:
        return None

"""The operator's log of the control process: readable lines on standard error.

A line says what happened, to what, and what happens next: `2026-11-22T23:01:02.345Z info  message`.

Control never waits for whoever reads the log: what is not taken at once is lost, and how many lines that were is said when
lines are taken again.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from datetime import UTC, datetime

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}

Write = Callable[[str], object]
Clock = Callable[[], datetime]


_STDERR = 2

_PIECE = 4096  # PIPE_BUF: so much is taken at once where the kernel says that writing would not wait


class Outlet:
    """Writes whole lines to a file descriptor that others share, and never waits for it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._lost = 0  # lines since the last one that was written
        self._torn = False  # the last one lacks its end

    def write(self, line: str) -> bool:
        """Whether the line was written."""
        text = line
        if self._lost:
            text = f"({self._lost} lines of this log could not be written and are lost)\n{text}"
        if self._torn:
            text = "\n" + text
        data = text.encode(errors="replace")
        written = self._write(data)
        if written:
            self._torn = data[written - 1] != 10
        if written == len(data):
            self._lost = 0
            return True
        self._lost += 1
        return False

    def _write(self, data: bytes) -> int:
        """The octets that were taken."""
        written = 0
        try:
            while written < len(data):
                if not any(events & select.POLLOUT for _, events in self._poll.poll(0)):
                    break
                written += os.write(self._fd, data[written : written + _PIECE])
        except OSError:
            pass  # the disk is full, or nobody reads the log any more: that must not end the proxy
        return written


def _read_clock() -> datetime:
    return datetime.now(UTC)


class Log:
    """Writes lines at or above a level, which may change while the process runs."""

    def __init__(self, level: str = "info", write: Write | None = None, clock: Clock = _read_clock) -> None:
        """`write` takes a line; without it lines go to standard error."""
        self.level = level
        self._write = write or Outlet(_STDERR).write
        self._clock = clock

    def say(self, level: str, text: str) -> None:
        """Write one line. Line ends and control characters in `text` are escaped: a message is one line."""
        if LEVELS[level] < LEVELS[self.level]:
            return
        moment = self._clock().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
        self._write(f"{moment}Z {level:<5} {clean}\n")

    def debug(self, text: str) -> None:
        self.say("debug", text)

    def info(self, text: str) -> None:
        self.say("info", text)

    def warning(self, text: str) -> None:
        self.say("warning", text)

    def error(self, text: str) -> None:
        self.say("error", text)

"""Decides whether a worker is stalled: whether its loop still turns.

- A worker counts the ticks of its loop in shared memory (`WORKER_TICKS`). Control looks every `LOOK_EVERY`; a stall begins
  with the first look that finds the count unchanged, and ends with the first that finds it changed.
- A stall grows with the time in which the worker could have gone on, and only with that:
  - a look adds `LONGEST_STEP` at most. Control that looks late was stopped, suspended or without a CPU itself, and so
    was the worker, as like as not;
  - while the worker waits for a CPU that others use, a look adds no more than the CPU time that it got.
- A worker that is stopped by a signal is stalled: its clients wait like those of any other.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from haproxy_py.config import Watchdog

LOOK_EVERY = 0.25
"""Seconds between two looks; a worker's tick is 0.1 s."""

LONGEST_STEP = 2 * LOOK_EVERY

_CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")

_CALL = re.compile(r'^ +File "([^"\n]*)", line (\d+) in (.+)$', re.MULTILINE)

_DOING = {
    "R": "uses a CPU",
    "S": "waits for something",
    "D": "waits for a disk or a file system",
    "T": "is stopped by a signal",
    "t": "is stopped by a debugger",
}
"""What the kernel's letters for the state of a process mean to a reader of the log."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What the kernel says of a process."""

    state: str  # one letter, see proc_pid_stat(5)
    cpu: float  # seconds used since its start

    @property
    def doing(self) -> str:
        return _DOING.get(self.state, f"is in the state {self.state}")


class Verdict(Enum):
    """What a look has found."""

    TURNS = "turns"  # or nothing new is to be done
    REPORT = "report"  # stalled for `report`, and not yet reported
    REPLACE = "replace"  # stalled for `replace`
    AGAIN = "again"  # turns again after a stall that was reported


class Watch:
    """The looks at one process."""

    def __init__(self) -> None:
        self.stalled = 0.0  # seconds; after Verdict.AGAIN, those of the stall that is over
        self.activity: Activity | None = None  # at the last look, while it is stalled
        self._ticks = -1
        self._looked = 0.0
        self._is_reported = False
        self._is_given_up = False  # Verdict.REPLACE was given

    @property
    def reported(self) -> float:
        """Seconds of a stall that goes on and was reported; 0 without one."""
        return self.stalled if self._is_reported else 0.0

    def look(self, now: float, ticks: int, read: Callable[[], Activity | None], limits: Watchdog) -> Verdict:
        """Judge from the monotonic time and the count of ticks; `read` tells what the process does."""
        step, self._looked = min(now - self._looked, LONGEST_STEP), now
        if ticks != self._ticks:
            self._ticks = ticks
            was_reported, self._is_reported = self._is_reported, False
            self.activity = None
            if was_reported:
                return Verdict.AGAIN
            self.stalled = 0.0
            return Verdict.TURNS
        before, self.activity = self.activity, read()
        if self.activity is None:
            return Verdict.TURNS  # it has just ended
        if before is None:
            self.stalled = 0.0
        elif self.activity.state == "R":
            self.stalled += min(step, self.activity.cpu - before.cpu)
        else:
            self.stalled += step
        if self._is_given_up:
            return Verdict.TURNS  # a process that waits for a disk is killed when that wait ends
        if limits.replace and self.stalled >= limits.replace:
            self._is_given_up = True
            return Verdict.REPLACE
        if limits.report and self.stalled >= limits.report and not self._is_reported:
            self._is_reported = True
            return Verdict.REPORT
        return Verdict.TURNS


class StackPipe:
    """Takes the stacks that a process writes when it is asked (`faulthandler`): control reads one end."""

    def __init__(self) -> None:
        self.write_fd = -1
        self._read_fd = -1

    def open(self) -> None:
        """Raises OSError."""
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # never makes the process wait

    def keep_reading_end(self) -> None:
        """The process has its own copy of the other one."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def read(self) -> str:
        """The calls of the stack that has come, innermost first; empty if none has come."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._read_fd, 65536):
                data += piece
        calls = _CALL.findall(data.decode(errors="replace"))
        return ", called by ".join(f"{function} ({file}:{line})" for file, line, function in calls)

    def close(self) -> None:
        self.keep_reading_end()
        if self._read_fd >= 0:
            os.close(self._read_fd)
            self._read_fd = -1


def read_activity(pid: int) -> Activity | None:
    """What a process does now; None if there is none with that number, or no file is left to look."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    user, system = fields[11:13]
    return Activity(fields[0], (int(user) + int(system)) * _CLOCK_TICK)

"""The operator's log of the control process: readable lines on standard error.

A line says what happened, to what, and what happens next: `2026-11-22T23:01:02.345Z info  message`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}

Write = Callable[[str], object]
Clock = Callable[[], datetime]


def _write_to_stderr(line: str) -> None:
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except OSError:
        pass  # nobody reads the log any more; that must not end the proxy


def _read_clock() -> datetime:
    return datetime.now(UTC)


class Log:
    """Writes lines at or above a level, which may change while the process runs."""

    def __init__(self, level: str = "info", write: Write = _write_to_stderr, clock: Clock = _read_clock) -> None:
        self.level = level
        self._write = write
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

"""What the terminal shows while the suite runs: what is being measured, the time that has passed, the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO


class Progress:
    """Counts expected seconds as they are worked off; their real length so far says how long the rest will take."""

    def __init__(
        self, expected: float, stream: TextIO = sys.stderr, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._expected = expected
        self._stream = stream
        self._clock = clock
        self._start = clock()
        self._worked_off = 0.0
        self._running = 0.0  # expected seconds of the step under way
        self._shown = -60.0

    def begin(self, what: str, seconds: float) -> None:
        """A step begins that should take `seconds`. A terminal shows each, a file one line a minute."""
        self._worked_off += self._running
        self._running = seconds
        elapsed = self._clock() - self._start
        pace = elapsed / self._worked_off if self._worked_off > 10 else 1.0
        left = max(0.0, self._expected - self._worked_off) * pace
        text = f"{show_time(elapsed)} passed, about {show_time(left)} left: {what}"
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{text}")
        elif elapsed - self._shown >= 60:
            self._shown = elapsed
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._stream.isatty() else f"{text}\n")
        self._stream.flush()


def show_time(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

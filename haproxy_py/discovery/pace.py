"""How fast one list-and-watch may ask the API server (WAT-9).

- Every way out of a list or a watch passes through a pause: 0.25 s, doubling up to a limit, times a random 0.5 to 1.
- What resets it is an event or a bookmark, or an attempt that lasted longer than any pause, not a connection that was
  merely accepted: a server that accepts and closes at once would be hammered otherwise.
- Beside that an allowance: `BURST` attempts at once, then one per second. A server that sends an event and then fails,
  again and again, resets the pause each time.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0

BURST = 5.0
"""A start takes two attempts, a list and a watch; one failure of each kind may follow at once."""


class Pace:
    """The pauses of one list-and-watch. Times are monotonic seconds; `longest` says the longest pause of now."""

    def __init__(self, longest: Callable[[], float] = lambda: LONGEST_PAUSE) -> None:
        self.longest = longest
        self._pause = FIRST_PAUSE
        self._allowance = BURST
        self._counted_at: float | None = None
        self._began = 0.0

    def begin(self, now: float) -> None:
        """An attempt begins."""
        if self._counted_at is not None:
            self._allowance = min(BURST, self._allowance + now - self._counted_at)
        self._counted_at = now
        self._allowance -= 1.0
        self._began = now

    def note_event(self) -> None:
        """The API server has said something."""
        self._pause = FIRST_PAUSE

    def end(self, now: float, chance: float, at_least: float = 0.0) -> float:
        """The attempt is over: seconds until the next. `chance` is random, 0 to 1; `at_least` is what the server asked for."""
        if now - self._began > LONGEST_PAUSE:
            self._pause = FIRST_PAUSE
        pause = self._pause * (0.5 + chance / 2)
        self._pause = min(self._pause * 2, self.longest())
        for_allowance = 1.0 - (self._allowance + now - self._began)
        return max(pause, for_allowance, at_least)

"""Changes that arrive together are told once.

After that the next is told a little later, in proportion to what the last one cost: hundreds of replicas that come and go
must not keep control and workers busy with tables.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

SHARE = 3.0
"""After something was told, this many times the CPU time that it cost passes before the next is told."""

CALM = 0.01
"""Seconds that pass at least, unless told otherwise."""

T = TypeVar("T")


class Bundle(Generic[T]):
    """`tell` is called on the loop, soon, with the first thing that was noted since it was called last."""

    def __init__(self, tell: Callable[[T], None], calm: float = CALM) -> None:
        self._tell = tell
        self._calm = calm
        self._first: T | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._quiet_until = 0.0  # loop time

    def note(self, thing: T) -> None:
        """Something has changed."""
        if self._first is None:
            self._first = thing
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._quiet_until), self._tell_now)

    @property
    def is_pending(self) -> bool:
        """Something was noted and is not told yet."""
        return self._timer is not None

    def close(self) -> None:
        """Tell no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell_now(self) -> None:
        self._timer = None
        thing, self._first = self._first, None
        if thing is None:
            raise RuntimeError("nothing to tell: note() keeps the thing before it sets the timer")
        began = time.thread_time()
        try:
            self._tell(thing)
        finally:
            cost = time.thread_time() - began
            self._quiet_until = asyncio.get_running_loop().time() + max(self._calm, SHARE * cost)

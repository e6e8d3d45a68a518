"""Which block of the shared counters belongs to whom, and when a block may be given to another.

- A key (an instance, or a replica of an instance) that stays keeps its slot; one that comes back in time gets it back.
- A key that left keeps its slot, and its series stay visible, for `LINGER` after its last activity (DRN-4).
- Then the block is zeroed in every segment and the slot is free. A slot in use by a running exchange or tunnel, or with
  a connection in a pool, is never freed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

LINGER = 600.0
"""Seconds (DRN-4)."""

Key = TypeVar("Key", bound=Hashable)


class Blocks(Protocol):
    """What a set of slots must know of the counters behind them."""

    def is_busy(self, slot: int) -> bool:
        """Whether something that is going on now still counts there."""

    def read_activity(self, slot: int) -> object:
        """A value that changes whenever the block's owner is used."""

    def zero(self, slot: int) -> None:
        """Make the block as new."""


class OutOfSlotsError(Exception):
    """More owners than blocks."""


@dataclass(slots=True)
class _Departed:
    """A key that left, with its slot."""

    slot: int
    activity: object  # as last seen
    quiet_since: float


class Slots(Generic[Key]):
    """Gives slots from a range to keys."""

    def __init__(self, numbers: range, blocks: Blocks, clock: Callable[[], float]) -> None:
        self._free = list(numbers)
        heapq.heapify(self._free)  # the lowest first, so that few pages are touched
        self._blocks = blocks
        self._clock = clock
        self._present: dict[Key, int] = {}
        self._departed: dict[Key, _Departed] = {}

    def assign(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Give every key its slot; whoever is not among the keys has left. OutOfSlotsError: nothing has changed."""
        self.forget_quiet()
        wanted = dict.fromkeys(keys)
        missing = [key for key in wanted if key not in self._present and key not in self._departed]
        self._make_room(len(missing), wanted)
        now = self._clock()
        for key in [key for key in self._present if key not in wanted]:
            slot = self._present.pop(key)
            self._departed[key] = _Departed(slot, self._blocks.read_activity(slot), now)
        for key in wanted:
            if key in self._departed:
                self._present[key] = self._departed.pop(key).slot
            elif key not in self._present:
                self._present[key] = heapq.heappop(self._free)
        return {key: self._present[key] for key in wanted}

    def forget_quiet(self) -> None:
        """Free the slots of those who left and have been quiet for long enough."""
        now = self._clock()
        for key, departed in list(self._departed.items()):
            activity = self._blocks.read_activity(departed.slot)
            if activity != departed.activity or self._blocks.is_busy(departed.slot):
                departed.activity, departed.quiet_since = activity, now
            elif now - departed.quiet_since >= LINGER:
                self._forget(key)

    def list_present(self) -> Iterator[tuple[Key, int]]:
        yield from self._present.items()

    def list_departed(self) -> Iterator[tuple[Key, int]]:
        """Those who left and whose counters are still to be shown."""
        for key, departed in self._departed.items():
            yield key, departed.slot

    def list_used(self) -> list[int]:
        """Every slot that has an owner."""
        return [slot for _, slot in self.list_present()] + [slot for _, slot in self.list_departed()]

    def _make_room(self, number: int, wanted: dict[Key, None]) -> None:
        """Free early, longest quiet first, if the range is full: new owners count for more than old series."""
        idle = [
            key
            for key, departed in self._departed.items()
            if key not in wanted and not self._blocks.is_busy(departed.slot)
        ]
        if number > len(self._free) + len(idle):
            raise OutOfSlotsError
        idle.sort(key=lambda key: self._departed[key].quiet_since)
        for key in idle[: max(0, number - len(self._free))]:
            self._forget(key)

    def _forget(self, key: Key) -> None:
        slot = self._departed.pop(key).slot
        self._blocks.zero(slot)
        heapq.heappush(self._free, slot)

"""Who gets which block of the counters, and for how long."""

from __future__ import annotations

import pytest

from haproxy_py.control.slots import LINGER, OutOfSlotsError, Slots


class Blocks:
    def __init__(self) -> None:
        self.busy: set[int] = set()
        self.activity: dict[int, int] = {}
        self.zeroed: list[int] = []

    def is_busy(self, slot: int) -> bool:
        return slot in self.busy

    def read_activity(self, slot: int) -> object:
        return self.activity.get(slot, 0)

    def zero(self, slot: int) -> None:
        self.zeroed.append(slot)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def blocks() -> Blocks:
    return Blocks()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_keys_that_stay_keep_their_slots(blocks: Blocks, clock: Clock) -> None:
    slots = Slots[str](range(1, 9), blocks, clock)
    assert slots.assign(["a", "b", "c"]) == {"a": 1, "b": 2, "c": 3}
    assert slots.assign(["c", "d", "a"]) == {"c": 3, "d": 4, "a": 1}


def test_slot_is_reused_only_after_ten_quiet_minutes_and_zeroing(blocks: Blocks, clock: Clock) -> None:
    slots = Slots[str](range(3), blocks, clock)
    slots.assign(["a", "b"])
    slots.assign(["b"])
    clock.now += LINGER - 1
    assert slots.assign(["b", "c"]) == {"b": 1, "c": 2}
    assert list(slots.list_departed()) == [("a", 0)]
    clock.now += 1
    slots.forget_quiet()
    assert blocks.zeroed == [0]
    assert slots.assign(["b", "c", "d"])["d"] == 0


def test_key_that_comes_back_gets_its_slot_and_its_counters(blocks: Blocks, clock: Clock) -> None:
    slots = Slots[str](range(9), blocks, clock)
    slots.assign(["a", "b"])
    slots.assign(["b"])
    clock.now += LINGER / 2
    assert slots.assign(["a", "b"]) == {"a": 0, "b": 1}
    assert blocks.zeroed == []


def test_activity_starts_the_ten_minutes_again(blocks: Blocks, clock: Clock) -> None:
    slots = Slots[str](range(9), blocks, clock)
    slots.assign(["a"])
    slots.assign([])
    clock.now += LINGER - 1
    blocks.activity[0] = 1
    slots.forget_quiet()
    clock.now += LINGER - 1
    slots.forget_quiet()
    assert slots.list_used() == [0]
    clock.now += 1
    slots.forget_quiet()
    assert slots.list_used() == []


def test_busy_slot_is_never_freed(blocks: Blocks, clock: Clock) -> None:
    slots = Slots[str](range(1), blocks, clock)
    slots.assign(["a"])
    slots.assign([])
    blocks.busy.add(0)
    clock.now += 10 * LINGER
    slots.forget_quiet()
    assert slots.list_used() == [0]
    with pytest.raises(OutOfSlotsError):
        slots.assign(["b"])
    assert blocks.zeroed == []


def test_new_key_takes_the_slot_that_is_quiet_longest_when_none_is_free(blocks: Blocks, clock: Clock) -> None:
    slots = Slots[str](range(2), blocks, clock)
    slots.assign(["a", "b"])
    slots.assign(["b"])
    clock.now += 1
    slots.assign([])
    assert slots.assign(["c"]) == {"c": 0}
    assert blocks.zeroed == [0]


def test_failed_assignment_changes_nothing(blocks: Blocks, clock: Clock) -> None:
    slots = Slots[str](range(2), blocks, clock)
    slots.assign(["a"])
    with pytest.raises(OutOfSlotsError):
        slots.assign(["b", "c", "d"])
    assert list(slots.list_present()) == [("a", 0)]
    assert list(slots.list_departed()) == []

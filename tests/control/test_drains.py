"""Which replicas drain, by whose word, and until when."""

from __future__ import annotations

from haproxy_py.config import Instance
from haproxy_py.control.drains import Drains
from haproxy_py.discovery.found import FoundInstance, FoundReplica
from haproxy_py.table import ReplicaState

INSTANCE = Instance("one", (), True)
A, B = ("one", "a"), ("one", "b")


def find(**states: ReplicaState) -> tuple[FoundInstance, ...]:
    replicas = tuple(FoundReplica(name, "10.0.0.1", 1880, state) for name, state in states.items())
    return (FoundInstance(INSTANCE, True, replicas),)


def show(found: tuple[FoundInstance, ...]) -> dict[str, tuple[str, bool, float]]:
    return {one.name: (one.state.value, one.drained, one.drain_ends) for one in found[0].replicas}


READY, DRAINING = ReplicaState.READY, ReplicaState.DRAINING


def test_without_a_drain_the_finding_is_the_same_object() -> None:
    found = find(a=READY)
    marked, drains = Drains().mark(found, 100.0, 25.0)
    assert marked[0] is found[0]
    assert drains == Drains()


def test_both_kinds_of_drain_end_a_deadline_after_their_own_beginning() -> None:
    marked, drains = Drains().mark(find(a=DRAINING, b=READY), 100.0, 25.0)
    assert show(marked) == {"a": ("draining", False, 125.0), "b": ("ready", False, 0.0)}
    marked, drains = drains.order(B).mark(find(a=DRAINING, b=READY), 110.0, 25.0)
    assert show(marked) == {"a": ("draining", False, 125.0), "b": ("draining", True, 135.0)}
    marked, _ = drains.mark(find(a=DRAINING, b=READY), 120.0, 99.0)  # neither time nor a new deadline moves it
    assert show(marked) == {"a": ("draining", False, 125.0), "b": ("draining", True, 135.0)}


def test_word_of_an_operator_holds_whatever_discovery_says_until_it_is_taken_back() -> None:
    _, drains = Drains().order(A).mark(find(a=READY, b=READY), 100.0, 25.0)
    for state in (DRAINING, READY):
        marked, drains = drains.mark(find(a=state), 110.0, 25.0)
        assert show(marked) == {"a": ("draining", True, 125.0)}
    marked, drains = drains.take_back(A).mark(find(a=READY), 120.0, 25.0)
    assert show(marked) == {"a": ("ready", False, 0.0)}
    marked, _ = drains.order(A).mark(find(a=READY), 130.0, 25.0)
    assert show(marked) == {"a": ("draining", True, 155.0)}


def test_taking_it_back_leaves_what_discovery_says() -> None:
    _, drains = Drains().order(A).mark(find(a=DRAINING), 100.0, 25.0)
    marked, _ = drains.take_back(A).mark(find(a=DRAINING), 110.0, 25.0)
    assert show(marked) == {"a": ("draining", False, 125.0)}


def test_word_for_a_replica_that_is_not_found_yet_is_kept() -> None:
    _, drains = Drains(frozenset([A])).mark((), 100.0, 25.0, is_complete=False)
    marked, drains = drains.mark(find(a=READY), 110.0, 25.0)
    assert show(marked) == {"a": ("draining", True, 135.0)}
    assert drains.mark((), 120.0, 25.0)[1] == Drains()


def test_replica_that_left_is_forgotten() -> None:
    _, drains = Drains().order(A).mark(find(a=READY, b=READY), 100.0, 25.0)
    _, drains = drains.mark(find(b=READY), 101.0, 25.0)
    assert drains == Drains()
    marked, _ = drains.mark(find(a=READY, b=READY), 102.0, 25.0)
    assert show(marked)["a"] == ("ready", False, 0.0)


def test_replica_of_the_same_name_in_another_instance_is_another_one() -> None:
    marked, drains = Drains().order(("two", "a")).mark(find(a=READY), 100.0, 25.0)
    assert show(marked) == {"a": ("ready", False, 0.0)}
    assert drains == Drains()

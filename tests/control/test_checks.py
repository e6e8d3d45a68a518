"""The checks of all replicas together: what makes one unhealthy and healthy again, and what is asked how often."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from haproxy_py.config import Health, Instance, KubernetesService
from haproxy_py.control import checks as module
from haproxy_py.control.checks import Checks, Target, _Checked
from haproxy_py.control.probe_answer import Finding, Outcome
from haproxy_py.discovery.found import FoundInstance, FoundReplica
from haproxy_py.table import ReplicaState

QUICK = Health(interval=0.002, timeout=0.001, rise=2, fall=3)


def find(*hosts: str, name: str = "one", health: Health = QUICK, draining: tuple[str, ...] = ()) -> FoundInstance:
    state = ReplicaState.DRAINING
    return FoundInstance(
        Instance(name, (), True, health=health),
        True,
        tuple(
            FoundReplica(host, host, 1880, state) if host in draining else FoundReplica(host, host, 1880)
            for host in hosts
        ),
    )


class World:
    """Replicas that are checked; `down` and `odd` say how their checks end."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.odd: dict[str, Outcome] = {}
        self.asked: Counter[str] = Counter()
        self.kinds: set[str] = set()
        self.running = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.notified = 0
        self.said: list[tuple[str, str]] = []
        self.checks = Checks(lambda level, text: self.said.append((level, text)), self._note, self._probe)

    async def _probe(self, host: str, port: int, kind: str, health: Health) -> tuple[Finding, float]:
        self.asked[host] += 1
        self.kinds.add(kind)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        if host in self.odd and self.odd[host] is Outcome.BODY:
            raise ValueError("a mistake")
        outcome = self.odd.get(host, Outcome.REFUSED if host in self.down else Outcome.OK)
        return Finding(outcome, f"finding {outcome.value}"), 0.001

    def _note(self) -> None:
        self.notified += 1

    def list_states(self, *found: FoundInstance) -> dict[str, str]:
        """As they are marked; `*` stands for draining."""
        return {
            replica.name: ("healthy" if replica.healthy else "unhealthy")
            + ("*" if replica.state is ReplicaState.DRAINING else "")
            for one in self.checks.mark(found)
            for replica in one.replicas
        }


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.checks.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.001)


async def test_a_replica_begins_healthy_and_is_checked_at_once(world: World) -> None:
    slow = find("a", health=Health(interval=3600))
    world.checks.follow([slow])
    assert world.list_states(slow) == {"a": "healthy"}
    await until(lambda: world.asked["a"] == 1)


async def test_fall_failures_in_a_row_make_it_unhealthy_and_rise_successes_healthy(world: World) -> None:
    found = find("a", "b")
    world.checks.follow([found])
    await until(lambda: world.asked["a"] == 1)
    world.down = {"a"}
    await until(lambda: world.notified == 1)
    assert world.list_states(found) == {"a": "unhealthy", "b": "healthy"}
    view = world.checks.view()[("one", "a")]
    assert (view.healthy, view.last, view.outcomes["refused"]) == (False, "refused", 3)
    assert view.outcomes["ok"] > 0
    world.down = set()
    await until(lambda: world.list_states(found) == {"a": "healthy", "b": "healthy"})
    await until(lambda: world.notified == 2)
    assert world.said[0] == (
        "warning",
        "instance one: replica a is unhealthy, failed checks in a row: 3, the last: finding refused; it gets nothing new "
        "until a check succeeds, healthy replicas left: 1",
    )
    assert world.said[1][1].startswith("instance one: replica a is healthy again after 0.")


async def test_the_first_check_decides_alone(world: World) -> None:
    found = find("a", "b", "c", health=Health(interval=3600))
    world.down = {"a"}
    world.odd = {"c": Outcome.OWN_FAULT}  # says nothing
    world.gate.clear()
    world.checks.follow([found])
    assert world.checks.list_waits() == [
        f"replica {name} of instance one has not been checked yet" for name in ("a", "b", "c")
    ]
    world.gate.set()
    await until(lambda: world.notified == 1)
    assert world.list_states(found) == {"a": "unhealthy", "b": "healthy", "c": "healthy"}
    assert "failed checks in a row: 1, the last: finding refused" in world.said[0][1]
    await until(lambda: world.checks.list_waits() == [])
    world.odd = {"c": Outcome.REFUSED}
    world.checks.follow([find("a", "b", "c", health=Health(interval=1800))])  # checked again at once
    await until(lambda: world.list_states(found)["c"] == "unhealthy")


def test_every_sequence_of_findings_moves_as_the_rule_says() -> None:
    """rise 2, fall 3, the first failure alone if nothing is known yet, over all sequences of six findings."""
    for sequence in range(3**6):
        checked = _Checked(Target("a", "a", 1, "tcp", QUICK))
        healthy, known, against = True, False, 0
        for place in range(6):
            outcome = (Outcome.OK, Outcome.REFUSED, Outcome.UNRESOLVED)[sequence // 3**place % 3]
            changed = checked.take(Finding(outcome, ""), 0.0, 0.0)
            never_named = outcome is Outcome.UNRESOLVED and healthy and not known
            if outcome is not Outcome.UNRESOLVED:
                against = 0 if (outcome is Outcome.OK) == healthy else against + 1
            expected = never_named or against == (2 if not healthy else 3 if known else 1)
            known = known or outcome is not Outcome.UNRESOLVED
            if expected:
                healthy, against = not healthy, 0
            assert (changed, checked.is_healthy) == (expected, healthy)


async def test_what_says_nothing_of_the_replica_changes_nothing(world: World) -> None:
    found = find("a")
    world.odd = {"a": Outcome.OWN_FAULT}
    world.checks.follow([found])
    await until(lambda: world.asked["a"] > 10)
    assert world.list_states(found) == {"a": "healthy"}
    assert world.notified == 0


async def test_name_that_never_could_be_looked_up_makes_its_replica_unhealthy_and_is_logged(world: World) -> None:
    found = find("a", "b")
    world.odd = {"a": Outcome.UNRESOLVED}
    world.checks.follow([found])
    await until(lambda: world.list_states(found) == {"a": "unhealthy", "b": "healthy"})
    await until(lambda: world.asked["a"] > 10)
    assert [(level, text) for level, text in world.said if "replica a" in text] == [
        (
            "warning",
            "instance one: replica a is unhealthy, failed checks in a row: 1, the last: finding unresolved; it gets "
            "nothing new until a check succeeds, healthy replicas left: 1",
        )
    ]
    world.odd = {}
    await until(lambda: world.list_states(found)["a"] == "healthy")


async def test_name_that_can_be_looked_up_no_more_is_logged_once_and_again_when_it_can(world: World) -> None:
    found = find("a")
    world.checks.follow([found])
    await until(lambda: world.asked["a"] > 2)
    world.odd = {"a": Outcome.UNRESOLVED}
    await until(lambda: world.said)
    asked = world.asked["a"]
    await until(lambda: world.asked["a"] > asked + 10)
    assert world.list_states(found) == {"a": "healthy"}
    world.odd = {}
    await until(lambda: len(world.said) > 1)
    assert world.said == [
        (
            "warning",
            "instance one: replica a: finding unresolved; it stays as it was, healthy or not, until it can be",
        ),
        ("info", "instance one: replica a: its name can be looked up again"),
    ]


async def test_a_mistake_of_ours_is_logged_and_the_checks_go_on(world: World) -> None:
    found = find("a")
    world.odd = {"a": Outcome.BODY}
    world.checks.follow([found])
    await until(lambda: world.asked["a"] > 5)
    assert world.list_states(found) == {"a": "healthy"}
    assert "a mistake in haproxy_py while checking a" in world.said[0][1]


async def test_all_that_fail_together_make_few_tables_and_the_last_line_says_what_follows(world: World) -> None:
    hosts = [f"r{number}" for number in range(100)]
    found = find(*hosts)
    world.down = set(hosts)
    began = time.monotonic()
    world.checks.follow([found])
    await until(lambda: set(world.list_states(found).values()) == {"unhealthy"})
    took = time.monotonic() - began
    assert world.notified <= 1 + took / module.CALM
    assert len(world.said) == 100
    assert world.said[-1][1].endswith("so its requests are answered 503 no_replica")


async def test_a_draining_replica_is_checked_too(world: World) -> None:
    found = find("a", "b", "c", draining=("b", "c"))
    world.down = {"a", "b"}
    world.checks.follow([found])
    await until(lambda: world.list_states(found) == {"a": "unhealthy", "b": "unhealthy*", "c": "healthy*"})


async def test_checks_end_with_their_replica_and_its_state_is_forgotten(world: World) -> None:
    found = find("a", "b")
    world.down = {"a"}
    world.checks.follow([found])
    await until(lambda: world.notified == 1)
    world.checks.follow([find("b")])
    asked = world.asked["a"]
    before = world.asked["b"]
    await until(lambda: world.asked["b"] > before + 5)
    assert world.asked["a"] == asked
    assert set(world.checks.view()) == {("one", "b")}
    world.checks.follow([found])
    assert world.list_states(found)["a"] == "healthy", "who comes back begins anew"


async def test_another_address_or_kind_of_check_begins_anew_and_other_settings_do_not(world: World) -> None:
    found = find("a")
    world.down = {"a"}
    world.checks.follow([found])
    await until(lambda: world.notified == 1)
    patient = find("a", health=Health(interval=3600, fall=1))
    asked = world.asked["a"]
    world.checks.follow([patient])
    await until(lambda: world.asked["a"] > asked)  # at once, by the new settings
    assert world.list_states(patient) == {"a": "unhealthy"}
    elsewhere = FoundInstance(patient.settings, True, (FoundReplica("a", "b", 1880),))
    assert world.list_states(elsewhere) == {"a": "healthy"}
    http = find("a", health=Health(type="http", path="/"))
    assert world.list_states(http) == {"a": "healthy"}
    world.checks.follow([http])
    await until(lambda: "http" in world.kinds)


async def test_a_replica_of_several_instances_is_checked_once_for_all_that_check_it_alike(world: World) -> None:
    patient = Health(interval=3600, fall=1)
    several = [find("a", "b", name="one"), find("a", name="two"), find("a", name="three", health=patient)]
    world.gate.clear()
    world.checks.follow(several)
    await until(lambda: world.running == 3)
    await asyncio.sleep(0.01)
    assert world.asked == {"a": 2, "b": 1}
    world.down = {"a"}
    world.gate.set()
    await until(lambda: len(world.said) == 3)
    assert world.said[0][1].startswith("instance one: replica a is unhealthy")
    assert world.said[0][1].endswith("healthy replicas left: 1")
    assert world.said[1][1].startswith("instance two: replica a is unhealthy")
    assert world.said[1][1].endswith("503 no_replica")
    for one in several:
        assert world.list_states(one)["a"] == "unhealthy"
    view = world.checks.view()
    assert view["one", "a"] == view["two", "a"]
    assert view["three", "a"].outcomes["refused"] == 1

    world.checks.follow(several[1:])  # an instance leaves, and its checks go on for the other
    asked = world.asked["a"]
    await until(lambda: world.asked["a"] > asked)
    assert set(world.checks.view()) == {("two", "a"), ("three", "a")}


async def test_an_instance_that_comes_later_knows_what_the_checks_of_another_have_found(world: World) -> None:
    world.down = {"a"}
    world.checks.follow([find("a")])
    await until(lambda: world.notified == 1)
    later = find("a", name="two")
    assert world.list_states(later) == {"a": "unhealthy"}, "in its first table"
    world.checks.follow([find("a"), later])
    assert world.list_states(later) == {"a": "unhealthy"}


async def test_instances_whose_settings_become_alike_agree_on_the_state_of_their_replica(world: World) -> None:
    patient = Health(interval=3600, fall=100)
    world.checks.follow([find("a"), find("a", name="two", health=patient)])
    await until(lambda: world.asked["a"] > 3)
    world.down = {"a"}
    await until(lambda: world.notified == 1)
    rare = Health(interval=1800)
    alike = [find("a", name=name, health=rare) for name in ("one", "two", "new")]
    assert [world.list_states(one)["a"] for one in alike] == ["unhealthy", "healthy", "healthy"]
    world.checks.follow(alike)
    await until(lambda: world.notified == 2)  # for the two that were thought healthy
    assert [world.list_states(one) for one in alike] == [{"a": "unhealthy"}] * 3


async def test_kubernetes_replicas_are_checked_only_where_that_is_asked_for(world: World) -> None:
    pods = [
        FoundInstance(
            Instance(name, (), True, kubernetes=KubernetesService(name), health=health),
            True,
            (FoundReplica("pod", name, 1880),),
        )
        for name, health in (("default", Health()), ("asked", Health("http", path="/")), ("off", Health("off")))
    ]
    world.checks.follow([*pods, find("static", name="static", health=Health("off"))])
    assert set(world.checks.view()) == {("asked", "pod")}


async def test_no_more_checks_are_under_way_than_the_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.gate.clear()
    world.checks.follow([find(*(f"r{number}" for number in range(module.MOST_AT_ONCE + 50)))])
    await until(lambda: world.running == module.MOST_AT_ONCE)
    await asyncio.sleep(0.02)
    assert world.running == module.MOST_AT_ONCE
    world.gate.set()
    await until(lambda: len(world.asked) == module.MOST_AT_ONCE + 50)
    assert world.most == module.MOST_AT_ONCE


def test_the_pause_spreads_and_is_short_where_the_state_may_change() -> None:
    checked = _Checked(Target("a", "a", 1, "tcp", Health()))
    assert checked.choose_pause(0.0, 3) == pytest.approx(1.6)
    assert checked.choose_pause(1.0, 3) == pytest.approx(2.4)
    checked.take(Finding(Outcome.OK, ""), 0.0, 0.0)
    checked.take(Finding(Outcome.REFUSED, ""), 0.0, 0.0)
    assert checked.is_healthy
    assert checked.choose_pause(0.5, 3) == pytest.approx(0.5)
    assert checked.choose_pause(0.5, 2000) == pytest.approx(4.0), "500 a second in all"
    rare = _Checked(Target("a", "a", 1, "tcp", Health(interval=0.1)))
    rare.is_healthy = False
    assert rare.choose_pause(0.5, 3) == pytest.approx(0.1)

"""Following a name in the DNS: when it is asked for again, what a failure changes, and what becomes of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from haproxy_py.config import Config, DnsName, Health, Instance
from haproxy_py.discovery.discovery import Discovery
from haproxy_py.discovery.found import FoundInstance
from haproxy_py.discovery.lookup import Looked, LookupFailedError, Member, Outcome, Question
from haproxy_py.discovery.members import merge_members
from haproxy_py.discovery.names import LONGEST_NAME_PAUSE, NameFollower, make_question, plan_names
from haproxy_py.discovery.pace import Pace
from haproxy_py.discovery.records import Records
from haproxy_py.discovery.reflector import Change, Clock

NAME = DnsName("nr.example.com", 1880)
ONE, TWO = Member("10.0.0.1"), Member("10.0.0.2")
SERVFAIL = LookupFailedError(Outcome.SERVER, "SERVFAIL")
NXDOMAIN = LookupFailedError(Outcome.NO_NAME, "NXDOMAIN")

Answer = Looked | LookupFailedError | Exception


class Follower:
    """A NameFollower in virtual time, with the answers of a test, of which the last repeats."""

    def __init__(self, *answers: Answer, interval: float = 5.0, chance: float = 1.0) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.changes: list[Change] = []
        self.said: list[tuple[str, str]] = []
        self.asked: list[float] = []
        self.records = Records()
        self._answers = list(answers)
        self._chance = chance
        self.follower = NameFollower(
            make_question(NAME),
            interval,
            self.changes.append,
            lambda level, text: self.said.append((level, text)),
            self.records,
            Pace(lambda: LONGEST_NAME_PAUSE),
            Clock(lambda: self.now, self._sleep, lambda: self._chance),
            self._look_up,
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        if len(self.pauses) == self._limit:
            raise asyncio.CancelledError

    async def _look_up(self, question: Question) -> Looked:
        self.asked.append(self.now)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run(self, times: int) -> list[float]:
        """Look up so many times; the pauses."""
        self._limit = times
        with pytest.raises(asyncio.CancelledError):
            await self.follower.run()
        return self.pauses


@pytest.mark.parametrize(
    ("ttl", "interval", "expected"), [(0, 5, 1), (0.5, 5, 1), (3, 5, 3), (60, 5, 5), (60, 1, 1), (7 * 86400, 30, 30)]
)
async def test_it_is_asked_for_again_at_its_ttl_within_a_second_and_the_interval(
    ttl: float, interval: float, expected: float
) -> None:
    follower = Follower(Looked((ONE,), ttl), interval=interval)
    assert await follower.run(3) == [expected] * 3


async def test_look_ups_spread_a_little_and_never_come_faster_than_once_a_second() -> None:
    assert await Follower(Looked((ONE,), 60), chance=0.0).run(1) == [4.5]
    assert await Follower(Looked((ONE,), 0), chance=0.0).run(1) == [1.0]


@pytest.mark.parametrize("error", [SERVFAIL, NXDOMAIN, ValueError("a mistake")])
@pytest.mark.parametrize("chance", [0.0, 1.0])
async def test_what_fails_steadily_is_asked_for_once_a_second_at_most(error: Exception, chance: float) -> None:
    follower = Follower(error, chance=chance)
    await follower.run(50)
    steady = [moment for moment in follower.asked if moment > follower.asked[0] + 5]
    assert min(later - former for former, later in pairwise(steady)) >= 1.0
    assert max(follower.pauses) <= LONGEST_NAME_PAUSE


async def test_the_last_good_answer_stays_through_every_failure() -> None:
    follower = Follower(Looked((ONE, TWO), 5), SERVFAIL, NXDOMAIN, ValueError("a mistake"), SERVFAIL)
    await follower.run(6)
    assert follower.follower.members == (ONE, TWO)
    assert len(follower.changes) == 1
    assert follower.follower.failure == "nr.example.com cannot be looked up: SERVFAIL"
    assert [level for level, _ in follower.said] == ["warning", "warning", "error", "warning"]
    assert "nothing new is known, and the replicas that were found last stay in use" in follower.said[0][1]
    assert "an empty answer is not believed, and the replicas" in follower.said[1][1]
    assert follower.records.requests["dns", "resolve", "ok"] == 1
    assert follower.records.requests["dns", "resolve", "server"] == 3
    assert follower.records.requests["dns", "resolve", "no_name"] == 1
    assert follower.records.requests["dns", "resolve", "internal"] == 1


async def test_a_failure_that_lasts_is_logged_once_and_so_is_its_end() -> None:
    follower = Follower(Looked((ONE,), 5), *[SERVFAIL] * 20, Looked((ONE,), 5))
    await follower.run(22)
    assert len(follower.said) == 2
    assert follower.said[1][1].startswith("nr.example.com is found again, after ")
    assert follower.follower.failure is None


async def test_without_any_answer_nothing_is_known() -> None:
    follower = Follower(SERVFAIL)
    await follower.run(3)
    assert follower.follower.members is None
    assert follower.changes == []
    assert follower.said == [
        ("error", "nr.example.com cannot be looked up: SERVFAIL; nothing is known yet, so the proxy is not ready")
    ]


async def test_a_first_answer_that_there_is_nothing_is_believed() -> None:
    follower = Follower(NXDOMAIN, NXDOMAIN, Looked((ONE,), 5))
    await follower.run(2)
    assert follower.follower.members == ()
    assert len(follower.changes) == 1
    assert follower.said == [
        ("warning", "nr.example.com cannot be looked up: NXDOMAIN; there is no replica until it is found")
    ]


async def test_the_same_answer_is_no_change() -> None:
    follower = Follower(Looked((ONE,), 5), Looked((ONE,), 4), Looked((ONE, TWO), 5), Looked((TWO,), 5))
    await follower.run(5)
    assert len(follower.changes) == 3
    assert follower.follower.members == (TWO,)


# --- replicas ---


def test_replicas_are_named_by_address_and_port() -> None:
    merged = merge_members([TWO, ONE, Member("fd00::1")], 1880, lambda host, port: False)
    assert [(one.name, one.host, one.port) for one in merged.replicas] == [
        ("10.0.0.1:1880", "10.0.0.1", 1880),
        ("10.0.0.2:1880", "10.0.0.2", 1880),
        ("[fd00::1]:1880", "fd00::1", 1880),
    ]


def test_replicas_of_srv_records_are_named_by_target_and_by_port_only_where_that_is_needed() -> None:
    members = [Member("10.0.0.1", 1880, "a"), Member("10.0.0.2", 1880, "b"), Member("10.0.0.2", 1881, "b")]
    merged = merge_members(members, 0, lambda host, port: False)
    assert [(one.name, one.port) for one in merged.replicas] == [("a", 1880), ("b:1880", 1880), ("b:1881", 1881)]


@pytest.mark.parametrize(
    ("member", "port", "reason"),
    [
        (Member("0.0.0.0"), 1880, "malformed"),
        (Member("::"), 1880, "malformed"),
        (Member("224.0.0.1"), 1880, "malformed"),
        (Member("10.0.0.9", 0, "a"), 0, "malformed"),
        (Member("10.0.0.9", 2880, "a"), 0, "management"),
        (Member("10.0.0.9"), 8080, "own"),
    ],
)
def test_what_must_not_be_a_replica_is_left_out_with_a_complaint(member: Member, port: int, reason: str) -> None:
    merged = merge_members([member, Member("10.0.0.1", 1880, "b")], port, lambda host, port: host == "10.0.0.9")
    assert [one.host for one in merged.replicas] == ["10.0.0.1"]
    assert merged.ignored == {reason: 1}
    assert len(merged.complaints) == 1


def test_replicas_have_a_bound() -> None:
    members = [Member(f"10.0.{number // 250}.{number % 250}") for number in range(1030)]
    merged = merge_members(members, 1880, lambda host, port: False)
    assert len(merged.replicas) == 1024
    assert merged.ignored == {"too_many": 6}
    assert merged.complaints == ("1030 replicas are too many: the first 1024 by name are used",)


# --- as a part of discovery ---


class Followed:
    """A Discovery over answers by name."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[Question] = []
        self.told = asyncio.Event()
        self.said: list[tuple[str, str]] = []
        self.discovery = Discovery(
            lambda level, text: self.said.append((level, text)),
            lambda host, port: False,
            lambda change: self.told.set(),
            look_up=self._look_up,
        )

    async def _look_up(self, question: Question) -> Looked:
        self.asked.append(question)
        answer = self.answers[question.name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def wait(self) -> None:
        async with asyncio.timeout(10):
            await self.told.wait()
        self.told.clear()

    def find(self, config: Config) -> dict[str, FoundInstance]:
        return {one.settings.name: one for one in self.discovery.find(config)}


def make_config(*names: DnsName) -> Config:
    return Config(
        (), tuple(Instance(f"i{number}", (f"h{number}",), True, dns=name) for number, name in enumerate(names))
    )


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.001)


async def test_an_instance_is_found_when_its_name_is() -> None:
    followed = Followed()
    followed.answers = {"a": Looked((ONE,), 60), "b": SERVFAIL}
    config = make_config(DnsName("a", 1880), DnsName("b", 1880))
    assert not any(one.discovered for one in followed.find(config).values())
    followed.discovery.follow(config)
    await followed.wait()
    found = followed.find(config)
    assert [one.name for one in found["i0"].replicas] == ["10.0.0.1:1880"]
    assert (found["i0"].discovered, found["i1"].discovered) == (True, False)
    assert not followed.discovery.is_complete()
    followed.discovery.announce(tuple(found.values()))
    view = followed.discovery.view()
    assert view.waiting_for == ("b cannot be looked up: SERVFAIL",)
    assert [(one.instance, one.ready) for one in view.counts] == [("i0", 1), ("i1", 0)]
    assert [(feed.kind, feed.namespace, feed.listed) for feed in view.feeds] == [
        ("dns", "a", True),
        ("dns", "b", False),
    ]
    await followed.discovery.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_two_instances_of_one_name_ask_once_and_each_has_its_port() -> None:
    followed = Followed()
    followed.answers = {"a": Looked((ONE,), 60)}
    config = make_config(DnsName("a", 1880), DnsName("a", 1990, interval=3))
    assert list(plan_names(config).values()) == [3]
    followed.discovery.follow(config)
    await followed.wait()
    found = followed.find(config)
    assert [one.replicas[0].port for one in found.values()] == [1880, 1990]
    assert len(followed.asked) == 1
    await followed.discovery.close()


async def test_a_reload_that_changes_port_or_interval_loses_no_replica_and_a_name_that_goes_is_asked_for_no_more() -> (
    None
):
    followed = Followed()
    followed.answers = {"a": Looked((ONE,), 60), "b": Looked((TWO,), 60)}
    config = make_config(DnsName("a", 1880), DnsName("b", 1880))
    followed.discovery.follow(config)
    await until(lambda: len(followed.asked) == 2)
    await followed.wait()
    changed = make_config(DnsName("a", 1990, interval=60))
    followed.discovery.follow(changed)
    assert [one.name for one in followed.find(changed)["i0"].replicas] == ["10.0.0.1:1990"]
    assert [feed.namespace for feed in followed.discovery.view().feeds] == ["a"]
    await followed.discovery.close()
    assert len(followed.asked) == 2


async def test_a_failure_is_told_as_long_as_it_lasts() -> None:
    followed = Followed()
    followed.answers = {"a": Looked((ONE,), 0)}
    config = make_config(DnsName("a", 1880))
    followed.discovery.follow(config)
    await followed.wait()
    followed.answers["a"] = NXDOMAIN
    await until(lambda: len(followed.asked) == 2)
    assert len(followed.find(config)["i0"].replicas) == 1
    await until(lambda: followed.discovery.view().feeds[0].failure == "a cannot be looked up: NXDOMAIN")
    followed.answers["a"] = Looked((ONE,), 60)
    await until(lambda: followed.discovery.view().feeds[0].failure is None)
    await followed.discovery.close()


def test_dns_replicas_are_checked_by_default() -> None:
    instance = Instance("i", (), True, dns=NAME)
    assert replace(instance, health=Health()).health.choose_type(is_kubernetes=instance.kubernetes is not None) == "tcp"

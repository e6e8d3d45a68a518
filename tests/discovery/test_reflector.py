"""List and watch against a scripted source, in virtual time: what is asked next after everything that can happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from haproxy_py.discovery.api import ApiError, Collection, Event, Outcome
from haproxy_py.discovery.pace import LONGEST_PAUSE, Pace
from haproxy_py.discovery.records import Records
from haproxy_py.discovery.reflector import MAX_OBJECTS, SAY_AGAIN_AFTER, Change, Clock, Reflector

COLLECTION = Collection("endpointslices", "discovery.k8s.io", "v1", "prod")


class Finished(BaseException):
    """The script is over."""


class Time:
    """Moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


Step = Any  # what one request meets: pages or batches, then perhaps an error


class Script:
    """A source that plays one step per request, and notes what it was asked."""

    namespace = "prod"

    def __init__(self, time: Time, *steps: list[Step]) -> None:
        self.calls: list[str] = []
        self.began: list[float] = []
        self.expired = 0
        self._time = time
        self._steps = list(steps)

    def _take(self, call: str) -> list[Step]:
        self.calls.append(call)
        self.began.append(self._time.now)
        if not self._steps:
            raise Finished
        return self._steps.pop(0)

    async def _play(self, step: list[Step]) -> AsyncGenerator[Any, None]:
        for item in step:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, float):
                self._time.now += item
            else:
                yield item

    async def list_pages(self, collection: Collection) -> AsyncGenerator[tuple[list[Any], str], None]:
        async for page in self._play(self._take("list")):
            yield page

    async def watch(self, collection: Collection, version: str) -> AsyncGenerator[list[Event], None]:
        step = self._take(f"watch {version}")
        if step and isinstance(step[0], ApiError):
            raise step[0]  # as the answer to the request: the watch was not accepted
        yield []
        async for batch in self._play(step):
            yield batch

    def expire_credentials(self) -> None:
        self.expired += 1


class Run:
    """A reflector over a script, run to its end."""

    def __init__(self, *steps: list[Step], parse: Callable[[Any], Any] = dict, chance: float = 1.0) -> None:
        self.time = Time()
        self.source = Script(self.time, *steps)
        self.changes: list[Change] = []
        self.said: list[tuple[str, str]] = []
        self.records = Records()
        self.reflector = Reflector(
            self.source,
            COLLECTION,
            parse,
            self.changes.append,
            lambda level, text: self.said.append((level, text)),
            self.records,
            Pace(),
            Clock(lambda: self.time.now, self.time.sleep, lambda: chance),
        )
        with pytest.raises(Finished):
            asyncio.run(self.reflector.run())

    @property
    def calls(self) -> list[str]:
        return self.source.calls[:-1] if self.source.calls else []

    @property
    def asked_next(self) -> str:
        return self.source.calls[-1]

    @property
    def names(self) -> list[str]:
        return sorted(self.reflector.objects)


def thing(name: str, version: int = 1, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, **more}


def page(version: int, *names: str) -> tuple[list[Any], str]:
    return [thing(name) for name in names], str(version)


def added(name: str, version: int, **more: Any) -> list[Event]:
    return [Event("ADDED", thing(name, version, **more))]


def deleted(name: str, version: int) -> list[Event]:
    return [Event("DELETED", thing(name, version))]


def bookmark(version: int) -> list[Event]:
    return [Event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})]


def fail(outcome: Outcome = Outcome.SERVER, retry_after: float = 0.0) -> ApiError:
    return ApiError(outcome, "on command", retry_after)


GONE, RESET, SILENT = fail(Outcome.EXPIRED), fail(Outcome.RESET), fail(Outcome.SILENT)
UNREACHABLE = fail(Outcome.UNREACHABLE)


# --- versions ---


def test_a_watch_begins_where_the_list_ended() -> None:
    assert Run([page(10, "a")]).source.calls == ["list", "watch 10"]


def test_events_and_bookmarks_advance_the_version() -> None:
    run = Run([page(10, "a")], [added("b", 11), bookmark(15)], [deleted("a", 20)])
    assert run.source.calls == ["list", "watch 10", "watch 15", "watch 20"]
    assert run.names == ["b"]


def test_a_version_is_opaque() -> None:
    run = Run([([], "z/0")], [[Event("ADDED", {"metadata": {"name": "a", "resourceVersion": "A?&"}})]])
    assert run.source.calls == ["list", "watch z/0", "watch A?&"]


@pytest.mark.parametrize("where", ["at once", "after an event"])
def test_an_expired_version_is_forgotten(where: str) -> None:
    step = [GONE] if where == "at once" else [added("b", 11), GONE]
    assert Run([page(10)], step, [page(20)]).source.calls == ["list", "watch 10", "list", "watch 20"]


def test_a_server_that_could_not_be_reached_may_be_a_restored_one_and_is_listed() -> None:
    run = Run([page(10, "a", "ghost")], [RESET], [UNREACHABLE], [page(12, "a")])
    assert run.source.calls == ["list", "watch 10", "watch 10", "list", "watch 12"]
    assert run.names == ["a"]


@pytest.mark.parametrize("problem", [RESET, fail(), fail(Outcome.DECODE)])
def test_a_failure_resumes_from_the_version(problem: ApiError) -> None:
    run = Run([page(10)], [added("a", 11), problem])
    assert run.source.calls == ["list", "watch 10", "watch 11"]


def test_three_failures_in_a_row_from_one_version_list_again() -> None:
    run = Run([page(10)], [RESET], [RESET], [RESET], [page(9)])
    assert run.source.calls == ["list", "watch 10", "watch 10", "watch 10", "list", "watch 9"]


def test_an_event_between_failures_makes_them_two_rows() -> None:
    run = Run([page(10)], [RESET], [RESET], [added("a", 11), RESET], [RESET])
    assert run.asked_next == "watch 11"


def test_silence_resumes_from_the_version() -> None:
    run = Run([page(10)], [75.0, SILENT], [added("a", 11)], [75.0, SILENT])
    assert run.source.calls == ["list", "watch 10", "watch 10", "watch 11", "watch 11"]
    assert run.said == []


def test_the_second_silent_watch_in_a_row_is_followed_by_a_list() -> None:
    """A restored API server says nothing to a watch from a version that it has yet to reach."""
    run = Run([page(10, "a", "ghost")], [75.0, SILENT], [75.0, SILENT], [page(4, "a")])
    assert run.source.calls == ["list", "watch 10", "watch 10", "list", "watch 4"]
    assert run.names == ["a"]
    assert run.said == []


@pytest.mark.parametrize("end", [[60.0], [60.0, RESET]], ids=["ended", "reset"])
def test_watches_that_say_nothing_and_are_cut_early_are_followed_by_a_list_too(end: Step) -> None:
    assert Run([page(10)], end, end, end, [page(4)]).asked_next == "watch 4"


def test_a_quiet_server_without_bookmarks_is_asked_again_without_a_growing_pause() -> None:
    silent = [75.0, SILENT]
    assert set(Run([page(10)], silent, silent, [page(10)], silent, silent).time.sleeps) == {0.25}


def test_the_sequence_of_a_bad_day() -> None:
    run = Run(
        [page(10)],
        [added("a", 11), bookmark(15)],
        [GONE],
        [page(20)],
        [GONE],
        [page(30)],
        [75.0, SILENT],
        [deleted("a", 31), RESET],
        [],
    )
    assert run.source.calls == [
        *("list", "watch 10", "watch 15", "list", "watch 20", "list"),
        *("watch 30", "watch 30", "watch 31", "watch 31"),
    ]


# --- the copy ---


def test_a_list_removes_what_vanished_meanwhile() -> None:
    run = Run([page(10, "a", "b")], [added("c", 11), GONE], [page(20, "b", "d")])
    assert run.names == ["b", "d"]


def test_a_list_in_pages_is_one_list() -> None:
    run = Run([page(10, "a"), page(10, "b"), page(10, "c")])
    assert run.names == ["a", "b", "c"]
    assert len(run.changes) == 1


@pytest.mark.parametrize("problem", [GONE, RESET])
def test_a_list_that_failed_half_way_changes_nothing(problem: ApiError) -> None:
    run = Run([page(10, "a", "b")], [GONE], [page(20, "c"), problem])
    assert run.names == ["a", "b"]
    assert run.asked_next == "list"


def test_the_first_list_is_a_change_even_if_it_is_empty() -> None:
    run = Run([page(10)])
    assert run.reflector.is_listed
    assert len(run.changes) == 1


def test_the_same_list_again_is_no_change() -> None:
    assert len(Run([page(10, "a")], [GONE], [page(20, "a")]).changes) == 1


def test_an_event_that_repeats_what_is_known_is_no_change() -> None:
    run = Run([page(10)], [added("a", 11, x=1), [Event("MODIFIED", thing("a", 12, x=1))]], parse=lambda one: one["x"])
    assert len(run.changes) == 2


def test_deleting_what_is_not_there_is_no_change() -> None:
    assert len(Run([page(10)], [deleted("a", 11)]).changes) == 1


def test_the_copy_survives_an_outage_of_an_hour() -> None:
    run = Run([page(10, "a")], *([[UNREACHABLE]] * 140))
    assert run.time.now > 4600
    assert run.names == ["a"]
    assert run.reflector.is_listed


def test_a_start_without_the_server_goes_on_trying_and_then_succeeds() -> None:
    run = Run([UNREACHABLE], [UNREACHABLE], [page(10, "a")], [])
    assert run.calls == [*["list"] * 3, "watch 10"]
    assert run.names == ["a"]
    assert run.said[0][0] == "error"
    assert "not ready" in run.said[0][1]
    assert "are followed now, after" in run.said[-1][1]


# --- what is not as it should be ---


@pytest.mark.parametrize(
    "event",
    [
        Event("ADDED", {}),
        Event("ADDED", {"metadata": None}),
        Event("ADDED", {"metadata": {"name": "x"}}),
        Event("ADDED", {"metadata": {"name": "x", "resourceVersion": 12}}),
        Event("ADDED", {"metadata": {"name": "x", "resourceVersion": "1" * 2000}}),
        Event("ADDED", {"metadata": {"name": "../x", "resourceVersion": "12"}}),
        Event("ADDED", {"metadata": {"name": "x" * 300, "resourceVersion": "12"}}),
    ],
)
def test_an_object_without_name_or_version_is_passed_over_and_counted(event: Event) -> None:
    run = Run([page(10)], [[event], added("a", 13)])
    assert run.names == ["a"]
    assert run.records.malformed["endpointslices"] == 1
    assert run.asked_next == "watch 13"


def test_an_unknown_type_of_event_advances_the_version_and_nothing_else() -> None:
    run = Run([page(10, "a")], [[Event("SHUFFLED", thing("a", 12))]])
    assert run.asked_next == "watch 12"
    assert run.names == ["a"]


def test_an_object_that_cannot_be_read_keeps_its_former_state() -> None:
    def parse(one: Any) -> int:
        from haproxy_py.discovery.slices import parse_slice

        parse_slice(one)
        return len(one.get("endpoints", []))

    run = Run(
        [([thing("a", 1, endpoints=[1, 2])], "10")],
        [[Event("MODIFIED", thing("a", 11, endpoints="x"))], GONE],
        [([thing("a", 12, endpoints={})], "20")],
        parse=parse,
    )
    assert run.reflector.objects == {"a": 2}
    assert run.records.malformed["endpointslices"] == 2
    assert any("its endpoints is no list" in text for _, text in run.said)


def test_too_many_objects_keep_the_former_copy() -> None:
    names = [f"o{number}" for number in range(MAX_OBJECTS + 1)]
    run = Run([page(10, "a")], [GONE], [page(20, *names)])
    assert run.names == ["a"]
    assert any("more than 5000" in text for _, text in run.said)


def test_a_mistake_of_ours_is_told_and_survived() -> None:
    run = Run([page(10)], [ZeroDivisionError("oops")], [page(11, "a")])
    assert run.calls == ["list", "watch 10", "list"]
    assert any("a mistake in haproxy_py" in text and "oops" in text for _, text in run.said)


# --- pauses ---


def test_a_server_that_ends_every_watch_at_once_is_asked_with_growing_pauses() -> None:
    sleeps = Run([page(10)], *([[]] * 12)).time.sleeps
    assert sleeps[:5] == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert sleeps[-1] == LONGEST_PAUSE


def test_a_pause_is_at_least_half_of_itself() -> None:
    assert Run([page(10)], [], [], chance=0.0).time.sleeps == [0.125, 0.25]


def test_repeated_expiry_backs_off() -> None:
    steps = [step for number in range(10) for step in ([page(number)], [GONE])]
    run = Run(*steps)
    assert run.time.now - 1000 >= len(run.calls) - 5 - 1


def test_an_event_resets_the_pause_but_a_connection_does_not() -> None:
    sleeps = Run([page(10)], [], [], [], [added("a", 11)], []).time.sleeps
    assert sleeps == [0.25, 0.5, 1.0, 0.25, 0.5]


def test_a_server_that_sends_one_event_and_fails_is_asked_once_a_second_at_most() -> None:
    run = Run([page(10)], *([[added("a", number), RESET] for number in range(60)]))
    assert run.source.began[-1] - run.source.began[0] >= len(run.source.began) - 6


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.OK])
def test_steady_failure_of_any_kind_is_at_most_one_request_per_second(outcome: Outcome) -> None:
    run = Run(*([[fail(outcome)]] * 100))
    began = run.source.began
    assert all(sum(1 for one in began if at <= one < at + 60) <= 60 + 5 for at in began)
    late = [one for one in began if one > began[0] + 60]
    assert len(late) > 10
    assert (late[-1] - late[0]) / (len(late) - 1) >= 1.0


def test_retry_after_is_honoured() -> None:
    run = Run([fail(retry_after=7.0)], [page(10)])
    assert run.time.sleeps[0] == 7.0


def test_a_shorter_retry_after_does_not_shorten_the_pause() -> None:
    assert Run([fail(retry_after=0.01)], [page(10)]).time.sleeps[0] == 0.25


# --- 401 and 403 ---


def test_401_has_the_credentials_read_again_soon() -> None:
    run = Run([page(10)], [fail(Outcome.UNAUTHORIZED)], [added("a", 11)])
    assert run.source.expired == 1
    assert run.time.sleeps[0] == 0.25
    assert run.source.calls == ["list", "watch 10", "watch 10", "watch 11"]


@pytest.mark.parametrize("outcome", [Outcome.FORBIDDEN, Outcome.MISSING, Outcome.CLIENT])
def test_what_only_people_can_repair_is_tried_every_half_minute(outcome: Outcome) -> None:
    assert Run([fail(outcome)], [fail(outcome)]).time.sleeps == [30.0, 30.0]


@pytest.mark.parametrize("outcome", [Outcome.FORBIDDEN, Outcome.MISSING, Outcome.CLIENT])
def test_a_refusal_of_what_was_listed_before_is_tried_again_soon(outcome: Outcome) -> None:
    """The caches of an API server that has just started are still filling."""
    run = Run([page(10)], [added("a", 11)], [fail(outcome)], [fail(outcome)], [added("a", 12)])
    assert run.time.sleeps[1:3] == [0.25, 0.5]
    ((level, text), (_, after)) = run.said
    assert level == "warning"
    assert "role.yaml" not in text
    assert "may refuse for a moment" in text
    assert "are followed again" in after


def test_a_refusal_after_an_outage_does_not_inherit_its_long_pause() -> None:
    run = Run([page(10)], *([[UNREACHABLE]] * 12), [fail(Outcome.FORBIDDEN)], [fail(Outcome.FORBIDDEN)])
    assert run.time.sleeps[11:14] == [LONGEST_PAUSE, 0.25, 0.5]


def test_a_refusal_of_what_was_listed_before_blames_the_role_once_it_lasts() -> None:
    run = Run([page(10)], *([[fail(Outcome.FORBIDDEN)]] * 20))
    blames = [text for _, text in run.said if "role.yaml" in text]
    assert len(blames) == 1
    assert run.reflector.failure == blames[0].partition("; what was found last")[0]
    assert run.time.sleeps[-1] == LONGEST_PAUSE


def test_a_role_that_grants_list_but_not_watch_is_blamed() -> None:
    steps = [step for _ in range(12) for step in ([page(10)], *([[fail(Outcome.FORBIDDEN)]] * 3))]
    run = Run(*steps)
    assert any("role.yaml" in text for _, text in run.said)
    assert not any("are followed" in text for _, text in run.said), "it never was"


def test_403_names_the_permission_and_the_manifest_once() -> None:
    run = Run(*([[fail(Outcome.FORBIDDEN)]] * 15))
    ((level, text),) = run.said
    assert level == "error"
    assert 'list and watch on endpointslices of API group "discovery.k8s.io"' in text
    assert "config/kubernetes/base/role.yaml" in text
    assert run.reflector.failure is not None


def test_a_failure_that_lasts_is_told_again_after_a_while() -> None:
    run = Run(*([[fail(Outcome.FORBIDDEN)]] * (int(SAY_AGAIN_AFTER / 30) + 3)))
    assert len(run.said) == 2


def test_a_server_that_comes_and_goes_does_not_fill_the_log() -> None:
    run = Run([page(10)], *([[added("a", number), RESET] for number in range(100)]))
    assert len(run.said) <= 2 * (2 + (run.time.now - 1000) / 60)


def test_requests_are_counted_by_how_they_ended() -> None:
    run = Run([page(10)], [RESET], [], [GONE], [page(11)], [SILENT])
    counted = {(verb, outcome): number for (_, verb, outcome), number in run.records.requests.items()}
    assert counted == {
        ("list", "ok"): 2,
        ("watch", "reset"): 1,
        ("watch", "ok"): 1,
        ("watch", "expired"): 1,
        ("watch", "timeout"): 1,
        ("watch", "internal"): 1,  # the end of the script
    }

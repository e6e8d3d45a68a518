"""Keeps a copy of one collection of the Kubernetes API: list, watch, and whatever it takes to go on (rules WAT-*).

- A list replaces the whole copy; what it does not name is gone (WAT-14). The watch begins where the list ended, and the
  version advances with every event and every bookmark (WAT-2). A version is opaque (WAT-3).
- A version that is too old, told either way, is forgotten, and a list follows (WAT-7). So it is after three failures in a row
  from one version, because a restored API server may never have seen it (WAT-8). Any other end goes on from the version,
  unless nothing at all was heard for `QUIET`: a restored server accepts a watch from a version that it has yet to reach, and
  says nothing until then. So at the latest every second silent watch is followed by a list, and so is a server that could not be
  reached: a restored one was away, and may have caught up with the version before the silence is noticed.
- Every attempt passes through `pace` (WAT-9, WAT-10); 401 has the credentials read again (WAT-11); what only people
  can repair is tried every 15 to 30 s. What was listed before and is refused now need not be for people: an API server that
  starts refuses until it has read the Roles. For `PATIENCE` such a refusal is a failure like any other.
- The copy stays in use through every failure (WAT-12). A list that failed half-way changes nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from haproxy_py.discovery.api import SILENCE, ApiError, Collection, Event, Outcome
from haproxy_py.discovery.fields import MalformedError, read_mapping, read_name, read_version
from haproxy_py.discovery.pace import LONGEST_PAUSE, Pace
from haproxy_py.discovery.records import Records
from haproxy_py.tasks import keep_running

MAX_OBJECTS = 5000
"""Objects in one copy: more Services or slices than one namespace holds in practice."""

FAILURES_TO_LIST = 3

QUIET = 2 * SILENCE
"""Seconds without a list, an event or a bookmark after which the version is not trusted. Servers send a bookmark a minute."""

PATIENCE = 30.0
"""Seconds for which what was listed before may be refused before the Role is blamed."""

SAY_AGAIN_AFTER = 600.0
"""Seconds after which a failure that lasts is logged again."""

CALM = 60.0
"""Seconds after which the same failure is news again. A server that comes and goes must not fill the log."""

MANIFEST = "config/kubernetes/base/role.yaml"
"""Grants what is needed."""

_REFUSED = (Outcome.FORBIDDEN, Outcome.MISSING, Outcome.CLIENT)

Parsed = TypeVar("Parsed")
Say = Callable[[str, str], None]


class Source(Protocol):
    """What the reflector needs of an API server."""

    namespace: str

    def list_pages(self, collection: Collection) -> AsyncGenerator[tuple[list[Any], str], None]:
        """Objects, and the version to watch from. Raises ApiError."""

    def watch(self, collection: Collection, version: str) -> AsyncGenerator[list[Event], None]:
        """Events that arrived together; first none, when the server has agreed. Raises ApiError."""

    def expire_credentials(self) -> None:
        """The next request reads them again."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something in the copy is different."""

    received: float  # monotonic seconds when it arrived
    happened: float | None = None  # seconds since the epoch when it happened, if the object says so


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance, so that tests need not wait."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random


class Reflector(Generic[Parsed]):
    """The copy of one collection. `objects` is by name; `is_listed` says whether it has ever been complete."""

    def __init__(
        self,
        source: Source,
        collection: Collection,
        parse: Callable[[dict[str, Any]], Parsed],
        notify: Callable[[Change], None],
        say: Say,
        records: Records,
        pace: Pace,
        clock: Clock,
    ) -> None:
        self.objects: dict[str, Parsed] = {}
        self.is_listed = False
        self.heard_at: float | None = None  # monotonic seconds of the last list, event or bookmark
        self.failure: str | None = None  # what is wrong now
        self._source = source
        self._collection = collection
        self._parse = parse
        self._notify = notify
        self._say = say
        self._records = records
        self._pace = pace
        self._clock = clock
        self._version: str | None = None
        self._failures = 0  # in a row, from this version
        self._failing_since = 0.0
        self._refused_since: float | None = None  # monotonic seconds; the answers since then were all refusals
        self._was_followed = False  # a watch was accepted once
        self._said: tuple[Outcome, bool] | None = None  # what was logged last, and whether people must repair it
        self._said_at = 0.0
        self._is_said = False  # the present failure was logged

    @property
    def label(self) -> str:
        """The collection in words."""
        return f"{self._collection.kind} of namespace {self._collection.namespace or self._source.namespace or '(own)'}"

    async def keep_running(self) -> None:
        """`run`, again and again if it should ever fail."""
        await keep_running("reflector", self.run, self._say)

    async def run(self) -> None:
        """Follow the collection. Ends by being cancelled."""
        while True:
            self._pace.begin(self._clock.now())
            at_least = 0.0
            try:
                if self._version is None:
                    await self._count("list", self._list())
                    self._pace.begin(self._clock.now())
                await self._count("watch", self._watch())
                self._failures = 0
            except ApiError as error:
                at_least = self._judge(error)
            except Exception:  # a mistake of ours must not end the following of replicas
                self._version = None
                self._say("error", f"a mistake in haproxy_py while following {self.label}: {traceback.format_exc()}")
            if self.heard_at is not None and self._clock.now() - self.heard_at >= QUIET:
                self._version = None
            await self._clock.sleep(self._pace.end(self._clock.now(), self._clock.chance(), at_least))

    async def _count(self, verb: str, request: Awaitable[None]) -> None:
        outcome = "internal"
        try:
            await request
            outcome = Outcome.OK.value
        except ApiError as error:
            outcome = error.outcome.value
            raise
        except asyncio.CancelledError:
            outcome = ""
            raise
        finally:
            if outcome:
                self._records.requests[self._collection.kind, verb, outcome] += 1

    async def _list(self) -> None:
        found: dict[str, Parsed] = {}
        version = ""
        async with aclosing(self._source.list_pages(self._collection)) as pages:
            async for things, version in pages:  # noqa: B007 - every page has the version of the whole list
                for thing in things:
                    self._take(found, thing)
                if len(found) > MAX_OBJECTS:
                    raise _too_many(self.label)
        self._version = version
        self._failures = 0
        changed = not self.is_listed or found != self.objects
        self.objects = found
        self.is_listed = True
        self._hear()
        if changed:
            self._notify(Change(self._clock.now()))

    async def _watch(self) -> None:
        if self._version is None:
            raise RuntimeError("a watch without a version: a list comes first")
        async with aclosing(self._source.watch(self._collection, self._version)) as batches:
            async for events in batches:
                received = self._clock.now()
                for event in events:
                    self._apply(event, received)
                if events:
                    self._hear()
                self._recover()

    def _apply(self, event: Event, received: float) -> None:
        """One event. What is not known, or not whole, is passed over (WAT-15)."""
        try:
            self._version = read_version(event.thing)
        except MalformedError:
            self._records.malformed[self._collection.kind] += 1
            return
        name = read_name(read_mapping(event.thing, "metadata"))
        if event.kind in ("ADDED", "MODIFIED"):
            before = self.objects.get(name)
            taken = self._take(self.objects, event.thing)
            if len(self.objects) > MAX_OBJECTS:
                self._version = None
                raise _too_many(self.label)
            if taken is not None and taken != before:
                self._notify(Change(received, getattr(taken, "changed", None)))
        elif event.kind == "DELETED" and self.objects.pop(name, None) is not None:
            self._notify(Change(received))

    def _take(self, objects: dict[str, Parsed], thing: Any) -> Parsed | None:
        """Put an object into the copy; one that cannot be read is counted, and its former state stays."""
        name = read_name(read_mapping(thing, "metadata"))
        try:
            if not name:
                raise MalformedError("it has no name")
            objects[name] = self._parse(thing)
        except MalformedError as error:
            self._records.malformed[self._collection.kind] += 1
            self._say(
                "warning", f"{name or 'an object'} among the {self.label} cannot be read and is passed over: {error}"
            )
            if name in self.objects:
                objects[name] = self.objects[name]
            return None
        return objects[name]

    def _hear(self) -> None:
        """The API server has said something that makes sense."""
        self.heard_at = self._clock.now()
        self._pace.note_event()
        self._failures = 0

    def _recover(self) -> None:
        """A watch was accepted."""
        if self.failure is not None and self._is_said:
            seconds = self._clock.now() - self._failing_since
            word = "again" if self._was_followed else "now"
            self._say("info", f"the {self.label} are followed {word}, after {seconds:.1f} s")
        self.failure = None
        self._is_said = False
        self._was_followed = True
        self._refused_since = None

    def _judge(self, error: ApiError) -> float:
        """What follows from a failure; seconds to wait at least."""
        if error.outcome is Outcome.SILENT and self._version is not None:
            return 0.0  # resumed from the version: silence is no failure, bookmarks are not promised (WAT-5)
        self._failures += 1
        if error.outcome in (Outcome.EXPIRED, Outcome.UNREACHABLE) or self._failures >= FAILURES_TO_LIST:
            self._version = None
            self._failures = 0
        is_for_people = self._is_for_people(error)
        self._report(error, is_for_people)
        at_least = error.retry_after
        if error.outcome is Outcome.UNAUTHORIZED:
            self._source.expire_credentials()
        if is_for_people:
            at_least = max(at_least, LONGEST_PAUSE * (0.5 + self._clock.chance() / 2))
        return at_least

    def _is_for_people(self, error: ApiError) -> bool:
        """Whether only people can repair it."""
        if error.outcome not in _REFUSED:
            self._refused_since = None
            return False
        now = self._clock.now()
        if self._refused_since is None:
            self._refused_since = now
            if self.is_listed:
                self._pace.note_event()  # it answers: a pause that has grown while it was away would prolong the blindness
        return not self.is_listed or now - self._refused_since >= PATIENCE

    def _report(self, error: ApiError, is_for_people: bool) -> None:
        """Log a failure when it begins, when it changes, and now and then while it lasts."""
        if error.outcome is Outcome.EXPIRED and self.is_listed:
            self._say("info", f"the {self.label} are listed again: {error}")
            return
        now = self._clock.now()
        is_new = self.failure is None
        if is_new:
            self._failing_since = now
        self.failure = self._explain(error, is_for_people)
        saying = (error.outcome, is_for_people)
        if saying == self._said and now - self._said_at < (CALM if is_new else SAY_AGAIN_AFTER):
            return
        self._said, self._said_at, self._is_said = saying, now, True
        if self.is_listed:
            self._say("warning", f"{self.failure}; what was found last stays in use")
        else:
            self._say("error", f"{self.failure}; nothing is known yet, so the proxy is not ready")

    def _explain(self, error: ApiError, is_for_people: bool) -> str:
        kind, group = self._collection.kind, self._collection.group
        failure = f"the {self.label} cannot be followed: {error}"
        if error.outcome in _REFUSED and not is_for_people:
            return f"{failure}; it was granted before, and a server that has just started may refuse for a moment"
        advice = {
            Outcome.FORBIDDEN: f'the service account needs list and watch on {kind} of API group "{group}" in this '
            f"namespace; {MANIFEST} grants it",
            Outcome.MISSING: "the cluster does not have this API; source: endpoints works on old ones"
            if kind == "endpointslices"
            else "the address of the API server may be wrong",
            Outcome.UNAUTHORIZED: "the token was not accepted; it is read again before each attempt",
        }.get(error.outcome)
        return failure + (f"; {advice}" if advice else "")


def _too_many(label: str) -> ApiError:
    return ApiError(
        Outcome.CLIENT, f"there are more than {MAX_OBJECTS} {label}: narrow the selector, or use another namespace"
    )

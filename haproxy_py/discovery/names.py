"""Follows one name in the DNS: asks again and again, and keeps the last good answer.

- It is asked again when the answer is no longer good (its TTL), but not before a second and not after the interval have passed.
- A failure changes nothing: what was found last stays, for as long as it lasts, and the next attempt comes after a growing
  pause (`pace`), a few seconds at most.
- An answer that there is nothing (no such name, no records) is believed only as long as nothing was ever found: then the
  instance has no replica, which need not keep others from being served. Later it is more often a mistake in a zone than the
  truth; so the former replicas stay, it is said loudly, and the checks find out which of them are dead.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable

from haproxy_py.config import Config, DnsName
from haproxy_py.config_values import spell_address
from haproxy_py.discovery.lookup import Looked, LookupFailedError, Member, Outcome, Question, look_up
from haproxy_py.discovery.pace import Pace
from haproxy_py.discovery.records import Records
from haproxy_py.discovery.reflector import SAY_AGAIN_AFTER, Change, Clock, Say
from haproxy_py.discovery.view import FeedView

SHORTEST = 1.0
"""Seconds between two look-ups of a name that succeed, however short the TTL."""

LONGEST_NAME_PAUSE = 5.0
"""Seconds between two look-ups of a name that fail."""

DNS = "dns"
"""The `kind` label of the metrics."""

LookUp = Callable[[Question], Awaitable[Looked]]


def make_question(name: DnsName) -> Question:
    """What has to be asked for a name of the configuration."""
    return Question(name.name, not name.port, name.family, name.servers)


def plan_names(config: Config) -> dict[Question, float]:
    """Every question that this configuration needs answered, with the interval."""
    wanted: dict[Question, float] = {}
    for instance in config.instances:
        if instance.dns is not None:
            question = make_question(instance.dns)
            wanted[question] = min(wanted.get(question, instance.dns.interval), instance.dns.interval)
    return wanted


class NameFollower:
    """What is known of one name. `members` is None until a name server has answered."""

    def __init__(
        self,
        question: Question,
        interval: float,
        notify: Callable[[Change], None],
        say: Say,
        records: Records,
        pace: Pace,
        clock: Clock,
        look_up: LookUp = look_up,
    ) -> None:
        self.question = question
        self.interval = interval
        self.members: tuple[Member, ...] | None = None
        self.heard_at: float | None = None  # monotonic seconds of the last answer
        self.failure: str | None = None  # what is wrong now
        self._notify = notify
        self._say = say
        self._records = records
        self._pace = pace
        self._clock = clock
        self._look_up = look_up
        self._failing_since = 0.0
        self._said: Outcome | None = None  # what was logged last, while it lasts
        self._said_at = 0.0

    async def run(self) -> None:
        """Follow the name. Ends by being cancelled."""
        while True:
            await self._clock.sleep(await self._look())

    def view(self, now: float) -> FeedView:
        """What is known at this moment."""
        return FeedView(
            kind=DNS,
            namespace=self.question.name,
            cluster=" ".join(spell_address(host, port) for host, port in self.question.servers),
            listed=self.members is not None,
            objects=len(self.members or ()),
            silence=None if self.heard_at is None else now - self.heard_at,
            failure=self.failure,
        )

    async def _look(self) -> float:
        """One look-up; seconds until the next."""
        self._pace.begin(self._clock.now())
        outcome = "internal"
        try:
            looked = await self._look_up(self.question)
            outcome = Outcome.OK.value
        except LookupFailedError as error:
            outcome = error.outcome.value
            self._note_failure(error)
        except Exception:  # a mistake of ours must not end the following of replicas
            self._say(
                "error", f"a mistake in haproxy_py while asking for {self.question.name}: {traceback.format_exc()}"
            )
        else:
            self._pace.note_event()
            self._note_answer(looked.members)
            pause = min(max(looked.ttl, SHORTEST), self.interval)
            return max(SHORTEST, pause * (0.9 + 0.1 * self._clock.chance()))
        finally:
            self._records.requests[DNS, "resolve", outcome] += 1
        return self._pace.end(self._clock.now(), self._clock.chance())

    def _note_answer(self, members: tuple[Member, ...]) -> None:
        self.heard_at = self._clock.now()
        if self.failure is not None:
            seconds = self.heard_at - self._failing_since
            self._say("info", f"{self.question.name} is found again, after {seconds:.1f} s")
            self.failure = self._said = None
        if members != self.members:
            self.members = members
            self._notify(Change(self.heard_at))

    def _note_failure(self, error: LookupFailedError) -> None:
        now = self._clock.now()
        if error.is_answer and self.members is None:
            self.members = ()
            self._notify(Change(now))
        if self.failure is None:
            self._failing_since = now
        self.failure = f"{self.question.name} cannot be looked up: {error}"
        if error.outcome is self._said and now - self._said_at < SAY_AGAIN_AFTER:
            return
        self._said, self._said_at = error.outcome, now
        if self.members is None:
            self._say("error", f"{self.failure}; nothing is known yet, so the proxy is not ready")
        elif self.members:
            follows = "an empty answer is not believed" if error.is_answer else "nothing new is known"
            self._say("warning", f"{self.failure}; {follows}, and the replicas that were found last stay in use")
        else:
            self._say("warning", f"{self.failure}; there is no replica until it is found")

"""Which replicas are healthy: checks of every replica whose instance asks for them, and what follows.

- A replica begins healthy, and its first check comes at once; so a start is not delayed. If that fails the replica is unhealthy
  (as in HAProxy): nothing has spoken for it yet. A process that takes over waits for it.
- Later `fall` failures in a row make it unhealthy, `rise` successes in a row healthy again. What says nothing of the replica
  counts neither way: a name that cannot be looked up, or a fault of this machine.
- From one check to the next the interval passes, times 0.8 to 1.2 at random, so that checks spread. A replica that is unhealthy,
  or whose last check contradicts its state, is checked every half second, if the interval is not shorter anyway: who comes
  back has its first request within a second.
- A replica that several instances have, and check alike, is checked once for all of them.
- All together at most `MOST_A_SECOND` checks begin in a second, and `MOST_AT_ONCE` are under way.
- Health is added to what else is known of a replica, ready or draining: an unhealthy one gets nothing new, and what runs there
  goes on. So where all ready ones are unhealthy, those that are draining and healthy serve. A replica is the same one as long
  as name, address and kind of check are.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from haproxy_py.config import Health
from haproxy_py.control.probe import probe
from haproxy_py.control.probe_answer import Finding, Outcome
from haproxy_py.discovery.bundle import Bundle
from haproxy_py.discovery.found import FoundInstance
from haproxy_py.ops.view import CheckView
from haproxy_py.tasks import keep_running

MOST_AT_ONCE = 256
"""Checks under way. More replicas than that which all hang are checked in turn."""

MOST_A_SECOND = 500
"""Checks that begin in a second: 1,000 replicas every two seconds, a few percent of one CPU."""

SOON = 0.5
"""Seconds until the next check of a replica whose state may change."""

CALM = 0.1
"""Seconds from one table to the next. What fails at once is noticed over a while, because checks are spread."""

Say = Callable[[str, str], None]
Probe = Callable[[str, int, str, Health], Awaitable[tuple[Finding, float]]]

_NOTHING_KNOWN = (Outcome.UNRESOLVED, Outcome.OWN_FAULT)


@dataclass(frozen=True, slots=True)
class Target:
    """A replica, and how it is checked."""

    name: str
    host: str
    port: int
    kind: str  # tcp or http
    health: Health

    def is_replica_of(self, other: Target) -> bool:
        """Whether only the settings of their checks differ."""
        return replace(self, health=other.health) == other


@dataclass(eq=False, slots=True)
class _Checked:
    """A target, and what its checks have found."""

    target: Target
    instances: list[str] = field(default_factory=list)  # that have it
    task: asyncio.Task[None] | None = None
    is_healthy: bool = True
    is_known: bool = False  # a check has said something of it
    against: int = 0  # findings in a row that contradict `is_healthy`
    failures: int = 0  # in a row, that made it unhealthy
    outcomes: Counter[str] = field(default_factory=lambda: Counter({outcome.value: 0 for outcome in Outcome}))
    is_named: bool = True  # its name could be looked up the last time
    last: Finding | None = None
    seconds: float = 0.0
    ended: float = 0.0  # monotonic seconds
    changed: float = 0.0  # when its state did last

    def go_on(self, target: Target) -> _Checked:
        """The same replica, from now on checked by other settings."""
        return replace(self, target=target, instances=[], task=None, outcomes=self.outcomes.copy())

    def take(self, finding: Finding, seconds: float, now: float) -> bool:
        """Note the end of a check. Whether the replica has become healthy or unhealthy by it."""
        self.outcomes[finding.outcome.value] += 1
        self.last, self.seconds, self.ended = finding, seconds, now
        if finding.outcome is Outcome.UNRESOLVED and not self.is_known and self.is_healthy:
            # It never had an address: most likely a slip of the pen, and nobody can be sent there.
            self.failures = 1
            self.is_healthy = False
            return True
        if finding.outcome in _NOTHING_KNOWN:
            return False
        health = self.target.health
        enough = health.rise if not self.is_healthy else health.fall if self.is_known else 1
        self.is_known = True
        if (finding.outcome is Outcome.OK) == self.is_healthy:
            self.against = 0
            return False
        self.against += 1
        if self.against < enough:
            return False
        self.failures = self.against
        self.is_healthy = not self.is_healthy
        self.against = 0
        return True

    def choose_pause(self, chance: float, targets: int) -> float:
        """Seconds until its next check, if so many targets are checked. `chance` is random, 0 to 1."""
        pause = self.target.health.interval
        if self.against or not self.is_healthy:
            pause = min(pause, SOON)
        return max(pause, targets / MOST_A_SECOND) * (0.8 + 0.4 * chance)

    def view(self, now: float) -> CheckView:
        last = self.last
        return CheckView(
            kind=self.target.kind,
            healthy=self.is_healthy,
            outcomes=dict(self.outcomes),
            last=last.outcome.value if last else None,
            detail=last.detail if last else "not checked yet",
            seconds=self.seconds,
            age=now - self.ended if last else 0.0,
        )


class Checks:
    """Every replica that is checked. `notify` is called, on the loop, soon after `mark` would say something else."""

    def __init__(
        self, say: Say, notify: Callable[[], None], probe: Probe = probe, chance: Callable[[], float] = random.random
    ) -> None:
        self._say = say
        self._probe = probe
        self._chance = chance
        self._changes: Bundle[Target] = Bundle(lambda target: notify(), CALM)
        self._targets: dict[Target, _Checked] = {}
        self._instances: dict[str, dict[str, _Checked]] = {}  # by names of instance and replica
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._ended: set[asyncio.Task[None]] = set()  # that are being cancelled

    def follow(self, found: Iterable[FoundInstance]) -> None:
        """From now on check these replicas, as their instances' settings say, and no others."""
        targets: dict[Target, _Checked] = {}
        instances: dict[str, dict[str, _Checked]] = {}
        for followed in self._targets.values():
            followed.instances = []
        for one in found:
            name = one.settings.name
            instances[name] = {}
            for target in _list_targets(one):
                known = self._find(name, target)
                checked = targets.get(target) or self._targets.get(target)
                if checked is None:
                    checked = known.go_on(target) if known else _Checked(target)
                if checked.is_healthy != (known is None or known.is_healthy):  # `mark` has gone by the latter
                    self._changes.note(target)
                checked.instances.append(name)
                targets[target] = instances[name][target.name] = checked
        for target, followed in self._targets.items():
            if target not in targets:
                self._end(followed)
        self._targets, self._instances = targets, instances
        for followed in targets.values():
            if followed.task is None:
                followed.task = asyncio.create_task(
                    keep_running("checks", partial(self._check_forever, followed), self._say)
                )

    def mark(self, found: tuple[FoundInstance, ...]) -> tuple[FoundInstance, ...]:
        """The same, with the replicas that are unhealthy marked so."""
        if all(checked.is_healthy for checked in self._targets.values()):
            return found
        return tuple(self._mark_one(one) for one in found)

    async def close(self) -> None:
        """Check no more."""
        self._changes.close()
        self.follow(())
        if self._ended:
            await asyncio.wait(self._ended)

    def list_waits(self) -> list[str]:
        """What is still to come until every replica's first check counts."""
        waits = [
            f"replica {target.name} of instance {checked.instances[0]} has not been checked yet"
            for target, checked in self._targets.items()
            if checked.last is None
        ]
        return waits or ["what the checks have found is not in a table yet"] * self._changes.is_pending

    def view(self) -> dict[tuple[str, str], CheckView]:
        """A picture of this moment, by names of instance and replica."""
        now = time.monotonic()
        return {
            (instance, name): checked.view(now)
            for instance, replicas in self._instances.items()
            for name, checked in replicas.items()
        }

    def _mark_one(self, one: FoundInstance) -> FoundInstance:
        unhealthy = {
            target.name
            for target in _list_targets(one)
            if (checked := self._find(one.settings.name, target)) is not None and not checked.is_healthy
        }
        if not unhealthy:
            return one
        return replace(
            one,
            replicas=tuple(
                replace(replica, healthy=False) if replica.name in unhealthy else replica for replica in one.replicas
            ),
        )

    def _find(self, instance: str, target: Target) -> _Checked | None:
        """What is known of the target, by its own checks or by those of the same replica under the instance's former settings."""
        checked = self._targets.get(target)
        if checked is None:
            checked = self._instances.get(instance, {}).get(target.name)
            if checked is not None and not target.is_replica_of(checked.target):
                return None
        return checked

    async def _check_forever(self, checked: _Checked) -> None:
        """Ends by being cancelled."""
        target = checked.target
        while True:
            async with self._room:
                try:
                    finding, seconds = await self._probe(target.host, target.port, target.kind, target.health)
                except Exception:  # a mistake of ours must not end the checks, and says nothing of the replica
                    self._say(
                        "error", f"a mistake in haproxy_py while checking {target.name}: {traceback.format_exc()}"
                    )
                    finding, seconds = Finding(Outcome.OWN_FAULT, "a mistake in haproxy_py"), 0.0
            now = time.monotonic()
            self._report_name(checked, finding)
            if checked.take(finding, seconds, now):
                self._report(checked, finding, now)
                self._changes.note(target)
            await asyncio.sleep(checked.choose_pause(self._chance(), len(self._targets)))

    def _report(self, checked: _Checked, finding: Finding, now: float) -> None:
        """One line for each instance whose replica has changed its state."""
        for instance in checked.instances:
            told = f"instance {instance}: replica {checked.target.name}"
            if checked.is_healthy:
                self._say("info", f"{told} is healthy again after {now - checked.changed:.1f} s: {finding.detail}")
                continue
            left = sum(other.is_healthy for other in self._instances[instance].values())
            follows = (
                f"it gets nothing new until a check succeeds, healthy replicas left: {left}"
                if left
                else "no replica of the instance is healthy, so its requests are answered 503 no_replica"
            )
            self._say(
                "warning",
                f"{told} is unhealthy, failed checks in a row: {checked.failures}, the last: {finding.detail}; {follows}",
            )
        checked.changed = now

    def _report_name(self, checked: _Checked, finding: Finding) -> None:
        """One line when the name of a replica that was reached can be looked up no more, and when it can again."""
        is_named = finding.outcome is not Outcome.UNRESOLVED
        if finding.outcome is Outcome.OWN_FAULT or is_named == checked.is_named:
            return
        checked.is_named = is_named
        if not checked.is_known:  # its state says so
            return
        for instance in checked.instances:
            told = f"instance {instance}: replica {checked.target.name}"
            if is_named:
                self._say("info", f"{told}: its name can be looked up again")
            else:
                self._say("warning", f"{told}: {finding.detail}; it stays as it was, healthy or not, until it can be")

    def _end(self, checked: _Checked) -> None:
        if checked.task is not None:
            checked.task.cancel()
            self._ended.add(checked.task)
            checked.task.add_done_callback(self._ended.discard)
            checked.task = None


def _list_targets(one: FoundInstance) -> Iterator[Target]:
    """What is checked of an instance."""
    health = one.settings.health
    is_kubernetes = one.settings.kubernetes is not None
    for replica in one.replicas:
        kind = health.choose_type(is_kubernetes, replica.kept)
        if kind != "off":
            yield Target(replica.name, replica.host, replica.port, kind, health)

"""Which replicas are healthy: checks of every replica whose instance asks for them, and what follows.

- A replica begins healthy, and its first check comes at once; so a start is not delayed. If that fails the replica is unhealthy
  (as in HAProxy): nothing has spoken for it yet. A process that takes over waits for it.
- Later `fall` failures in a row make it unhealthy, `rise` successes in a row healthy again. What says nothing of the replica
  counts neither way: a name that cannot be looked up, or a fault of this machine.
- From one check to the next the interval passes, times 0.8 to 1.2 at random, so that checks spread. A replica that is unhealthy,
  or whose last check contradicts its state, is checked every half second, if the interval is not shorter anyway: who comes
  back has its first request within a second.
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
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from haproxy_py.config import Health
from haproxy_py.control.probe import probe
from haproxy_py.control.probe_answer import Finding, Outcome
from haproxy_py.discovery.bundle import Bundle
from haproxy_py.discovery.found import FoundInstance, FoundReplica
from haproxy_py.ops.view import CheckView

MOST_AT_ONCE = 256
"""Checks under way. More replicas than that which all hang are checked in turn."""

MOST_A_SECOND = 500
"""Checks that begin in a second: 1,000 replicas every two seconds, a few percent of one CPU."""

SOON = 0.5
"""Seconds until the next check of a replica whose state may change."""

CALM = 0.1
"""Seconds from one table to the next. What fails at once is noticed over a while, because checks are spread."""

Key = tuple[str, str]
"""Names of the instance and of the replica."""

Say = Callable[[str, str], None]
Probe = Callable[[str, int, str, Health], Awaitable[tuple[Finding, float]]]

_NOTHING_KNOWN = (Outcome.UNRESOLVED, Outcome.OWN_FAULT)


class _Checked:
    """One replica that is checked, and what its checks have found."""

    def __init__(self, host: str, port: int, kind: str, health: Health) -> None:
        self.host = host
        self.port = port
        self.kind = kind
        self.health = health
        self.is_healthy = True
        self.is_known = False  # a check has said something of it
        self.against = 0  # findings in a row that contradict `is_healthy`
        self.failures = 0  # in a row, that made it unhealthy
        self.outcomes = Counter({outcome.value: 0 for outcome in Outcome})
        self.last: Finding | None = None
        self.seconds = 0.0
        self.ended = 0.0  # monotonic seconds
        self.changed = 0.0  # when it became unhealthy
        self.task: asyncio.Task[None] | None = None

    def is_of(self, replica: FoundReplica, kind: str) -> bool:
        return (self.host, self.port, self.kind) == (replica.host, replica.port, kind)

    def take(self, finding: Finding, seconds: float, now: float) -> bool:
        """Note the end of a check. Whether the replica has become healthy or unhealthy by it."""
        self.outcomes[finding.outcome.value] += 1
        self.last, self.seconds, self.ended = finding, seconds, now
        if finding.outcome in _NOTHING_KNOWN:
            return False
        enough = self.health.rise if not self.is_healthy else self.health.fall if self.is_known else 1
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

    def choose_pause(self, chance: float, replicas: int) -> float:
        """Seconds until its next check, if so many replicas are checked. `chance` is random, 0 to 1."""
        pause = self.health.interval
        if self.against or not self.is_healthy:
            pause = min(pause, SOON)
        return max(pause, replicas / MOST_A_SECOND) * (0.8 + 0.4 * chance)

    def view(self, now: float) -> CheckView:
        last = self.last
        return CheckView(
            kind=self.kind,
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
        self._changes: Bundle[Key] = Bundle(lambda key: notify(), CALM)
        self._checked: dict[Key, _Checked] = {}
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._ended: list[asyncio.Task[None]] = []

    def follow(self, found: Iterable[FoundInstance]) -> None:
        """From now on check these replicas, as their instances' settings say, and no others."""
        before, self._checked = self._checked, {}
        for one in found:
            health = one.settings.health
            kind = _choose_kind(one)
            if kind == "off":
                continue
            for replica in one.replicas:
                key = (one.settings.name, replica.name)
                checked = before.get(key)
                if checked is None or not checked.is_of(replica, kind):
                    checked = _Checked(replica.host, replica.port, kind, health)
                elif checked.health != health:
                    checked.health = health
                    self._end(checked)  # and a new task begins at once, by the new settings
                self._checked[key] = checked
        for key, checked in before.items():
            if self._checked.get(key) is not checked:
                self._end(checked)
        for key, checked in self._checked.items():
            if checked.task is None:
                checked.task = asyncio.create_task(self._check_forever(key, checked))

    def mark(self, found: tuple[FoundInstance, ...]) -> tuple[FoundInstance, ...]:
        """The same, with the replicas that are unhealthy marked so."""
        if all(checked.is_healthy for checked in self._checked.values()):
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
            f"replica {name} of instance {instance} has not been checked yet"
            for (instance, name), checked in self._checked.items()
            if checked.last is None
        ]
        return waits or ["what the checks have found is not in a table yet"] * self._changes.is_pending

    def view(self) -> dict[Key, CheckView]:
        """A picture of this moment."""
        now = time.monotonic()
        return {key: checked.view(now) for key, checked in self._checked.items()}

    def _mark_one(self, one: FoundInstance) -> FoundInstance:
        kind = _choose_kind(one)
        replicas = tuple(
            replace(replica, healthy=False) if self._is_unhealthy(one, replica, kind) else replica
            for replica in one.replicas
        )
        return one if replicas == one.replicas else replace(one, replicas=replicas)

    def _is_unhealthy(self, one: FoundInstance, replica: FoundReplica, kind: str) -> bool:
        checked = self._checked.get((one.settings.name, replica.name))
        return checked is not None and not checked.is_healthy and checked.is_of(replica, kind)

    async def _check_forever(self, key: Key, checked: _Checked) -> None:
        """Ends by being cancelled."""
        while True:
            async with self._room:
                try:
                    finding, seconds = await self._probe(checked.host, checked.port, checked.kind, checked.health)
                except Exception:  # a mistake of ours must not end the checks, and says nothing of the replica
                    self._say("error", f"a mistake in haproxy_py while checking {key[1]}: {traceback.format_exc()}")
                    finding, seconds = Finding(Outcome.OWN_FAULT, "a mistake in haproxy_py"), 0.0
            now = time.monotonic()
            if checked.take(finding, seconds, now):
                self._report(key, checked, now)
                self._changes.note(key)
            await asyncio.sleep(checked.choose_pause(self._chance(), len(self._checked)))

    def _report(self, key: Key, checked: _Checked, now: float) -> None:
        """One line for each change of state."""
        instance, name = key
        if checked.is_healthy:
            self._say(
                "info",
                f"instance {instance}: replica {name} is healthy again after {now - checked.changed:.1f} s: "
                f"{_explain(checked)}",
            )
            return
        checked.changed = now
        left = sum(other.is_healthy for (of, _), other in self._checked.items() if of == instance)
        follows = (
            f"it gets nothing new until a check succeeds, healthy replicas left: {left}"
            if left
            else "no replica of the instance is healthy, so its requests are answered 503 no_replica"
        )
        self._say(
            "warning",
            f"instance {instance}: replica {name} is unhealthy, failed checks in a row: {checked.failures}, the last: "
            f"{_explain(checked)}; {follows}",
        )

    def _end(self, checked: _Checked) -> None:
        if checked.task is not None:
            checked.task.cancel()
            self._ended = [task for task in self._ended if not task.done()] + [checked.task]
            checked.task = None


def _choose_kind(one: FoundInstance) -> str:
    """tcp, http or off."""
    return one.settings.health.choose_type(is_kubernetes=one.settings.kubernetes is not None)


def _explain(checked: _Checked) -> str:
    if checked.last is None:
        raise RuntimeError("a change of state without a check")
    return checked.last.detail

"""From what discovery and the checks find, and what operators say, to a table in every worker.

- Every change becomes a whole new table at once. If none can be made, the former one stays in use.
- Before everything was found once the proxy is not ready; afterwards readiness never depends on discovery again, not even
  for what a reload adds (WAT-13, WAT-20).
- The lag of a change is taken from its arrival to the moment when the last worker has put its table into force.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

from haproxy_py import channel
from haproxy_py.config import Config
from haproxy_py.control.checks import Checks
from haproxy_py.control.declared import Declared
from haproxy_py.control.drains import Drains
from haproxy_py.control.log import Log
from haproxy_py.control.tables import ReplicaKey, TableBuilder, TableError
from haproxy_py.discovery.discovery import Discovery
from haproxy_py.discovery.found import FoundInstance
from haproxy_py.discovery.merge import IsOwn
from haproxy_py.discovery.reflector import Change
from haproxy_py.node_red.admin_surface import find_open_root
from haproxy_py.ops.view import RefusedError
from haproxy_py.table import InstanceEntry, ReplicaEntry, ReplicaState, Table

MAX_NAMED = 20
"""Names that a message lists before it only counts."""

MAX_LAGGING = 1000
"""Changes whose lag is being taken. A worker that never answers must not make the list grow."""


class Routing:
    """The newest table and where it comes from. `publish` hands an encoded message to every worker."""

    def __init__(
        self, config: Config, tables: TableBuilder, is_own: IsOwn, publish: Callable[[bytes], None], log: Log
    ) -> None:
        self.tables = tables
        self.discovery = Discovery(log.say, is_own, self._take)
        self.checks = Checks(log.say, self._take_health)
        self.declared = Declared(log, self._take_health)
        self._config = config
        self._publish = publish
        self._log = log
        self._table: Table | None = None
        self._found: tuple[FoundInstance, ...] = ()  # what the table was made of
        self._drains = Drains()
        self._warned: frozenset[str] = frozenset()  # instances whose gate could be safer, as the log has said
        self._complete_since: int | None = None  # version of the first table for which everything had been found
        self._lagging: deque[tuple[int, Change]] = deque(maxlen=MAX_LAGGING)  # tables that are not in force everywhere

    @property
    def table(self) -> Table:
        """The newest."""
        if self._table is None:
            raise RuntimeError("no table yet: build_first() comes before any port is open")
        return self._table

    def build_first(self, drained: Iterable[ReplicaKey] = ()) -> None:
        """The table to start with: static replicas, and nothing of what must be discovered. Raises TableError.

        `drained`: replicas that operators have taken out of a process before this one.
        """
        self._drains = Drains(frozenset(drained))
        self._found = self.discovery.find(self._config)
        self._table, self._drains = self._build(self._found, self._drains, self._config)

    def follow(self) -> None:
        """Begin to discover and to check."""
        self._warn_of_gates()
        self.discovery.announce(self._found)
        self.checks.follow(self._found)
        self.declared.follow(self._found)
        self.discovery.follow(self._config)
        self._note_complete()

    def change(self, config: Config) -> Table:
        """Route by this configuration from now on. Raises TableError, and then nothing has changed."""
        found = self.discovery.find(config)
        table, drains = self._build(found, self._drains, config)
        self._config = config
        self._put(table, found, drains)
        self.discovery.announce(found)
        self.discovery.follow(config)
        self.checks.follow(found)
        self.declared.follow(found)
        return table

    @property
    def drained(self) -> list[ReplicaKey]:
        """Replicas that operators have taken out."""
        return sorted(self._drains.ordered)

    async def close(self) -> None:
        """Discover and check no more. What was found last stays in the table."""
        await self.discovery.close()
        await self.declared.close()
        await self.checks.close()

    def drain(self, instance: str, replica: str, *, force: bool) -> ReplicaEntry:
        """Give a replica no new work until `undrain`. Name or short id; as it is in the table afterwards.

        Raises RefusedError. Draining a replica again changes nothing.
        """
        entry, chosen = self._find(instance, replica)
        ready = [one for one in entry.replicas if one.state is ReplicaState.READY and one.healthy]
        if ready == [chosen] and not force:
            raise RefusedError(
                409,
                "last_ready_replica",
                f"{chosen.name} is the last ready replica of instance {instance}: without it requests would be "
                "answered 503. Make another one ready first, or insist (--force, ?force=true)",
            )
        if not chosen.drained:
            self._follow_word(self._drains.order((instance, chosen.name)))
            self._log.info(
                f"instance {instance}: replica {chosen.name} ({chosen.id}) is drained by an operator: it gets no new "
                f"requests, its tunnels are closed within {self._config.drain.deadline:g} s. Back with: "
                f"haproxy-py undrain {instance} {chosen.name}"
            )
            if ready == [chosen]:
                self._log.warning(f"instance {instance}: no replica is ready any more")
        return self._find(instance, chosen.name)[1]

    def undrain(self, instance: str, replica: str) -> ReplicaEntry:
        """Take back what `drain` said; harmless where it said nothing. Raises RefusedError."""
        _, chosen = self._find(instance, replica)
        if chosen.drained:
            self._follow_word(self._drains.take_back((instance, chosen.name)))
            self._log.info(f"instance {instance}: replica {chosen.name} ({chosen.id}) is no longer drained")
        return self._find(instance, chosen.name)[1]

    def note_applied(self, versions: Sequence[int]) -> None:
        """The versions that are in force in the workers that accept connections."""
        in_force = min(versions, default=0)
        while self._lagging and self._lagging[0][0] <= in_force:
            _, change = self._lagging.popleft()
            self.discovery.record_lag(change)

    def list_waits(self, waiting_for: tuple[str, ...], versions: Iterable[int]) -> tuple[str, ...]:
        """What must be found, and known to the workers, before the first traffic."""
        if self._complete_since is None:
            return (
                waiting_for
                or tuple(self.declared.list_waits())
                or ("the replicas that were found are not in a table yet",)
            )
        if any(version < self._complete_since for version in versions):
            return ("the replicas that were found are not known to every worker yet",)
        return ()

    def _take(self, change: Change) -> None:
        """What discovery knows has changed, which may or may not change the table."""
        found = self.discovery.find(self._config)
        if found != self._found:
            try:
                table, drains = self._build(found, self._drains, self._config)
            except TableError as error:
                self._log.error(f"the replicas that were found cannot be used: {error}; the former ones stay in use")
                return
            self._lagging.append((table.version, change))
            self._put(table, found, drains)
            self.checks.follow(found)
            self.declared.follow(found)
        self.discovery.announce(found)
        self._note_complete()

    def _take_health(self) -> None:
        """Replicas have become healthy or unhealthy, or the flows of an instance declare something else."""
        table, drains = self._build(self._found, self._drains, self._config)
        self._put(table, self._found, drains)
        self._note_complete()

    def _build(self, found: tuple[FoundInstance, ...], drains: Drains, config: Config) -> tuple[Table, Drains]:
        """The next table, and the drains it shows. Raises TableError, and then nothing has changed."""
        marked, drains = drains.mark(
            found, time.monotonic(), config.drain.deadline, is_complete=self._complete_since is not None
        )
        return self.tables.build(self.declared.mark(self.checks.mark(marked))), drains

    def _put(self, table: Table, found: tuple[FoundInstance, ...], drains: Drains) -> None:
        for instance, replica in sorted(self._drains.ordered - drains.ordered):
            if not _is_there((instance, replica), table):
                self._log.info(f"instance {instance}: replica {replica} has left; with it ends its drain")
        self._table, self._found, self._drains = table, found, drains
        self._warn_of_gates()
        self._publish(channel.encode(channel.Publish(table)))  # encoded once: a large table takes milliseconds

    def _warn_of_gates(self) -> None:
        """Say of which instances the gate could be safer, once for each."""
        warnings = {one.name: find_open_root(one.gate) for one in self.table.instances if one.ha}
        open_now = {name for name, warning in warnings.items() if warning is not None}
        if new := sorted(open_now - self._warned):
            self._log.warning(f"in HA mode, {_enumerate(new)}: {warnings[new[0]]}")
        self._warned = frozenset(open_now)

    def _follow_word(self, drains: Drains) -> None:
        """Put an operator's word into force. Raises RefusedError."""
        try:
            table, drains = self._build(self._found, drains, self._config)
        except TableError as error:
            raise RefusedError(503, "no_table", f"no table can be made: {error}; nothing has changed") from None
        self._put(table, self._found, drains)

    def _find(self, instance: str, replica: str) -> tuple[InstanceEntry, ReplicaEntry]:
        """An instance of the table, and the replica of it that has this name, or else this short id."""
        entry = next((one for one in self.table.instances if one.name == instance), None)
        if entry is None:
            names = _enumerate(one.name for one in self.table.instances)
            raise RefusedError(404, "unknown_instance", f"there is no instance of this name; there are: {names}")
        for read in (attrgetter("name"), attrgetter("id")):
            for one in entry.replicas:
                if read(one) == replica:
                    return entry, one
        names = _enumerate(f"{one.name} ({one.id})" for one in entry.replicas)
        raise RefusedError(
            404, "unknown_replica", f"instance {instance} has no replica of this name or id; it has: {names}"
        )

    def _note_complete(self) -> None:
        if self._complete_since is None and self.discovery.is_complete() and not self.declared.list_waits():
            self._complete_since = self.table.version


def _is_there(key: ReplicaKey, table: Table) -> bool:
    return any((instance.name, replica.name) == key for instance in table.instances for replica in instance.replicas)


def _enumerate(names: Iterable[str]) -> str:
    listed = list(names)
    more = [f"and {len(listed) - MAX_NAMED} more"] if len(listed) > MAX_NAMED else []
    return ", ".join([*listed[:MAX_NAMED], *more]) or "none"

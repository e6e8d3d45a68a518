"""How instances and their replicas become a table: slots, short ids, affinity tokens and gate rules.

Ids, tokens and cookie names are hashes of names and of nothing else: they are the same after a restart and in every
proxy before the same instance, so a client keeps its replica when it changes proxy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from haproxy_py import counters
from haproxy_py.control.segments import Segment
from haproxy_py.control.slots import OutOfSlotsError, Slots
from haproxy_py.discovery.found import FoundInstance
from haproxy_py.node_red.admin_surface import build_gate_rules
from haproxy_py.table import InstanceEntry, ReplicaEntry, Table

SHORT_ID_DIGITS = 4
TOKEN_DIGITS = 16
COOKIE_DIGITS = 6

ReplicaKey = tuple[str, str]
"""Names of the instance and of the replica."""


class TableError(Exception):
    """No table can be made from what was configured and found. The text says why."""


class TableBuilder:
    """Makes one table after another; remembers who has which slot."""

    def __init__(self, segments: Sequence[Segment], clock: Callable[[], float]) -> None:
        self.instances: Slots[str] = Slots(range(1, counters.MAX_INSTANCES), _InstanceBlocks(segments), clock)
        self.replicas: Slots[ReplicaKey] = Slots(range(counters.MAX_REPLICAS), _ReplicaBlocks(segments), clock)
        self._version = 0
        self._made: dict[str, tuple[FoundInstance, InstanceEntry]] = {}  # the instances of the last table

    def build(self, found: Sequence[FoundInstance]) -> Table:
        """The next table. Raises TableError, and then nothing has changed."""
        names = [one.settings.name for one in found]
        keys = [(one.settings.name, replica.name) for one in found for replica in one.replicas]
        _check_room(len(names), len(keys))
        try:
            replica_slots = self.replicas.assign(keys)
        except OutOfSlotsError:
            raise TableError(
                "no counter slots are free until the connections to replicas that left have ended"
            ) from None
        # Cannot fail, so it comes second: an instance that left is never busy and gives way.
        instance_slots = self.instances.assign(names)
        self._version += 1
        self._made = {
            one.settings.name: self._make(one, instance_slots[one.settings.name], replica_slots) for one in found
        }
        return Table(self._version, tuple(entry for _, entry in self._made.values()))

    def _make(
        self, found: FoundInstance, slot: int, slots: Mapping[ReplicaKey, int]
    ) -> tuple[FoundInstance, InstanceEntry]:
        """The entry of an instance; the one of the last table if it would be the same.

        Slots stay with their names from one table to the next, so the same finding means the same slots.
        """
        before = self._made.get(found.settings.name)
        if before is not None and before[0] == found:
            return before
        return found, _make_instance(found, slot, slots)


def _check_room(instances: int, replicas: int) -> None:
    if instances >= counters.MAX_INSTANCES:
        raise TableError(f"{instances} instances, but at most {counters.MAX_INSTANCES - 1} are possible")
    if replicas > counters.MAX_REPLICAS:
        raise TableError(f"{replicas} replicas in all, but at most {counters.MAX_REPLICAS} are possible")


def _make_instance(found: FoundInstance, slot: int, slots: Mapping[ReplicaKey, int]) -> InstanceEntry:
    instance = found.settings
    ids = choose_ids([replica.name for replica in found.replicas])
    return InstanceEntry(
        name=instance.name,
        slot=slot,
        hosts=instance.hosts,
        ha=found.ha,
        replicas=tuple(
            ReplicaEntry(
                name=replica.name,
                id=ids[replica.name],
                token=make_token(instance.name, replica.name),
                host=replica.host,
                port=replica.port,
                slot=slots[instance.name, replica.name],
                state=replica.state,
                healthy=replica.healthy,
                drained=replica.drained,
                drain_ends=replica.drain_ends,
                weight=replica.weight,
            )
            for replica in found.replicas
        ),
        policy=instance.balance.policy,
        affinity=instance.balance.affinity,
        cookie=replace(instance.balance.cookie, name=instance.balance.cookie.name or name_cookie(instance.name)),
        replica_header=instance.replica_header,
        half_close=instance.half_close,
        gate=build_gate_rules(instance.gate, found.routes),
        timeouts=instance.timeouts,
        limits=instance.limits,
        retries=instance.retries,
        eject=instance.eject,
        trusted_proxies=instance.trusted_proxies,
        discovered=found.discovered,
    )


def choose_ids(names: Iterable[str]) -> dict[str, str]:
    """A short id for every name: four digits of its hash; those that would be equal get as many as tell them apart."""
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    ids: dict[str, str] = {}
    digits = SHORT_ID_DIGITS
    while left := [name for name in digests if name not in ids]:
        count: dict[str, int] = {}
        for name in left:
            prefix = digests[name][:digits]
            count[prefix] = count.get(prefix, 0) + 1
        ids |= {name: digests[name][:digits] for name in left if count[digests[name][:digits]] == 1}
        digits += 1
    return ids


def make_token(instance: str, replica: str) -> str:
    """The value of the affinity cookie: tells a client nothing, and every proxy reads it alike."""
    return hashlib.sha256(f"{instance}\0{replica}".encode()).hexdigest()[:TOKEN_DIGITS]


def name_cookie(instance: str) -> str:
    """The name of the affinity cookie: two instances on one host name must not overwrite each other's."""
    return f"ha_replica_{hashlib.sha256(instance.encode()).hexdigest()[:COOKIE_DIGITS]}"


class _ReplicaBlocks:
    """The replica blocks of all workers together."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments

    def is_busy(self, slot: int) -> bool:
        return any(segment.is_replica_busy(slot) for segment in self._segments)

    def read_activity(self, slot: int) -> object:
        return tuple(segment.read_replica_activity(slot) for segment in self._segments)

    def zero(self, slot: int) -> None:
        for segment in self._segments:
            segment.zero_replica(slot)


class _InstanceBlocks:
    """The instance blocks of all workers together."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments

    def is_busy(self, slot: int) -> bool:
        return False  # its one gauge, of the queue, falls to zero as soon as it has left

    def read_activity(self, slot: int) -> object:
        return tuple(segment.read_instance_activity(slot) for segment in self._segments)

    def zero(self, slot: int) -> None:
        for segment in self._segments:
            segment.zero_instance(slot)

"""Which replicas drain, by whose word, and until when.

- A replica drains because its pod terminates, which discovery says, or because an operator took it out. Either way it gets no
  new work (DRN-1; `datapath/routes.py` says what that means), what runs on it ends by itself (DRN-3), and its tunnels are
  closed within `drain.deadline` of the beginning (DRN-9).
- An operator's word holds, whatever discovery says and however often the configuration is read again, until the operator takes
  it back or the replica is no longer found. A process that takes over keeps it.
- The last ready replica of an instance is drained only if the operator insists: no other would get its work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from haproxy_py.control.tables import ReplicaKey
from haproxy_py.discovery.found import FoundInstance, FoundReplica
from haproxy_py.table import ReplicaState


@dataclass(frozen=True, slots=True)
class Drains:
    """The drains of one moment."""

    ordered: frozenset[ReplicaKey] = frozenset()  # by an operator
    ends: Mapping[ReplicaKey, float] = field(default_factory=dict)  # monotonic seconds, of every replica that drains

    def mark(
        self, found: Iterable[FoundInstance], now: float, deadline: float, *, is_complete: bool = True
    ) -> tuple[tuple[FoundInstance, ...], Drains]:
        """What was found, with the replicas that drain marked, and the drains that are left of these and begin now.

        `is_complete`: a replica that is not among what was found is gone, and not only not found yet.
        """
        ends: dict[ReplicaKey, float] = {}
        there: set[ReplicaKey] = set()

        def mark_one(key: ReplicaKey, replica: FoundReplica) -> FoundReplica:
            there.add(key)
            is_ordered = key in self.ordered
            if not is_ordered and replica.state is not ReplicaState.DRAINING:
                return replica
            ends[key] = self.ends.get(key, now + deadline)
            return replace(replica, state=ReplicaState.DRAINING, drained=is_ordered, drain_ends=ends[key])

        marked = []
        for one in found:
            name = one.settings.name
            replicas = tuple(mark_one((name, replica.name), replica) for replica in one.replicas)
            marked.append(one if replicas == one.replicas else replace(one, replicas=replicas))
        return tuple(marked), Drains(self.ordered & there if is_complete else self.ordered, ends)

    def order(self, key: ReplicaKey) -> Drains:
        """The same, and this replica drains by an operator's word."""
        return replace(self, ordered=self.ordered | {key})

    def take_back(self, key: ReplicaKey) -> Drains:
        """The same without that word."""
        return replace(self, ordered=self.ordered - {key})

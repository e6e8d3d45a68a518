"""What discovery finds: the instances of one moment, each with its replicas."""

from __future__ import annotations

from dataclasses import dataclass

from haproxy_py.config import Instance
from haproxy_py.config_values import spell_address
from haproxy_py.table import DeclaredRoute, ReplicaState


@dataclass(frozen=True, slots=True)
class FoundReplica:
    """One copy of an instance that can be given work."""

    name: str  # of the pod; host:port where there is no pod
    host: str  # IP address, or a host name of a static replica
    port: int
    state: ReplicaState = ReplicaState.READY
    weight: int = 1  # as in the table
    kept: bool = False  # the API server says that it is unready, and is not believed (`keep`)
    healthy: bool = True  # as in the table; from here on control says so, not discovery
    drained: bool = False
    drain_ends: float = 0.0


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """One instance as it is now."""

    settings: Instance
    ha: bool  # where the settings say auto: what the Service says; True as long as nothing is known
    replicas: tuple[FoundReplica, ...]  # sorted by name, each name once
    discovered: bool = True  # False: the source of the replicas has not answered yet
    routes: tuple[DeclaredRoute, ...] | None = None  # what its flows declare: control says so, not discovery


def find_static(instance: Instance) -> FoundInstance:
    """An instance whose replicas stand in the configuration."""
    replicas = {spell_address(replica.host, replica.port): replica for replica in instance.static}
    return FoundInstance(
        settings=instance,
        ha=instance.ha is not False,
        replicas=tuple(
            FoundReplica(name, replica.host, replica.port, weight=replica.weight)
            for name, replica in sorted(replicas.items())
        ),
    )

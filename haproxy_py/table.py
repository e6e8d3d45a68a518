"""The table: everything a worker must know to carry traffic, as one immutable snapshot.

Control builds a table from the configuration and from discovery and sends it whole to every worker; a worker swaps a
pointer. Nothing in a table is ever changed: a difference, however small, is a new table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from haproxy_py.config import Cookie, Eject, Limits, Retries, Timeouts


class ReplicaState(Enum):
    """What a replica may be given. (`kubernetes-discovery` conditions; a static replica is always ready.)"""

    READY = "ready"  # new exchanges and tunnels
    DRAINING = "draining"  # finishes what it has; `ReplicaEntry.drained` says whether it may get new work at all


@dataclass(frozen=True, slots=True)
class ReplicaEntry:
    """One replica of an instance."""

    name: str  # pod name, or host:port of a static replica: the `replica` label of metrics
    id: str  # short id: hexadecimal digits of a hash of the name; what the world is told
    token: str  # opaque value of the affinity cookie
    host: str  # IP address or host name
    port: int
    slot: int  # its block in the shared counters
    state: ReplicaState = ReplicaState.READY
    healthy: bool = True  # False: its checks fail; no new work, whatever the state, and what runs goes on
    drained: bool = False  # it drains by an operator's word: no new work, not even while no replica is ready
    weight: int = 1  # share of the work, compared with the others; 0: only clients that are bound to it
    drain_ends: float = 0.0  # while it drains: seconds of CLOCK_MONOTONIC by which its tunnels are closed

    @property
    def condition(self) -> str:
        """The state in one word, for people and metrics: a ready one whose checks fail is `unhealthy`."""
        return "unhealthy" if self.state is ReplicaState.READY and not self.healthy else self.state.value


@dataclass(frozen=True, slots=True)
class DeclaredRoute:
    """A path that the flows declare, as operations: `node_red.routes` makes them, `datapath.gate` matches them."""

    methods: frozenset[str]  # none: every method
    operations: bytes
    upgrades: bool  # to WebSocket
    requests: bool  # that are no upgrade


@dataclass(frozen=True, slots=True)
class GateRules:
    """The gate of one instance, ready for matching: names are lower-case segments without slashes."""

    admin_root: tuple[str, ...]  # segments of `gate.admin_root`; empty for `/`
    names: frozenset[str]  # first segments that belong to the admin surface (used with admin root `/`)
    pairs: frozenset[tuple[str, str]]  # first two segments that do
    allow: tuple[
        tuple[frozenset[str], str], ...
    ]  # (methods, pattern of a path as received); no methods means every method
    deny: tuple[
        tuple[frozenset[str], tuple[str, ...]], ...
    ]  # (methods, segments of a pattern whose whole tree is denied)
    strict: bool = False  # only what is declared or allowed passes
    routes: tuple[DeclaredRoute, ...] | None = None  # what the flows declare; None: not known yet, nothing passes


@dataclass(frozen=True, slots=True)
class InstanceEntry:
    """One instance: its hosts, its replicas and its settings."""

    name: str
    slot: int  # its block in the shared counters
    hosts: tuple[str, ...]  # lower-case, without port; empty: every host that no other instance names
    ha: bool  # True: the gate refuses; False: admin traffic passes and keeps to one replica
    replicas: tuple[ReplicaEntry, ...]  # sorted by name
    policy: str  # "round-robin" | "least-connections" | "random-two"
    affinity: str  # "none" | "dashboard" | "all"
    cookie: Cookie  # the affinity cookie; its name is there
    replica_header: str  # "id" | "name" | "off"
    half_close: str  # "abort" | "serve"
    gate: GateRules
    timeouts: Timeouts
    limits: Limits
    retries: Retries
    eject: Eject
    trusted_proxies: tuple[str, ...]  # networks in CIDR notation
    discovered: bool = True  # False until discovery has answered once: 503 discovery_pending


@dataclass(frozen=True, slots=True)
class Table:
    """The whole routing state of one moment."""

    version: int
    instances: tuple[InstanceEntry, ...]

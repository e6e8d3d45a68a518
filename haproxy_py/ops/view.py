"""What the operators' port shows: a picture of the proxy that control takes at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from haproxy_py.discovery.view import DiscoveryView
from haproxy_py.table import ReplicaEntry, Table


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One place for a worker process, and the process that fills it now."""

    worker: int
    pid: int | None  # None: no process
    ready: bool  # accepts connections
    restarts: int
    table_version: int  # in force there; 0: none
    leaving: bool = False  # fewer workers are wanted: it finishes what runs
    stalls: int = 0  # times that its loop stood still for longer than `watchdog.report`
    stalled: float = 0.0  # seconds for which it stands still now, if that was reported


@dataclass(frozen=True, slots=True)
class ListenerView:
    scheme: str
    host: str
    port: int
    certificate_ends: float | None = None  # Unix time; None: it has none, or that cannot be read


@dataclass(frozen=True, slots=True)
class ConfigView:
    """The configuration in force and, if that is another, what stands in the way of the one in the file."""

    source: str | None = None  # the file; None: it came from the command line
    loaded: float = 0.0  # Unix time: since when it is in force
    applied: int = 0  # reloads that were put into force
    refused: int = 0  # reloads that changed nothing
    refusal: str | None = None  # why the last one was refused; None: the file is in force


@dataclass(frozen=True, slots=True)
class ReplicaSeries:
    """A replica that has counters: one of the table, or one that left the table a while ago."""

    instance: str
    replica: str
    slot: int
    state: str | None  # as in the table; None: it left


@dataclass(frozen=True, slots=True)
class CheckView:
    """The checks of one replica."""

    kind: str  # tcp | http
    healthy: bool
    outcomes: Mapping[str, int]  # number of checks by how they ended; has every outcome there is
    last: str | None  # outcome of the last check; None: none has ended yet
    detail: str  # of the last check, for people
    seconds: float  # that it took
    age: float  # seconds since it ended


@dataclass(frozen=True, slots=True)
class View:
    """Everything at one moment, except the counters: those are read from `segments` when they are needed."""

    uptime: float  # seconds since the process started
    now: float  # monotonic seconds
    draining: bool
    table: Table  # the newest; `WorkerView.table_version` says which is in force
    workers: tuple[WorkerView, ...]
    listeners: tuple[ListenerView, ...]
    instances: tuple[tuple[str, int], ...]  # name and slot of every instance that has counters, slot 0 included
    replicas: tuple[ReplicaSeries, ...]
    segments: Sequence[memoryview[int]]  # cells of one worker each
    checks: Mapping[tuple[str, str], CheckView] = field(default_factory=dict)  # by instance and replica
    waiting_for: tuple[str, ...] = ()  # what must be found before the first traffic
    discovery: DiscoveryView = field(default_factory=DiscoveryView)
    config: ConfigView = field(default_factory=ConfigView)
    warnings: tuple[str, ...] = ()  # what is less safe or less fast than it could be, of the proxy as a whole

    def explain_not_ready(self) -> list[str]:
        """Why no traffic should be sent here; empty when it should."""
        reasons = []
        if self.draining:
            reasons.append("draining")
        if not any(worker.table_version for worker in self.workers):
            reasons.append("no table is in force yet")
        if not any(worker.ready for worker in self.workers):
            reasons.append("no worker accepts connections")
        reasons += self.waiting_for
        return reasons


class RefusedError(Exception):
    """A change that an operator asked for is not made."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status = status  # of the answer
        self.reason = reason  # one stable word


class Proxy(Protocol):
    """What the operators' port needs of the rest of the process."""

    def view(self) -> View:
        """A picture of this moment."""

    def drain(self, instance: str, replica: str, *, force: bool) -> ReplicaEntry:
        """Give a replica, by name or short id, no new work. Raises RefusedError."""

    def undrain(self, instance: str, replica: str) -> ReplicaEntry:
        """Take that back. Raises RefusedError."""

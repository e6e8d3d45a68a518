"""What the operators' port shows of discovery: a picture of one moment."""

from __future__ import annotations

from dataclasses import dataclass, field

from haproxy_py.discovery.records import Records


@dataclass(frozen=True, slots=True)
class FeedView:
    """One collection that is followed."""

    kind: str
    namespace: str  # empty: the own one, and it is not known yet
    cluster: str  # empty: the one this pod runs in; else kubeconfig and context
    listed: bool  # has been read completely once
    objects: int
    silence: float | None  # seconds since the last list, event or bookmark; None: nothing was ever heard
    failure: str | None  # what is wrong now


@dataclass(frozen=True, slots=True)
class ReplicaCount:
    """The endpoints of one instance by state."""

    instance: str
    ready: int
    draining: int
    unready: int
    kept: int = 0  # among the ready ones those that the API server calls unready (`keep`)


@dataclass(frozen=True, slots=True)
class DiscoveryView:
    """Everything at one moment. Empty where every replica is static."""

    feeds: tuple[FeedView, ...] = ()
    counts: tuple[ReplicaCount, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)  # endpoints that are left out now, by reason
    complaints: tuple[str, ...] = ()  # what an operator should know and can change
    waiting_for: tuple[str, ...] = ()  # what has not been read yet
    records: Records = field(default_factory=Records)

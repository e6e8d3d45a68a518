"""The status of the proxy as JSON: what `/api/v1/status` says and the page shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from haproxy_py import __version__, counters
from haproxy_py.discovery.view import DiscoveryView
from haproxy_py.node_red.admin_surface import find_open_root
from haproxy_py.node_red.open_editor import warn_of_open_editor
from haproxy_py.ops import totals
from haproxy_py.ops.view import CheckView, View
from haproxy_py.table import InstanceEntry, ReplicaEntry, ReplicaState


def describe_status(view: View) -> dict[str, Any]:
    """Everything about this moment, ready for JSON."""
    return {
        "version": __version__,
        "uptime_seconds": round(view.uptime, 3),
        "ready": not view.explain_not_ready(),
        "not_ready_because": view.explain_not_ready(),
        "draining": view.draining,
        "warnings": list(view.warnings),
        "table_version": view.table.version,
        "config": {
            "source": view.config.source,
            "in_force_since": datetime.fromtimestamp(view.config.loaded, UTC).isoformat(timespec="seconds"),
            "refused_because": view.config.refusal,
        },
        "client_connections": totals.sum_cell(view.segments, counters.WORKER_CLIENT_CONNECTIONS),
        "listeners": [
            {
                "scheme": listener.scheme,
                "host": listener.host,
                "port": listener.port,
                "certificate_ends": _spell_time(listener.certificate_ends),
            }
            for listener in view.listeners
        ],
        "workers": [
            {
                "worker": worker.worker,
                "pid": worker.pid,
                "ready": worker.ready,
                "leaving": worker.leaving,
                "restarts": worker.restarts,
                "stalls": worker.stalls,
                "stalled_seconds": round(worker.stalled, 3),
                "table_version": worker.table_version,
            }
            for worker in view.workers
        ],
        "instances": [_describe_instance(view, instance) for instance in view.table.instances],
        "discovery": _describe_discovery(view.discovery),
    }


def _describe_discovery(discovery: DiscoveryView) -> dict[str, Any]:
    return {
        "complaints": list(discovery.complaints),
        "followed": [
            {
                "kind": feed.kind,
                "namespace": feed.namespace,
                "cluster": feed.cluster,
                "listed": feed.listed,
                "objects": feed.objects,
                "seconds_since_event": None if feed.silence is None else round(feed.silence, 3),
                "failure": feed.failure,
            }
            for feed in discovery.feeds
        ],
        "endpoints": [
            {
                "instance": count.instance,
                "ready": count.ready,
                "draining": count.draining,
                "unready": count.unready,
                "kept": count.kept,
            }
            for count in discovery.counts
        ],
    }


def _find_warnings(instance: InstanceEntry) -> list[str]:
    """What is wrong with how the instance is set up, a sentence each."""
    open_root = find_open_root(instance.gate) if instance.ha else None
    open_editor = warn_of_open_editor(ha=instance.ha, replicas=len(instance.replicas))
    return [warning for warning in (open_root, open_editor) if warning]


def _describe_instance(view: View, instance: InstanceEntry) -> dict[str, Any]:
    at = counters.instance_at(instance.slot)
    cells = totals.sum_cells(view.segments, at, counters.INSTANCE_CELLS)
    return {
        "name": instance.name,
        "hosts": list(instance.hosts),
        "ha": instance.ha,
        "discovered": instance.discovered,
        "warnings": _find_warnings(instance),
        "policy": instance.policy,
        "affinity": instance.affinity,
        "queued": cells[counters.INSTANCE_QUEUED],
        "gate_denied": sum(cells[counters.INSTANCE_GATE_DENIED :][: len(counters.GATE_RULES)]),
        "proxy_replies": {
            reason: number
            for reason, number in zip(counters.REASONS, cells[counters.INSTANCE_PROXY_REPLIES :], strict=False)
            if number
        },
        "replicas": [describe_replica(view, instance.name, replica) for replica in instance.replicas],
    }


def describe_replica(view: View, instance: str, replica: ReplicaEntry) -> dict[str, Any]:
    """One replica of an instance and what runs on it now."""
    cells = totals.read_simple(view.segments, replica.slot)
    return {
        "id": replica.id,
        "name": replica.name,
        "host": replica.host,
        "port": replica.port,
        "state": replica.condition,
        "weight": replica.weight,
        "check": _describe_check(view.checks.get((instance, replica.name))),
        "drain": _describe_drain(view, replica),
        "active_requests": cells[counters.REPLICA_ACTIVE_REQUESTS],
        "requests": sum(number for _, _, number in totals.read_requests(view.segments, replica.slot)),
        "active_tunnels": cells[counters.REPLICA_ACTIVE_TUNNELS],
        "tunnels": cells[counters.REPLICA_TUNNELS_TOTAL],
        "idle_connections": cells[counters.REPLICA_IDLE_CONNECTIONS],
        "failed_connections": cells[counters.REPLICA_CONNECTIONS_FAILED],
        "received_bytes": cells[counters.REPLICA_RECEIVED_BYTES],
        "sent_bytes": cells[counters.REPLICA_SENT_BYTES],
    }


def _describe_drain(view: View, replica: ReplicaEntry) -> dict[str, Any] | None:
    """By whose word it drains, and how long its tunnels may still stay."""
    if replica.state is not ReplicaState.DRAINING:
        return None
    return {
        "by": "operator" if replica.drained else "discovery",
        "seconds_left": round(max(0.0, replica.drain_ends - view.now), 1),
    }


def _describe_check(check: CheckView | None) -> dict[str, Any] | None:
    """None: the replica is not checked."""
    if check is None:
        return None
    return {
        "type": check.kind,
        "healthy": check.healthy,
        "last": check.last,
        "detail": check.detail,
        "seconds": round(check.seconds, 6),
        "seconds_ago": round(check.age, 3),
    }


def _spell_time(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")

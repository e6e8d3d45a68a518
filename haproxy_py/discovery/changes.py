"""What is different between two findings of one instance: counted for metrics, and in words for the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from haproxy_py.discovery.found import FoundInstance
from haproxy_py.node_red.open_editor import warn_of_open_editor
from haproxy_py.table import ReplicaState

SHOWN = 5
"""Names that a line of the log holds before it only counts."""


def list_changes(before: FoundInstance | None, after: FoundInstance) -> list[str]:
    """One word of `records.CHANGES` for each replica that is different."""
    old = {replica.name: replica for replica in before.replicas} if before else {}
    new = {replica.name: replica for replica in after.replicas}
    changes = ["added" for name in new if name not in old]
    changes += ["removed" for name in old if name not in new]
    changes += ["state" for name in new if name in old and new[name] != old[name]]
    return changes


def describe_change(before: FoundInstance | None, after: FoundInstance) -> Iterator[tuple[str, str]]:
    """Level and text of what an operator should read."""
    name = after.settings.name
    if before is None and not after.settings.static:
        hosts = ", ".join(after.settings.hosts[:SHOWN]) or "any host"
        yield "info", f"instance {name} for {hosts} is served"
    yield from describe_mode(before, after)
    if not after.discovered:
        return
    if before is not None and before.discovered and before.replicas == after.replicas:
        return
    yield from _describe_replicas(before, after)


def describe_mode(before: FoundInstance | None, after: FoundInstance) -> Iterator[tuple[str, str]]:
    """The same of HA mode alone, which configuration files switch, too."""
    name = after.settings.name
    if before.ha != after.ha if before else after.settings.ha is None:
        mode = (
            "on, the editor and the admin API are closed" if after.ha else "off, the editor and the admin API are open"
        )
        yield "info", f"instance {name}: editor {'closed' if after.ha else 'open'}: HA mode is {mode}"
    warning = warn_of_open_editor(ha=after.ha, replicas=len(after.replicas))
    if warning and not (before and warn_of_open_editor(ha=before.ha, replicas=len(before.replicas))):
        yield "warning", f"instance {name}: {warning}"


def _describe_replicas(before: FoundInstance | None, after: FoundInstance) -> Iterator[tuple[str, str]]:
    instance = after.settings.name
    old = {replica.name: replica for replica in before.replicas} if before else {}
    new = {replica.name: replica for replica in after.replicas}
    ready = sum(replica.state is ReplicaState.READY for replica in after.replicas)
    parts = [
        _enumerate("new", [name for name in new if name not in old]),
        _enumerate("gone", [name for name in old if name not in new]),
        _enumerate(
            "kept though unready", [name for name in new if new[name].kept and not (name in old and old[name].kept)]
        ),
        _enumerate("ready again", [name for name in new if name in old and old[name].kept and not new[name].kept]),
        _enumerate(
            "changed", [name for name in new if name in old and replace(new[name], kept=old[name].kept) != old[name]]
        ),
    ]
    detail = "; ".join(part for part in parts if part)
    text = f"instance {instance}: {ready} ready, {len(new) - ready} draining" + (f" ({detail})" if detail else "")
    if not new:
        yield "warning", f"{text}: it has no replica, and its requests are answered 503 no_replica until it has one"
    elif not ready:
        yield "warning", f"{text}: none is ready, so those that are ending get new requests too"
    else:
        yield "info", text


def _enumerate(what: str, names: list[str]) -> str:
    if not names:
        return ""
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{what}: {', '.join(sorted(names)[:SHOWN])}{rest}"

"""A proxy as the operators' port sees it, with counters that a test fills by hand."""

from __future__ import annotations

from dataclasses import replace

from haproxy_py import counters
from haproxy_py.config import Cookie, Eject, Gate, Limits, Retries, Timeouts
from haproxy_py.node_red.admin_surface import build_gate_rules
from haproxy_py.ops.view import ListenerView, RefusedError, ReplicaSeries, View, WorkerView
from haproxy_py.table import InstanceEntry, ReplicaEntry, ReplicaState, Table

SLOTS = 3
"""Replica slots that the small segments of the tests have."""


def make_segment() -> memoryview[int]:
    """Cells of one worker, all zero, with room for `SLOTS` replicas."""
    return memoryview(bytearray(counters.replica_at(SLOTS) * counters.CELL)).cast("Q")


def make_table(*, name: str = "one", replica: str = "pod-a") -> Table:
    entry = InstanceEntry(
        name=name,
        slot=1,
        hosts=("one.example.com",),
        ha=True,
        replicas=(
            ReplicaEntry(replica, "aaaa", "t1", "10.0.0.1", 1880, slot=0),
            ReplicaEntry(
                "pod-b", "bbbb", "t2", "10.0.0.2", 1880, slot=1, state=ReplicaState.DRAINING, drain_ends=1012.3
            ),
        ),
        policy="round-robin",
        affinity="dashboard",
        cookie=Cookie("ha_replica_012345"),
        replica_header="id",
        half_close="abort",
        gate=build_gate_rules(Gate()),
        timeouts=Timeouts(),
        limits=Limits(),
        retries=Retries(),
        eject=Eject(),
        trusted_proxies=(),
    )
    return Table(7, (entry,))


def make_view(*segments: memoryview[int], name: str = "one", replica: str = "pod-a") -> View:
    """One instance with a ready and a draining replica, and one replica that left; everything is well."""
    return View(
        uptime=12.5,
        now=1000.0,
        draining=False,
        table=make_table(name=name, replica=replica),
        workers=tuple(WorkerView(number, 100 + number, True, 0, 7) for number, _ in enumerate(segments, 1)),
        listeners=(ListenerView("http", "0.0.0.0", 8080), ListenerView("https", "0.0.0.0", 8443, 1.9e9)),
        instances=(("", 0), (name, 1)),
        replicas=(
            ReplicaSeries(name, replica, 0, "ready"),
            ReplicaSeries(name, "pod-b", 1, "draining"),
            ReplicaSeries(name, "pod-gone", 2, None),
        ),
        segments=segments,
    )


def count_exchanges(cells: memoryview[int], slot: int, code: int, method: str, number: int) -> None:
    """What a worker does for exchanges of one code."""
    at = counters.replica_at(slot)
    index = code - counters.FIRST_CODE
    cells[at + counters.REPLICA_CODES_SEEN + index // 64] |= 1 << (index % 64)
    cells[at + counters.REPLICA_REQUESTS + index * len(counters.METHODS) + counters.METHODS.index(method)] += number


def lose_workers(view: View) -> View:
    return replace(view, workers=tuple(replace(worker, pid=None, ready=False) for worker in view.workers))


class Pictured:
    """A proxy whose view is whatever the test sets, and which notes what it is asked to change."""

    def __init__(self, view: View) -> None:
        self.now = view
        self.asked: list[str] = []
        self.refusal: RefusedError | None = None

    def view(self) -> View:
        return self.now

    def drain(self, instance: str, replica: str, *, force: bool) -> ReplicaEntry:
        self.asked.append(f"drain {instance} {replica}{' forced' if force else ''}")
        return self._answer()

    def undrain(self, instance: str, replica: str) -> ReplicaEntry:
        self.asked.append(f"undrain {instance} {replica}")
        return self._answer()

    def _answer(self) -> ReplicaEntry:
        if self.refusal is not None:
            raise self.refusal
        return self.now.table.instances[0].replicas[1]

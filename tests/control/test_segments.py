"""The counters of a worker that died: what was going on ended with it, what it counted stays."""

from __future__ import annotations

from haproxy_py import counters
from haproxy_py.control.segments import Segment


def test_gauges_are_zeroed_and_nothing_else() -> None:
    segment = Segment(1)
    instance, replica = counters.instance_at(3), counters.replica_at(5)
    gauges = [counters.WORKER_CLIENT_CONNECTIONS, instance + counters.INSTANCE_QUEUED]
    gauges += [replica + gauge for gauge in counters.GAUGES]
    kept = [counters.WORKER_RETRIES, instance + counters.INSTANCE_QUEUE_DURATION, replica + counters.REPLICA_EJECTIONS]
    for cell in gauges + kept:
        segment.cells[cell] = 7
    segment.zero_gauges([3], [5])
    assert [segment.cells[cell] for cell in gauges] == [0] * len(gauges)
    assert [segment.cells[cell] for cell in kept] == [7] * len(kept)
    segment.close()

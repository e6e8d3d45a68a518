"""The metrics of discovery. Labels are closed sets or come from the configuration; names of pods are not among them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from haproxy_py.discovery.records import CHANGES, LAG_BUCKETS
from haproxy_py.discovery.view import DiscoveryView
from haproxy_py.ops.families import accumulate, counter, gauge, histogram

FEED = ("kind", "namespace", "cluster")


def collect_discovery(view: DiscoveryView) -> Iterator[Metric]:
    """Nothing where every replica is static."""
    if not view.feeds:
        return
    yield from _collect_feeds(view)
    records = view.records
    requests = counter(
        "discovery_requests_total",
        "Lists and watches of the Kubernetes API and look-ups of names, by how they ended.",
        ("kind", "verb", "outcome"),
    )
    for (kind, verb, outcome), number in sorted(records.requests.items()):
        requests.add_metric((kind, verb, outcome), number)
    yield requests
    malformed = counter("discovery_malformed_total", "Objects of the Kubernetes API that were passed over.", ("kind",))
    for kind in sorted({feed.kind for feed in view.feeds}):
        malformed.add_metric((kind,), records.malformed[kind])
    yield malformed
    changes = counter("discovery_updates_total", "What events did to replicas; none: nothing.", ("change",))
    for change in CHANGES:
        changes.add_metric((change,), records.changes[change])
    yield changes
    lag = histogram(
        "discovery_update_lag_seconds",
        "Until the table with a change was in force in every worker: since the event arrived (receipt), or since what it "
        "tells of happened, by the clocks of both machines (change).",
        ("since",),
    )
    for since, found in (("receipt", records.lag_of_receipt), ("change", records.lag_of_change)):
        lag.add_metric((since,), accumulate(found.counts, LAG_BUCKETS), sum_value=found.sum)
    yield lag
    text = "Endpoints of the instance by state. kept: the ready ones that the API server calls unready, and is not believed."
    replicas = gauge("discovery_replicas", text, ("instance", "state"))
    for count in view.counts:
        for state in ("ready", "draining", "unready", "kept"):
            replicas.add_metric((count.instance, state), getattr(count, state))
    yield replicas
    ignored = gauge("discovery_ignored", "Endpoints that are left out now, by reason.", ("why",))
    for why, number in sorted(view.ignored.items()):
        ignored.add_metric((why,), number)
    yield ignored


def _collect_feeds(view: DiscoveryView) -> Iterator[Metric]:
    listed = gauge("discovery_listed", "1 once the collection has been read completely.", FEED)
    failing = gauge("discovery_failing", "1 while the last attempt to follow the collection has failed.", FEED)
    silence = gauge("discovery_seconds_since_event", "Since the last list, event or bookmark.", FEED)
    objects = gauge("discovery_objects", "Objects in the copy of the collection.", FEED)
    for feed in view.feeds:
        labels = (feed.kind, feed.namespace, feed.cluster)
        listed.add_metric(labels, feed.listed)
        failing.add_metric(labels, feed.failure is not None)
        objects.add_metric(labels, feed.objects)
        if feed.silence is not None:
            silence.add_metric(labels, feed.silence)
    yield from (listed, failing, silence, objects)

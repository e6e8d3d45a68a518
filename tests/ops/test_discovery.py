"""What the operators' port tells of discovery: readiness, metrics and status."""

from __future__ import annotations

from dataclasses import replace

from haproxy_py.discovery.records import Records
from haproxy_py.discovery.view import DiscoveryView, FeedView, ReplicaCount
from haproxy_py.ops.status import describe_status
from haproxy_py.ops.view import View
from tests.ops.pictures import make_segment, make_view
from tests.ops.test_metrics import scrape, value


def make_discovery() -> DiscoveryView:
    records = Records()
    records.requests["endpointslices", "watch", "reset"] = 3
    records.changes["added"] = 2
    for seconds in (0.004, 0.04, 400.0):
        records.lag_of_receipt.observe(seconds)
    return DiscoveryView(
        feeds=(
            FeedView("endpointslices", "prod", "", True, 4, 1.5, None),
            FeedView("services", "prod", "file ctx", False, 0, None, "it cannot be followed"),
        ),
        counts=(ReplicaCount("one", 3, 1, 2),),
        ignored={"port": 1, "own": 0},
        complaints=("instance one: something",),
        waiting_for=("the services of namespace prod have not been read yet",),
        records=records,
    )


def show() -> View:
    return replace(make_view(make_segment()), discovery=make_discovery())


def test_the_series_of_discovery() -> None:
    view = show()
    feed = {"kind": "endpointslices", "namespace": "prod", "cluster": ""}
    other = {"kind": "services", "namespace": "prod", "cluster": "file ctx"}
    assert value(view, "discovery_listed", **feed) == 1
    assert value(view, "discovery_listed", **other) == 0
    assert value(view, "discovery_failing", **other) == 1
    assert value(view, "discovery_seconds_since_event", **feed) == 1.5
    assert value(view, "discovery_seconds_since_event", **other) is None
    assert value(view, "discovery_objects", **feed) == 4
    assert value(view, "discovery_requests_total", kind="endpointslices", verb="watch", outcome="reset") == 3
    assert value(view, "discovery_updates_total", change="added") == 2
    assert value(view, "discovery_updates_total", change="none") == 0
    assert [value(view, "discovery_replicas", instance="one", state=s) for s in ("ready", "draining", "unready")] == [
        3,
        1,
        2,
    ]
    assert value(view, "discovery_ignored", why="port") == 1


def test_the_lag_is_a_histogram_by_where_it_begins() -> None:
    view = show()
    assert value(view, "discovery_update_lag_seconds_bucket", since="receipt", le="0.005") == 1
    assert value(view, "discovery_update_lag_seconds_bucket", since="receipt", le="30.0") == 2
    assert value(view, "discovery_update_lag_seconds_bucket", since="receipt", le="+Inf") == 3
    assert value(view, "discovery_update_lag_seconds_count", since="change") == 0


def test_without_discovery_there_are_no_series_of_it() -> None:
    assert "discovery_" not in scrape(make_view(make_segment()))


def test_the_status_names_failures_and_complaints() -> None:
    found = describe_status(show())["discovery"]
    assert found["complaints"] == ["instance one: something"]
    assert found["followed"][1]["failure"] == "it cannot be followed"
    assert found["endpoints"] == [{"instance": "one", "ready": 3, "draining": 1, "unready": 2, "kept": 0}]


def test_what_is_waited_for_makes_the_proxy_unready() -> None:
    view = make_view(make_segment())
    assert view.explain_not_ready() == []
    assert replace(view, waiting_for=("the replicas",)).explain_not_ready() == ["the replicas"]

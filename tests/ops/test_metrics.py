"""The text of /metrics for counters filled by hand."""

from __future__ import annotations

import re
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import parser as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from haproxy_py import __version__, counters
from haproxy_py.ops.metrics import Scrape
from haproxy_py.ops.view import View
from tests.ops.pictures import count_exchanges, make_segment, make_view


def scrape(view: View) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Scrape(view))
    return generate_latest(registry).decode()


def read(view: View) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name.removeprefix("haproxy_py_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(scrape(view))
        for sample in family.samples
    }


def value(view: View, name: str, **labels: str) -> float | None:
    return read(view).get((name, frozenset(labels.items())))


ONE = {"instance": "one", "replica": "pod-a"}


def test_exchanges_are_counted_by_code_and_method_over_all_workers() -> None:
    first, second = make_segment(), make_segment()
    count_exchanges(first, 0, 200, "GET", 3)
    count_exchanges(second, 0, 200, "GET", 4)
    count_exchanges(second, 0, 404, "POST", 1)
    view = make_view(first, second)
    assert value(view, "replica_requests_total", **ONE, code="200", method="GET") == 7
    assert value(view, "replica_requests_total", **ONE, code="404", method="POST") == 1
    assert value(view, "replica_requests_total", **ONE, code="200", method="POST") is None


@pytest.mark.parametrize(("index", "reason"), list(enumerate(counters.TLS_FAILURES)))
def test_handshakes_that_fail_are_counted_by_reason_over_all_workers(index: int, reason: str) -> None:
    first, second = make_segment(), make_segment()
    first[counters.WORKER_TLS_FAILURES + index] = 2
    second[counters.WORKER_TLS_FAILURES + index] = 3
    assert value(make_view(first, second), "tls_handshake_failures_total", reason=reason) == 5


@pytest.mark.parametrize("code", [100, 163, 164, 227, 228, 599, 999])
def test_every_code_is_found_through_the_bitmap(code: int) -> None:
    cells = make_segment()
    count_exchanges(cells, 1, code, "other", 2)
    view = make_view(cells)
    labels = {"instance": "one", "replica": "pod-b", "code": str(code), "method": "other"}
    assert value(view, "replica_requests_total", **labels) == 2


def test_cells_without_their_bit_are_not_read() -> None:
    cells = make_segment()
    cells[counters.replica_at(0) + counters.REPLICA_REQUESTS + 100 * 8] = 5
    assert "replica_requests_total{" not in scrape(make_view(cells))


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("replica_request_duration_seconds", counters.REPLICA_DURATION),
        ("replica_connect_duration_seconds", counters.REPLICA_CONNECT_DURATION),
    ],
)
def test_histogram_buckets_accumulate(name: str, offset: int) -> None:
    cells = make_segment()
    at = counters.replica_at(0) + offset
    buckets = len(counters.DURATION_BUCKETS)
    cells[at] = 2  # up to 0.25 ms
    cells[at + 2] = 3  # above 0.5 ms, up to 1 ms
    cells[at + buckets] = 1  # above 60 s
    cells[at + buckets + 1] = 61_500_000_000
    view = make_view(cells)
    assert value(view, f"{name}_bucket", **ONE, le="0.00025") == 2
    assert value(view, f"{name}_bucket", **ONE, le="0.0005") == 2
    assert value(view, f"{name}_bucket", **ONE, le="0.001") == 5
    assert value(view, f"{name}_bucket", **ONE, le="60.0") == 5
    assert value(view, f"{name}_bucket", **ONE, le="+Inf") == 6
    assert value(view, f"{name}_count", **ONE) == 6
    assert value(view, f"{name}_sum", **ONE) == 61.5


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("replica_active_requests", counters.REPLICA_ACTIVE_REQUESTS),
        ("replica_active_tunnels", counters.REPLICA_ACTIVE_TUNNELS),
        ("replica_idle_connections", counters.REPLICA_IDLE_CONNECTIONS),
        ("replica_tunnels_total", counters.REPLICA_TUNNELS_TOTAL),
        ("replica_received_bytes_total", counters.REPLICA_RECEIVED_BYTES),
        ("replica_sent_bytes_total", counters.REPLICA_SENT_BYTES),
    ],
)
def test_replica_values_are_sums_over_the_workers(name: str, cell: int) -> None:
    first, second = make_segment(), make_segment()
    first[counters.replica_at(0) + cell] = 4
    second[counters.replica_at(0) + cell] = 5
    assert value(make_view(first, second), name, **ONE) == 9


@pytest.mark.parametrize(
    ("outcome", "cell"),
    [
        ("opened", counters.REPLICA_CONNECTIONS_OPENED),
        ("reused", counters.REPLICA_CONNECTIONS_REUSED),
        ("stale", counters.REPLICA_CONNECTIONS_STALE),
        ("failed", counters.REPLICA_CONNECTIONS_FAILED),
    ],
)
def test_connections_are_counted_by_outcome(outcome: str, cell: int) -> None:
    cells = make_segment()
    cells[counters.replica_at(0) + cell] = 6
    assert value(make_view(cells), "replica_connections_total", **ONE, outcome=outcome) == 6


def test_replica_state_is_one_hot() -> None:
    view = make_view(make_segment())
    assert [value(view, "replica_state", **ONE, state=s) for s in ("ready", "draining", "ejected", "unhealthy")] == [
        1, 0, 0, 0,
    ]  # fmt: skip
    assert value(view, "replica_state", instance="one", replica="pod-b", state="draining") == 1


def test_replica_that_left_keeps_its_counters_and_has_no_state() -> None:
    view = make_view(make_segment())
    assert value(view, "replica_sent_bytes_total", instance="one", replica="pod-gone") == 0
    assert value(view, "replica_state", instance="one", replica="pod-gone", state="ready") is None


def test_gate_refusals_are_counted_by_rule() -> None:
    cells = make_segment()
    cells[counters.instance_at(1) + counters.INSTANCE_GATE_DENIED + counters.GATE_RULES.index("admin_route")] = 8
    view = make_view(cells)
    assert value(view, "gate_denied_total", instance="one", rule="admin_route") == 8
    assert value(view, "gate_denied_total", instance="one", rule="deny_list") == 0


def test_proxy_replies_carry_status_and_reason() -> None:
    cells = make_segment()
    cells[counters.instance_at(1) + counters.REASONS.index("no_replica")] = 2
    cells[counters.instance_at(0) + counters.REASONS.index("bad_request")] = 3
    view = make_view(cells)
    assert value(view, "proxy_replies_total", instance="one", code="503", reason="no_replica") == 2
    assert value(view, "proxy_replies_total", instance="", code="400", reason="bad_request") == 3


def test_process_values_are_exported() -> None:
    cells = make_segment()
    cells[counters.WORKER_CLIENT_CONNECTIONS] = 3
    cells[counters.WORKER_CLIENT_CONNECTIONS_TOTAL] = 30
    cells[counters.WORKER_LOG_LINES_DROPPED] = 1
    view = make_view(cells)
    assert value(view, "client_connections") == 3
    assert value(view, "client_connections_accepted_total") == 30
    assert value(view, "access_log_lines_dropped_total") == 1
    assert value(view, "worker_restarts_total") == 0
    assert value(view, "workers", state="configured") == 1
    assert value(view, "workers", state="ready") == 1
    assert re.search(rf'haproxy_py_build_info{{.*version="{__version__}".*}} 1.0', scrape(view))


def fill(cells: memoryview) -> None:
    """Something in every cell that the worker block, the instances and the replicas have."""
    for at in range(counters.WORKER_CELLS):
        cells[at] = 1
    for slot in range(2):
        for at in range(counters.INSTANCE_CELLS):
            cells[counters.instance_at(slot) + at] = 1
    count_exchanges(cells, 0, 200, "GET", 1)


def test_open_metrics_form_is_read_by_a_strict_parser() -> None:
    cells = make_segment()
    fill(cells)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Scrape(make_view(cells)))
    encode, _ = choose_encoder("application/openmetrics-text;version=1.0.0")
    families = list(open_metrics.text_string_to_metric_families(encode(registry).decode()))
    assert {family.name for family in families} >= {"haproxy_py_client_connections", "haproxy_py_proxy_replies"}


def test_no_two_families_share_a_name_in_either_form() -> None:
    """`x` as a gauge and `x_total` as a counter are one family in OpenMetrics, and `x_count` is a histogram's sample."""
    families = list(Scrape(make_view(make_segment())).collect())
    names = [family.name for family in families]
    suffixes = {"counter": ("", "_total", "_created"), "histogram": ("", "_bucket", "_count", "_sum", "_created")}
    samples = [
        name + end for name, family in zip(names, families, strict=True) for end in suffixes.get(family.type, ("",))
    ]
    assert sorted(samples) == sorted(set(samples))


def test_label_values_are_escaped() -> None:
    text = scrape(make_view(make_segment(), name='a"b\\c\nd'))
    assert 'instance="a\\"b\\\\c\\nd"' in text


def test_reading_the_counters_of_a_replica_is_cheap() -> None:
    segments = [make_segment() for _ in range(4)]
    for cells in segments:
        count_exchanges(cells, 0, 200, "GET", 1)
    view = make_view(*segments)
    began = time.thread_time()
    for _ in range(50):
        scrape(view)
    # About 4 ms for three replicas on a slow core; reading all 7,200 cells of each would take ten times that.
    assert (time.thread_time() - began) / 50 < 0.05


def test_queue_is_shown_by_instance() -> None:
    first, second = make_segment(), make_segment()
    at = counters.instance_at(1)
    first[at + counters.INSTANCE_QUEUED] = 3
    second[at + counters.INSTANCE_QUEUED] = 4
    first[at + counters.INSTANCE_QUEUE_DURATION] = 5
    first[at + counters.INSTANCE_QUEUE_DURATION + len(counters.DURATION_BUCKETS) + 1] = 2_000_000_000
    view = make_view(first, second)
    assert value(view, "queued_requests", instance="one") == 7
    assert value(view, "queue_duration_seconds_count", instance="one") == 5
    assert value(view, "queue_duration_seconds_sum", instance="one") == 2.0
    assert value(view, "queued_requests", instance="") is None

"""The metrics of the proxy for Prometheus: names, labels, and where each value is read.

Labels are closed sets: never a path, never a method or a code that a client made up. Series of a replica appear when it
enters the table and go ten minutes after its last activity (DRN-4).
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from haproxy_py import __version__, counters, tasks
from haproxy_py.config_values import spell_address
from haproxy_py.ops import totals
from haproxy_py.ops.discovery_metrics import collect_discovery
from haproxy_py.ops.families import accumulate, counter, gauge, histogram
from haproxy_py.ops.view import View
from haproxy_py.reasons import REASONS

STATES = ("ready", "draining", "ejected", "unhealthy")
REPLICA = ("instance", "replica")

_OUTCOMES = (
    ("opened", counters.REPLICA_CONNECTIONS_OPENED),
    ("reused", counters.REPLICA_CONNECTIONS_REUSED),
    ("stale", counters.REPLICA_CONNECTIONS_STALE),
    ("failed", counters.REPLICA_CONNECTIONS_FAILED),
)


class Scrape(Collector):
    """The metrics of one view. May be rendered on another thread: it changes nothing."""

    def __init__(self, view: View) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        yield from self._collect_process()
        yield from self._collect_config()
        yield self._collect_certificates()
        yield self._collect_handshakes()
        yield from self._collect_instances()
        yield from self._collect_replica_requests()
        yield from self._collect_replica_histograms()
        yield from self._collect_replica_values()
        yield self._collect_replica_states()
        yield from self._collect_checks()
        yield from collect_discovery(self._view.discovery)

    def _collect_process(self) -> Iterator[Metric]:
        view = self._view
        build = gauge("build_info", "Always 1; what runs.", ("version", "python", "uvloop"))
        build.add_metric((__version__, platform.python_version(), version("uvloop")), 1)
        yield build
        workers = gauge("workers", "Worker processes: how many are wanted, how many accept connections.", ("state",))
        staying = [worker for worker in view.workers if not worker.leaving]
        workers.add_metric(("configured",), len(staying))
        workers.add_metric(("ready",), sum(worker.ready for worker in staying))
        yield workers
        restarts = counter("worker_restarts_total", "Worker processes that ended unexpectedly and were replaced.")
        restarts.add_metric((), sum(worker.restarts for worker in view.workers))
        yield restarts
        stalls = counter(
            "worker_stalls_total", "Times that a worker's loop stood still for longer than watchdog.report."
        )
        stalls.add_metric((), sum(worker.stalls for worker in view.workers))
        yield stalls
        connections = gauge("client_connections", "Client connections open now.")
        connections.add_metric((), totals.sum_cell(view.segments, counters.WORKER_CLIENT_CONNECTIONS))
        yield connections
        again = counter(
            "task_restarts_total",
            "Background tasks of control that ended by surprise and were started again.",
            ("task",),
        )
        for task, number in tasks.restarts.items():
            again.add_metric((task,), number)
        yield again
        for name, text, cell in (
            (
                "client_connections_accepted_total",
                "Client connections accepted.",
                counters.WORKER_CLIENT_CONNECTIONS_TOTAL,
            ),
            (
                "access_log_lines_dropped_total",
                "Access-log lines dropped because the reader of the log did not keep up.",
                counters.WORKER_LOG_LINES_DROPPED,
            ),
            (
                "accept_pauses_total",
                "Times that a worker stopped accepting because its connection limit was reached.",
                counters.WORKER_ACCEPT_PAUSES,
            ),
            (
                "client_connections_refused_total",
                "Client connections closed at once because their address had limits.client_connections of them.",
                counters.WORKER_CONNECTIONS_REFUSED,
            ),
        ):
            family = counter(name, text)
            family.add_metric((), totals.sum_cell(view.segments, cell))
            yield family
        retries = counter("retries_total", "Requests sent to another replica, or not for want of budget.", ("reason",))
        for index, reason in enumerate(counters.RETRIES):
            retries.add_metric((reason,), totals.sum_cell(view.segments, counters.WORKER_RETRIES + index))
        yield retries

    def _collect_handshakes(self) -> Metric:
        failures = counter("tls_handshake_failures_total", "TLS handshakes of clients that failed.", ("reason",))
        for index, reason in enumerate(counters.TLS_FAILURES):
            failures.add_metric((reason,), totals.sum_cell(self._view.segments, counters.WORKER_TLS_FAILURES + index))
        return failures

    def _collect_certificates(self) -> Metric:
        ends = gauge(
            "certificate_not_after_timestamp_seconds",
            "Unix time at which the first certificate of a listener's chain expires.",
            ("listener",),
        )
        for listener in self._view.listeners:
            if listener.certificate_ends is not None:
                ends.add_metric((spell_address(listener.host, listener.port),), listener.certificate_ends)
        return ends

    def _collect_config(self) -> Iterator[Metric]:
        config = self._view.config
        success = gauge("config_last_reload_success", "0 while the configuration file is refused, else 1.")
        success.add_metric((), config.refusal is None)
        yield success
        since = gauge(
            "config_last_reload_success_timestamp_seconds", "Unix time since when the configuration is in force."
        )
        since.add_metric((), config.loaded)
        yield since
        reloads = counter("config_reloads_total", "Times that the configuration was read again.", ("outcome",))
        reloads.add_metric(("applied",), config.applied)
        reloads.add_metric(("refused",), config.refused)
        yield reloads

    def _collect_instances(self) -> Iterator[Metric]:
        denied = counter("gate_denied_total", "Requests refused by the gate, by rule.", ("instance", "rule"))
        replies = counter(
            "proxy_replies_total", "Exchanges that the proxy itself ended, by reason.", ("instance", "code", "reason")
        )
        queued = gauge("queued_requests", "Requests that wait for a place at a replica now.", ("instance",))
        waits = histogram(
            "queue_duration_seconds", "How long requests waited that got a place at a replica.", ("instance",)
        )
        for name, slot in self._view.instances:
            at = counters.instance_at(slot)
            cells = totals.sum_cells(self._view.segments, at, counters.INSTANCE_CELLS)
            if slot:  # a gate belongs to an instance; slot 0 is for exchanges that never had one
                for index, rule in enumerate(counters.GATE_RULES):
                    denied.add_metric((name, rule), cells[counters.INSTANCE_GATE_DENIED + index])
                queued.add_metric((name,), cells[counters.INSTANCE_QUEUED])
                found = totals.take_histogram(cells[counters.INSTANCE_QUEUE_DURATION :])
                waits.add_metric((name,), accumulate(found.counts, counters.DURATION_BUCKETS), sum_value=found.sum)
            for index, reason in enumerate(counters.REASONS):
                if number := cells[counters.INSTANCE_PROXY_REPLIES + index]:
                    replies.add_metric((name, str(REASONS[reason].status), reason), number)
        yield from (denied, replies, queued, waits)

    def _collect_replica_requests(self) -> Iterator[Metric]:
        requests = counter("replica_requests_total", "Exchanges answered by the replica.", (*REPLICA, "code", "method"))
        for replica in self._view.replicas:
            for code, method, number in totals.read_requests(self._view.segments, replica.slot):
                requests.add_metric((replica.instance, replica.replica, str(code), method), number)
        yield requests

    def _collect_replica_histograms(self) -> Iterator[Metric]:
        for name, text, offset in (
            (
                "replica_request_duration_seconds",
                "From the head of the request to the end of the replica's answer.",
                counters.REPLICA_DURATION,
            ),
            (
                "replica_connect_duration_seconds",
                "Time to open a connection to the replica.",
                counters.REPLICA_CONNECT_DURATION,
            ),
        ):
            family = histogram(name, text, REPLICA)
            for replica in self._view.replicas:
                found = totals.read_histogram(self._view.segments, replica.slot, offset)
                family.add_metric(
                    (replica.instance, replica.replica),
                    accumulate(found.counts, counters.DURATION_BUCKETS),
                    sum_value=found.sum,
                )
            yield family

    def _collect_replica_values(self) -> Iterator[Metric]:
        active = gauge("replica_active_requests", "Exchanges running on the replica now.", REPLICA)
        tunnels = gauge("replica_active_tunnels", "Tunnels (WebSocket and other) open to the replica now.", REPLICA)
        idle = gauge("replica_idle_connections", "Connections to the replica waiting for use.", REPLICA)
        ejections = counter(
            "replica_ejections_total", "Times that a worker began to pass the replica over for its failures.", REPLICA
        )
        total = counter("replica_tunnels_total", "Tunnels opened to the replica.", REPLICA)
        received = counter("replica_received_bytes_total", "Bytes received from the replica.", REPLICA)
        sent = counter("replica_sent_bytes_total", "Bytes sent to the replica.", REPLICA)
        connections = counter(
            "replica_connections_total",
            "Connections to the replica: opened, reused, found unusable while idle (stale), failed to open.",
            (*REPLICA, "outcome"),
        )
        for replica in self._view.replicas:
            labels = (replica.instance, replica.replica)
            cells = totals.read_simple(self._view.segments, replica.slot)
            active.add_metric(labels, cells[counters.REPLICA_ACTIVE_REQUESTS])
            tunnels.add_metric(labels, cells[counters.REPLICA_ACTIVE_TUNNELS])
            idle.add_metric(labels, cells[counters.REPLICA_IDLE_CONNECTIONS])
            ejections.add_metric(labels, cells[counters.REPLICA_EJECTIONS])
            total.add_metric(labels, cells[counters.REPLICA_TUNNELS_TOTAL])
            received.add_metric(labels, cells[counters.REPLICA_RECEIVED_BYTES])
            sent.add_metric(labels, cells[counters.REPLICA_SENT_BYTES])
            for outcome, cell in _OUTCOMES:
                connections.add_metric((*labels, outcome), cells[cell])
        yield from (active, tunnels, idle, ejections, total, received, sent, connections)

    def _collect_replica_states(self) -> Metric:
        states = gauge(
            "replica_state",
            "1 for the state that the replica is in; ejected while any worker passes it over for its failures.",
            (*REPLICA, "state"),
        )
        for replica in self._view.replicas:
            if replica.state is not None:
                ejected = totals.read_simple(self._view.segments, replica.slot)[counters.REPLICA_EJECTED]
                now = "ejected" if ejected and replica.state == "ready" else replica.state
                for state in STATES:
                    states.add_metric((replica.instance, replica.replica, state), state == now)
        return states

    def _collect_checks(self) -> Iterator[Metric]:
        checks = counter("replica_checks_total", "Checks of the replica by how they ended.", (*REPLICA, "outcome"))
        duration = gauge("replica_check_duration_seconds", "Time that the last check of the replica took.", REPLICA)
        for key, check in self._view.checks.items():
            for outcome, number in check.outcomes.items():
                checks.add_metric((*key, outcome), number)
            if check.last is not None:
                duration.add_metric(key, check.seconds)
        yield from (checks, duration)

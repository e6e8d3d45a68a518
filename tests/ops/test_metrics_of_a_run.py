"""What /metrics says after real traffic, read by strict parsers in both of its forms."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from pathlib import Path

from prometheus_client.openmetrics import parser as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from tests.proxy_process import ProxyProcess, describe_instance
from tests.recording_replica import RecordingReplica


def ask(port: int, path: str, accept: str = "*/*", method: str = "GET") -> tuple[int, str, str]:
    """Status, type and body of one answer."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, headers={"Accept": accept})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()


async def test_both_forms_of_the_metrics_are_read_by_strict_parsers_after_traffic(tmp_path: Path) -> None:
    async with RecordingReplica() as replica:
        await asyncio.to_thread(check_forms, tmp_path, replica.url)


def check_forms(folder: Path, url: str) -> None:
    with ProxyProcess(folder, [describe_instance([url])]) as proxy:
        for path in ("/api/hello", "/flows", "/api/hello?" + "x" * 9000):
            ask(proxy.port, path)
            ask(proxy.port, path, method="POST")
        _, kind, text = ask(proxy.ops_port, "/metrics", "application/openmetrics-text;version=1.0.0")
        assert kind.startswith("application/openmetrics-text")
        strict = {
            sample.name: sample.value
            for family in open_metrics.text_string_to_metric_families(text)
            for sample in family.samples
        }
        _, kind, text = ask(proxy.ops_port, "/metrics")
        assert kind.startswith("text/plain")
        plain = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
        assert strict.keys() == plain
        assert strict["haproxy_py_client_connections_accepted_total"] == 6
        assert {"haproxy_py_gate_denied_total", "haproxy_py_replica_requests_total"} <= plain

"""How fast and how cheap: from event to first request, a thousand endpoints, memory. The figures are printed (pytest -rP)."""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import time
from pathlib import Path

import pytest

from tests.discovery.api_server import ApiServer
from tests.discovery.pods import Pods
from tests.discovery.things import Thing, make_endpoint, make_port, make_slice
from tests.discovery.watcher import Watcher, describe_kubernetes
from tests.load import Load

pytestmark = pytest.mark.timeout(240)

TRIES = 100
ENDPOINTS, SLICES = 1000, 10
MEMORY_LIMIT = 110  # MiB of the control process


def test_the_first_request_on_a_new_replica_comes_within_a_tenth_of_a_second_of_the_event(
    api: ApiServer, tmp_path: Path
) -> None:
    with Pods(api) as pods:
        names = pods.start(2)

        def offer(name: str) -> None:
            endpoint = make_endpoint(name, pods.running[name].address)
            api.put(
                "endpointslices", "node-red", make_slice(endpoint, name="my-instance-0", ports=[make_port(pods.port)])
            )

        offer(names[0])
        lags = []
        with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())], workers=2) as proxy:
            api.wait_for_watch()
            connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
            with contextlib.closing(connection):
                for number in range(TRIES):
                    wanted = names[(number + 1) % 2]
                    began = time.monotonic()
                    offer(wanted)
                    replica = ""
                    while replica != wanted:
                        connection.request("GET", "/api/hello")
                        replica = json.loads(connection.getresponse().read())["replica"]
                    lags.append((time.monotonic() - began) * 1000)
            receipts = proxy.get_metric('discovery_update_lag_seconds_count{since="receipt"}')
            mean = proxy.get_metric('discovery_update_lag_seconds_sum{since="receipt"}') / receipts * 1000
        assert receipts >= TRIES
        median, slow = statistics.median(lags), sorted(lags)[int(TRIES * 0.95)]
        print(f"from write to first request on the new replica: median {median:.1f} ms, 95% within {slow:.1f} ms")
        print(f"from receipt of the event to the table in both workers: mean {mean:.1f} ms")
        assert median < 100


def make_many(pods: Pods, missing: int = -1) -> list[Thing]:
    """A thousand endpoints in ten slices: one process answers on all of their addresses."""
    each = ENDPOINTS // SLICES
    return [
        make_slice(
            *(
                make_endpoint(f"many-{number:04}", f"127.1.{number // 250}.{number % 250 + 1}")
                for number in range(part * each, (part + 1) * each)
                if number != missing
            ),
            name=f"many-{part}",
            ports=[make_port(pods.port)],
        )
        for part in range(SLICES)
    ]


def percentile_99(load: Load, requests: int) -> float:
    """Milliseconds."""
    before = len(load.results)
    load.run_for(requests)
    took = sorted(one.took for one in load.results[before:])
    return took[int(len(took) * 0.99)] * 1000


def test_a_thousand_endpoints_cost_little_and_traffic_does_not_notice(api: ApiServer, tmp_path: Path) -> None:
    with Pods(api) as pods:
        pods.start_everywhere()
        for thing in make_many(pods):
            api.put("endpointslices", "node-red", thing)
        instance = describe_kubernetes(api.write_kubeconfig(), limits={"idle_connections": 1})
        with Watcher(tmp_path, [instance], workers=2) as proxy, Load(proxy.port) as load:
            proxy.wait_for(lambda: len(proxy.list_replicas()) == ENDPOINTS)
            memory = proxy.read_memory()
            load.run_for(200)
            quiet = percentile_99(load, 600)
            table, cpu, before = proxy.get_status()["table_version"], proxy.read_cpu(), len(load.results)
            for number in range(2 * SLICES):
                part = number // 2 % SLICES  # one endpoint of it goes, and comes back
                missing = -1 if number % 2 else part * ENDPOINTS // SLICES
                api.put("endpointslices", "node-red", make_many(pods, missing)[part])
                time.sleep(0.25)  # each its own update; this is the load's time as well
            cpu = (proxy.read_cpu() - cpu) * 1000
            took = sorted(one.took for one in load.results[before:])
            busy = took[int(len(took) * 0.99)] * 1000
            proxy.wait_for(lambda: len(proxy.list_replicas()) == ENDPOINTS)
            updates = proxy.get_status()["table_version"] - table
            assert updates >= SLICES, "updates that come close together are one"
            each = cpu / updates
            assert load.list_failures() == []
        print(f"one update of {ENDPOINTS} endpoints in {SLICES} slices: {each:.1f} ms of control CPU")
        print(f"p99 of requests: {quiet:.1f} ms without, {busy:.1f} ms with four updates a second")
        print(f"the control process takes {memory:.1f} MiB with them")
        assert each < 50
        assert busy < quiet + 25, "on a machine that others use as well"
        assert memory < MEMORY_LIMIT


def test_the_control_process_stays_below_its_memory_limit(api: ApiServer, tmp_path: Path) -> None:
    static = {"name": "test", "ha": True, "replicas": {"static": ["http://127.0.0.1:9"]}}
    for folder in ("static", "kubernetes"):
        (tmp_path / folder).mkdir()
    with Watcher(tmp_path / "static", [static]) as proxy:
        without = proxy.read_memory()
        worker = read_memory(proxy.get_status()["workers"][0]["pid"])
    api.put("endpointslices", "node-red", make_slice(make_endpoint("a", "127.0.1.1")))
    with Watcher(tmp_path / "kubernetes", [describe_kubernetes(api.write_kubeconfig(), ha="auto")]) as proxy:
        api.wait_for_watch()
        proxy.get_ops("/metrics")
        used = proxy.read_memory()
        worker_beside = read_memory(proxy.get_status()["workers"][0]["pid"])
    print(f"control: {without:.1f} MiB without, {used:.1f} MiB with discovery")
    print(f"worker: {worker:.1f} MiB without, {worker_beside:.1f} MiB with discovery")
    assert used < MEMORY_LIMIT
    assert abs(worker_beside - worker) < 3


def read_memory(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1024 / 1024

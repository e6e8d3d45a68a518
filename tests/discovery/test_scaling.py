"""Scaling and rolling replacement under load: no failed request, and even shares at once."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.discovery.api_server import ApiServer
from tests.discovery.pods import Pods
from tests.discovery.things import make_endpoint, make_port, make_slice
from tests.discovery.watcher import Watcher, describe_kubernetes
from tests.load import Load

pytestmark = pytest.mark.timeout(240)

CLIENTS = 4


def wait_for_names(proxy: Watcher, pods: Pods) -> None:
    """Until the worker, not only control, chooses among exactly these."""
    proxy.wait_for_table(lambda replicas: replicas.keys() == pods.names)


def count_choices(proxy: Watcher) -> Counter[str]:
    """How often the worker has chosen each replica. What the clients tell lags by what is under way, on a busy machine much."""
    (instance,) = proxy.get_status()["instances"]
    return Counter({one["name"]: one["requests"] + one["active_requests"] for one in instance["replicas"]})


def assert_even(proxy: Watcher, load: Load, pods: Pods, requests_each: int = 10) -> None:
    """Round robin of one worker is exact; what changes while the counters are read may blur it by two."""
    before = count_choices(proxy)
    load.run_for(requests_each * len(pods.names))
    shares = count_choices(proxy) - before
    assert set(shares) == pods.names
    assert max(shares.values()) - min(shares.values()) <= 3, shares


def test_scaling_2_10_1_0_3_loses_no_request(api: ApiServer, tmp_path: Path) -> None:
    instance = describe_kubernetes(api.write_kubeconfig(), kubernetes={"port": "http"})
    with Pods(api) as pods:
        pods.scale(2)
        with Watcher(tmp_path, [instance]) as proxy, Load(proxy.port, threads=CLIENTS) as load:
            wait_for_names(proxy, pods)
            assert_even(proxy, load, pods)
            for count in (10, 1):
                pods.scale(count)
                wait_for_names(proxy, pods)
                assert_even(proxy, load, pods)
            assert load.list_failures() == []

            began_ending = time.monotonic()
            pods.scale(0)
            proxy.wait_for_log("it has no replica")
            load.run_for(20)
            assert proxy.is_ready(), "an empty set is an answer, not a reason to take the proxy away"
            pods.scale(3)
            proxy.wait_for_table(lambda replicas: bool(replicas))
            refilled = time.monotonic()
            wait_for_names(proxy, pods)
            assert_even(proxy, load, pods)

            failures = load.list_failures()
            # The last replica serves until its process ends, and there is no other to resend a POST to: at most one per client.
            cut = [one for one in failures if (one.method, one.detail) == ("POST", "upstream_closed")]
            assert len(cut) <= CLIENTS
            assert {(one.status, one.detail) for one in failures if one not in cut} == {(503, "no_replica")}
            assert all(began_ending <= one.began <= refilled for one in failures)


def test_replacing_every_replica_loses_no_request(api: ApiServer, tmp_path: Path) -> None:
    with Pods(api) as pods:
        pods.scale(3)
        first = pods.names
        with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())]) as proxy, Load(proxy.port) as load:
            wait_for_names(proxy, pods)
            load.run_for(30)
            for name in sorted(first):
                pods.start()
                pods.end(name)
            wait_for_names(proxy, pods)
            assert not pods.names & first
            assert_even(proxy, load, pods)
            assert load.list_failures() == []


def test_a_replica_that_ends_finishes_what_it_has(api: ApiServer, tmp_path: Path) -> None:
    """A terminating replica gets no new request as long as another one is ready, and all of them if none is."""
    with Pods(api) as pods:
        one, two = pods.start(2)

        def tell(*ending: str) -> None:
            endpoints = [
                make_endpoint(
                    pod.name,
                    pod.address,
                    ready=pod.name not in ending,
                    serving=True,
                    terminating=pod.name in ending,
                )
                for pod in pods.running.values()
            ]
            api.put(
                "endpointslices", "node-red", make_slice(*endpoints, name="my-instance-0", ports=[make_port(pods.port)])
            )

        with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())]) as proxy, Load(proxy.port) as load:
            proxy.wait_for(lambda: proxy.list_replicas() == {one: "ready", two: "ready"})
            tell(one)
            proxy.wait_for(lambda: proxy.list_replicas() == {one: "draining", two: "ready"})
            load.run_for(8)  # what was under way
            assert set(load.count_replicas(*load.run_for(20))) == {two}
            tell(one, two)
            proxy.wait_for(lambda: proxy.list_replicas() == {one: "draining", two: "draining"})
            load.run_for(8)
            assert set(load.count_replicas(*load.run_for(20))) == {one, two}
            assert load.list_failures() == []
            assert proxy.get_metric('discovery_replicas{instance="test",state="draining"}') == 2
            assert proxy.get_metric(f'replica_state{{instance="test",replica="{one}",state="draining"}}') == 1

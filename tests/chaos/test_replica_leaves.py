"""Replicas that leave on purpose, under load: the proxy is told first, by discovery or by the drain command."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.conftest import FULL, Extent, Figures
from tests.chaos.node_red import stop_and_watch, write_flows
from tests.chaos.sticky import StickyClients
from tests.discovery.api_server import ApiServer
from tests.discovery.pods import PRE_STOP, Pods
from tests.discovery.things import make_endpoint, make_port, make_slice
from tests.discovery.watcher import Watcher, describe_kubernetes
from tests.load import Load
from tests.node_red.replicas import VERSIONS, NodeRedReplica, Replicas
from tests.proxy_process import ProxyProcess, describe_instance

COUNT = 3

MORE = 3
"""Further times, if nobody saw a 404 of a stopping Node-RED: on a busy machine it can be over before anybody has asked."""

pytestmark = pytest.mark.timeout(240)


class Slices:
    """The EndpointSlices of Node-RED replicas: one each, because all have one address and different ports."""

    def __init__(self, api: ApiServer, replicas: Replicas) -> None:
        self._api = api
        for replica in replicas.members:
            self.write(replica)

    def write(self, replica: NodeRedReplica, *, terminating: bool = False, gone: bool = False) -> None:
        endpoint = make_endpoint(
            replica.name, "127.0.0.1", ready=not terminating, serving=True, terminating=terminating
        )
        name = f"my-instance-{replica.name}"
        thing = make_slice(*([] if gone else [endpoint]), name=name, ports=[make_port(replica.port)])
        self._api.put("endpointslices", "node-red", thing)


def make_replicas(version: str, folder: Path, extent: Extent) -> Replicas:
    return Replicas(version, folder, extent.choose(2, COUNT), flows=write_flows(folder))


def run_command(proxy: ProxyProcess, *words: str) -> None:
    line = [sys.executable, "-m", "haproxy_py", *words, "--config", str(proxy.config_file)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done


class Measured:
    """What the clients have seen since the beginning of the fault."""

    def __init__(self, load: Load, sticky: StickyClients) -> None:
        self._load = load
        self._sticky = sticky
        self._began = time.monotonic()
        self._before = load.total

    def __str__(self) -> str:
        load, sticky = self._load, self._sticky
        rate = (load.total - self._before) / (time.monotonic() - self._began)
        return (
            f"{load.total} requests, {rate:.0f} a second, {load.failed} failed; {sticky.answers} requests of sticky "
            f"clients, {len(sticky.failures)} failed"
        )


@pytest.mark.parametrize("version", VERSIONS if FULL else ["v5"])
def test_sigterm_of_a_node_red_replica_whose_endpoint_says_so_first_costs_nothing(
    version: str, tmp_path: Path, extent: Extent, figures: Figures
) -> None:
    times = extent.choose(1, 20)
    with ApiServer(tmp_path, tls=True) as api, make_replicas(version, tmp_path, extent) as replicas:
        slices = Slices(api, replicas)
        instance = describe_kubernetes(api.write_kubeconfig(), balance={"affinity": "all"})
        everyone = dict.fromkeys(replicas.names, "ready")
        with (
            Watcher(tmp_path, [instance], workers=2) as proxy,
            Load(proxy.port, threads=16, pause=0, rate=extent.choose(500, 2000)) as load,
            StickyClients(proxy.port) as sticky,
        ):
            proxy.wait_for_replicas(everyone)
            load.run_for(500)
            measured = Measured(load, sticky)
            refusals = turn = 0
            while turn < times or (not refusals and turn < times + MORE):
                leaving = replicas.members[turn % len(replicas.members)]
                turn += 1
                slices.write(leaving, terminating=True)
                time.sleep(PRE_STOP)
                refusals += stop_and_watch(leaving)
                slices.write(leaving, gone=True)
                leaving.start()
                leaving.wait_ready()
                slices.write(leaving)
                proxy.wait_for_replicas(everyone)
                load.run_for(200)
            figures.add(
                f"SIGTERM of a Node-RED {VERSIONS[version]}, its endpoint terminating {PRE_STOP:g} s before, "
                f"{turn} times: {measured}; {refusals} answers 404 to who asked the stopping replica itself"
            )
            assert refusals > 0, "the fault was not there: a stopping Node-RED answered no 404"
            assert sticky.moves > 0 or turn == 1, "nobody stuck to a replica that left"
        assert load.list_failures() == []
        assert sticky.failures == []


@pytest.mark.chaos
@pytest.mark.parametrize("version", VERSIONS)
def test_sigterm_of_a_node_red_replica_after_the_drain_command_costs_nothing(
    version: str, tmp_path: Path, extent: Extent, figures: Figures
) -> None:
    times = extent.choose(1, 20)
    with make_replicas(version, tmp_path, extent) as replicas:
        instance = describe_instance(replicas.urls, balance={"affinity": "all"})
        proxy = ProxyProcess(tmp_path, [instance], workers=2, extra={"log": {"access": "off"}})
        proxy.config["ops"]["token_file"] = "token"
        (tmp_path / "token").write_text("0123456789abcdef")
        with (
            proxy,
            Load(proxy.port, threads=16, pause=0, rate=extent.choose(500, 2000)) as load,
            StickyClients(proxy.port) as sticky,
        ):
            load.run_for(500)
            measured = Measured(load, sticky)
            refusals = turn = 0
            while turn < times or (not refusals and turn < times + MORE):
                leaving = replicas.members[turn % len(replicas.members)]
                turn += 1
                name = leaving.url.removeprefix("http://")
                run_command(proxy, "drain", "test", name, "--wait")
                refusals += stop_and_watch(leaving)
                leaving.start()
                leaving.wait_ready()
                run_command(proxy, "undrain", "test", name)
                load.run_for(200)
            figures.add(
                f"SIGTERM of a Node-RED {VERSIONS[version]} after haproxy-py drain --wait, {turn} times: "
                f"{measured}; {refusals} answers 404 to who asked the stopping replica itself"
            )
            assert refusals > 0, "the fault was not there: a stopping Node-RED answered no 404"
            assert sticky.moves > 0 or turn == 1, "nobody stuck to a replica that left"
        assert load.list_failures() == []
        assert sticky.failures == []


def test_rolling_replacement_of_every_replica_costs_nothing(tmp_path: Path, extent: Extent, figures: Figures) -> None:
    times = extent.choose(2, 20)
    with ApiServer(tmp_path, tls=True) as api, Pods(api) as pods:
        pods.scale(COUNT)
        instance = describe_kubernetes(api.write_kubeconfig(), balance={"affinity": "all"})
        with (
            Watcher(tmp_path, [instance], workers=2) as proxy,
            Load(proxy.port, threads=16, pause=0, rate=extent.choose(500, 2000)) as load,
            StickyClients(proxy.port) as sticky,
        ):
            proxy.wait_for(lambda: set(proxy.list_replicas()) == pods.names)
            measured = Measured(load, sticky)
            for _ in range(times):
                for name in sorted(pods.names):
                    pods.start()
                    pods.end(name)
            proxy.wait_for(lambda: set(proxy.list_replicas()) == pods.names)
            first, last = load.run_for(50 * COUNT)
            assert set(load.count_replicas(first, last)) == pods.names
            figures.add(f"rolling replacement of {COUNT} replicas, {times} times: {measured}")
        assert load.list_failures() == []
        assert sticky.failures == []

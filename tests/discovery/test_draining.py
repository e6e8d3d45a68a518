"""What stays on a replica that terminates: running exchanges and tunnels, also after its endpoint is gone; and what moves."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.discovery.api_server import ApiServer
from tests.discovery.pods import Pods
from tests.discovery.things import Thing, make_endpoint, make_port, make_slice
from tests.discovery.watcher import Watcher, describe_kubernetes


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of IP addresses
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


def tell(api: ApiServer, pods: Pods, **states: Thing) -> None:
    """Conditions of each pod; who is not named has no endpoint."""
    endpoints = [
        make_endpoint(name.replace("_", "-"), pods.running[name.replace("_", "-")].address, **conditions)
        for name, conditions in states.items()
    ]
    thing = make_slice(*endpoints, name="my-instance-0", ports=[make_port(pods.port)])
    api.put("endpointslices", "node-red", thing)


READY: Thing = {"ready": True}
ENDING: Thing = {"ready": False, "serving": True, "terminating": True}
CLOSED: Thing = {"ready": False, "serving": False, "terminating": True}


async def ask(client: aiohttp.ClientSession, url: str) -> str:
    async with client.get(url) as answer:
        assert answer.status == 200
        replica: str = (await answer.json())["replica"]
        return replica


async def test_tunnels_and_running_requests_outlive_the_endpoint(
    api: ApiServer, tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    with Pods(api) as pods:
        pods.start(2)
        tell(api, pods, pod_001=READY)
        long = {"delay": "0s", "deadline": "60s"}
        with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())], drain=long) as proxy:
            async with client.ws_connect(f"{proxy.url}/ws/echo") as tunnel:
                running = asyncio.create_task(ask(client, f"{proxy.url}/api/slow"))
                active = 'replica_active_requests{instance="test",replica="pod-001"}'
                await asyncio.to_thread(proxy.wait_for, lambda: proxy.get_metric(active) == 1)
                states: list[dict[str, Thing]] = [
                    {"pod_001": ENDING, "pod_002": READY},
                    {"pod_001": CLOSED, "pod_002": READY},
                    {"pod_002": READY},
                ]
                expected = [{"pod-001": "draining", "pod-002": "ready"}, {"pod-002": "ready"}, {"pod-002": "ready"}]
                for state, table in zip(states, expected, strict=True):
                    before = proxy.sum_metric("discovery_updates_total")
                    await asyncio.to_thread(tell, api, pods, **state)
                    await asyncio.to_thread(
                        proxy.wait_for, lambda before=before: proxy.sum_metric("discovery_updates_total") > before
                    )
                    await asyncio.to_thread(proxy.wait_for_replicas, table)
                    await tunnel.send_str("who?")
                    assert (await tunnel.receive(10)).data == "pod-001"
                    assert await ask(client, f"{proxy.url}/api/hello") == "pod-002"
                assert await running == "pod-001"
            await asyncio.to_thread(proxy.stop)  # not on this loop, which has connections to close


async def test_a_sticky_client_moves_with_its_next_request(
    api: ApiServer, tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    with Pods(api) as pods:
        pods.start(2)
        tell(api, pods, pod_001=READY)
        instance = describe_kubernetes(api.write_kubeconfig(), balance={"affinity": "all"})
        with Watcher(tmp_path, [instance]) as proxy:
            assert await ask(client, f"{proxy.url}/api/hello") == "pod-001"
            await asyncio.to_thread(tell, api, pods, pod_001=ENDING, pod_002=READY)
            await asyncio.to_thread(proxy.wait_for_replicas, {"pod-001": "draining", "pod-002": "ready"})
            assert [await ask(client, f"{proxy.url}/api/hello") for _ in range(4)] == ["pod-002"] * 4


async def test_tunnels_of_a_terminating_replica_are_closed_within_the_drain_deadline(
    api: ApiServer, tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    with Pods(api) as pods:
        pods.start(2)
        tell(api, pods, pod_001=READY)
        drain = {"delay": "0s", "deadline": "2s"}
        with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())], drain=drain) as proxy:
            async with client.ws_connect(f"{proxy.url}/ws/echo") as tunnel:
                began = time.monotonic()
                await asyncio.to_thread(tell, api, pods, pod_001=ENDING, pod_002=READY)
                await asyncio.to_thread(proxy.wait_for_replicas, {"pod-001": "draining", "pod-002": "ready"})
                await tunnel.send_str("who?")
                assert (await tunnel.receive(10)).data == "pod-001"
                await asyncio.to_thread(tell, api, pods, pod_002=READY)  # leaving changes nothing about it
                assert (await tunnel.receive(10)).type is aiohttp.WSMsgType.CLOSED
                assert 1.0 < time.monotonic() - began < 4.0


async def test_word_of_an_operator_holds_through_what_discovery_says_until_the_replica_is_gone(
    api: ApiServer, tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    (tmp_path / "token").write_text("0123456789abcdef")
    with Pods(api) as pods:
        pods.start(2)
        tell(api, pods, pod_001=READY, pod_002=READY)
        with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())]) as proxy:
            proxy.config["ops"]["token_file"] = "token"
            proxy.write_config()
            proxy.signal(signal.SIGHUP)
            await asyncio.to_thread(proxy.wait_for_log, "is in force as table")
            call = [sys.executable, "-m", "haproxy_py", "drain", "test", "pod-001", "--config", str(proxy.config_file)]
            await asyncio.to_thread(subprocess.run, call, check=True, timeout=30)
            await asyncio.to_thread(proxy.wait_for_replicas, {"pod-001": "draining", "pod-002": "ready"})
            for second in (READY | {"serving": True}, CLOSED, READY):
                await asyncio.to_thread(tell, api, pods, pod_001=READY, pod_002=second)
                expected = {"pod-001": "draining"} | ({} if second is CLOSED else {"pod-002": "ready"})
                await asyncio.to_thread(proxy.wait_for_replicas, expected)
            assert {await ask(client, f"{proxy.url}/api/hello") for _ in range(4)} == {"pod-002"}
            await asyncio.to_thread(tell, api, pods, pod_002=READY)
            await asyncio.to_thread(proxy.wait_for_log, "replica pod-001 has left; with it ends its drain")
            await asyncio.to_thread(tell, api, pods, pod_001=READY, pod_002=READY)
            await asyncio.to_thread(proxy.wait_for_replicas, {"pod-001": "ready", "pod-002": "ready"})

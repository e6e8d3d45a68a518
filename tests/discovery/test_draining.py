"""What stays on a replica that terminates: running exchanges, tunnels, sticky clients; and after its endpoint is gone."""

from __future__ import annotations

import asyncio
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
        with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())]) as proxy:
            async with client.ws_connect(f"{proxy.url}/ws/echo") as tunnel:
                running = asyncio.create_task(ask(client, f"{proxy.url}/api/slow"))
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


async def test_a_sticky_client_stays_until_its_replica_no_longer_serves(
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
            assert [await ask(client, f"{proxy.url}/api/hello") for _ in range(4)] == ["pod-001"] * 4
            await asyncio.to_thread(tell, api, pods, pod_001=CLOSED, pod_002=READY)
            await asyncio.to_thread(proxy.wait_for_replicas, {"pod-002": "ready"})
            assert await ask(client, f"{proxy.url}/api/hello") == "pod-002"

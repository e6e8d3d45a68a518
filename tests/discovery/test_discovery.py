"""Discovery as a whole, over scripted sources: what it finds, when it tells of it, and what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from haproxy_py import counters
from haproxy_py.config import (
    Cluster,
    Config,
    Instance,
    InstancesFrom,
    KubernetesSelector,
    KubernetesService,
    StaticReplica,
)
from haproxy_py.discovery import discovery as module
from haproxy_py.discovery import keep
from haproxy_py.discovery.api import Collection, Event
from haproxy_py.discovery.discovery import NO_INSTANCE, Discovery
from haproxy_py.discovery.found import FoundInstance
from haproxy_py.discovery.reflector import Change
from tests.discovery.things import Thing, make_endpoint, make_service, make_slice


class FakeApi:
    """Lists what the test says, and watches what it sends."""

    made: list[FakeApi]
    things: dict[str, list[Thing]]  # by kind

    def __init__(self, cluster: Cluster) -> None:
        self.namespace = "prod"
        self.is_closed = False
        self.queues: dict[str, asyncio.Queue[list[Event]]] = {}
        FakeApi.made.append(self)

    def expire_credentials(self) -> None:
        raise AssertionError("nobody refused them")

    async def close(self) -> None:
        self.is_closed = True

    async def list_pages(self, collection: Collection) -> AsyncGenerator[tuple[list[Any], str], None]:
        yield self.things.get(collection.kind, []), "1"

    async def watch(self, collection: Collection, version: str) -> AsyncGenerator[list[Event], None]:
        yield []
        queue = self.queues.setdefault(collection.kind, asyncio.Queue())
        while True:
            yield await queue.get()

    def send(self, kind: str, *things: Thing) -> None:
        """All in one piece, as if they had arrived together."""
        for number, thing in enumerate(things, 2):
            thing["metadata"] |= {"resourceVersion": str(number), "namespace": "prod"}
        self.queues.setdefault(kind, asyncio.Queue()).put_nowait([Event("MODIFIED", thing) for thing in things])


@pytest.fixture(autouse=True)
def fake_api(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeApi.made = []
    FakeApi.things = {}
    monkeypatch.setattr(module, "Api", FakeApi)


class Follower:
    """A Discovery and what it told."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.changes: list[Change] = []
        self.said: list[tuple[str, str]] = []
        self.told = asyncio.Event()
        self.discovery = Discovery(
            lambda level, text: self.said.append((level, text)), lambda host, port: False, self._take
        )

    def _take(self, change: Change) -> None:
        self.changes.append(change)
        self.told.set()

    async def wait(self) -> tuple[FoundInstance, ...]:
        """Until something was told; what is found then."""
        async with asyncio.timeout(10):
            await self.told.wait()
        self.told.clear()
        found = self.discovery.find(self.config)
        self.discovery.announce(found)
        return found


def make_config(*services: str, source: bool = False, ha: bool | None = True) -> Config:
    instances = tuple(Instance(name, (name,), ha, kubernetes=KubernetesService(name, "prod")) for name in services)
    return Config((), instances, InstancesFrom(KubernetesSelector(("prod",))) if source else None)


def name_replicas(found: tuple[FoundInstance, ...]) -> dict[str, list[str]]:
    return {one.settings.name: [replica.name for replica in one.replicas] for one in found}


async def test_nothing_is_known_before_the_first_list() -> None:
    follower = Follower(make_config("a"))
    (found,) = follower.discovery.find(follower.config)
    assert (found.discovered, found.replicas) == (False, ())


async def test_many_events_that_arrive_together_are_told_once() -> None:
    follower = Follower(make_config("a"))
    follower.discovery.follow(follower.config)
    await follower.wait()
    pods = [make_slice(make_endpoint(f"p{n}", f"10.0.0.{n}"), name=f"s{n}", service="a") for n in range(1, 101)]
    FakeApi.made[0].send("endpointslices", *pods)
    found = await follower.wait()
    assert len(found[0].replicas) == 100
    assert len(follower.changes) == 2, "the list, and all of the events"
    await follower.discovery.close()


async def test_closing_leaves_no_task_and_no_connection() -> None:
    follower = Follower(make_config("a", "b", source=True, ha=None))
    follower.discovery.follow(follower.config)
    await follower.wait()
    await follower.discovery.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    assert [api.is_closed for api in FakeApi.made] == [True]


async def test_services_without_any_leave_no_instance_once_that_is_known() -> None:
    follower = Follower(make_config(source=True))
    (pending,) = follower.discovery.find(follower.config)
    assert (pending.settings.name, pending.settings.hosts, pending.discovered) == (NO_INSTANCE, (), False)
    follower.discovery.follow(follower.config)
    await follower.wait()
    while not follower.discovery.is_complete():
        await follower.wait()
    assert follower.discovery.find(follower.config) == ()
    await follower.discovery.close()


async def test_an_instance_of_a_service_waits_for_its_own_slices_only() -> None:
    service = make_service("a", hosts="a.example.com")
    service["metadata"]["namespace"] = "prod"
    FakeApi.things = {"services": [service], "endpointslices": [make_slice(make_endpoint("p"), service="a")]}
    follower = Follower(make_config(source=True))
    follower.discovery.follow(follower.config)
    found = await follower.wait()
    while not follower.discovery.is_complete():
        found = await follower.wait()
    assert name_replicas(found) == {"a.prod": ["p"]}
    assert ("info", "instance a.prod: 1 ready, 0 draining (new: p)") in follower.said
    await follower.discovery.close()


async def test_more_replicas_than_there_are_counters_for_are_shared_out() -> None:
    def static(name: str, count: int) -> Instance:
        return Instance(
            name, (name,), True, tuple(StaticReplica(f"10.0.{n // 250}.{n % 250}", 1) for n in range(count))
        )

    config = Config((), (static("large", 1500), static("small", 10), static("middle", 1400)))
    follower = Follower(config)
    found = follower.discovery.find(config)
    sizes = {one.settings.name: len(one.replicas) for one in found}
    assert sizes["small"] == 10
    assert sizes["large"] == sizes["middle"] == (counters.MAX_REPLICAS - 10) // 2
    follower.discovery.announce(found)
    assert any("more than 2048 replicas in all" in text for _, text in follower.said)


async def test_a_complaint_is_told_once_and_again_after_it_was_gone() -> None:
    wrong, right = (
        make_slice(make_endpoint("p"), service="a", ports=[{"name": name, "port": 1880}, {"name": "x", "port": 1}])
        for name in ("web", "http")
    )
    config = Config((), (Instance("a", ("a",), True, kubernetes=KubernetesService("a", "prod", "http")),))
    FakeApi.things = {"endpointslices": [wrong]}
    follower = Follower(config)
    follower.discovery.follow(config)
    await follower.wait()
    follower.discovery.announce(follower.discovery.find(config))
    for thing, count in ((right, 1), (wrong, 2)):
        FakeApi.made[0].send("endpointslices", dict(thing))
        await follower.wait()
        assert sum("no TCP port http" in text for _, text in follower.said) == count
    assert follower.discovery.view().complaints
    await follower.discovery.close()


async def test_a_service_of_type_external_name_is_complained_of() -> None:
    service = make_service("a", hosts="a.example.com")
    service["metadata"]["namespace"] = "prod"
    service["spec"] = {"type": "ExternalName", "externalName": "node-red.example.com"}
    FakeApi.things = {"services": [service]}
    follower = Follower(make_config(source=True))
    follower.discovery.follow(follower.config)
    while not follower.discovery.is_complete():
        await follower.wait()
    (complaint,) = follower.discovery.view().complaints
    assert complaint.startswith("instance a.prod: Service prod/a is of type ExternalName, which has no endpoints")
    await follower.discovery.close()


async def test_a_set_that_turned_unready_is_believed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "KEEP_FOR", 0.2)

    def make(ready: bool) -> Thing:
        return make_slice(
            *(make_endpoint(name, f"10.0.0.{n}", ready=ready) for n, name in enumerate("pq", 1)), service="a"
        )

    FakeApi.things = {"endpointslices": [make(True)]}
    follower = Follower(make_config("a"))
    follower.discovery.follow(follower.config)
    await follower.wait()
    FakeApi.made[0].send("endpointslices", make(False))
    assert name_replicas(await follower.wait()) == {"a": ["p", "q"]}
    assert name_replicas(await follower.wait()) == {"a": []}, "without a word from the API server"
    assert follower.discovery.view().complaints == ()
    await follower.discovery.close()


async def test_many_failing_watches_pause_longer_so_that_they_ask_once_a_second_in_all() -> None:
    config = Config((), (), InstancesFrom(KubernetesSelector(tuple(f"n{number}" for number in range(60)))))
    follower = Follower(config)
    follower.discovery.follow(config)
    longest = [feed.reflector._pace.longest() for feed in follower.discovery._feeds.values()]
    assert sum(1 / (0.75 * pause) for pause in longest) <= 1.0
    await follower.discovery.close()

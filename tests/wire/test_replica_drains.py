"""A replica drains: what it is still given, and what becomes of its tunnels."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Mapping
from typing import Any

import pytest

from haproxy_py import counters
from haproxy_py.table import ReplicaState
from tests.proxy_process import describe_instance
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, ScriptedReplica, Wire, answer_each, eventually, get_field
from tests.wire.test_queue import Holding, count_queued
from tests.wire.test_tunnels import HANDSHAKE, SWITCH, hold, switching, upgrade

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
STICKY = b"GET /socket.io/x HTTP/1.1\r\nHost: test\r\nCookie: %s\r\n\r\n"
TUNNELS = counters.REPLICA_ACTIVE_TUNNELS


async def let_drain(
    worker: InnerWorker, instance: Mapping[str, Any], *urls: str, drained: bool = False, within: float = 100.0
) -> None:
    """A table in which these replicas drain; each that drains already keeps its end."""
    names = {url.removeprefix("http://") for url in urls}
    ends = time.monotonic() + within
    await worker.publish(
        instance,
        marks={name: {"state": ReplicaState.DRAINING, "drained": drained, "drain_ends": ends} for name in names},
    )


async def ask_replica(client: Wire, request: bytes = GET) -> tuple[int, str, str]:
    """Status, X-HA-Replica and the cookie that the answer sets."""
    status, head, _ = await client.ask(request)
    return status, get_field(head, "X-HA-Replica") or "", (get_field(head, "Set-Cookie") or "").partition(";")[0]


@pytest.mark.parametrize("drained", [False, True])
async def test_draining_replica_gets_no_new_request_and_loses_its_idle_connections(drained: bool) -> None:
    async with (
        ScriptedReplica(answer_each()) as one,
        ScriptedReplica(answer_each()) as two,
        InnerWorker([one.url, two.url]) as worker,
        await worker.open() as client,
    ):
        assert len({(await ask_replica(client))[1] for _ in range(4)}) == 2
        instance = describe_instance([one.url, two.url])
        await let_drain(worker, instance, one.url, drained=drained)
        assert len({(await ask_replica(client))[1] for _ in range(6)}) == 1
        idle = [worker.count_replica(counters.REPLICA_IDLE_CONNECTIONS, slot) for slot in (0, 1)]
        assert sorted(idle) == [0, 1]
        await worker.publish(instance)
        assert len({(await ask_replica(client))[1] for _ in range(6)}) == 2


async def test_if_none_is_ready_those_that_discovery_lets_drain_serve_but_not_those_of_an_operator() -> None:
    async with (
        ScriptedReplica(answer_each()) as one,
        ScriptedReplica(answer_each()) as two,
        InnerWorker([one.url, two.url]) as worker,
        await worker.open() as client,
    ):
        instance = describe_instance([one.url, two.url])
        names = [one.url.removeprefix("http://"), two.url.removeprefix("http://")]
        draining: dict[str, Any] = {"state": ReplicaState.DRAINING, "drain_ends": time.monotonic() + 100}
        await worker.publish(instance, marks={name: draining for name in names})
        assert len({(await ask_replica(client))[1] for _ in range(4)}) == 2
        await worker.publish(instance, marks={names[0]: draining, names[1]: draining | {"drained": True}})
        assert len({(await ask_replica(client))[1] for _ in range(4)}) == 1
        await worker.publish(instance, marks={name: draining | {"drained": True} for name in names})
        status, _, body = await client.ask(GET)
        assert status == 503
        assert b'"reason": "no_replica"' in body


@pytest.mark.parametrize("drained", [False, True])
async def test_sticky_client_moves_with_its_next_request_and_stays_there(drained: bool) -> None:
    async with (
        ScriptedReplica(answer_each()) as one,
        ScriptedReplica(answer_each()) as two,
        InnerWorker([one.url, two.url]) as worker,
        await worker.open() as client,
    ):
        _, first, cookie = await ask_replica(client, STICKY % b"a=b")
        assert [await ask_replica(client, STICKY % cookie.encode()) for _ in range(3)] == [(200, first, "")] * 3
        instance = describe_instance([one.url, two.url])
        [drains] = [entry.name for entry in worker.table.instances[0].replicas if entry.id == first]
        await let_drain(worker, instance, f"http://{drains}", drained=drained)
        _, second, moved = await ask_replica(client, STICKY % cookie.encode())
        assert second != first
        assert moved not in ("", cookie)
        await worker.publish(instance)  # it is back, but the client has another replica now
        assert [await ask_replica(client, STICKY % moved.encode()) for _ in range(3)] == [(200, second, "")] * 3


async def test_sticky_request_that_waits_for_its_full_replica_goes_to_another_when_that_drains() -> None:
    scripts = [Holding(), Holding()]
    async with (
        ScriptedReplica(scripts[0]) as one,
        ScriptedReplica(scripts[1]) as two,
        InnerWorker([one.url, two.url], limits={"exchanges": 1}) as worker,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(await worker.open()) for _ in range(3)]
        urls = {url.removeprefix("http://"): script for url, script in zip((one.url, two.url), scripts, strict=True)}
        for client in clients[:2]:
            client.send(GET)
        await eventually(lambda: all(script.paths for script in scripts))
        [drains, stays] = worker.table.instances[0].replicas
        cookie = f"{worker.table.instances[0].cookie.name}={drains.token}"
        clients[2].send(STICKY % cookie.encode())
        await eventually(lambda: count_queued(worker) == 1)
        instance = describe_instance([one.url, two.url], limits={"exchanges": 1})
        await let_drain(worker, instance, f"http://{drains.name}")
        urls[drains.name].let_go(2)
        await asyncio.sleep(0.1)
        assert count_queued(worker) == 1
        urls[stays.name].let_go(2)
        status, replica, moved = await ask_replica(clients[2], b"")
        assert (status, replica) == (200, stays.id)
        assert moved.partition("=")[2].split(".")[0] == stays.token  # first: what is asked for first
        for client in clients[:2]:
            assert (await client.read_answer())[0] == 200


async def test_running_exchange_on_a_drained_replica_goes_on_past_the_deadline() -> None:
    go = asyncio.Event()

    async def answer_late(wire: Wire, number: int) -> None:
        await wire.read_head()
        await go.wait()
        wire.send(OK)
        await wire.reader.read()

    async with (
        ScriptedReplica(answer_late) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(GET)
        await eventually(lambda: worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 1)
        await let_drain(worker, describe_instance([replica.url]), replica.url, drained=True, within=0.2)
        await asyncio.sleep(0.5)
        go.set()
        assert (await client.read_answer())[0] == 200
        await eventually(lambda: worker.count_replica(counters.REPLICA_IDLE_CONNECTIONS) == 0)


async def test_tunnels_of_a_draining_replica_are_closed_one_after_the_other_before_the_deadline() -> None:
    async with (
        ScriptedReplica(switching(hold)) as one,
        ScriptedReplica(switching(hold)) as two,
        InnerWorker([one.url, two.url]) as worker,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(await worker.open()) for _ in range(40)]
        for client in clients:
            await upgrade(client)
        began = time.monotonic()
        await let_drain(worker, describe_instance([one.url, two.url]), one.url, within=3.0)
        slots = (0, 1)
        counts = []
        while time.monotonic() - began < 3.2:
            counts.append(min(worker.count_replica(TUNNELS, slot) for slot in slots))
            await asyncio.sleep(0.05)
        assert counts[0] == 20
        assert counts[-1] == 0
        assert max(before - after for before, after in itertools.pairwise(counts)) <= 10  # no burst
        assert len(set(counts)) > 10
        assert max(worker.count_replica(TUNNELS, slot) for slot in slots) == 20  # the other's are not touched


async def test_single_tunnel_has_nearly_the_whole_time() -> None:
    async with (
        ScriptedReplica(switching(hold)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        began = time.monotonic()
        await let_drain(worker, describe_instance([replica.url]), replica.url, drained=True, within=2.0)
        assert await client.wait_end() == "fin"
        assert 1.2 < time.monotonic() - began < 2.1


async def test_tunnel_keeps_its_deadline_when_the_replica_has_left() -> None:
    async with (
        ScriptedReplica(switching(hold)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        instance = describe_instance([replica.url])
        await let_drain(worker, instance, replica.url, within=1.0)
        for _ in range(2):
            await worker.publish(describe_instance(["http://127.0.0.1:9"]))
        assert await client.wait_end() == "fin"
        await worker.publish(describe_instance(["http://127.0.0.1:9"]))
        await eventually(lambda: worker.count_replica(TUNNELS) == 0)


async def test_tunnel_of_a_replica_that_is_no_longer_drained_stays() -> None:
    async with (
        ScriptedReplica(switching(hold)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        instance = describe_instance([replica.url])
        await let_drain(worker, instance, replica.url, drained=True, within=0.8)
        await worker.publish(instance)
        await asyncio.sleep(1.2)
        assert worker.count_replica(TUNNELS) == 1


async def test_tunnel_that_begins_after_the_deadline_is_closed_at_once() -> None:
    go = asyncio.Event()

    async def switch_late(wire: Wire, number: int) -> None:
        await wire.read_head()
        await go.wait()
        wire.send(SWITCH)
        await hold(wire)

    async with (
        ScriptedReplica(switch_late) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(HANDSHAKE)
        await eventually(lambda: worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 1)
        await let_drain(worker, describe_instance([replica.url]), replica.url, drained=True, within=0.1)
        await asyncio.sleep(0.3)
        go.set()
        assert (await client.read_head()).startswith(b"HTTP/1.1 101 ")
        assert await client.wait_end() == "fin"


async def test_tunnel_that_begins_when_its_draining_replica_has_left_keeps_the_deadline() -> None:
    go = asyncio.Event()

    async def switch_late(wire: Wire, number: int) -> None:
        await wire.read_head()
        await go.wait()
        wire.send(SWITCH)
        await hold(wire)

    async with (
        ScriptedReplica(switch_late) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(HANDSHAKE)
        await eventually(lambda: worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 1)
        await let_drain(worker, describe_instance([replica.url]), replica.url, within=1.0)
        await worker.publish(describe_instance(["http://127.0.0.1:9"]))
        go.set()
        assert (await client.read_head()).startswith(b"HTTP/1.1 101 ")
        assert await client.wait_end(within=3) == "fin"


@pytest.mark.parametrize("kept", [False, True])
async def test_request_whose_replica_dies_is_not_sent_to_one_that_was_drained_meanwhile(kept: bool) -> None:
    """Neither to another nor, on a connection that had been kept, to the same again."""
    asked = asyncio.Event()
    go = asyncio.Event()

    async def die_late(wire: Wire, number: int) -> None:
        if kept and number == 0:
            await wire.read_head()
            wire.send(OK)
        await wire.read_head()
        asked.set()
        await go.wait()

    async with (
        ScriptedReplica(die_late) as dying,
        ScriptedReplica(answer_each()) as other,
        InnerWorker([dying.url, other.url], balance={"affinity": "all"}) as worker,
        await worker.open() as client,
    ):
        [entry] = worker.table.instances
        [token] = [replica.token for replica in entry.replicas if dying.url.endswith(replica.name)]
        request = STICKY % f"{entry.cookie.name}={token}".encode()
        if kept:
            assert (await client.ask(request))[0] == 200
        instance = describe_instance([dying.url, other.url], balance={"affinity": "all"})
        client.send(request)
        await asked.wait()
        await let_drain(worker, instance, *([dying.url, other.url] if kept else [other.url]), drained=True)
        go.set()
        assert (await client.read_answer())[0] == 502
        assert (dying.accepted, other.accepted) == (1, 0)
        assert worker.list_replies() == {"upstream_closed": 1}

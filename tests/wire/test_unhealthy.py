"""Replicas whose checks fail: nothing new goes there, and what runs goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from haproxy_py import counters
from haproxy_py.table import ReplicaState
from tests.proxy_process import describe_instance
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import ScriptedReplica, answer_each, eventually
from tests.wire.test_balance import GET, Counting, cookie_of, socket_io
from tests.wire.test_tunnels import echo, switching, upgrade

READY: dict[str, Any] = {}
DRAINING: dict[str, Any] = {"state": ReplicaState.DRAINING}
UNHEALTHY: dict[str, Any] = {"healthy": False}
DYING = DRAINING | UNHEALTHY


def name(replica: ScriptedReplica) -> str:
    return f"127.0.0.1:{replica.port}"


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ((READY, READY, UNHEALTHY), {0, 1}),
        ((READY, DRAINING, UNHEALTHY), {0}),
        ((UNHEALTHY, DRAINING, UNHEALTHY), {1}),
        ((UNHEALTHY, DRAINING, DRAINING), {1, 2}),
        ((UNHEALTHY, UNHEALTHY, READY), {2}),
        ((UNHEALTHY, UNHEALTHY, UNHEALTHY), set()),
        ((UNHEALTHY, DRAINING, DYING), {1}),
        ((READY, DRAINING, DYING), {0}),
        ((UNHEALTHY, DYING, DYING), set()),
    ],
)
@pytest.mark.parametrize("policy", ["round-robin", "least-connections", "random-two"])
async def test_new_work_goes_to_the_ready_ones_then_to_draining_ones_and_never_to_unhealthy_ones(
    marks: tuple[dict[str, Any], ...], expected: set[int], policy: str
) -> None:
    scripts = [Counting() for _ in marks]
    async with (
        ScriptedReplica(scripts[0]) as first,
        ScriptedReplica(scripts[1]) as second,
        ScriptedReplica(scripts[2]) as third,
        InnerWorker([first.url, second.url, third.url]) as worker,
        await worker.open() as client,
    ):
        replicas = (first, second, third)
        instance = describe_instance([one.url for one in replicas], balance={"policy": policy})
        await worker.publish(instance, marks={name(one): mark for one, mark in zip(replicas, marks, strict=True)})
        for _ in range(30):
            status, _, body = await client.ask(GET)
            assert status == (200 if expected else 503), body
        assert {number for number, script in enumerate(scripts) if script.count} == expected
        assert worker.count_replies("no_replica") == (0 if expected else 30)


async def test_a_client_with_a_cookie_moves_to_a_healthy_replica_and_gets_a_new_cookie() -> None:
    async with (
        ScriptedReplica(answer_each()) as first,
        ScriptedReplica(answer_each()) as second,
        InnerWorker([first.url, second.url]) as worker,
        await worker.open() as client,
    ):
        lines = [cookie_of((await client.ask(socket_io()))[1]) for _ in range(2)]
        values = [line.split(b";")[0] for line in lines if line is not None]
        assert len(set(values)) == 2
        instance = describe_instance([first.url, second.url])
        await worker.publish(instance, marks={name(first): UNHEALTHY})
        renewed = [cookie_of((await client.ask(socket_io(value)))[1]) for value in values]
        assert renewed.count(None) == 1
        (moved,) = [line.split(b";")[0] for line in renewed if line is not None]
        assert moved.split(b".")[0] in values  # first: what is asked for first
        await worker.publish(instance)
        assert cookie_of((await client.ask(socket_io(moved)))[1]) is None, "it stays when the other is healthy again"


async def test_what_runs_on_a_replica_that_becomes_unhealthy_goes_on_and_its_idle_connections_are_closed() -> None:
    script = Counting()
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as idle,
        await worker.open() as waiting,
    ):
        script.gate.clear()
        for client in (idle, waiting):
            client.send(GET)
        await eventually(lambda: script.count == 2)
        script.gate.set()
        assert (await idle.read_answer())[0] == 200
        assert (await waiting.read_answer())[0] == 200
        script.gate.clear()
        waiting.send(GET)
        await eventually(lambda: script.count == 3)
        assert worker.count_replica(counters.REPLICA_IDLE_CONNECTIONS) == 1
        await worker.publish(describe_instance([replica.url]), marks={name(replica): UNHEALTHY})
        assert worker.count_replica(counters.REPLICA_IDLE_CONNECTIONS) == 0
        assert (await idle.ask(GET))[0] == 503
        script.gate.set()
        assert (await waiting.read_answer())[0] == 200
        await eventually(lambda: worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 0)
        assert worker.count_replica(counters.REPLICA_IDLE_CONNECTIONS) == 0
        await worker.publish(describe_instance([replica.url]))
        assert (await waiting.ask(GET))[0] == 200


async def test_a_tunnel_lives_on_when_its_replica_becomes_unhealthy() -> None:
    async with (
        ScriptedReplica(switching(echo)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        await worker.publish(describe_instance([replica.url]), marks={name(replica): UNHEALTHY})
        client.send(b"still there")
        assert await client.read(11) == b"still there"


async def test_a_503_without_a_healthy_replica_comes_at_once() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        await worker.publish(describe_instance([replica.url]), marks={name(replica): UNHEALTHY})
        async with asyncio.timeout(1):
            assert (await client.ask(GET))[0] == 503
        assert replica.accepted == 0

"""Shares of the work that are not equal: by weight, and while a replica that was ejected starts slowly."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.proxy_process import describe_instance, find_free_ports
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import ScriptedReplica, answer_each, eventually
from tests.wire.test_balance import Counting, cookie_of

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"


class Named(Counting):
    """Counts, and remembers in which order the replicas were asked."""

    def __init__(self, name: str, order: list[str]) -> None:
        super().__init__()
        self._name = name
        self._order = order

    async def __call__(self, wire: Any, number: int) -> None:
        reader = wire.reader
        original = reader.readuntil

        async def readuntil(separator: bytes) -> bytes:
            data: bytes = await original(separator)
            self._order.append(self._name)
            return data

        reader.readuntil = readuntil
        await super().__call__(wire, number)


def describe(weights: dict[str, int], **settings: Any) -> dict[str, Any]:
    """An instance whose replicas have these URLs and weights."""
    entry = describe_instance([], **settings)
    entry["replicas"] = {"static": [{"url": url, "weight": weight} for url, weight in weights.items()]}
    return entry


@contextlib.asynccontextmanager
async def run(
    *weights: int, scripts: list[Counting] | None = None, **settings: Any
) -> AsyncIterator[tuple[InnerWorker, list[Counting], list[str]]]:
    """A worker before replicas with these weights; their scripts and URLs in the same order."""
    scripts = scripts or [Counting() for _ in weights]
    async with contextlib.AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(ScriptedReplica(script))).url for script in scripts]
        instance = describe(dict(zip(urls, weights, strict=True)), **settings)
        worker = await stack.enter_async_context(InnerWorker(instances=[instance]))
        yield worker, scripts, urls


async def ask_many(worker: InnerWorker, count: int) -> None:
    async with await worker.open() as client:
        for _ in range(count):
            assert (await client.ask(GET))[0] == 200


@pytest.mark.parametrize("policy", ["round-robin", "least-connections"])
@pytest.mark.parametrize(("weights", "rounds"), [((3, 1), 25), ((5, 1, 1), 20), ((256, 128, 1), 2), ((2, 2, 1), 20)])
async def test_shares_are_exactly_as_the_weights(policy: str, weights: tuple[int, ...], rounds: int) -> None:
    async with run(*weights, balance={"policy": policy}) as (worker, scripts, _):
        await ask_many(worker, sum(weights) * rounds)
        assert [script.count for script in scripts] == [weight * rounds for weight in weights]


async def test_turns_of_a_heavy_replica_are_spread() -> None:
    order: list[str] = []
    scripts: list[Counting] = [Named(name, order) for name in "abc"]
    async with run(5, 1, 1, scripts=scripts) as (worker, _, _):
        await ask_many(worker, 14)
    for at in range(0, 14, 7):
        part = "".join(order[at : at + 7])
        assert sorted(part) == list("aaaaabc")
        assert "aaaa" not in part


@pytest.mark.parametrize("policy", ["round-robin", "least-connections", "random-two"])
async def test_weight_0_gets_nothing_but_its_own_clients(policy: str) -> None:
    balance = {"policy": policy, "affinity": "all"}
    async with run(1, 1, balance=balance) as (worker, scripts, urls):
        cookies = {}
        for _ in range(20):
            async with await worker.open() as client:
                before = [script.count for script in scripts]
                line = cookie_of((await client.ask(GET))[1])
                assert line is not None
                index = next(i for i, script in enumerate(scripts) if script.count > before[i])
                cookies[index] = line.split(b";")[0]
        assert set(cookies) == {0, 1}
        await worker.publish(describe({urls[0]: 0, urls[1]: 1}, balance=balance))
        counts = [script.count for script in scripts]
        async with await worker.open() as client:
            for _ in range(10):
                await client.ask(GET)
            assert [script.count for script in scripts] == [counts[0], counts[1] + 10]
            await client.ask(b"GET /x HTTP/1.1\r\nHost: test\r\nCookie: %s\r\n\r\n" % cookies[0])
            assert [script.count for script in scripts] == [counts[0] + 1, counts[1] + 10]


async def test_weight_0_is_no_reserve() -> None:
    dead = find_free_ports(1)[0]
    async with ScriptedReplica(answer_each()) as replica:
        instance = describe({replica.url: 0, f"http://127.0.0.1:{dead}": 1})
        async with InnerWorker(instances=[instance]) as worker, await worker.open() as client:
            assert (await client.ask(GET))[0] == 503
        assert replica.accepted == 0


async def test_least_connections_counts_exchanges_by_weight() -> None:
    async with run(3, 1, balance={"policy": "least-connections"}) as (worker, scripts, _):
        for script in scripts:
            script.gate.clear()
        clients = [await worker.open() for _ in range(8)]
        for number, client in enumerate(clients):
            client.send(GET)
            await eventually(lambda: sum(script.count for script in scripts) == number + 1)  # noqa: B023
        assert [script.count for script in scripts] == [6, 2]
        for script in scripts:
            script.gate.set()
        for client in clients:
            await client.read_answer()
            await client.close()


async def test_random_two_draws_by_weight() -> None:
    async with run(8, 1, 1, balance={"policy": "random-two"}) as (worker, scripts, _):
        await ask_many(worker, 1000)
        assert scripts[0].count > 650
        assert min(script.count for script in scripts[1:]) > 20


async def test_full_heavy_replica_leaves_the_rest_to_the_others() -> None:
    async with run(9, 1, limits={"exchanges": 2}) as (worker, scripts, _):
        for script in scripts:
            script.gate.clear()
        clients = [await worker.open() for _ in range(4)]
        for number, client in enumerate(clients):
            client.send(GET)
            await eventually(lambda: sum(script.count for script in scripts) == number + 1)  # noqa: B023
        assert [script.count for script in scripts] == [2, 2]
        for script in scripts:
            script.gate.set()
        for client in clients:
            assert (await client.read_answer())[0] == 200
            await client.close()


@pytest.mark.parametrize("policy", ["round-robin", "least-connections", "random-two"])
async def test_share_of_a_replica_that_is_back_grows_to_the_whole(policy: str) -> None:
    """And does not reach it at once."""
    back, other = Counting(), Counting()
    async with ScriptedReplica(answer_each()) as gone:
        port, url = gone.port, gone.url
    async with (
        ScriptedReplica(other) as good,
        InnerWorker(
            [url, good.url], balance={"policy": policy}, eject={"first": "100ms", "slow_start": "2s"}
        ) as worker,
        await worker.open() as client,
    ):
        for _ in range(6):
            assert (await client.ask(GET))[0] == 200  # one of them finds it dead
        async with ScriptedReplica(back, port=port):
            while not back.count:
                assert (await client.ask(GET))[0] == 200
                await asyncio.sleep(0.01)
            began = time.monotonic()
            shares: list[float] = []
            for quarter in range(1, 6):
                before = (back.count, other.count)
                while time.monotonic() - began < quarter * 0.5:
                    assert (await client.ask(GET))[0] == 200
                    await asyncio.sleep(0.002)
                got = back.count - before[0]
                shares.append(got / (got + other.count - before[1]))
    assert 0 < shares[0] < 0.25, shares
    assert shares[0] < shares[2] < 0.49, shares
    assert 0.42 < shares[4] < 0.58, shares


async def test_new_replica_has_its_share_at_once() -> None:
    async with run(1) as (worker, scripts, urls), ScriptedReplica(Counting()) as new:
        await ask_many(worker, 10)
        await worker.publish(describe_instance([urls[0], new.url]))
        before = scripts[0].count
        await ask_many(worker, 20)
        assert scripts[0].count - before == 10


async def test_share_of_a_replica_that_is_healthy_again_grows_too() -> None:
    scripts = [Counting(), Counting()]
    async with ScriptedReplica(scripts[0]) as one, ScriptedReplica(scripts[1]) as two:
        instance = describe_instance([one.url, two.url], eject={"slow_start": "10s"})
        async with InnerWorker(instances=[instance]) as worker:
            name = one.url.removeprefix("http://")
            await worker.publish(instance, marks={name: {"healthy": False}})
            await ask_many(worker, 10)
            assert scripts[0].count == 0
            await worker.publish(instance)
            await ask_many(worker, 100)
            assert scripts[0].count < 30

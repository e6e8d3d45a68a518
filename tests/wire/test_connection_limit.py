"""The limit of client connections: accepting pauses, whoever waits is served later, nobody is lost."""

from __future__ import annotations

import asyncio

from haproxy_py import counters
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import ScriptedReplica, Wire, answer_each, eventually

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
LAST = b"GET /x HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
OPEN = counters.WORKER_CLIENT_CONNECTIONS


async def test_accepting_pauses_at_the_limit_and_goes_on() -> None:
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url], connections=5) as worker:
        inside = [await worker.open() for _ in range(5)]
        for client in inside:
            assert (await client.ask(GET))[0] == 200
        outside = [await worker.open() for _ in range(20)]  # the kernel takes them
        for client in outside:
            client.send(LAST)
        waiting = [asyncio.create_task(client.read_answer()) for client in outside]
        assert not (await asyncio.wait(waiting, timeout=0.3))[0]
        assert worker.count_worker(OPEN) == 5
        for client in inside:
            assert (await client.ask(GET))[0] == 200  # who is inside is served
        assert worker.count_worker(counters.WORKER_ACCEPT_PAUSES) == 1
        await inside.pop().close()
        for answer in await asyncio.gather(*waiting):
            assert answer[0] == 200
        assert worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS_TOTAL) == 25
        assert any("the most that are allowed" in notice.text for notice in worker.notices)
        for client in inside + outside:
            await client.close()


async def test_nothing_is_lost_however_often_the_limit_is_met() -> None:
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url], connections=3) as worker:

        async def ask(client: Wire) -> int:
            async with client:
                return (await client.ask(LAST))[0]

        for _ in range(5):
            clients = [await worker.open() for _ in range(60)]
            assert set(await asyncio.gather(*(ask(client) for client in clients))) == {200}
        await eventually(lambda: worker.count_worker(OPEN) == 0)
        assert worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS_TOTAL) == 300
        assert worker.count_worker(counters.WORKER_ACCEPT_PAUSES) > 1

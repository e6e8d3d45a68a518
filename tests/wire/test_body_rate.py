"""A request's body that comes more slowly than `limits.body_rate` is given up, and nobody's place is held by it."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from haproxy_py import counters
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, WITHIN, ScriptedReplica, Wire, answer_each, eventually, get_field

MIB = 1024 * 1024
TIMEOUTS = {"client_body": "1s", "request_total": "20s", "linger": "100ms"}
LARGE = b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 16777216\r\n\r\n"
SMALL = b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 4096\r\n\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n"


async def swallow(wire: Wire, number: int) -> None:
    """Reads what comes and never answers."""
    while await wire.reader.read(65536):
        pass


async def answer_uploads(wire: Wire, number: int) -> None:
    while True:
        head = await wire.reader.readuntil(b"\r\n\r\n")
        left = int(get_field(head, "Content-Length") or 0)
        while left:
            left -= len(await wire.reader.read(min(left, 65536)))
        wire.send(OK)


async def trickle(client: Wire, octets: bytes, every: float, within: float = WITHIN) -> tuple[int, bytes, bytes]:
    """Send these again and again until there is an answer."""
    async with asyncio.timeout(within):
        answer = asyncio.create_task(client.read_answer())
        while not (await asyncio.wait({answer}, timeout=every))[0]:
            client.send(octets)
        return await answer


@pytest.mark.parametrize(
    ("head", "gather"),
    [(LARGE, "64KiB"), (CHUNKED, 0), (SMALL, "64KiB"), (SMALL, 0)],
    ids=["large", "chunked", "gathered", "small"],
)
async def test_body_below_the_rate_is_answered_408_and_its_place_is_free(head: bytes, gather: str | int) -> None:
    async with (
        ScriptedReplica(swallow) as replica,
        InnerWorker([replica.url], timeouts=TIMEOUTS, limits={"body_rate": "500B", "gather": gather}) as worker,
        await worker.open() as client,
    ):
        client.send(head)
        status, _, body = await trickle(client, b"x", 0.02)
        assert status == 408
        assert b'"reason": "body_timeout"' in body
        assert worker.list_replies() == {"body_timeout": 1}
        assert worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 0


async def test_what_came_fast_gives_no_right_to_a_long_trickle() -> None:
    async with (
        ScriptedReplica(swallow) as replica,
        InnerWorker([replica.url], timeouts=TIMEOUTS, limits={"body_rate": "500B"}) as worker,
        await worker.open() as client,
    ):
        client.send(LARGE + bytes(MIB))  # at 500 octets per second that is half an hour
        assert (await trickle(client, b"x", 0.02))[0] == 408


async def test_body_above_the_rate_may_take_as_long_as_it_takes() -> None:
    async with (
        ScriptedReplica(answer_uploads) as replica,
        InnerWorker([replica.url], timeouts=TIMEOUTS, limits={"body_rate": "1KiB", "gather": 0}) as worker,
        await worker.open() as client,
    ):
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 131072\r\n\r\n")
        for _ in range(128):  # for 2.5 s at forty times the rate
            client.send(bytes(1024))
            await asyncio.sleep(0.02)
        assert (await client.read_answer())[0] == 200


async def test_rate_of_0_lets_any_trickle_pass() -> None:
    async with (
        ScriptedReplica(answer_uploads) as replica,
        InnerWorker([replica.url], timeouts=TIMEOUTS, limits={"body_rate": 0, "gather": 0}) as worker,
        await worker.open() as client,
    ):
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 40\r\n\r\n")
        for _ in range(40):
            client.send(b"x")
            await asyncio.sleep(0.05)
        assert (await client.read_answer())[0] == 200


async def test_time_in_which_the_replica_takes_nothing_counts_against_nobody() -> None:
    go = asyncio.Event()

    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        await go.wait()
        await wire.read(16 * MIB)
        wire.send(OK)
        await wire.reader.read()

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], timeouts=TIMEOUTS, limits={"body_rate": "64KiB"}) as worker,
        await worker.open() as client,
    ):
        client.send(LARGE + bytes(16 * MIB))
        await asyncio.sleep(2.0)  # twice what a client is given
        go.set()
        assert (await client.read_answer())[0] == 200


async def test_time_in_the_queue_counts_against_nobody() -> None:
    go = asyncio.Event()

    async def script(wire: Wire, number: int) -> None:
        while True:
            head = await wire.reader.readuntil(b"\r\n\r\n")
            if b"GET" in head:
                await go.wait()
            await wire.reader.readexactly(int(get_field(head, "Content-Length") or 0))
            wire.send(OK)

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], timeouts=TIMEOUTS, limits={"exchanges": 1, "gather": 0}) as worker,
        await worker.open() as first,
        await worker.open() as second,
    ):
        first.send(b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n")
        await eventually(lambda: worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 1)
        second.send(SMALL)
        await eventually(lambda: worker.count_worker(counters.instance_at(1) + counters.INSTANCE_QUEUED) == 1)
        await asyncio.sleep(2.0)
        go.set()
        assert (await first.read_answer())[0] == 200
        await asyncio.sleep(0.3)
        second.send(bytes(4096))
        assert (await second.read_answer())[0] == 200


async def test_client_that_expects_100_has_its_time_from_there_on() -> None:
    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        await asyncio.sleep(0.7)
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await wire.read(4)
        wire.send(OK)
        await wire.reader.read()

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], timeouts=TIMEOUTS) as worker,
        await worker.open() as client,
    ):
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert (await client.read_head()).startswith(b"HTTP/1.1 100 ")
        await asyncio.sleep(0.7)
        client.send(b"body")
        assert (await client.read_answer())[0] == 200


async def test_time_in_which_the_worker_stood_still_counts_against_nobody() -> None:
    loop = asyncio.get_running_loop()
    async with (
        ScriptedReplica(answer_uploads) as replica,
        InnerWorker([replica.url], timeouts=TIMEOUTS) as worker,
    ):
        with socket.create_connection(("127.0.0.1", worker.port)) as client:
            client.sendall(SMALL + b"x")
            await eventually(lambda: worker.context.gathered)
            client.sendall(b"x")
            time.sleep(2.0)  # noqa: ASYNC251  # the loop stands still: what this test is about
            await asyncio.sleep(0.3)
            client.sendall(bytes(4094))
            assert (await loop.run_in_executor(None, client.recv, 65536)).startswith(b"HTTP/1.1 200 ")


async def test_slow_body_is_logged_as_the_clients_fault(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with (
        ScriptedReplica(swallow) as replica,
        InnerWorker([replica.url], timeouts=TIMEOUTS, limits={"gather": 0}, log_file=log) as worker,
        await worker.open() as client,
    ):
        client.send(LARGE)
        assert (await trickle(client, b"x", 0.02))[0] == 408
        await eventually(lambda: '"reason":"body_timeout","term":"cD"' in log.read_text())


async def test_many_trickling_bodies_do_not_keep_the_places_of_others() -> None:
    """The attack in short: every place is held by a body that never ends, and others are answered all the same."""
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], timeouts=TIMEOUTS, limits={"exchanges": 16, "gather": 0}) as worker,
    ):
        slow = [await worker.open() for _ in range(16)]
        for each in slow:
            each.send(LARGE)
        await eventually(lambda: worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 16)
        answers = [asyncio.create_task(trickle(each, b"x", 0.1)) for each in slow]
        async with await worker.open() as client:
            assert (await client.ask(b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"))[0] == 200  # it has waited for a place
        async with asyncio.timeout(WITHIN):
            assert [answer[0] for answer in await asyncio.gather(*answers)] == [408] * 16
        for each in slow:
            await each.close()

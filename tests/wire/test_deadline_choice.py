"""A deadline runs whenever somebody is waited for, however reading paused and went on before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, ScriptedReplica, Wire, answer_each, eventually
from tests.wire.test_tunnel_end import shrink_send_buffer

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
DENIED = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
HALF_A_POST = b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n" + bytes(120_000)
"""More than the 64 KiB that are held, then silence."""

TIMEOUTS = {"client_body": "300ms", "response_head": "10s", "response_body": "10s", "linger": "100ms"}


async def test_slow_body_that_was_held_while_connecting_ends_by_its_deadline() -> None:
    async def take_all(wire: Wire, number: int) -> None:
        await wire.reader.read()

    async with (
        ScriptedReplica(take_all) as replica,
        InnerWorker([replica.url], timeouts=TIMEOUTS) as worker,
        await worker.open() as client,
    ):
        client.send(HALF_A_POST)
        async with asyncio.timeout(3):
            status, _, body = await client.read_answer()
        assert status == 408
        assert b'"reason": "body_timeout"' in body
        assert worker.list_replies() == {"body_timeout": 1}


async def test_slow_body_that_was_held_behind_another_request_ends_by_its_deadline() -> None:
    answer = asyncio.Event()

    async def answer_late(wire: Wire, number: int) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        await answer.wait()
        wire.send(OK)
        await wire.reader.read()

    async with (
        ScriptedReplica(answer_late) as replica,
        InnerWorker([replica.url], timeouts=TIMEOUTS) as worker,
        await worker.open() as client,
    ):
        client.send(GET)
        await eventually(lambda: replica.accepted)
        client.send(HALF_A_POST)
        [connection] = worker.context.clients
        await eventually(lambda: not connection.stream.reading)
        answer.set()
        assert (await client.read_answer())[0] == 200
        async with asyncio.timeout(3):
            assert (await client.read_answer())[0] == 408
        assert worker.list_replies() == {"body_timeout": 1}


@pytest.mark.parametrize("body", [0, 40_000])
async def test_reading_goes_on_after_a_blocked_client_has_taken_its_answers(body: int) -> None:
    """`body`: octets of the request that is held meanwhile; the larger one makes reading pause."""
    post = b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % body + bytes(body)
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], limits={"buffer": "16KiB"}) as worker,
        await worker.open(receive_buffer=4096) as client,
    ):
        ours: Any = client.writer.transport
        ours.pause_reading()
        await eventually(lambda: worker.context.clients)
        [connection] = worker.context.clients
        shrink_send_buffer(connection.stream)
        sent = 0
        async with asyncio.timeout(5):
            while connection.stream.unsent <= 16_384:
                client.send(DENIED)
                sent += 1
                await asyncio.sleep(0)
        client.send(post)
        if body:
            await eventually(lambda: not connection.stream.reading)
        ours.resume_reading()
        for _ in range(sent):
            assert (await client.read_answer())[0] == 403
        assert (await client.read_answer())[0] == 200
        async with asyncio.timeout(3):
            assert (await client.ask(GET))[0] == 200

"""A small body has come before its request takes a place at a replica: who sends slowly holds nobody's place."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from haproxy_py import counters
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, ScriptedReplica, Wire, answer_each, eventually, get_field

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


class Recording:
    """A replica that answers each request when it is complete, and keeps the octets behind heads."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def __call__(self, wire: Wire, number: int) -> None:
        while True:
            head = await wire.reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if get_field(head, "Transfer-Encoding"):
                self.bodies.append(await wire.reader.readuntil(b"0\r\n\r\n"))
            else:
                self.bodies.append(await wire.reader.readexactly(int(get_field(head, "Content-Length") or 0)))
            wire.send(OK)


def count_active(worker: InnerWorker) -> int:
    return worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS)


@pytest.mark.parametrize("head", [POST, CHUNKED + b"5\r\n"], ids=["length", "chunked"])
async def test_slow_bodies_take_no_place_and_another_client_is_answered(head: bytes) -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], limits={"exchanges": 2, "queue": 0}) as worker,
        AsyncExitStack() as stack,
    ):
        for _ in range(64):
            slow = await stack.enter_async_context(await worker.open())
            slow.send(head + b"a")
        await eventually(lambda: worker.context.gathered >= 64 * len(b"a"))
        async with await worker.open() as client:
            for _ in range(20):
                assert (await client.ask(GET))[0] == 200
                assert (await client.ask(POST + b"0123456789"))[0] == 200
        assert count_active(worker) == 0
        assert worker.list_replies() == {}


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (POST + b"0123456789", b"0123456789"),
        (CHUNKED + b"5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\n\r\n", b"5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n"),
        (POST.replace(b"POST", b"PUT") + b"0123456789", b"0123456789"),
    ],
    ids=["length", "chunked", "repeatable"],
)
async def test_body_that_comes_octet_by_octet_arrives_whole(message: bytes, body: bytes) -> None:
    script = Recording()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        for _ in range(2):  # on a new connection, and on a kept one
            for octet in message:
                client.send(bytes((octet,)))
                await asyncio.sleep(0)
            assert (await client.read_answer())[0] == 200
        assert script.bodies == [body, body]
        assert worker.context.gathered == 0


@pytest.mark.parametrize("fields", [b"Expect: 100-continue\r\nContent-Length: 4\r\n", b"Content-Length: 2000\r\n"])
async def test_expected_or_large_body_takes_its_place_at_once(fields: bytes) -> None:
    size = int(fields.rsplit(b" ", 1)[1])

    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await wire.read(size)
        wire.send(OK)
        await wire.reader.read()

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], limits={"gather": "1KiB"}) as worker,
        await worker.open() as client,
    ):
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\n" + fields + b"\r\n")
        assert (await client.read_head()).startswith(b"HTTP/1.1 100 ")
        client.send(bytes(size))
        assert (await client.read_answer())[0] == 200


async def test_chunked_body_larger_than_is_gathered_goes_on_as_it_comes() -> None:
    piece = b"100\r\n" + bytes(256) + b"\r\n"
    got = asyncio.Event()
    whole = bytearray()

    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        while not whole.endswith(b"0\r\n\r\n"):
            whole.extend(await wire.reader.read(1000))
            got.set()
        wire.send(OK)
        await wire.reader.read()

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], limits={"gather": "1KiB"}) as worker,
        await worker.open() as client,
    ):
        client.send(CHUNKED)
        for _ in range(5):
            client.send(piece)
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await got.wait()
        assert worker.context.gathered == 0
        client.send(piece + b"0\r\n\r\n")
        assert (await client.read_answer())[0] == 200
        assert bytes(whole) == piece * 6 + b"0\r\n\r\n"


async def test_gathered_request_waits_for_a_place() -> None:
    go = asyncio.Event()

    async def script(wire: Wire, number: int) -> None:
        while True:
            head = await wire.reader.readuntil(b"\r\n\r\n")
            await wire.reader.readexactly(int(get_field(head, "Content-Length") or 0))
            await go.wait()
            wire.send(OK)

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], limits={"exchanges": 1}) as worker,
        await worker.open() as first,
        await worker.open() as second,
    ):
        first.send(GET)
        await eventually(lambda: count_active(worker) == 1)
        second.send(POST + b"01234")
        await eventually(lambda: worker.context.gathered)
        second.send(b"56789")
        await eventually(lambda: worker.count_worker(counters.instance_at(1) + counters.INSTANCE_QUEUED) == 1)
        go.set()
        assert (await first.read_answer())[0] == 200
        assert (await second.read_answer())[0] == 200


async def test_stalled_body_that_is_gathered_is_answered_408_and_forgotten() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], timeouts={"client_body": "300ms", "linger": "100ms"}) as worker,
        await worker.open() as client,
    ):
        client.send(POST + b"abc")
        assert (await client.read_answer())[0] == 408
        assert worker.list_replies() == {"body_timeout": 1}
        assert replica.accepted == 0
        assert worker.context.gathered == 0


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_client_that_leaves_while_its_body_is_gathered_is_forgotten(how: str) -> None:
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url]) as worker:
        async with await worker.open() as client:
            client.send(POST + b"abc")
            await eventually(lambda: worker.context.gathered)
            if how == "fin":
                client.finish()
            else:
                client.reset()
            await eventually(lambda: worker.list_replies())
        assert worker.list_replies() == {"client_gone": 1}
        assert worker.context.gathered == 0
        assert replica.accepted == 0


async def test_bad_chunk_behind_a_gathered_one_is_refused_and_no_replica_sees_it() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(CHUNKED + b"5\r\nhello\r\n")
        await eventually(lambda: worker.context.gathered)
        client.send(b"x\r\n")
        assert (await client.read_answer())[0] == 400
        assert worker.list_replies() == {"bad_chunk": 1}
        assert replica.accepted == 0
        assert worker.context.gathered == 0

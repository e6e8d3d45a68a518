"""A client or a replica goes away, at every stage: what the other side sees, what is counted."""

from __future__ import annotations

import asyncio

import pytest

from haproxy_py import counters
from haproxy_py.datapath import dial
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, WITHIN, ScriptedReplica, Wire, answer_each, eventually

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc"


class Watcher:
    """A replica that says how far it got, and how its connection ended."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer
        self.asked = asyncio.Event()
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, wire: Wire, number: int) -> None:
        await wire.read_head()
        self.asked.set()
        wire.send(self.answer)
        self.ended.put_nowait(await wire.wait_end())


async def leave(client: Wire, how: str) -> None:
    if how == "reset":
        client.reset()
    else:
        client.finish()
    await asyncio.sleep(0)


async def test_client_that_leaves_before_it_sent_anything_is_not_counted() -> None:
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url]) as worker:
        for how in ("fin", "reset"):
            client = await worker.open()
            await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 1)
            await leave(client, how)
            await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
            await client.close()
        assert worker.list_replies() == {}


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_client_that_leaves_in_its_head(how: str) -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(b"GET /x HT")
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 1)
        await asyncio.sleep(0.05)
        await leave(client, how)
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
        assert worker.list_replies() == {"client_gone": 1}
        assert replica.accepted == 0


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_client_that_leaves_in_its_body_aborts_the_request(how: str) -> None:
    watcher = Watcher()
    async with (
        ScriptedReplica(watcher) as replica,
        InnerWorker([replica.url], limits={"gather": 0}) as worker,
        await worker.open() as client,
    ):
        client.send(POST)
        await watcher.asked.wait()
        await leave(client, how)
        await asyncio.wait_for(watcher.ended.get(), 5)
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
        assert worker.list_replies() == {"client_gone": 1}
        assert worker.count_replica(counters.REPLICA_IDLE_CONNECTIONS) == 0


@pytest.mark.parametrize("request_", [GET, POST + b"defghij"])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"])
@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_client_that_leaves_while_it_waits_aborts_the_request_con_11(
    how: str, answer: bytes, request_: bytes
) -> None:
    watcher = Watcher(answer)
    async with ScriptedReplica(watcher) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send(request_)
        await watcher.asked.wait()
        if answer:
            await client.read_head()
        await leave(client, how)
        await asyncio.wait_for(watcher.ended.get(), 5)
        assert worker.list_replies() == {"client_gone": 1}


async def test_client_that_resets_while_a_replica_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection that was being made is kept for the next exchange."""
    found = asyncio.Event()

    async def look_up_slowly(loop: object, host: str) -> list[str]:
        await found.wait()
        return ["127.0.0.1"]

    monkeypatch.setattr(dial, "look_up", look_up_slowly)
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url.replace("127.0.0.1", "replica.test")]) as worker,
    ):
        client = await worker.open()
        client.send(GET)
        await eventually(lambda: worker.context.dials)
        client.reset()
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
        found.set()
        await worker.settle()
        async with await worker.open() as other:
            assert (await other.ask(GET))[0] == 200
        assert replica.accepted == 1


async def test_client_that_resets_in_its_answer_aborts_it() -> None:
    watcher = Watcher(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    async with ScriptedReplica(watcher) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send(GET)
        await client.read_head()
        client.reset()
        await asyncio.wait_for(watcher.ended.get(), 5)
        assert worker.list_replies() == {"client_gone": 1}


async def test_client_that_closes_in_an_endless_answer_ends_it() -> None:
    async def send_for_ever(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not wire.writer.is_closing():
            wire.send(b"5\r\nevent\r\n")
            await wire.writer.drain()
            await asyncio.sleep(0.01)

    async with ScriptedReplica(send_for_ever) as replica, InnerWorker([replica.url]) as worker:
        async with await worker.open() as client:
            client.send(GET)
            await client.read_until(b"event")
        await eventually(lambda: worker.list_replies() == {"client_gone": 1})
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_replica_that_leaves_without_an_answer_is_502_for_a_post(how: str) -> None:
    async def leave_after_head(wire: Wire, number: int) -> None:
        await wire.read_head()
        await leave(wire, how)

    async with (
        ScriptedReplica(leave_after_head) as replica,
        InnerWorker([replica.url], timeouts={"linger": "100ms"}, limits={"gather": 0}) as worker,
        await worker.open() as client,
    ):
        status, head, body = await client.ask(POST + b"defghij")
        assert status == 502
        assert b'"reason": "upstream_closed"' in body
        assert b"Connection: close" not in head
        assert (await client.ask(POST + b"defghij"))[0] == 502
        assert worker.list_replies() == {"upstream_closed": 2}
        status, head, body = await client.ask(POST)  # its body is not complete
        assert status == 502
        assert b"Connection: close" in head


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
)
async def test_replica_that_leaves_in_its_answer_resets_the_client(begun: bytes, how: str) -> None:
    async def leave_in_answer(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(begun)
        await asyncio.sleep(0.05)
        await leave(wire, how)

    async with (
        ScriptedReplica(leave_in_answer) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(GET)
        await client.read_head()
        assert await client.wait_end() == "reset"
        assert worker.list_replies() == {"upstream_closed": 1}
        assert worker.count_answers(200) == 0


async def test_replica_that_leaves_in_its_head_is_502() -> None:
    async def leave_in_head(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        await wire.writer.drain()

    async with (
        ScriptedReplica(leave_in_head) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        assert (await client.ask(GET))[0] == 502
        assert worker.list_replies() == {"upstream_closed": 1}


async def test_replica_that_resets_an_answer_that_ends_with_its_connection_cuts_the_client() -> None:
    async def reset_in_answer(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await asyncio.sleep(0.05)
        wire.reset()

    async with (
        ScriptedReplica(reset_in_answer) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(GET)
        await client.read_head()
        assert await client.wait_end() == "reset"
        assert worker.list_replies() == {"upstream_closed": 1}


async def test_replica_that_leaves_during_an_upload_is_502() -> None:
    async def leave_in_body(wire: Wire, number: int) -> None:
        await wire.read_head()
        await wire.read(3)
        wire.reset()

    async with (
        ScriptedReplica(leave_in_body) as replica,
        InnerWorker([replica.url], timeouts={"linger": "100ms"}, limits={"gather": 0}) as worker,
        await worker.open() as client,
    ):
        status, head, _ = await client.ask(POST)
        assert status == 502
        assert b"Connection: close" in head
        assert worker.list_replies() == {"upstream_closed": 1}


async def test_held_requests_are_used_after_a_failed_one() -> None:
    async def leave_first(wire: Wire, number: int) -> None:
        await wire.read_head()
        if number > 0:
            wire.send(OK)
            await wire.reader.read()

    async with (
        ScriptedReplica(leave_first) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(POST + b"defghij" + GET)
        assert (await client.read_answer())[0] == 502
        assert (await client.read_answer())[0] == 200


async def test_reset_is_noticed_while_nothing_is_read_from_the_client() -> None:
    async def take_nothing(wire: Wire, number: int) -> None:
        wire.writer.transport.pause_reading()
        await asyncio.sleep(WITHIN)

    async with (
        ScriptedReplica(take_nothing) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 90000000\r\n\r\n" + bytes(30_000_000))
        await eventually(lambda: any(not one.stream.reading for one in worker.context.clients))
        client.reset()
        await eventually(lambda: not worker.context.clients, 1)
        assert worker.list_replies() == {"client_gone": 1}

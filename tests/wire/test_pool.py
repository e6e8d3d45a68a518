"""Idle connections to replicas: which one is used, how long one is kept, and when one must not be used again."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time

import pytest

from haproxy_py import counters
from tests.wire.inner_worker import InnerWorker, count_objects
from tests.wire.scripted import OK, WITHIN, ScriptedReplica, Wire, answer_each, eventually, get_field

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"
IDLE = counters.REPLICA_IDLE_CONNECTIONS
OPENED = counters.REPLICA_CONNECTIONS_OPENED
REUSED = counters.REPLICA_CONNECTIONS_REUSED
STALE = counters.REPLICA_CONNECTIONS_STALE


class Numbered:
    """A replica that answers with the number of the connection, after `gate` was opened; it knows who ended."""

    def __init__(self, fields: bytes = b"") -> None:
        self.gate = asyncio.Event()
        self.fields = fields
        self.waiting = 0
        self.ended: list[int] = []
        self.wires: dict[int, Wire] = {}

    async def __call__(self, wire: Wire, number: int) -> None:
        self.wires[number] = wire
        try:
            while True:
                await wire.reader.readuntil(b"\r\n\r\n")
                self.waiting += 1
                await self.gate.wait()
                self.waiting -= 1
                wire.send(b"HTTP/1.1 200 OK\r\n%sContent-Length: 1\r\n\r\n%d" % (self.fields, number))
        finally:
            self.ended.append(number)


async def ask_at_once(worker: InnerWorker, replica: Numbered, count: int) -> list[bytes]:
    """So many exchanges at the same time; the bodies of their answers."""
    replica.gate.clear()
    clients = [await worker.open() for _ in range(count)]
    for client in clients:
        client.send(GET)
    await eventually(lambda: replica.waiting == count)
    replica.gate.set()
    bodies = [(await client.read_answer())[2] for client in clients]
    for client in clients:
        await client.close()
    return bodies


async def test_connection_used_last_is_used_first() -> None:
    script = Numbered()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        assert sorted(await ask_at_once(worker, script, 3)) == [b"0", b"1", b"2"]
        assert worker.count_replica(IDLE) == 3
        last = (await client.ask(GET))[2]
        for _ in range(5):
            assert (await client.ask(GET))[2] == last
        assert worker.count_replica(OPENED) == 3
        assert worker.count_replica(REUSED) == 6


async def test_pool_is_bounded_and_the_oldest_goes() -> None:
    script = Numbered()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url], limits={"idle_connections": 2}) as worker:
        await ask_at_once(worker, script, 4)
        assert worker.count_replica(IDLE) == 2
        await eventually(lambda: len(script.ended) == 2)
        assert worker.count_replica(STALE) == 0


@pytest.mark.parametrize(("hint", "seconds"), [(b"", 0.5), (b"Keep-Alive: timeout=2\r\n", 1.0)])
async def test_idle_connection_leaves_at_its_time(hint: bytes, seconds: float) -> None:
    script = Numbered(hint)
    script.gate.set()
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], timeouts={"upstream_idle": "500ms"}) as worker,
        await worker.open() as client,
    ):
        await client.ask(GET)
        began = time.monotonic()
        await eventually(lambda: script.ended)
        assert seconds <= time.monotonic() - began < seconds + 0.7
        assert worker.count_replica(IDLE) == 0
        assert worker.count_replica(STALE) == 0


@pytest.mark.parametrize("hint", [b"timeout=1", b"timeout=0", b"timeout=1, max=100"])
async def test_connection_whose_hint_leaves_no_margin_is_not_kept(hint: bytes) -> None:
    script = Numbered(b"Keep-Alive: " + hint + b"\r\n")
    script.gate.set()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        assert [(await client.ask(GET))[2] for _ in range(3)] == [b"0", b"1", b"2"]
        assert worker.count_replica(IDLE) == 0


@pytest.mark.parametrize("hint", [b"timeout=100000", b"timeout=x", b"timeout=", b"max=5", b"timeout", b""])
async def test_hint_that_says_nothing_counts_as_none(hint: bytes) -> None:
    script = Numbered(b"Keep-Alive: " + hint + b"\r\n")
    script.gate.set()
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], timeouts={"upstream_idle": "200ms"}) as worker,
        await worker.open() as client,
    ):
        await client.ask(GET)
        assert worker.count_replica(IDLE) == 1
        await eventually(lambda: worker.count_replica(IDLE) == 0, 1.0)


async def test_stray_octets_discard_an_idle_connection() -> None:
    script = Numbered()
    script.gate.set()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        await client.ask(GET)
        script.wires[0].send(OK)
        await eventually(lambda: worker.count_replica(IDLE) == 0)
        assert worker.count_replica(STALE) == 1
        assert (await client.ask(GET))[2] == b"1"


async def test_replica_that_closes_idle_connections_costs_no_request() -> None:
    script = Numbered()
    script.gate.set()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        for number in range(5):
            assert (await client.ask(GET))[2] == b"%d" % number
            await script.wires[number].close()
            await eventually(lambda: worker.count_replica(IDLE) == 0)
        assert worker.count_replica(STALE) == 5
        assert worker.list_replies() == {}


async def test_request_that_must_not_run_twice_takes_only_a_young_connection() -> None:
    script = Numbered()
    script.gate.set()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        assert (await client.ask(GET))[2] == b"0"
        assert (await client.ask(POST))[2] == b"0"  # used a moment ago
        await asyncio.sleep(1.2)
        assert (await client.ask(POST))[2] == b"1"
        await asyncio.sleep(1.2)
        assert (await client.ask(GET))[2] == b"1"
        assert worker.count_replica(REUSED) == 2
        assert worker.count_replica(OPENED) == 2


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"stray",
        OK + OK,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nx",
        b"HTTP/1.1 204 No Content\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
async def test_connection_in_doubt_is_not_used_again(answer: bytes) -> None:
    async with (
        ScriptedReplica(answer_each(answer)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        for _ in range(3):
            assert (await client.ask(GET))[0] in (200, 204)
        assert replica.accepted == 3
        assert worker.count_replica(IDLE) == 0
        assert worker.count_replica(REUSED) == 0


async def test_connection_that_ends_with_its_answer_is_not_used_for_what_was_sent_ahead() -> None:
    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        with socket.socket(fileno=os.dup(wire.writer.get_extra_info("socket").fileno())) as own:
            own.send(OK)
            own.shutdown(socket.SHUT_WR)  # both are there when the worker looks
        await wire.reader.read()

    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send(GET * 5)
        for _ in range(5):
            assert (await client.read_answer())[0] == 200
        assert replica.accepted == 5
        assert worker.list_replies() == {}


async def test_idle_connection_that_is_reset_when_a_request_comes_is_not_used_for_it() -> None:
    """RTY-2: both are found ready at the same moment, the reset first."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with InnerWorker([url]) as worker, await worker.open() as client:
            fd = client.writer.get_extra_info("socket").fileno()
            for _ in range(5):
                os.write(fd, GET)
                connection, _ = await asyncio.wait_for(loop.sock_accept(listener), WITHIN)
                await loop.sock_recv(connection, 65536)
                await loop.sock_sendall(connection, OK)
                assert (await client.read_answer())[0] == 200
                await eventually(lambda: worker.count_replica(IDLE) == 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            os.write(fd, GET)
            connection, _ = await asyncio.wait_for(loop.sock_accept(listener), WITHIN)
            with connection:
                await loop.sock_sendall(connection, OK)
                assert (await client.read_answer())[0] == 200
            assert worker.list_replies() == {}


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n",
    ],
)
async def test_connection_without_doubt_is_used_again(answer: bytes) -> None:
    async with (
        ScriptedReplica(answer_each(answer)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        for _ in range(3):
            client.send(GET)
            head = await client.read_head()
            if b" 304 " not in head:
                size = 12 if get_field(head, "Transfer-Encoding") else int(get_field(head, "Content-Length") or 0)
                await client.read(size)
        assert replica.accepted == 1


async def test_replica_that_leaves_the_table_loses_its_idle_connections_and_finishes_the_rest() -> None:
    script = Numbered()
    async with (
        ScriptedReplica(script) as replica,
        ScriptedReplica(answer_each()) as other,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        await ask_at_once(worker, script, 3)
        script.gate.clear()
        client.send(GET)
        await eventually(lambda: script.waiting == 1)
        await worker.publish({"name": "test", "ha": True, "replicas": {"static": [other.url]}})
        await eventually(lambda: len(script.ended) == 2)
        script.gate.set()
        assert (await client.read_answer())[0] == 200
        await eventually(lambda: len(script.ended) == 3)
        assert (await client.ask(GET))[2] == b"ok"
        assert other.accepted == 1


async def test_no_pool_keeps_nothing_of_connections_that_were_used() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], limits={"idle_connections": 0}) as worker,
        await worker.open() as client,
    ):
        before = count_objects("ReplicaConnection")
        for _ in range(10):
            assert (await client.ask(GET))[0] == 200
        assert replica.accepted == 10
        await eventually(lambda: count_objects("ReplicaConnection") <= before, within=2)

"""Large bodies with a length go past the worker, within the kernel: nothing may be lost, moved or left behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import resource

import pytest

from haproxy_py import counters
from tests.wire.inner_worker import InnerWorker, count_open_files
from tests.wire.scripted import OK, WITHIN, ScriptedReplica, Wire, eventually

KIB = 1024
MIB = 1024 * KIB
SIZES = [64 * KIB, 64 * KIB + 1, 72 * KIB, 128 * KIB, 136 * KIB, 137 * KIB, 256 * KIB, 1 * MIB, 7 * MIB + 13]
GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"


def post(size: int) -> bytes:
    return b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % size


def make_octets(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def read_slowly(wire: Wire, size: int) -> bytes:
    """With pauses, so that the worker's pipe fills and empties."""
    got = bytearray()
    while len(got) < size:
        got += await asyncio.wait_for(wire.reader.read(50_000), WITHIN)
        if len(got) % 5 == 0:
            await asyncio.sleep(0.001)
    return bytes(got)


async def answer_with(wire: Wire, size: int, head: bytes = b"") -> None:
    await wire.read_head()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (size, head) + make_octets(size))


@pytest.mark.parametrize("size", SIZES)
async def test_answers_are_whole_and_the_next_one_follows(size: int) -> None:
    async def script(wire: Wire, number: int) -> None:
        while True:
            await answer_with(wire, size)

    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        for _ in range(3):
            client.send(GET)
            await client.read_head()
            assert await client.read(size) == make_octets(size)
        await worker.settle()
        assert replica.accepted == 1
        assert worker.count_replica(counters.REPLICA_RECEIVED_BYTES) > 3 * size


@pytest.mark.parametrize("size", SIZES)
async def test_requests_are_whole_and_what_follows_is_the_next_request(size: int) -> None:
    async def script(wire: Wire, number: int) -> None:
        while True:
            await wire.read_head()
            body = await read_slowly(wire, size)
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + hashlib.sha256(body).hexdigest().encode())

    expected = hashlib.sha256(make_octets(size)).hexdigest().encode()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send((post(size) + make_octets(size)) * 3)
        for _ in range(3):
            assert (await client.read_answer())[2] == expected
        await worker.settle()
        assert worker.count_replica(counters.REPLICA_SENT_BYTES) > 3 * size


async def test_slow_client_gets_every_octet() -> None:
    size = 12 * MIB

    async def script(wire: Wire, number: int) -> None:
        await answer_with(wire, size)
        await wire.reader.read()

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open(receive_buffer=8192) as client,
    ):
        client.send(GET)
        await client.read_head()
        assert hashlib.sha256(await read_slowly(client, size)).digest() == hashlib.sha256(make_octets(size)).digest()


async def test_connection_that_ends_with_its_answer_sends_all_of_it() -> None:
    size = 4 * MIB

    async def script(wire: Wire, number: int) -> None:
        await answer_with(wire, size, b"Connection: close\r\n")
        wire.finish()

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open(receive_buffer=8192) as client,
    ):
        client.send(b"GET /x HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        await client.read_head()
        await asyncio.sleep(0.1)
        assert await client.read_rest() == make_octets(size)


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_replica_that_breaks_off_is_a_reset_for_the_client(how: str) -> None:
    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + bytes(2 * MIB))
        await asyncio.sleep(0.1)
        if how == "reset":
            wire.reset()

    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send(GET)
        assert await client.wait_end() == "reset"
        assert worker.list_replies() == {"upstream_closed": 1}


async def test_octets_behind_an_answer_are_not_the_answer_to_the_next_request() -> None:
    """CON-16, as for answers that are copied: the connection is in doubt, whatever waits in its socket."""

    async def script(wire: Wire, number: int) -> None:
        while True:
            await answer_with(wire, MIB)
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")

    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send(GET * 3)
        for _ in range(3):
            await client.read_head()
            assert await client.read(MIB) == make_octets(MIB)
        assert replica.accepted == 3


async def test_early_answer_ends_the_diversion() -> None:
    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        await wire.reader.read(300_000)
        wire.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(0.2)

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], timeouts={"linger": "300ms"}) as worker,
        await worker.open() as client,
    ):
        client.send(post(100 * MIB) + bytes(3 * MIB))
        assert (await client.read_head()).startswith(b"HTTP/1.1 413 ")
        client.reset()
        await worker.settle()


async def test_clients_and_replicas_that_vanish_leave_no_file_open() -> None:
    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(8 * MIB))
        await wire.reader.read()

    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker:
        for turn in range(25):
            if turn == 5:
                before = count_open_files()
            client = await worker.open(receive_buffer=4096)
            client.writer.transport.pause_reading()
            client.send(GET)
            await eventually(lambda: any(one.stream.piped for one in worker.context.clients))
            client.reset()
            await client.close()
            await eventually(lambda: not worker.context.clients and not worker.context.spare)
        assert count_open_files() <= before + 4


async def test_without_files_for_a_pipe_octets_are_copied() -> None:
    size = 3 * MIB

    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        await wire.reader.readexactly(1)
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + make_octets(size))

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], limits={"gather": 0}) as worker,
        await worker.open() as client,
    ):
        client.send(b"GET /x HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n")  # connects, and waits
        await eventually(lambda: worker.context.spare)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        fillers = [os.dup(0)]
        while fillers[-1] < highest:
            fillers.append(os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(highest, fillers[-1]) + 1, hard))
        try:
            client.send(b"x")
            await client.read_head()
            assert await client.read(size) == make_octets(size)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for filler in fillers:
                os.close(filler)


async def test_request_for_a_replica_that_is_still_connected_to() -> None:
    """What came before the connection stood goes first."""
    size = 5 * MIB

    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        assert await wire.reader.readexactly(size) == make_octets(size)
        wire.send(OK)

    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send(post(size) + make_octets(size))
        assert (await client.read_answer())[0] == 200

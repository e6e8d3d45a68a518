"""Turns: of connections in a worker's loop, and of requests at the replicas."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator

import pytest

from haproxy_py import counters
from tests.proxy_process import describe_instance, find_free_ports
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import WITHIN, ScriptedReplica, answer_each, get_field

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
PATHS = [b"/x", b"/dashboard/socket.io/?EIO=4"]
ROW = 50_000
SEND_ROW = """
import socket, sys, threading
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
count = [0]
def read():
    rest = b""
    while data := client.recv(1 << 20):
        data = rest + data
        count[0] += data.count(b"HTTP/1.1 403 ")
        rest = data[-12:]
reading = threading.Thread(target=read)
reading.start()
client.sendall(b"GET / HTTP/1.1\\r\\nHost:a\\r\\n\\r\\n" * int(sys.argv[2]))
client.shutdown(socket.SHUT_WR)
reading.join()
print(count[0])
"""
"""A client in a process of its own, or it could not take its answers while the worker is busy: it would be slowed down."""


@contextlib.asynccontextmanager
async def send_row(worker: InnerWorker, size: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A client that sends a row of denied requests and a FIN, and prints how many answers it got."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", SEND_ROW, str(worker.port), str(size), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_long_row_of_denied_requests_does_not_hold_others_up() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        longest, most, during = 0.0, 0, 0
        async with send_row(worker, ROW):
            async with asyncio.timeout(WITHIN):
                while (before := worker.count_replies("gate_denied")) < ROW:
                    began = time.monotonic()
                    assert (await client.ask(GET))[0] == 200
                    longest = max(longest, time.monotonic() - began)
                    most = max(most, worker.count_replies("gate_denied") - before)
                    during += before > 0
        assert during > 10  # or nothing was measured
        assert longest < 0.5
        assert most < ROW / 10


async def test_long_row_never_gets_more_than_its_share_of_a_turn() -> None:
    most = 0
    async with InnerWorker(["http://127.0.0.1:9"]) as worker, send_row(worker, 200_000):
        answered = 0
        while answered < 200_000:
            await asyncio.sleep(0)  # one turn of the loop
            most = max(most, worker.count_replies("gate_denied") - answered)
            answered = worker.count_replies("gate_denied")
    assert 0 < most <= 64


async def test_fin_behind_a_long_row_still_gets_every_answer() -> None:
    async with InnerWorker(["http://127.0.0.1:9"]) as worker, send_row(worker, ROW) as process:
        async with asyncio.timeout(WITHIN):
            out, _ = await process.communicate()
        assert int(out) == ROW
        assert worker.list_replies() == {"gate_denied": ROW}


@pytest.mark.parametrize("path", PATHS)
async def test_second_choice_of_a_replica_takes_no_turn(path: bytes) -> None:
    """Else every request would meet the dead one of two first."""
    [dead] = find_free_ports(1)
    request = b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % path
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([f"http://127.0.0.1:{dead}", replica.url]) as worker,
        await worker.open() as client,
    ):
        for _ in range(10):
            assert (await client.ask(request))[0] == 200
        failed = [worker.count_replica(counters.REPLICA_CONNECTIONS_FAILED, slot) for slot in range(2)]
        assert sorted(failed) == [0, 1]  # then it is passed over


@pytest.mark.parametrize("path", PATHS)
async def test_turns_go_on_over_new_tables(path: bytes) -> None:
    request = b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % path
    async with contextlib.AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(ScriptedReplica(answer_each())) for _ in range(3)]
        urls = [replica.url for replica in replicas]
        worker = await stack.enter_async_context(InnerWorker(urls))
        client = await stack.enter_async_context(await worker.open())
        seen = []
        for _ in range(6):
            seen.append(get_field((await client.ask(request))[1], "X-HA-Replica"))
            await worker.publish(describe_instance(urls))
        assert len(set(seen[:3])) == 3
        assert seen[3:] == seen[:3]

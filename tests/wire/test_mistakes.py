"""A mistake of ours ends the connection on which it happened, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from haproxy_py import counters, pages
from haproxy_py.networks import Networks
from tests.proxy_process import find_free_ports
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import WITHIN, ScriptedReplica, Wire, answer_each

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"


@contextlib.contextmanager
def no_files() -> Iterator[None]:
    """No further file can be opened inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    fillers = [os.dup(0)]
    while fillers[-1] < highest:
        fillers.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)


async def test_mistake_with_a_request_that_was_sent_ahead_ends_the_connection_of_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It happens while the answer before is read, on the connection to the replica."""
    looked = 0
    contains = Networks.__contains__

    def fail_second(self: Networks, address: str) -> bool:
        nonlocal looked
        looked += 1
        if looked == 2:
            raise LookupError("on purpose")
        return contains(self, address)

    monkeypatch.setattr(Networks, "__contains__", fail_second)
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], trusted_proxies=["127.0.0.0/8"]) as worker,
        await worker.open() as client,
    ):
        client.send(GET * 2)
        assert (await client.read_answer())[0] == 200
        await client.wait_end(within=1)
        assert worker.count_replica(counters.REPLICA_IDLE_CONNECTIONS) == 1
        [mistake] = worker.take_mistakes()
        assert isinstance(mistake["exception"], LookupError)
        async with await worker.open() as other:
            assert (await other.ask(GET))[0] == 200
        assert replica.accepted == 1


async def test_request_without_a_host_needs_no_file() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        assert (await client.ask(GET))[0] == 200
        with no_files():
            client.send(b"GET /x HTTP/1.0\r\n\r\n")
            assert (await client.read_answer())[0] == 200


async def test_worker_without_files_rests_until_there_are_some() -> None:
    loop = asyncio.get_running_loop()
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url]) as worker:
        with socket.socket() as late:
            late.setblocking(False)
            async with await worker.open() as client:
                with no_files():
                    await loop.sock_connect(late, ("127.0.0.1", worker.port))
                    await loop.sock_sendall(late, GET)
                    assert (await client.ask(GET))[0] == 502  # no file for a connection to the replica, either
                    spent = time.process_time()
                    await asyncio.sleep(0.5)
                    assert time.process_time() - spent < 0.1
                    assert len(worker.context.clients) == 1
                assert (await asyncio.wait_for(loop.sock_recv(late, 65536), WITHIN)).startswith(b"HTTP/1.1 200 ")
                assert (await client.ask(GET))[0] == 200
        assert [notice.level for notice in worker.notices] == ["warning", "warning"]
        assert any("no connection can be accepted" in notice.text for notice in worker.notices)
        assert any("no connection to a replica can be opened" in notice.text for notice in worker.notices)


@pytest.mark.parametrize("replica_is", ["gone", "dying"])
async def test_mistake_with_the_answer_to_a_request_whose_replica_failed_ends_the_connection_of_its_client(
    replica_is: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no deadline then, so it would wait for ever."""

    def fail(*_: object) -> bytes:
        raise LookupError("on purpose")

    async def die(wire: Wire, number: int) -> None:
        await wire.read_head()

    monkeypatch.setattr(pages, "render_error_page", fail)
    async with ScriptedReplica(die) as dying:
        url = dying.url if replica_is == "dying" else f"http://127.0.0.1:{find_free_ports(1)[0]}"
        async with InnerWorker([url], name="mistaken") as worker, await worker.open() as client:
            client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nAccept: text/html\r\nContent-Length: 0\r\n\r\n")
            await client.wait_end(within=1)
            [mistake] = worker.take_mistakes()
            assert isinstance(mistake["exception"], LookupError)

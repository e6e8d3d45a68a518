"""A worker that stood still (a suspended machine, a full CPU) counts that time against nobody."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

from haproxy_py import counters
from tests.proxy_process import ProxyProcess, describe_instance
from tests.wire.inner_worker import InnerWorker, find_workers
from tests.wire.scripted import OK, WITHIN, ScriptedReplica, Wire, answer_each

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
STOPPED = 1.0
"""Seconds that a worker stands still: longer than the timeouts here, shorter than it is given before it is replaced."""


def start(folder: Path, replicas: list[str], **timeouts: str) -> ProxyProcess:
    return ProxyProcess(folder, [describe_instance(replicas, timeouts=timeouts, health={"type": "off"})])


def wait_until_stopped(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)


async def test_connecting_in_a_late_turn_has_all_of_its_time() -> None:
    """The request comes while the loop is busy, on a connection that has asked before."""
    loop = asyncio.get_running_loop()
    async with (
        ScriptedReplica(answer_each(CLOSING)) as replica,
        InnerWorker([replica.url], timeouts={"connect": "300ms"}, health={"type": "off"}) as worker,
    ):
        with socket.create_connection(("127.0.0.1", worker.port)) as client:
            for _ in range(5):
                client.sendall(GET)
                assert (await loop.run_in_executor(None, client.recv, 65536)).startswith(b"HTTP/1.1 200 ")
                client.sendall(GET)
                time.sleep(STOPPED)  # noqa: ASYNC251  # the loop stands still: what this test is about
                worker.context.poller.turn()  # the sockets before the timers
                assert (await loop.run_in_executor(None, client.recv, 65536)).startswith(b"HTTP/1.1 200 ")
        assert worker.count_replica(counters.REPLICA_EJECTIONS) == 0


async def test_answer_that_came_while_the_process_was_stopped_is_no_timeout(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        start(tmp_path, [f"http://127.0.0.1:{listening.getsockname()[1]}"], response_head="400ms") as proxy,
        socket.create_connection(("127.0.0.1", proxy.port)) as client,
    ):
        (worker,) = find_workers(proxy.pid)
        client.sendall(GET)
        replica, _ = await loop.run_in_executor(None, listening.accept)
        with replica:
            for _ in range(3):
                await loop.run_in_executor(None, replica.recv, 65536)
                os.kill(worker, signal.SIGSTOP)
                try:
                    wait_until_stopped(worker)
                    replica.sendall(OK)
                    await asyncio.sleep(STOPPED)
                finally:
                    os.kill(worker, signal.SIGCONT)
                assert (await loop.run_in_executor(None, client.recv, 65536)).startswith(b"HTTP/1.1 200 ")
                client.sendall(GET)
            await loop.run_in_executor(None, replica.recv, 65536)
            replica.sendall(OK)


async def test_answer_that_came_while_the_worker_stood_still_is_no_timeout() -> None:
    """The timers come before the sockets: the order that a loop has when its own timers are due."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with (
            InnerWorker(
                [f"http://127.0.0.1:{listening.getsockname()[1]}"],
                timeouts={"response_head": "300ms"},
                health={"type": "off"},
            ) as worker,
            await worker.open() as client,
        ):
            client.send(GET)
            replica, _ = await loop.run_in_executor(None, listening.accept)
            with replica:
                await loop.run_in_executor(None, replica.recv, 65536)
                replica.sendall(OK)
                worker.context.poller.tick()  # the wait for the answer began before the stop
                time.sleep(STOPPED)  # noqa: ASYNC251  # the loop stands still: what this test is about
                worker.context.poller.tick()
                worker.context.poller.tick()
                assert (await client.read_answer())[0] == 200
                assert worker.list_replies() == {}


async def test_late_tick_ends_nothing() -> None:
    """What else the machine carries was as late; the tick after it ends what has had its time."""
    asked = asyncio.Event()

    async def hold(wire: Wire, number: int) -> None:
        await wire.read_head()
        asked.set()
        await wire.reader.read()

    async with (
        ScriptedReplica(hold) as replica,
        InnerWorker([replica.url], timeouts={"response_head": "300ms"}, health={"type": "off"}) as worker,
        await worker.open() as client,
    ):
        client.send(GET)
        await asyncio.wait_for(asked.wait(), WITHIN)
        worker.context.poller.tick()  # the wait for the answer began before the stop
        time.sleep(STOPPED)  # noqa: ASYNC251  # the loop stands still: what this test is about
        worker.context.poller.tick()
        assert worker.list_replies() == {}
        worker.context.poller.tick()
        assert worker.list_replies() == {"response_timeout": 1}
        assert (await client.read_answer())[0] == 504

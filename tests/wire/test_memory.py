"""What a worker weighs: at rest, per idle client, per idle tunnel; and that it does not grow with its work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy_process import ProxyProcess, describe_instance, find_free_ports
from tests.wire.inner_worker import InnerWorker, count_objects, count_open_files, find_workers, read_memory
from tests.wire.scripted import OK, ScriptedReplica, Wire, eventually, open_wire
from tests.wire.test_processes import get_metric
from tests.wire.test_tunnels import HANDSHAKE, SWITCH

ROOT = Path(__file__).parents[2]
GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
KIB = 1024
MIB = 1024 * KIB


async def serve(wire: Wire, number: int) -> None:
    """A word in the path says what goes wrong."""
    while True:
        head = await wire.reader.readuntil(b"\r\n\r\n")
        target = head.split(b" ")[1]
        if b"websocket" in head:
            wire.send(SWITCH)
            await wire.reader.read()
            return
        if target == b"/cut":
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
            await wire.writer.drain()
            return
        if target == b"/leave":
            return
        if target == b"/bad":
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")
        elif target == b"/chunked":
            wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n")
        elif target == b"/large":
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
        elif target == b"/hold":
            await wire.reader.read(1)
        else:
            wire.send(OK)


@pytest.fixture(scope="module")
def replica_port() -> int:
    return find_free_ports(1)[0]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, replica_port: int) -> Iterator[ProxyProcess]:
    with ProxyProcess(
        tmp_path_factory.mktemp("memory"),
        [
            describe_instance(
                [f"http://127.0.0.1:{replica_port}"],
                timeouts={"linger": "100ms"},
                health={"type": "off"},  # the replica comes with each test
            )
        ],
        environment={"PYTHONPATH": str(ROOT)},
        extra={"drain": {"delay": "0s", "deadline": "1s"}},
    ) as proxy:
        yield proxy


async def test_worker_at_rest(proxy: ProxyProcess) -> None:
    (worker,) = find_workers(proxy.pid)
    memory = read_memory(worker)
    print(f"at rest: {memory / MIB:.1f} MiB")
    assert memory < 30 * MIB


def test_worker_imports_nothing_large_that_it_does_not_need() -> None:
    large = {"aiohttp", "argparse", "html", "kubernetes", "pathlib", "yaml"}
    program = f"import sys, haproxy_py.worker; print(sorted({large} & sys.modules.keys()))"
    # -S: what a development install imports when Python starts is not the worker's doing.
    paths = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True, text=True, check=True, timeout=60, env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert done.stdout == "[]\n"


async def test_idle_clients_and_idle_tunnels(proxy: ProxyProcess, replica_port: int) -> None:
    async with ScriptedReplica(serve, replica_port):
        (worker,) = find_workers(proxy.pid)
        for request, end, limit in ((GET, b"ok", 3 * KIB), (HANDSHAKE, b"\r\n\r\n", 7 * KIB)):
            clients = []
            for count in range(1200):
                if count == 200:  # by then whatever grows in steps has grown
                    before = read_memory(worker)
                client = await open_wire(proxy.port)
                clients.append(client)
                client.send(request)
                await client.read_until(end)
            each = (read_memory(worker) - before) / 1000
            print(f"{request[:8]!r}: {each:.0f} octets each")
            assert each < limit
            for client in clients:
                client.reset()
            await eventually(lambda: count_open_files(worker) < 100)


async def ask_for_trouble(port: int, round_: int) -> None:
    """One connection's worth of exchanges: good ones, refused ones, failing ones, and clients that leave."""
    async with await open_wire(port) as client:
        for target in (b"/x", b"/chunked", b"/flows", b"/large", b"/bad", b"/x"):
            await client.ask(b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % target)
        await client.ask(b"POST /leave HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx")
        await client.ask(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n")
        client.send(GET * 6)
        for _ in range(6):
            await client.read_answer()
        last = round_ % 6
        if last == 0:
            await client.ask(b"GET /x HTTP/9.9\r\n\r\n")
        elif last == 1:
            client.send(b"GET /hold HTTP/1.1\r\nHost: test\r\n\r\n")
            await client.writer.drain()
            client.reset()
        elif last == 2:
            client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nx")
            client.finish()
            await client.wait_end()
        elif last == 3:
            client.send(b"GET /cut HTTP/1.1\r\nHost: test\r\n\r\n")
            await client.wait_end()
        elif last == 4:
            client.send(HANDSHAKE)
            await client.read_head()
            client.reset()
        else:
            client.send(b"GET /x HT")


async def test_twenty_thousand_exchanges_of_all_kinds_leave_nothing_behind(
    proxy: ProxyProcess, replica_port: int
) -> None:
    async with ScriptedReplica(serve, replica_port):
        (worker,) = find_workers(proxy.pid)

        async def ask(rounds: int) -> None:
            for start in range(0, rounds, 8):
                await asyncio.gather(*(ask_for_trouble(proxy.port, start + number) for number in range(8)))

        await ask(320)
        before = read_memory(worker)
        await ask(1120)  # of 14 or 15 exchanges
        await eventually(lambda: count_open_files(worker) < 60)
        grown = read_memory(worker) - before
        print(f"grown by {grown / KIB:.0f} KiB")
        assert grown < MIB
        assert await get_metric(proxy, "replica_active_requests") == 0
        assert await get_metric(proxy, "replica_active_tunnels") == 0
        assert await get_metric(proxy, "client_connections") == 0
        assert (worker,) == tuple(find_workers(proxy.pid))
    assert "internal error" not in proxy.log


async def test_idle_clients_keep_no_former_table() -> None:
    async with (
        ScriptedReplica(serve) as replica,
        InnerWorker([replica.url]) as worker,
        contextlib.AsyncExitStack() as stack,
    ):
        await worker.publish(describe_instance([replica.url]))
        before = count_objects("Routes")
        for _ in range(5):
            client = await stack.enter_async_context(await worker.open())
            assert (await client.ask(GET))[0] == 200
            await worker.publish(describe_instance([replica.url]))
        assert count_objects("Routes") == before

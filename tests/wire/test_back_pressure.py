"""A slow side costs the worker a bounded amount of memory and nobody else any time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy_process import ProxyProcess, describe_instance, find_free_ports
from tests.wire.inner_worker import InnerWorker, find_workers, read_memory
from tests.wire.scripted import OK, ScriptedReplica, Wire, answer_each, eventually, open_wire

ROOT = Path(__file__).parents[2]
GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
HUGE = 1 << 30
MIB = 1 << 20


async def serve(wire: Wire, number: int) -> None:
    """`/huge`: 1 GiB. `POST /slow`: read 1 KiB a second. Anything else: ok."""
    while True:
        target = (await wire.reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        if target == b"/huge":
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % HUGE)
            piece = bytes(65536)
            for _ in range(HUGE // len(piece)):
                wire.send(piece)
                await wire.writer.drain()
        elif target == b"/slow":
            wire.writer.transport.pause_reading()
            while True:
                await asyncio.sleep(0.1)
                await wire.reader.read(102)
        else:
            wire.send(OK)


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return find_free_ports(1)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, ports: list[int]) -> Iterator[ProxyProcess]:
    with ProxyProcess(
        tmp_path_factory.mktemp("back-pressure"),
        [describe_instance([f"http://127.0.0.1:{ports[0]}"], health={"type": "off"})],  # it comes with each test
        environment={"PYTHONPATH": str(ROOT)},
        extra={"log": {"access": "off"}},
    ) as proxy:
        yield proxy


async def read_slowly(port: int) -> None:
    async with await open_wire(port, receive_buffer=4096, limit=1024) as client:
        client.send(b"GET /huge HTTP/1.1\r\nHost: test\r\n\r\n")
        await client.read_head()
        while True:
            await client.read(102)
            await asyncio.sleep(0.1)


async def upload_fast(port: int) -> None:
    async with await open_wire(port) as client:
        client.send(b"POST /slow HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % HUGE)
        piece = bytes(65536)
        while True:
            client.send(piece)
            await client.writer.drain()


async def pipeline_without_reading(port: int) -> None:
    async with await open_wire(port, receive_buffer=4096) as client:
        client.writer.transport.pause_reading()
        while True:
            client.send(GET * 500)
            await client.writer.drain()


async def measure_latencies(port: int, seconds: float) -> list[float]:
    """Of one request after the other, in order of size."""
    found = []
    async with await open_wire(port) as client:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            assert (await client.ask(GET))[0] == 200
            found.append(time.monotonic() - began)
            await asyncio.sleep(0.002)
    return sorted(found)


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("slow", [read_slowly, upload_fast, pipeline_without_reading])
async def test_slow_side_costs_less_than_a_mebibyte_and_nobody_any_time(
    proxy: ProxyProcess, ports: list[int], slow: object, count: int
) -> None:
    async with ScriptedReplica(serve, ports[0]):
        (worker,) = find_workers(proxy.pid)
        await measure_latencies(proxy.port, 0.2)
        before = read_memory(worker)
        tasks = [asyncio.create_task(slow(proxy.port)) for _ in range(count)]  # type: ignore[operator]
        await asyncio.wait(tasks, timeout=1.0)  # until the buffers are full
        latencies = await measure_latencies(proxy.port, 1.0)
        grown = read_memory(worker) - before
        print(
            f"{slow.__name__} x {count}: +{grown / 1024:.0f} KiB, p99 {latencies[len(latencies) * 99 // 100] * 1e3:.2f} ms"
        )  # type: ignore[attr-defined]
        for task in tasks:
            assert not task.done(), task.exception()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert grown < MIB * count
        assert len(latencies) > 50
        assert latencies[len(latencies) * 99 // 100] < 0.1


@pytest.mark.parametrize("diverted", [False, True])
async def test_reading_pauses_while_the_client_takes_nothing(diverted: bool) -> None:
    """What lies in the worker: at most the high mark and one read (256 KiB). A body with a length waits in the kernel."""
    sent = [0]

    async def send_much(wire: Wire, number: int) -> None:
        await wire.read_head()
        length = b"Content-Length: 50000000\r\n" if diverted else b""
        wire.send(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        while sent[0] < 50_000_000 and not wire.writer.is_closing():
            wire.send(bytes(10_000))
            sent[0] += 10_000
            await wire.writer.drain()

    async with (
        ScriptedReplica(send_much) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open(receive_buffer=4096) as client,
    ):
        client.writer.transport.pause_reading()
        client.send(GET)
        await eventually(lambda: worker.context.clients)
        (connection,) = worker.context.clients
        stream = connection.stream
        await eventually(lambda: stream.piped > 0 if diverted else stream.unsent > 65536)
        assert stream.limits == (16384, 65536)
        last = -1
        while sent[0] != last:
            last = sent[0]
            await asyncio.sleep(0.2)
        assert sent[0] < 50_000_000  # nothing more is read
        assert stream.unsent <= 65536 + 262_144
        assert stream.piped <= 262_144
        assert (stream.unsent, stream.piped > 0) == (0, True) if diverted else stream.piped == 0
        client.reset()


async def test_held_requests_are_bounded() -> None:
    async def hold(wire: Wire, number: int) -> None:
        await wire.reader.read(-1)

    async with (
        ScriptedReplica(hold) as replica,
        InnerWorker([replica.url], timeouts={"response_head": "1s"}) as worker,
        await worker.open() as client,
    ):
        client.writer.transport.set_write_buffer_limits(high=0)
        sent = 0
        while sent < 50_000_000:
            client.send(GET * 1000)
            sent += len(GET) * 1000
            try:
                async with asyncio.timeout(0.5):
                    await client.writer.drain()
            except TimeoutError:
                break
        assert sent < 20_000_000  # the rest waits in the kernel and in the client
        client.reset()


async def test_ordinary_answer_is_not_touched_by_the_marks() -> None:
    body = bytes(range(256)) * 40_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with (
        ScriptedReplica(answer_each(answer)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        for _ in range(3):
            assert (await client.ask(GET))[2] == body

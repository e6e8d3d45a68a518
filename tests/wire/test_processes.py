"""Workers that are killed, a proxy that drains, a control process that dies: seen by clients under load."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.proxy_process import ProxyProcess, describe_instance
from tests.wire.inner_worker import find_workers
from tests.wire.scripted import OK, ScriptedReplica, Wire, eventually, get_field, open_wire
from tests.wire.test_tunnels import HANDSHAKE, SWITCH

ROOT = Path(__file__).parents[2]
GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"


async def serve(wire: Wire, number: int) -> None:
    """`/slow` takes 300 ms, an upgrade is granted and echoed."""
    while True:
        head = await wire.reader.readuntil(b"\r\n\r\n")
        if b"websocket" in head:
            wire.send(SWITCH)
            while data := await wire.reader.read(65536):
                wire.send(data)
            return
        if head.startswith(b"GET /slow "):
            await asyncio.sleep(0.3)
        wire.send(OK)


@dataclass
class Load:
    """Clients that ask one request after the other, each on its connection as long as it may."""

    port: int
    target: bytes = b"/x"
    answered: int = 0
    refused: int = 0  # connecting failed
    lost: list[str] = field(default_factory=list)  # requests on an open connection without a whole answer
    closes: int = 0
    ending: bool = False

    async def run(self, clients: int) -> None:
        await asyncio.gather(*(self._ask() for _ in range(clients)))

    async def _ask(self) -> None:
        request = b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % self.target
        while not self.ending:
            try:
                client = await open_wire(self.port)
            except OSError:
                self.refused += 1
                await asyncio.sleep(0.02)
                continue
            connected = time.monotonic()
            async with client:
                while not self.ending:
                    try:
                        status, head, _ = await client.ask(request)
                    except (OSError, asyncio.IncompleteReadError) as error:
                        self.lost.append(
                            f"{type(error).__name__} at {time.monotonic():.3f}, connected at {connected:.3f}"
                        )
                        break
                    if status != 200:
                        self.lost.append(f"status {status}")
                    self.answered += 1
                    if (get_field(head, "Connection") or "").lower() == "close":
                        self.closes += 1
                        break


def start(folder: Path, replicas: list[str], workers: int, **extra: Any) -> ProxyProcess:
    return ProxyProcess(
        folder,
        [describe_instance(replicas)],
        workers=workers,
        environment={"PYTHONPATH": str(ROOT)},
        extra={"log": {"access": "off"}, **extra},
    )


def read_metric(proxy: ProxyProcess, name: str) -> float:
    """The sum of all series of a metric."""
    text = proxy.get_ops("/metrics")[1]
    return sum(float(value) for value in re.findall(rf"^haproxy_py_{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


async def get_metric(proxy: ProxyProcess, name: str) -> float:
    return await asyncio.to_thread(read_metric, proxy, name)


async def test_killed_worker_costs_only_its_own_exchanges_and_is_back_within_a_second(tmp_path: Path) -> None:
    async with ScriptedReplica(serve) as one, ScriptedReplica(serve) as two:
        proxy = start(tmp_path, [one.url, two.url], 2)
        await asyncio.to_thread(proxy.start)
        try:
            load = Load(proxy.port)
            running = asyncio.create_task(load.run(16))
            await eventually(lambda: load.answered > 500)
            workers = set(find_workers(proxy.pid))
            counted = await get_metric(proxy, "replica_requests_total")
            victim = min(workers)
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            await eventually(lambda: len(set(find_workers(proxy.pid)) - {victim}) == 2)
            await eventually(lambda: f"(pid {max(set(find_workers(proxy.pid)) - workers)}) accepts" in proxy.log)
            assert time.monotonic() - killed < 1.0
            after = load.answered
            await eventually(lambda: load.answered > after + 500)
            load.ending = True
            await asyncio.wait_for(running, 10)
            assert len(load.lost) <= 16, load.lost
            assert load.refused == 0  # whoever waited in the queue of the dead worker was accepted by the next
            total = await get_metric(proxy, "replica_requests_total")
            assert total >= counted
            assert load.answered <= total <= load.answered + len(load.lost)
            assert await get_metric(proxy, "replica_active_requests") == 0
            assert await get_metric(proxy, "client_connections") <= 1
        finally:
            await asyncio.to_thread(proxy.stop)


async def test_drain_under_load_loses_no_request(tmp_path: Path) -> None:
    async with ScriptedReplica(serve) as one, ScriptedReplica(serve) as two:
        proxy = start(tmp_path, [one.url, two.url], 2, drain={"delay": "500ms", "deadline": "5s"})
        await asyncio.to_thread(proxy.start)
        load, slow = Load(proxy.port), Load(proxy.port, b"/slow")
        running = [asyncio.create_task(load.run(12)), asyncio.create_task(slow.run(4))]
        await eventually(lambda: load.answered > 300 and slow.answered > 4)
        idle = [await open_wire(proxy.port) for _ in range(4)]
        for client in idle:
            assert (await client.ask(GET))[0] == 200
        began = time.monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(proxy.stop))  # asserts exit status 0
        assert [await client.wait_end() for client in idle] == ["fin"] * 4
        await stopping
        load.ending = slow.ending = True
        await asyncio.gather(*running)
        assert not load.lost + slow.lost, (began, load.lost + slow.lost)
        assert load.closes > 0
        assert load.refused > 0
        for client in idle:
            await client.close()


async def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    async with ScriptedReplica(serve) as replica:
        proxy = start(tmp_path, [replica.url], 1, drain={"delay": "10s", "deadline": "20s"})
        await asyncio.to_thread(proxy.start)
        async with await open_wire(proxy.port) as client:
            client.send(HANDSHAKE)
            assert b" 101 " in await client.read_head()
            proxy.signal(signal.SIGTERM)
            await eventually(lambda: "draining" in proxy.log)
            began = time.monotonic()
            await asyncio.to_thread(proxy.stop)  # the second one
            assert time.monotonic() - began < 3
            assert await client.wait_end() in ("fin", "reset")


async def test_workers_without_control_finish_what_runs_and_exit(tmp_path: Path) -> None:
    async with ScriptedReplica(serve) as replica:
        proxy = start(tmp_path, [replica.url], 2)
        await asyncio.to_thread(proxy.start)
        workers = find_workers(proxy.pid)
        async with await open_wire(proxy.port) as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
            await asyncio.sleep(0.1)
            os.kill(proxy.pid, signal.SIGKILL)
            assert (await client.read_answer())[0] == 200
            await eventually(lambda: not any(is_running(worker) for worker in workers))
        await asyncio.to_thread(proxy.kill)


def is_running(pid: int) -> bool:
    """Not gone, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

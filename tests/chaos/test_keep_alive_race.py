"""A replica closes a kept connection just when a request arrives on it, as Node does with idle ones (KAL-1 to KAL-6, RTY-3)."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from tests.chaos.conftest import Extent, Figures
from tests.node_red.replicas import find_node_red
from tests.proxy_process import ProxyProcess, describe_instance, find_free_ports
from tests.wire.scripted import Wire, open_wire

HERE = Path(__file__).parent
METHODS = ("GET", "PUT", "DELETE", "HEAD", "POST")
CLIENTS = 200

YOUNG = 1.0
"""Seconds (KAL-5): an older connection is not used for a POST."""

CLOSES_AFTER = 1.25
"""Seconds idle: above `YOUNG` and the ticks of the proxy's clock."""

BUDGET = {"budget": "100%"}
"""Every request of a burst may have to be sent again; the budget has tests of its own."""


@contextlib.contextmanager
def run_process(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def count_races(process: subprocess.Popen[bytes]) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def make_request(method: str) -> bytes:
    body = b"hello" if method in ("POST", "PUT") else b""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} /x HTTP/1.1\r\nHost: test\r\n{length}\r\n".encode() + body


async def ask(client: Wire, method: str) -> int:
    client.send(make_request(method))
    head = await client.read_head()
    if method != "HEAD":
        await client.read(int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0]))
    return int(head.split(b" ", 2)[1])


@contextlib.asynccontextmanager
async def open_clients(port: int) -> AsyncIterator[list[Wire]]:
    clients = [await open_wire(port) for _ in range(CLIENTS)]
    yield clients
    for client in clients:
        await client.close()


async def send_burst(clients: list[Wire], outcomes: Counter[tuple[str, int]]) -> None:
    """One request of every client at the same time."""
    methods = [METHODS[number % len(METHODS)] for number in range(len(clients))]
    statuses = await asyncio.gather(*(ask(*pair) for pair in zip(clients, methods, strict=True)))
    outcomes.update(zip(methods, statuses, strict=True))


def count_metric(proxy: ProxyProcess, name: str, labels: str) -> int:
    """The sum of all series of the name whose labels hold these."""
    found = re.findall(rf"^haproxy_py_{name}{{[^}}]*{labels}[^}}]*}} ([0-9.]+)$", proxy.get_ops("/metrics")[1], re.M)
    return int(sum(map(float, found)))


def make_instance(ports: list[int]) -> dict[str, object]:
    return describe_instance([f"http://127.0.0.1:{port}" for port in ports], retries=BUDGET)


async def test_no_request_is_lost_to_a_connection_that_closes_when_it_arrives(
    tmp_path: Path, extent: Extent, figures: Figures
) -> None:
    wanted = extent.choose(300, 10_000)
    ports = find_free_ports(2)
    outcomes: Counter[tuple[str, int]] = Counter()
    races = 0
    with contextlib.ExitStack() as stack:
        command = [sys.executable, str(HERE / "racing.py")]
        replicas = [stack.enter_context(run_process([*command, str(port), str(CLOSES_AFTER)])) for port in ports]
        for replica in replicas:
            count_races(replica)  # it runs
        proxy = stack.enter_context(ProxyProcess(tmp_path, [make_instance(ports)], workers=1))
        async with open_clients(proxy.port) as clients:
            while races < wanted:
                before = races
                await send_burst(clients, outcomes)
                await asyncio.sleep(CLOSES_AFTER + 0.05)
                races = sum(count_races(replica) for replica in replicas)
                assert races > before or sum(outcomes.values()) == CLIENTS  # the first finds nothing kept
        retried = count_metric(proxy, "retries_total", 'reason="reused_closed"')
        ejections = count_metric(proxy, "replica_ejections_total", "")
    assert {status for _, status in outcomes} == {200}, outcomes
    assert retried == races
    assert ejections == 0  # that an idle connection is closed says nothing against a replica
    posts = sum(count for (method, _), count in outcomes.items() if method == "POST")
    figures.add(
        f"keep-alive race, forced: {races} requests met a connection that closed as they arrived, each was sent again, 0 "
        f"failed; {posts} POSTs took none of these connections, 0 failed; {sum(outcomes.values())} requests in all"
    )


async def wait_closed(port: int) -> float:
    """Seconds for which the replica keeps an idle connection."""
    async with await open_wire(port) as wire:
        assert await ask(wire, "GET") == 200
        began = time.monotonic()
        assert await wire.wait_end() == "fin"
        return time.monotonic() - began


@pytest.mark.chaos
@pytest.mark.parametrize(("keep", "hint"), [("1000", "hidden"), ("2000", "shown")])
async def test_no_request_is_lost_to_the_timer_of_node(tmp_path: Path, figures: Figures, keep: str, hint: str) -> None:
    """Bursts come when Node's timers for the connections of the burst before are just ending."""
    bursts = 51
    node, _ = find_node_red("v5")
    port = find_free_ports(1)[0]
    outcomes: Counter[tuple[str, int]] = Counter()
    with (
        run_process([str(node), str(HERE / "keep_alive.js"), str(port), keep, hint]) as process,
        ProxyProcess(tmp_path, [make_instance([port])], workers=1) as proxy,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        closes_after = await wait_closed(port)
        async with open_clients(proxy.port) as clients:
            for number in range(bursts):
                began = time.monotonic()
                await send_burst(clients, outcomes)
                took = time.monotonic() - began
                # From just before the first timer to just after the last, in steps.
                await asyncio.sleep(closes_after - took * (0.25 + number % 4 * 0.25))
        reused = count_metric(proxy, "replica_connections_total", 'outcome="reused"')
        stale = count_metric(proxy, "replica_connections_total", 'outcome="stale"')
        retried = count_metric(proxy, "retries_total", 'reason="reused_closed"')
    assert {status for _, status in outcomes} == {200}, outcomes
    if hint == "shown":
        assert retried == 0
    figures.add(
        f"keep-alive race with Node, hint {hint}: closes after {closes_after:.2f} s; {sum(outcomes.values())} requests at that "
        f"moment, {reused} on kept connections, {stale} of which were found closed before, {retried} sent again, 0 failed"
    )

"""Many clients that come and go, many that stay: nothing grows, and nothing is left."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.chaos.conftest import Extent, Figures
from tests.chaos.inside import count_objects, make_counting
from tests.chaos.replicas import Replicas, wait_for_all
from tests.chaos.test_processes_die import wait_until
from tests.chaos.vanishing import FRAME, UPGRADE, Vanishing
from tests.load import Load
from tests.proxy_process import ProxyProcess, describe_instance
from tests.wire.inner_worker import find_workers, read_memory
from tests.wire.test_processes import read_metric

COUNT = 2
CLIENT, TUNNEL = "haproxy_py.datapath.client.ClientConnection", "haproxy_py.datapath.tunnel.Tunnel"
ASK = b"GET /api/hello HTTP/1.1\r\nHost: test.example.com\r\n\r\n"
ECHO = b"\x81\x05hello"
GAUGES = ("client_connections", "replica_active_requests", "replica_active_tunnels", "replica_idle_connections")
LASTS = ("Poller", "DeadlineQueue")
"""Objects of which there may be more at the end: they are made once, when they are first needed."""

IDLE_PIPES = 16
"""Pipes that a worker keeps for the next large body (datapath/limits.pxd), made when they are first needed."""

MAY_GROW = 1.5 * 1024 * 1024
"""Octets of resident memory of one worker from the middle of the time to its end."""


def open_idle(port: int, count: int) -> list[socket.socket]:
    """Connections that have had one exchange."""
    return [open_one(port, ASK, b"HTTP/1.1 200 ") for _ in range(count)]


def open_one(port: int, request: bytes, expected: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(request)
    assert client.recv(4096).startswith(expected)
    return client


def ask_again(clients: list[socket.socket], request: bytes, expected: bytes) -> None:
    """All of them still stand."""
    for client in clients:
        client.sendall(request)
        assert client.recv(4096).startswith(expected)


@contextlib.contextmanager
def hold(port: int, idle: int, tunnels: int) -> Iterator[None]:
    """So many idle connections and tunnels, which all must work at the end."""
    clients = open_idle(port, idle)
    tunnelling = [open_one(port, UPGRADE, b"HTTP/1.1 101 ") for _ in range(tunnels)]
    try:
        ask_again(tunnelling, FRAME, ECHO)
        yield
        ask_again(tunnelling, FRAME, ECHO)
        ask_again(clients, ASK, b"HTTP/1.1 200 ")
    finally:
        for client in (*clients, *tunnelling):
            client.close()


@dataclass(frozen=True)
class Left:
    """What a worker has when nothing goes on."""

    files: int  # other than pipes
    pipe_ends: int
    objects: dict[str, int]
    memory: int  # octets


def look_at_rest(proxy: ProxyProcess, folder: Path) -> dict[int, Left]:
    """Each worker, once every gauge is back at zero."""
    wait_until(lambda: all(read_metric(proxy, gauge) == 0 for gauge in GAUGES), within=40.0)
    return {
        pid: Left(*count_files_and_pipe_ends(pid), count_objects(folder, pid), read_memory(pid))
        for pid in find_workers(proxy.pid)
    }


def count_files_and_pipe_ends(pid: int) -> tuple[int, int]:
    """What a process has open, other than pipes, and the ends of pipes."""
    targets = [file.readlink().name for file in Path(f"/proc/{pid}/fd").iterdir()]
    pipe_ends = sum(target.startswith("pipe:") for target in targets)
    return len(targets) - pipe_ends, pipe_ends


def find_growth(samples: list[int]) -> int:
    """From the middle of the time to its end, by medians of a fifth each."""
    fifth = len(samples) // 5
    return int(median(samples[-fifth:]) - median(samples[2 * fifth : 3 * fifth]))


def test_churn_leaves_nothing(tmp_path: Path, extent: Extent, figures: Figures) -> None:
    seconds = extent.choose(5.0, 600.0)
    idle, tunnels = extent.choose((500, 100), (10_000, 1_000))
    rate = extent.choose(500.0, 2000.0)
    counting = tmp_path / "counting"
    with Replicas(COUNT) as replicas:
        proxy = ProxyProcess(
            tmp_path,
            [describe_instance(replicas.urls, timeouts={"client_idle": "30m"})],
            workers=2,
            extra={"log": {"access": "off"}},
            environment=make_counting(counting),
        )
        proxy.config["listen"][0]["connections"] = 15_000
        with proxy:
            with Load(proxy.port, threads=12, pause=0, rate=rate) as load, Vanishing(proxy.port) as vanishing:
                wait_for_all(load, COUNT)
                wait_until(lambda: vanishing.count > 300)
            before = look_at_rest(proxy, counting)
            samples: dict[int, list[int]] = {pid: [] for pid in before}
            with hold(proxy.port, idle, tunnels):
                held = sum((Counter(count_objects(counting, pid)) for pid in before), Counter[str]())
                assert held[CLIENT] == idle, held  # what is counted at rest can be seen
                assert held[TUNNEL] == tunnels, held
                with Load(proxy.port, threads=12, pause=0, rate=rate) as load, Vanishing(proxy.port) as vanishing:
                    end = time.monotonic() + seconds
                    while time.monotonic() < end:
                        for pid, list_of in samples.items():
                            list_of.append(read_memory(pid))
                        time.sleep(0.2)
                at_work = read_metric(proxy, "client_connections")
            after = look_at_rest(proxy, counting)
            log = proxy.log
    assert load.list_failures() == []
    assert vanishing.refused == []
    assert at_work >= idle + tunnels
    assert list(after) == list(before), "a worker has died"
    growth = {pid: find_growth(memory) for pid, memory in samples.items()}
    assert max(growth.values()) < MAY_GROW, growth
    for pid, left in after.items():
        assert left.files <= before[pid].files, f"open files of worker {pid}: {left.files}, before {before[pid].files}"
        assert left.pipe_ends <= before[pid].pipe_ends + 2 * IDLE_PIPES, f"worker {pid}: {left.pipe_ends} ends of pipes"
        more = {kind: left.objects[kind] - before[pid].objects.get(kind, 0) for kind in left.objects}
        assert {kind: count for kind, count in more.items() if count > 0 and not kind.endswith(LASTS)} == {}
    assert " error " not in log, log
    figures.add(
        f"{seconds:g} s of churn: {vanishing.count} clients vanished ({vanishing.points} points and ways) beside {idle} idle "
        f"connections, {tunnels} tunnels and {load.total} requests, none of which failed; workers "
        f"{describe(samples)} MiB, at rest {describe({pid: [before[pid].memory, after[pid].memory] for pid in after})}; "
        f"grown by {max(growth.values()) / 2**20:.2f} MiB since the middle; no file, connection, task or pool entry left"
    )


def describe(memory: dict[int, list[int]]) -> str:
    """Of each worker: at first and at last, in MiB."""
    return " and ".join(f"{values[0] / 2**20:.1f} to {values[-1] / 2**20:.1f}" for values in memory.values())

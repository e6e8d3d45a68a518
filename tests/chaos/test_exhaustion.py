"""No file descriptor, no memory, no room for logs: what can go on goes on, what cannot is said, and all is well afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.chaos.conftest import Extent, Figures
from tests.chaos.inside import count_objects, make_counting
from tests.chaos.replicas import Replicas, wait_for_all
from tests.chaos.test_processes_die import wait_until
from tests.load import Load
from tests.proxy_process import ProxyProcess, describe_instance
from tests.wire.inner_worker import count_open_files, find_workers
from tests.wire.test_processes import read_metric

COUNT = 2
PACKAGE = "haproxy_py.datapath"
GET = b"GET /api/hello HTTP/1.1\r\nHost: test.example.com\r\n\r\n"
BIG = b"z" * 300_000

HUNGRY = 1500
"""Clients that have the worker keep 13 KiB each."""

RECOVERED = 1.0
"""Seconds after which nothing may be left of a shortage that is over."""


@contextlib.contextmanager
def run_with_load(
    tmp_path: Path, reader: SlowReader | None = None, **more: object
) -> Iterator[tuple[ProxyProcess, Load, int]]:
    """A proxy with one worker, a load through it, and the process number of the worker.

    At the end the shortage is over: the worker still runs, nothing fails any more, and nothing is left.
    """
    counting = tmp_path / "counting"
    with Replicas(COUNT) as replicas:
        proxy = ProxyProcess(
            tmp_path,
            [describe_instance(replicas.urls)],
            extra={"log": {"access": "off"}, **more},
            environment=make_counting(counting),
        )
        if reader is not None:
            proxy.log_file = reader.pipe
        with proxy:
            if reader is not None:
                proxy.log_file = reader.file
            with Load(proxy.port, threads=8, pause=0.005) as load:
                wait_for_all(load, COUNT)
                (worker,) = find_workers(proxy.pid)
                yield proxy, load, worker
                over = time.monotonic()
                load.run_for(200)
            assert load.list_failures(since=over + RECOVERED) == []
            assert find_workers(proxy.pid) == [worker], proxy.log
            assert "internal error" not in proxy.log, proxy.log
            assert "Traceback" not in proxy.log, proxy.log
            wait_until(lambda: read_metric(proxy, "client_connections") == 0)
            objects = count_objects(counting, worker)
            assert objects.get(f"{PACKAGE}.client.ClientConnection", 0) == objects.get(f"{PACKAGE}.dial.Dial", 0) == 0
            idle = read_metric(proxy, "replica_idle_connections")
            assert objects.get(f"{PACKAGE}.replica.ReplicaConnection", 0) == idle
            assert read_metric(proxy, "replica_active_requests") == 0


def connect(port: int, count: int, request: bytes) -> list[socket.socket]:
    """Clients that have sent something; the kernel takes them, whether or not the proxy accepts them."""
    clients = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port), timeout=10)
        client.sendall(request)
        clients.append(client)
    return clients


def read_status(client: socket.socket) -> int:
    """The status of an answer that comes in one piece."""
    return int(client.recv(4096)[9:12])


def wait_for_log(proxy: ProxyProcess, text: str) -> None:
    wait_until(lambda: text in proxy.log)


def close_all(clients: list[socket.socket]) -> None:
    for client in clients:
        client.close()


def test_no_file_descriptor_left(tmp_path: Path, extent: Extent, figures: Figures) -> None:
    times = extent.choose(1, 10)
    answered: Counter[int] = Counter()
    failed = 0
    with run_with_load(tmp_path) as (proxy, load, worker):
        for _ in range(times):
            inside = connect(proxy.port, 3, GET)
            assert [read_status(client) for client in inside] == [200] * 3
            began = time.monotonic()
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (count_open_files(worker) + 20, 20_000))
            waiting = connect(proxy.port, 60, GET)
            wait_for_log(proxy, "no connection can be accepted: Too many open files")
            for _ in range(20):  # who is inside is served, as far as there are connections to replicas
                inside[0].sendall(GET)
                answered[read_status(inside[0])] += 1
            inside[1].sendall(
                b"POST /api/echo HTTP/1.1\r\nHost: test.example.com\r\nContent-Length: 300000\r\n\r\n" + BIG
            )
            answered[read_status(inside[1])] += 1  # without a pipe for its body
            load.run_for(100)
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (20_000, 20_000))
            over = time.monotonic()
            answered.update(map(read_status, waiting))  # nobody was refused
            assert time.monotonic() - over < RECOVERED
            close_all(inside + waiting)
            failures = load.list_failures(since=began)
            assert {(one.status, one.detail) for one in failures} <= {(502, "connect_failed")}
            assert [one for one in failures if one.began > over + 0.2] == []
            failed += len(failures)
        assert set(answered) <= {200, 502}
        assert 'state="ejected"} 1' not in proxy.get_ops("/metrics")[1]  # it was no fault of theirs
        if failed or answered[502]:
            assert "no connection to a replica can be opened: Too many open files" in proxy.log
    figures.add(
        f"no file descriptor left, {times} times: {load.total} requests, {failed} answered 502 connect_failed; of "
        f"{answered.total()} others {answered[502]}; those that waited were served within {RECOVERED:g} s of the end; no "
        "replica ejected"
    )


def test_no_memory_left(tmp_path: Path, extent: Extent, figures: Figures) -> None:
    times = extent.choose(1, 10)
    cut = requests = failed = 0
    for turn in range(times):  # each in a process of its own: memory that was freed is used again
        (folder := tmp_path / str(turn)).mkdir()
        with run_with_load(folder) as (proxy, load, worker):
            began = load.run_for(200)[0]
            size = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.prlimit(worker, resource.RLIMIT_AS, (size + 2**20, resource.RLIM_INFINITY))
            hungry = connect(proxy.port, HUNGRY, GET[:-2] + b"X-Padding: " + b"x" * 13_000)  # kept until the rest comes
            wait_for_log(proxy, "no memory was left")
            assert proxy.get_ops("/readyz")[0] == 200
            load.run_for(50)
            resource.prlimit(worker, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            for client in hungry:
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    cut += is_cut(client)
            close_all(hungry)
        failures = load.list_failures(since=began)
        told = {(one.status, one.detail) for one in failures if one.status}
        assert told <= {(500, "internal"), (502, "connect_failed")}
        requests += load.total
        failed += len(failures)
    figures.add(
        f"no memory left, {times} times: {requests} requests, {failed} failed; {cut} of the {HUNGRY * times} clients that "
        "took the memory were cut; no process died, nothing was left"
    )


def is_cut(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


class SlowReader:
    """Reads a log from a pipe into a file, or does not: a context manager."""

    def __init__(self, folder: Path) -> None:
        self.pipe = folder / "pipe"
        self.file = folder / "read.log"
        self._reads = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        os.mkfifo(self.pipe)
        self._fd = os.open(self.pipe, os.O_RDONLY | os.O_NONBLOCK)
        self._thread.start()
        self.go_on()
        return self

    def __exit__(self, *facts: object) -> None:
        self._ending.set()
        self._thread.join()
        os.close(self._fd)

    def stop(self) -> None:
        self._reads.clear()

    def go_on(self) -> None:
        self._reads.set()

    def _read(self) -> None:
        with self.file.open("ab", buffering=0) as out:
            while not self._ending.wait(0.01):
                with contextlib.suppress(BlockingIOError):
                    while self._reads.is_set() and (data := os.read(self._fd, 65536)):
                        out.write(data)


def list_broken(log: str) -> list[str]:
    """Lines that are neither of the access log nor of control's."""
    broken = []
    for line in log.splitlines():
        try:
            json.loads(line)
        except ValueError:
            if not re.match(r"\d{4}-\d\d-\d\dT\S+Z \w+ |\(\d+ lines of this log could not be written", line):
                broken.append(line)
    return broken


def assert_logs_cost_nothing(proxy: ProxyProcess, load: Load, requests: int) -> float:
    """While nothing can be written to the logs, traffic and control go on. The lines of the access log that were lost."""
    began = load.run_for(requests, within=300)[0]
    for _ in range(3):
        applied = read_metric(proxy, "config_reloads_total")
        proxy.signal(signal.SIGHUP)  # control has something to say, too
        wait_until(lambda before=applied: read_metric(proxy, "config_reloads_total") > before)  # type: ignore[misc]
    assert proxy.get_ops("/readyz")[0] == 200
    wait_until(lambda: read_metric(proxy, "access_log_lines_dropped_total") > 0)
    assert load.list_failures(since=began) == []
    assert max(one.took for one in load.list_results(began)) < 1.0
    return read_metric(proxy, "access_log_lines_dropped_total")


def test_log_that_may_not_grow_costs_only_its_lines(tmp_path: Path, extent: Extent, figures: Figures) -> None:
    with run_with_load(tmp_path, log={"access": "json"}) as (proxy, load, worker):
        load.run_for(200)
        for pid in (worker, proxy.pid):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (proxy.log_file.stat().st_size, resource.RLIM_INFINITY))
        dropped = assert_logs_cost_nothing(proxy, load, extent.choose(500, 10_000))
        for pid in (worker, proxy.pid):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        size = len(proxy.log)
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: "lines of this log could not be written and are lost" in proxy.log[size:])
        wait_until(lambda: '"path"' in proxy.log[size:] or '"target"' in proxy.log[size:])
        assert len(list_broken(proxy.log)) <= 1  # cut where the room ended
    figures.add(
        f"no room for logs: {load.total} requests, none failed, {dropped:g} lines of the access log were dropped"
    )


def test_reader_of_the_logs_that_reads_no_more_costs_only_lines(
    tmp_path: Path, extent: Extent, figures: Figures
) -> None:
    with SlowReader(tmp_path) as reader, run_with_load(tmp_path, reader, log={"access": "json"}) as (proxy, load, _):
        load.run_for(200)
        reader.stop()
        dropped = assert_logs_cost_nothing(proxy, load, extent.choose(1500, 10_000))
        size = len(proxy.log)
        reader.go_on()
        wait_until(lambda: len(proxy.log) > size + 60_000)
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: "lines of this log could not be written and are lost" in proxy.log[size:])
        load.run_for(50)
        assert list_broken(proxy.log[: proxy.log.rindex("\n")]) == []
    figures.add(
        f"a reader of the logs that reads no more: {load.total} requests, none failed, {dropped:g} lines of the access log "
        "were dropped, none was torn"
    )

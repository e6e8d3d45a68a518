"""Workers and the control process that die or stand still under load."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import Extent, Figures
from tests.chaos.inside import make_stalling
from tests.chaos.replicas import Replicas, wait_for_all
from tests.load import Load
from tests.proxy_process import ProxyProcess, describe_instance
from tests.wire.inner_worker import find_workers
from tests.wire.test_processes import is_running, read_metric

COUNT = 2
CLIENTS = 24
SETTLE = 0.2
"""Seconds in which clients learn that their connections are gone."""

REPLACE = 2.0
DEADLINE = 5.0
"""Of a drain, as in `tests.proxy_process`."""

WATCHDOG = {"report": "500ms", "replace": f"{REPLACE}s"}


def make_proxy(folder: Path, replicas: Replicas, **more: object) -> ProxyProcess:
    return ProxyProcess(
        folder,
        [describe_instance(replicas.urls)],
        workers=2,
        extra={"log": {"access": "off"}, "watchdog": WATCHDOG, **more},
    )


def count_clients(pid: int, port: int) -> int:
    """Connections of clients that a process has accepted and holds."""
    held = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            held.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            continue
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        count += local.endswith(f":{port:04X}") and state == "01" and f"socket:[{inode}]" in held
    return count


def wait_until(is_true: Callable[[], object], within: float = 20.0) -> None:
    end = time.monotonic() + within
    while not is_true():
        assert time.monotonic() < end, f"still not true after {within} s"
        time.sleep(0.02)


def wait_for_successor(proxy: ProxyProcess, victim: int) -> None:
    """Until another process accepts connections in the victim's place."""

    def is_there() -> bool:
        workers = [pid for pid in find_workers(proxy.pid) if pid != victim]
        return len(workers) == 2 and all(f"(pid {pid}) accepts connections" in proxy.log for pid in workers)

    wait_until(is_there)


def test_kill_9_of_a_worker_costs_only_its_own_exchanges(tmp_path: Path, extent: Extent, figures: Figures) -> None:
    times = extent.choose(3, 30)
    lost = held = 0
    with (
        Replicas(COUNT) as replicas,
        make_proxy(tmp_path, replicas) as proxy,
        Load(proxy.port, threads=CLIENTS, pause=0) as load,
    ):
        wait_for_all(load, COUNT)
        ready = time.monotonic()
        for turn in range(times):
            began = load.run_for(500)[0]
            victim = sorted(find_workers(proxy.pid))[turn % 2]
            os.kill(victim, signal.SIGSTOP)  # so that what it holds can be counted
            has = count_clients(victim, proxy.port)
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            wait_for_successor(proxy, victim)
            load.run_for(500)
            failures = load.list_failures(since=began)
            assert {one.status for one in failures} <= {0}
            assert all(one.began < killed + SETTLE for one in failures), (killed, failures)
            assert len(failures) <= has
            lost += len(failures)
            held += has
        assert len(load.list_failures(since=ready)) == lost
    figures.add(
        f"kill -9 of one of 2 workers, {times} times: {load.total} requests, {lost} lost on the {held} connections that the "
        "killed ones held, nothing else failed"
    )


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("stop", "is stopped by a signal. It does not tell its stack"),
        ("spin", r"uses a CPU. Its stack: spin \(.*sitecustomize.py:\d+\), called by "),
        ("wait", r"waits for something. Its stack: wait \(.*sitecustomize.py:\d+\), called by "),
    ],
)
def test_stalled_worker_costs_only_its_own_exchanges(
    tmp_path: Path, extent: Extent, figures: Figures, how: str, told: str
) -> None:
    times = extent.choose(1, 5)
    lost = held = answered = 0
    longest = lasted = 0.0
    with Replicas(COUNT) as replicas, make_proxy(tmp_path, replicas) as proxy:
        if how != "stop":
            proxy.stop()
            proxy.add_environment(**make_stalling(tmp_path / "stalling", how))
            proxy.start()
        with Load(proxy.port, threads=CLIENTS, pause=0) as load:
            wait_for_all(load, COUNT)
            ready = time.monotonic()
            for turn in range(times):
                began = load.run_for(500)[0]
                victim = sorted(find_workers(proxy.pid))[turn % 2]
                os.kill(victim, signal.SIGSTOP if how == "stop" else signal.SIGUSR2)
                stalled = time.monotonic()
                wait_until(lambda pid=victim: f"(pid {pid}) stands still" in proxy.log)  # type: ignore[misc]
                has = count_clients(victim, proxy.port)
                wait_for_successor(proxy, victim)
                over = time.monotonic()
                load.run_for(500)
                assert re.search(rf"worker \d \(pid {victim}\) stands still: .* It {told}", proxy.log), proxy.log
                lasted = max(lasted, over - stalled)
                during = [one for one in load.list_results(stalled, over) if one.status == 200]
                answered += len(during)
                longest = max(longest, *(one.took for one in during))
                failures = load.list_failures(since=began)
                assert {one.status for one in failures} == {0}
                assert len(failures) <= has
                lost += len(failures)
                held += has
            assert answered > 100 * times  # by the other worker
            assert longest < lasted + 1.0  # those in the queue of the stalled worker's socket, which its successor took
            assert len(load.list_failures(since=ready)) == lost
        assert read_metric(proxy, "worker_stalls_total") == read_metric(proxy, "worker_restarts_total") == times
    figures.add(
        f"one of 2 workers stands still ({how}), {times} times: {lost} requests lost on the {held} connections that it held, "
        f"{answered} answered in the {lasted:.1f} s until it was replaced, after {longest:.1f} s at most, nothing else failed"
    )


def test_kill_9_of_control_lets_what_runs_finish_and_frees_the_ports(
    tmp_path: Path, extent: Extent, figures: Figures
) -> None:
    times = extent.choose(1, 10)
    slow: list[int] = []
    free = gone = 0.0
    with Replicas(COUNT) as replicas, end_after_failure(make_proxy(tmp_path, replicas)) as proxy:
        for _ in range(times):
            proxy.start()
            workers = find_workers(proxy.pid)
            with Load(proxy.port, threads=CLIENTS, pause=0) as load, open_events(proxy.port) as events:
                wait_for_all(load, COUNT)
                threads = [threading.Thread(target=ask_slowly, args=(proxy.port, slow)) for _ in range(4)]
                for thread in threads:
                    thread.start()
                began = load.run_for(500)[0]
                os.kill(proxy.pid, signal.SIGKILL)
                killed = time.monotonic()
                wait_until(lambda load=load, killed=killed: load.list_failures(since=killed))  # type: ignore[misc]
                free = max(free, time.monotonic() - killed)
                proxy.kill()  # nothing is left of it but the workers
                proxy.start()  # another, on the same ports
                assert any(map(is_running, workers))
                wait_until(lambda pids=workers: not any(map(is_running, pids)))  # type: ignore[misc]
                gone = max(gone, time.monotonic() - killed)
                read_to_end(events)
            failures = load.list_failures(since=began)
            assert {one.detail for one in failures} == {"ConnectionRefusedError(111, 'Connection refused')"}
            assert min(one.began for one in failures) >= killed
            for thread in threads:
                thread.join()
            proxy.stop()
    assert slow == [200] * 4 * times
    assert DEADLINE - 0.1 < gone < DEADLINE + 1.0
    figures.add(
        f"kill -9 of control, {times} times: every request that ran was answered, later ones were refused after {free:.1f} s; "
        f"another proxy had the ports while the workers finished, which were gone after {gone:.1f} s "
        f"(drain.deadline {DEADLINE:g} s)"
    )


@contextlib.contextmanager
def end_after_failure(proxy: ProxyProcess) -> Iterator[ProxyProcess]:
    try:
        yield proxy
    except BaseException:
        with contextlib.suppress(RuntimeError):  # it does not run
            proxy.kill()
        raise


@contextlib.contextmanager
def open_events(port: int) -> Iterator[http.client.HTTPResponse]:
    """A stream of events, which has begun; replicas may still be starting."""
    wait_until(lambda: ask_status(port) == 200)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", "/events", headers={"Host": "test.example.com"})
        answer = connection.getresponse()
        assert answer.readline().startswith(b"data: ")
        yield answer


def ask_status(port: int) -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", "/api/hello", headers={"Host": "test.example.com"})
        return connection.getresponse().status


def read_to_end(events: http.client.HTTPResponse) -> None:
    """What the stream still has; it was cut."""
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        events.read()


def ask_slowly(port: int, statuses: list[int]) -> None:
    """A request that takes two seconds."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", "/api/slow", headers={"Host": "test.example.com"})
        statuses.append(connection.getresponse().status)

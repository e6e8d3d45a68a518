"""Replicas that die under load, without anybody having told the proxy: static replicas, nothing discovers them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.load import Load, Result
from tests.proxy_process import ProxyProcess, describe_instance, find_free_ports

COUNT = 3
START_WITHIN = 60.0


class Replicas:
    """Demo replicas as processes of their own, each on its own port for ever."""

    def __init__(self, count: int) -> None:
        self.ports = find_free_ports(count)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Replicas:
        for index in range(len(self.ports)):
            self.start(index)
        return self

    def __exit__(self, *facts: object) -> None:
        for index in list(self._processes):
            self.kill(index)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def start(self, index: int) -> None:
        command = [sys.executable, "-m", "haproxy_py.demo.replica", "--host", "127.0.0.1"]
        command += ["--port", str(self.ports[index]), "--name", f"replica-{index}"]
        self._processes[index] = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def kill(self, index: int) -> None:
        process = self._processes.pop(index)
        process.kill()
        process.wait()


@contextlib.contextmanager
def run_proxy(tmp_path: Path, replicas: Replicas) -> Iterator[ProxyProcess]:
    with ProxyProcess(tmp_path, [describe_instance(replicas.urls)], workers=2) as proxy:
        yield proxy


def wait_for_all(load: Load, count: int) -> None:
    """Until every replica has answered lately."""
    end = time.monotonic() + START_WITHIN
    while time.monotonic() < end:
        began, done = load.run_for(60)
        if len(load.count_replicas(began, done)) == count:
            return
    raise AssertionError(f"not every replica answers: {load.count_replicas(began, done)}")


def is_excused(failure: Result) -> bool:
    """A POST that was on the replica when it died: nobody can say whether it was carried out."""
    return failure.method == "POST" and (failure.status, failure.detail) == (502, "upstream_closed")


@pytest.mark.parametrize("times", [5])
def test_kill_9_of_one_of_three_costs_at_most_the_posts_it_had(tmp_path: Path, times: int) -> None:
    with (
        Replicas(COUNT) as replicas,
        run_proxy(tmp_path, replicas) as proxy,
        Load(proxy.port, threads=8, pause=0) as load,
    ):
        wait_for_all(load, COUNT)
        ready = time.monotonic()
        for turn in range(times):
            replicas.kill(turn % COUNT)
            load.run_for(400)
            replicas.start(turn % COUNT)
            wait_for_all(load, COUNT)
        failures = load.list_failures(since=ready)
        assert [failure for failure in failures if not is_excused(failure)] == []
        assert len(failures) <= times * 8  # one thread has one request
    print(f"{len(load.results)} requests, {len(failures)} POSTs lost with their replica")


def test_all_down_is_an_error_at_once_and_over_within_a_second_of_the_first(tmp_path: Path) -> None:
    with (
        Replicas(COUNT) as replicas,
        run_proxy(tmp_path, replicas) as proxy,
        Load(proxy.port, threads=4, pause=0.01) as load,
    ):
        wait_for_all(load, COUNT)
        for index in range(COUNT):
            replicas.kill(index)
        began, done = load.run_for(100)
        assert {one.status for one in load.list_failures(began + 0.1, done)} <= {502}
        assert max(one.took for one in load.results if one.began > began + 0.1) < 1.0
        replicas.start(0)
        end = time.monotonic() + START_WITHIN
        while not load.count_replicas(end - START_WITHIN, end):
            assert time.monotonic() < end
            time.sleep(0.01)
        first = min(one.began for one in load.results if one.began > done and one.status == 200)
        load.run_for(100)
        assert load.list_failures(since=first + 1.0) == []

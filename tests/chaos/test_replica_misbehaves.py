"""One of three replicas accepts connections and then does not do what HTTP asks: the others carry the load."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import Extent, Figures
from tests.chaos.misbehaving import Way
from tests.chaos.replicas import wait_for_all
from tests.load import Load, Result
from tests.proxy_process import ProxyProcess, describe_instance, find_free_ports

WORKERS = 2
RESPONSE_HEAD = 0.6
"""Seconds. A replica that never answers is known by this timeout alone: its default of 60 s is above a socket.io long poll."""

EJECTED_WITHIN = 1.0

CUT = "an answer that is not complete"
EXPECTED = {
    Way.SILENT: {(504, "response_timeout")},
    Way.HALF: {(0, CUT), (502, "upstream_closed")},  # the half of an answer to HEAD is half a head
    Way.RESET: {(0, CUT), (502, "upstream_closed")},
    Way.GARBAGE: {(502, "bad_response")},
}


class MisbehavingReplica:
    """A process that misbehaves as it is told."""

    def __init__(self, name: str) -> None:
        self.port = find_free_ports(1)[0]
        command = [sys.executable, "-m", "tests.chaos.misbehaving", str(self.port), name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def begin(self, way: Way) -> int:
        """From now on. How many requests it has got since it was told before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{way.value}\n".encode())
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@contextlib.contextmanager
def run_three() -> Iterator[list[MisbehavingReplica]]:
    """They behave well until they are told something else."""
    replicas = [MisbehavingReplica(f"replica-{number}") for number in range(3)]
    try:
        yield replicas
    finally:
        for replica in replicas:
            replica.stop()


def count_ejections(proxy: ProxyProcess, port: int) -> int:
    """By all workers."""
    found = re.search(
        rf'^haproxy_py_replica_ejections_total{{[^}}]*replica="127\.0\.0\.1:{port}"}} ([0-9.]+)$',
        proxy.get_ops("/metrics")[1],
        re.MULTILINE,
    )
    return int(float(found[1])) if found else 0


def describe(failure: Result) -> tuple[int, str]:
    return failure.status, failure.detail if failure.status else CUT if is_cut(failure.detail) else failure.detail


def is_cut(detail: str) -> bool:
    return "an answer that was cut" in detail or "ConnectionResetError" in detail


@pytest.mark.parametrize("way", list(EXPECTED))
def test_costs_only_its_own_exchanges_and_is_ejected_within_a_second(
    tmp_path: Path, extent: Extent, figures: Figures, way: Way
) -> None:
    seconds = extent.choose(1.5, 20.0)
    with run_three() as replicas:
        bad = replicas[2]
        instance = describe_instance(
            [f"http://127.0.0.1:{replica.port}" for replica in replicas],
            timeouts={"response_head": f"{RESPONSE_HEAD}s"},
        )
        with (
            ProxyProcess(tmp_path, [instance], workers=WORKERS) as proxy,
            Load(proxy.port, threads=extent.choose(150, 1000), pause=0, rate=extent.choose(500, 2200)) as load,
        ):
            wait_for_all(load, 3)
            before = count_ejections(proxy, bad.port)
            bad.begin(way)
            began = time.monotonic()
            while count_ejections(proxy, bad.port) < before + WORKERS:
                assert time.monotonic() - began < 10
                time.sleep(0.01)
            ejected_after = time.monotonic() - began
            time.sleep(seconds)
            ended = time.monotonic()
            asked = bad.begin(Way.WELL)
            wait_for_all(load, 3)  # it comes back
        failures = load.list_failures(since=began - 1)
        kinds = Counter(describe(failure) for failure in failures)
        assert set(kinds) <= EXPECTED[way], kinds
        assert len(failures) <= asked
        late = [failure for failure in failures if failure.began > began + ejected_after]
        # Each worker tries it after 1 s, 2 s more, 4 s more and so on. What was on its way before is not late.
        trials = WORKERS * sum(ejected_after + 2**number - 1 < ended - began + 1 for number in range(1, 6))
        assert len(late) <= trials
        requests = len(load.list_results(began, ended))
        assert requests / (ended - began) > 200  # the others carry the load
    figures.add(
        f"one of 3 replicas: {way.value}: ejected by all workers after {ejected_after:.2f} s, {requests} requests at "
        f"{requests / (ended - began):.0f}/s, {len(failures)} failed ({len(late)} after that) of {asked} that it got"
    )
    assert ejected_after < EJECTED_WITHIN

"""Replicas that die under load, without anybody having told the proxy: static replicas, nothing discovers them."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.conftest import Extent, Figures
from tests.chaos.replicas import START_WITHIN, Replicas, run_proxy, wait_for_all
from tests.load import Load, Result
from tests.proxy_process import ProxyProcess

COUNT = 3

AT_ONCE = 0.25
"""Seconds from the end of the last replica until no request is told anything but that there is none."""


def is_excused(failure: Result) -> bool:
    """A request that was on the replica when it died: a POST may have been carried out, any other may have been the cause."""
    return (failure.status, failure.detail) == (502, "upstream_closed")


def test_kill_9_of_one_of_three_costs_at_most_posts_and_what_was_on_new_connections(
    tmp_path: Path, extent: Extent, figures: Figures
) -> None:
    times = extent.choose(5, 30)
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
        # On a new connection, which few are: it is not sent to another replica, or a request could end them all.
        assert sum(failure.method != "POST" for failure in failures) <= times
    figures.add(
        f"kill -9 of one of {COUNT} replicas, {times} times: {load.total} requests, {len(failures)} lost with "
        "their replica, nothing else failed"
    )


def test_all_down_is_503_at_once_and_over_within_a_second_of_the_first(
    tmp_path: Path, extent: Extent, figures: Figures
) -> None:
    times = extent.choose(2, 20)
    noticed: list[float] = []
    came_back: list[float] = []
    longest = 0.0
    with (
        Replicas(COUNT) as replicas,
        run_proxy(tmp_path, replicas) as proxy,
        Load(proxy.port, threads=4, pause=0.01) as load,
    ):
        for turn in range(times):
            wait_for_all(load, COUNT)
            for index in range(COUNT):
                replicas.kill(index)
            down = time.monotonic()
            unavailable = wait_for_result(load, down, lambda one: (one.status, one.detail) == (503, "no_replica"))
            noticed.append(unavailable.began + unavailable.took - down)
            load.run_for(200)
            while_down = load.list_results(down)
            at_once = [(one.status, one.detail) for one in while_down if one.began > down + AT_ONCE]
            assert set(at_once) == {(503, "no_replica")}
            longest = max(longest, *(one.took for one in while_down))
            first = turn % COUNT
            replicas.start(first)
            ready = wait_for_port(replicas.ports[first])
            success = wait_for_result(load, ready - 0.1, lambda one: one.status == 200)
            came_back.append(success.began + success.took - ready)
            load.run_for(100)
            assert load.list_failures(since=success.began + 0.2) == []  # the other worker's table
            for index in range(COUNT):
                if index != first:
                    replicas.start(index)
    assert max(noticed) < AT_ONCE
    assert max(came_back) < 1.0
    assert longest < 1.0
    figures.add(
        f"all {COUNT} replicas killed, {times} times: first 503 at most {max(noticed) * 1000:.0f} ms later, and nothing "
        f"else from {AT_ONCE * 1000:.0f} ms on; longest answer {longest * 1000:.0f} ms; first success at most "
        f"{max(came_back):.2f} s after the first replica was ready"
    )


def test_a_replica_that_accepts_connections_but_fails_its_check_gets_nothing(
    tmp_path: Path, extent: Extent, figures: Figures
) -> None:
    requests = extent.choose(1_000, 50_000)
    health = {"type": "http", "path": "/api/hello", "body": '"replica-0"', "fall": 2}
    with contextlib.ExitStack() as stack:
        replicas = stack.enter_context(Replicas(COUNT))
        for port in replicas.ports:
            wait_for_port(port)
        proxy = stack.enter_context(run_proxy(tmp_path, replicas, health=health))
        load = stack.enter_context(Load(proxy.port, threads=8, pause=0))
        end = time.monotonic() + START_WITHIN
        while not all(f"replica 127.0.0.1:{port} is unhealthy" in proxy.log for port in replicas.ports[1:]):
            assert time.monotonic() < end, proxy.log
            time.sleep(0.01)
        time.sleep(0.3)  # a table at most every tenth of a second, and then to both workers
        began, done = load.run_for(requests, within=START_WITHIN * 5)
        shares = load.count_replicas(began, done)
        assert set(shares) == {"replica-0"}
        assert load.list_failures() == []
        states = {one["name"]: (one["state"], one["check"]["last"]) for one in read_replicas(proxy)}
    assert states == {
        f"127.0.0.1:{port}": ("unhealthy", "body") if number else ("ready", "ok")
        for number, port in enumerate(replicas.ports)
    }
    figures.add(
        f"two of {COUNT} replicas accept connections and fail their HTTP check: {sum(shares.values())} requests, none of "
        "them to these two, none failed"
    )


def read_replicas(proxy: ProxyProcess) -> list[dict[str, Any]]:
    replicas: list[dict[str, Any]] = json.loads(proxy.get_ops("/api/v1/status")[1])["instances"][0]["replicas"]
    return replicas


def wait_for_port(port: int) -> float:
    """The moment from which on somebody listens there."""
    end = time.monotonic() + START_WITHIN
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return time.monotonic()
        time.sleep(0.005)
    raise AssertionError(f"nobody listens on port {port}")


def wait_for_result(load: Load, since: float, is_wanted: Callable[[Result], bool]) -> Result:
    """The first such of those sent from then on."""
    end = time.monotonic() + START_WITHIN
    while time.monotonic() < end:
        for one in load.list_results(since):
            if is_wanted(one):
                return one
        time.sleep(0.02)
    raise AssertionError("there was none")

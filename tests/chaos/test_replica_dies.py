"""Replicas that die under load, without anybody having told the proxy: static replicas, nothing discovers them."""

from __future__ import annotations

import time
from pathlib import Path

from tests.chaos.conftest import Extent, Figures
from tests.chaos.replicas import START_WITHIN, Replicas, run_proxy, wait_for_all
from tests.load import Load, Result

COUNT = 3


def is_excused(failure: Result) -> bool:
    """A POST that was on the replica when it died: nobody can say whether it was carried out."""
    return failure.method == "POST" and (failure.status, failure.detail) == (502, "upstream_closed")


def test_kill_9_of_one_of_three_costs_at_most_the_posts_it_had(
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
    figures.add(
        f"kill -9 of one of {COUNT} replicas, {times} times: {load.total} requests, {len(failures)} POSTs lost with "
        "their replica, nothing else failed"
    )


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

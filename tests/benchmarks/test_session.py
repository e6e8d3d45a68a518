"""Who takes part in what, and what is said of those who do not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.load import Generators, Load, LoadError
from benchmarks.machine import Cores
from benchmarks.progress import Progress
from benchmarks.proxies import Proxy, list_proxies
from benchmarks.results import Results
from benchmarks.scenarios import find_scenario
from benchmarks.session import Extent, Session, check_answers, count_wrong, expect_closed

EXTENT = Extent(rounds=1, seconds=0.2, latency_rounds=1, latency_seconds=0.2)
WEBSOCKET = replace(find_scenario("websocket"), connections=4)
MISSING = Proxy("haproxy-9", ("/nowhere/haproxy",), hint="build it")


@pytest.fixture
def session(built: Path, replicas: tuple[int, ...], generators: Generators) -> Iterator[Session]:
    with Session(built, replicas, Cores((), (), ()), generators, Results("a machine"), Progress(1)) as made:
        yield made


def test_a_missing_peer_is_named_and_the_others_go_on(session: Session) -> None:
    session.start([MISSING, list_proxies(session.folder, {})[0]], with_tls=False)
    session.measure([WEBSOCKET], EXTENT)
    assert session.results.remarks == ["haproxy-9 takes no part: /nowhere/haproxy is not on this machine (build it)"]
    assert [(sample.proxy, sample.errors) for sample in session.results.samples] == [("relay", 0)]


def test_a_missing_wrk_leaves_out_what_needs_it(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.start([list_proxies(session.folder, {})[0]], with_tls=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    session.measure([find_scenario("small"), WEBSOCKET], EXTENT)
    assert session.results.remarks == ["small is left out: wrk is not on this machine (Debian: apt-get install wrk)"]
    assert [sample.scenario for sample in session.results.samples] == ["websocket"]


def test_a_missing_openssl_leaves_out_tls(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    session.start([MISSING], with_tls=True)
    assert session.results.remarks[0].startswith("TLS is left out: openssl is not on this machine")


def test_a_proxy_that_ends_is_named_and_left_out(session: Session) -> None:
    session.start([list_proxies(session.folder, {})[0]], with_tls=False)
    [running] = session._take_part(WEBSOCKET, 1)
    running.stop()
    session.measure([WEBSOCKET, replace(WEBSOCKET, name="again")], EXTENT)
    assert session.results.remarks[0].startswith("relay is left out of websocket: it has ended with status")
    assert session.results.samples == []


def test_latency_needs_haproxys_rate(session: Session) -> None:
    session.measure_latency([find_scenario("small")], EXTENT)
    assert session.results.remarks == ["latency, small: left out, because HAProxy's peak rate is not known"]


def load(requests: int, wrong: int, errors: int) -> Load:
    return Load(requests, 1.0, wrong, errors, 0.1, 0.2, 0.3)


def test_a_refusal_is_right_where_refusals_are_measured() -> None:
    assert count_wrong(find_scenario("denied"), load(1000, 1000, 0)) == 0
    assert count_wrong(find_scenario("small"), load(1000, 1000, 0)) == 1000


def test_answers_that_are_not_those_to_be_measured_fail() -> None:
    check_answers(load(10000, 5, 5), 5)
    with pytest.raises(LoadError, match="no request was answered, 3 errors"):
        check_answers(load(0, 0, 3), 0)
    with pytest.raises(LoadError, match="20 wrong answers and 0 errors among 10000 requests"):
        check_answers(load(10000, 20, 0), 20)


def test_proxies_without_a_verdict_take_part_in_the_first_rounds_only() -> None:
    always, sometimes = Proxy("a", (sys.executable,)), Proxy("b", (sys.executable,), in_every_round=False)
    extent = replace(EXTENT, rounds=5)
    single = expect_closed([always], [WEBSOCKET], extent)
    assert expect_closed([always, sometimes], [WEBSOCKET], extent) == pytest.approx(single * 7 / 5)

"""A proxy that does less than the job is found out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.checks import find_abilities
from benchmarks.machine import UnavailableError, compile_c
from benchmarks.proxies import Job, RunningProxy, list_proxies
from benchmarks.scenarios import Ability


@pytest.fixture(scope="module")
def relay(built: Path, replicas: tuple[int, ...]) -> Iterator[RunningProxy]:
    """The raw relay: no gate, no fields, a connection to a replica for each of a client's."""
    compile_c("relay", built)
    running = list_proxies(built, {})[0].start(Job(built / "run", replicas, ()))
    yield running
    running.stop()


def test_the_floor_is_asked_for_nothing_but_to_pass_on(relay: RunningProxy, replicas: tuple[int, ...]) -> None:
    assert find_abilities(relay, replicas[:2], tls=False) == ({Ability.WEBSOCKET}, [])


def test_what_a_proxy_leaves_out_is_listed(relay: RunningProxy, replicas: tuple[int, ...]) -> None:
    pretender = RunningProxy(list_proxies(Path("/x"), {})[1], relay.port, relay.process)
    abilities, missing = find_abilities(pretender, replicas[:2], tls=False)
    assert abilities == {Ability.WEBSOCKET}
    assert "no X-Forwarded-For to the replica" in missing
    assert "no X-HA-Replica to the client" in missing
    assert "no 403 on admin paths" in missing
    assert "no keep-alive to replicas: 20 connections for 20 requests" in missing


def test_a_proxy_without_tls_is_not_asked_further(relay: RunningProxy, replicas: tuple[int, ...]) -> None:
    with pytest.raises(UnavailableError, match="it answers no request"):
        find_abilities(relay, replicas[:2], tls=True)

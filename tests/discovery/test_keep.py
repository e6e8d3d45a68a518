"""Which pods are kept though they turned unready: the rule, then the whole proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from haproxy_py.discovery.keep import KEEP_FOR, TOGETHER, Memory, remember
from tests.discovery.api_server import ApiServer
from tests.discovery.pods import Pods
from tests.discovery.watcher import Watcher, describe_kubernetes
from tests.load import Load


class Service:
    """The pods of a Service, by single letters, and what is remembered of them."""

    def __init__(self, ready: str = "abc") -> None:
        self.now = 1000.0
        self.memory = Memory()
        self.see(ready)

    def see(self, ready: str = "", unready: str = "", after: float = 0.0) -> str:
        """So much later the API server says this; who is kept then."""
        self.now += after
        self.memory = remember(self.memory, frozenset(ready), frozenset(unready), self.now)
        return "".join(sorted(self.memory.kept))


# --- the rule ---


def test_a_set_that_turns_unready_as_a_whole_is_kept() -> None:
    assert Service("abc").see("", "abc") == "abc"


def test_a_set_that_turns_unready_pod_by_pod_is_kept_when_the_last_one_does() -> None:
    service = Service("abc")
    assert service.see("bc", "a") == ""
    assert service.see("c", "ab", after=TOGETHER / 2) == ""
    assert service.see("", "abc", after=TOGETHER / 2) == "abc"


def test_a_pod_that_was_unready_before_is_not_kept() -> None:
    service = Service("abc")
    service.see("bc", "a")
    assert service.see("", "abcd", after=TOGETHER + 1) == "bc"


def test_a_single_pod_that_turns_unready_is_believed() -> None:
    assert Service("abc").see("bc", "a") == ""
    assert Service("a").see("", "a") == ""


def test_the_last_pod_of_a_set_that_went_one_by_one_is_believed() -> None:
    service = Service("ab")
    service.see("b", "a")
    assert service.see("", "ab", after=TOGETHER + 1) == ""


def test_pods_that_are_no_longer_listed_or_terminating_are_not_kept() -> None:
    assert Service("abc").see("", "") == ""
    assert Service("abcd").see("", "ab") == "ab"


def test_a_set_that_never_was_ready_is_not_kept() -> None:
    assert Service("").see("", "abc") == ""


def test_a_kept_pod_that_leaves_the_list_is_kept_no_longer() -> None:
    service = Service("abc")
    service.see("", "abc")
    assert service.see("", "bc", after=5) == "bc"
    assert service.see("", "", after=5) == ""


def test_once_one_is_ready_again_the_others_have_a_while_to_follow() -> None:
    service = Service("abc")
    service.see("", "abc")
    assert service.see("a", "bc", after=10) == "bc"
    assert service.see("ab", "c", after=TOGETHER - 1) == "c"
    assert service.see("ab", "c", after=1) == ""
    assert service.see("ab", "c", after=1) == ""


def test_a_set_is_kept_for_so_long_and_not_again() -> None:
    service = Service("abc")
    service.see("", "abc")
    assert service.see("", "abc", after=KEEP_FOR - 1) == "abc"
    assert service.see("", "abc", after=1) == ""
    assert service.see("", "abc", after=1) == ""


def test_a_set_that_was_ready_again_is_kept_again() -> None:
    service = Service("abc")
    service.see("", "abc")
    assert service.see("abc", "", after=5) == ""
    assert service.memory.ends == 0.0
    assert service.see("", "abc", after=5) == "abc"


def test_a_pod_that_flaps_while_a_set_is_kept_is_not_kept_with_it() -> None:
    service = Service("abc")
    service.see("", "abc")
    service.see("a", "bc", after=1)
    assert service.see("", "abc", after=1) == "bc"


def test_asking_again_changes_nothing() -> None:
    service = Service("abc")
    service.see("", "abc")
    before = service.memory
    service.see("", "abc")
    assert service.memory == before


# --- the whole proxy ---


@pytest.fixture
def scene(api: ApiServer, tmp_path: Path) -> Iterator[tuple[Pods, Watcher]]:
    with Pods(api) as pods:
        pods.scale(3)
        with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())]) as proxy:
            proxy.wait_for_replicas(dict.fromkeys(pods.names, "ready"))
            yield pods, proxy


def wait_for_kept(proxy: Watcher, count: int) -> None:
    series = 'discovery_replicas{instance="test",state="kept"}'
    proxy.wait_for(lambda: proxy.get_metric(series) == count)


def test_a_control_plane_that_calls_every_pod_unready_costs_no_request(scene: tuple[Pods, Watcher]) -> None:
    pods, proxy = scene
    with Load(proxy.port, threads=2) as load:
        pods.set_ready(*pods.names, ready=False)
        wait_for_kept(proxy, 3)
        load.run_for(60)
        status = proxy.get_status()["discovery"]
        assert any("turned unready together" in text for text in status["complaints"])
        assert status["endpoints"][0]["kept"] == 3
        for name in sorted(pods.names):
            pods.set_ready(name, ready=True)
        wait_for_kept(proxy, 0)
        load.run_for(60)
    assert load.list_failures() == []
    assert proxy.get_status()["discovery"]["complaints"] == []
    proxy.wait_for_log("ready again: ")
    assert "warning instance test: all of its pods turned unready together" in proxy.log
    assert "has no replica" not in proxy.log


def test_a_kept_pod_that_does_not_answer_is_out(scene: tuple[Pods, Watcher]) -> None:
    pods, proxy = scene
    dead = min(pods.names)
    pods.set_ready(*pods.names, ready=False)
    wait_for_kept(proxy, 3)
    listed = pods.running[dead]
    pods.kill(dead)
    proxy.wait_for_replicas(dict.fromkeys(pods.names, "ready") | {dead: "unhealthy"})
    pods.running[dead] = listed
    assert f"replica {dead} is unhealthy" in proxy.log


def test_scaling_to_zero_is_believed_while_a_set_is_kept(scene: tuple[Pods, Watcher]) -> None:
    pods, proxy = scene
    pods.set_ready(*pods.names, ready=False)
    wait_for_kept(proxy, 3)
    pods.scale(0)
    proxy.wait_for_replicas({})
    assert proxy.ask()[1]["reason"] == "no_replica"

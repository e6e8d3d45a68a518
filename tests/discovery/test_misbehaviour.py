"""An API server in trouble: traffic goes on untouched, it is asked once a second at most, and following goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.discovery.api_server import ApiServer, Faults
from tests.discovery.pods import Pods
from tests.discovery.things import make_endpoint, make_slice
from tests.discovery.watcher import Watcher, describe_kubernetes
from tests.load import Load

pytestmark = pytest.mark.timeout(240)

TROUBLE = 3.0
"""Seconds of each misbehaviour."""

EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApiServer, Pods, Watcher, Load]]:
    """One proxy under load in front of two pods, for all misbehaviours one after the other."""
    folder = tmp_path_factory.mktemp("misbehaviour")
    with ApiServer(folder, tls=True) as api, Pods(api) as pods:
        pods.scale(2)
        with (
            Watcher(folder, [describe_kubernetes(api.write_kubeconfig())]) as proxy,
            Load(proxy.port, threads=2) as load,
        ):
            proxy.wait_for(lambda: set(proxy.list_replicas()) == pods.names)
            api.wait_for_watch()
            yield api, pods, proxy, load


def vanish(api: ApiServer) -> None:
    api.vanish()


def misbehave(**faults: object) -> Callable[[ApiServer], None]:
    def begin(api: ApiServer) -> None:
        api.faults = Faults(**faults)  # type: ignore[arg-type]
        api.end_watches()

    return begin


def change_token(api: ApiServer) -> None:
    api.tokens = set()
    api.end_watches()


def repair(api: ApiServer) -> None:
    api.faults = Faults()
    api.tokens = {"first-token"}
    api.open() if api._runner is None else api.end_watches()


TROUBLES = {
    "410 as status": misbehave(expired_watch=True),
    "410 as event": misbehave(error_event=EXPIRED),
    "another error event": misbehave(error_event={"kind": "Status", "code": 500, "message": "no leader"}),
    "reset in the middle of a line": misbehave(reset_after=50),
    "a garbage line": misbehave(garbage=b'{"type": "ADDED", "obj\n'),
    "watches that end at once": misbehave(end_at_once=True),
    "500": misbehave(status=500),
    "503": misbehave(status=503),
    "429 with Retry-After": misbehave(status=429, retry_after="3"),
    "403": misbehave(forbidden={"endpointslices"}),
    "an expired token": change_token,
    "nobody there": vanish,
    "a stalled watch": misbehave(stall=True),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_with_the_api_costs_no_request_and_is_survived(
    scene: tuple[ApiServer, Pods, Watcher, Load], trouble: str
) -> None:
    api, pods, proxy, load = scene
    began = time.monotonic()
    TROUBLES[trouble](api)
    # A change that the trouble hides, and that must be found out afterwards.
    (new,) = pods.start() if trouble != "403" else ("",)
    time.sleep(max(0.0, began + TROUBLE - time.monotonic()))
    requests = len(api.list_requests(since=began))
    assert requests <= TROUBLE + (time.monotonic() - began - TROUBLE) + 6, "a burst of five, then one per second"
    assert proxy.is_ready()
    assert load.list_failures(since=began) == []
    repaired = time.monotonic()
    repair(api)
    # A watch that says nothing is noticed after 75 s only, so here the server ends it; 403 is tried every half minute.
    proxy.wait_for(lambda: set(proxy.list_replicas()) == pods.names, within=60)
    assert load.list_failures(since=began) == []
    if new:
        pods.end(new)
    api.wait_for(lambda: bool(api.list_requests("watch", since=repaired)), within=60)
    proxy.wait_for(lambda: set(proxy.list_replicas()) == pods.names)


def test_a_replica_that_dies_while_the_api_is_gone_costs_no_get(api: ApiServer, tmp_path: Path) -> None:
    """Nobody tells the proxy, so its connections fail and the next replica is asked."""
    with Pods(api) as pods:
        pods.scale(2)
        with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())]) as proxy:
            proxy.wait_for(lambda: set(proxy.list_replicas()) == pods.names)
            api.vanish()
            pods.kill(min(pods.names))
            with Load(proxy.port) as load:
                began, ended = load.run_for(60)
            assert load.list_failures() == []
            assert set(load.count_replicas(began, ended)) == pods.names
            assert len(proxy.list_replicas()) == 2, "what was found last stays in the table"
            proxy.wait_for_log("cannot be followed")


def test_a_start_without_the_api_is_not_ready_with_a_reason_and_then_succeeds(api: ApiServer, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig()
    api.put("endpointslices", "node-red", make_slice(make_endpoint("a", "127.0.1.1")))
    api.vanish()
    proxy = Watcher(tmp_path, [describe_kubernetes(kubeconfig)])
    with proxy.run_unready():
        proxy.wait_for(lambda: proxy.answers() and "cannot be reached" in proxy.get_ops("/readyz")[1])
        status, body = proxy.get_ops("/readyz")
        assert status == 503
        assert "the endpointslices of namespace node-red have not been read yet" in body
        assert proxy.ask()[0] == 503
        assert proxy.ask()[1]["reason"] == "discovery_pending"
        assert proxy.get_ops("/livez")[0] == 200
        api.open()
        proxy.wait_for(proxy.is_ready)
        assert proxy.list_replicas() == {"a": "ready"}


def test_an_empty_set_is_honoured_loudly(api: ApiServer, tmp_path: Path) -> None:
    with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())]) as proxy:
        assert proxy.ask()[1]["reason"] == "no_replica"
        (line,) = [line for line in proxy.log.splitlines() if "has no replica" in line]
        assert " warning instance test: 0 ready" in line


@pytest.mark.parametrize(("kind", "ha"), [("endpointslices", True), ("endpoints", True), ("services", "auto")])
def test_403_names_the_missing_permission_and_the_manifest(
    api: ApiServer, tmp_path: Path, kind: str, ha: object
) -> None:
    api.faults = Faults(forbidden={kind})
    source = "endpoints" if kind == "endpoints" else "endpointslices"
    proxy = Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig(), ha=ha, kubernetes={"source": source})])
    with proxy.run_unready():
        proxy.wait_for_log(f"needs list and watch on {kind} of API group")
        assert "config/kubernetes/base/role.yaml grants it" in proxy.log
        assert not proxy.is_ready()
        assert f"the {kind} of namespace node-red have not been read yet" in proxy.get_ops("/readyz")[1]


def test_403_of_an_api_server_that_has_just_started_costs_seconds_and_blames_nobody(
    api: ApiServer, tmp_path: Path
) -> None:
    """It refuses what it grants as soon as it has read the Roles."""
    api.put("endpointslices", "node-red", make_slice(make_endpoint("a", "127.0.1.1")))
    with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())]) as proxy:
        api.wait_for_watch()
        api.faults = Faults(forbidden={"endpointslices"})
        api.vanish()
        api.open()
        proxy.wait_for_log("may refuse for a moment")
        api.faults = Faults()
        began = time.monotonic()
        api.put("endpointslices", "node-red", make_slice(make_endpoint("b", "127.0.1.2")))
        proxy.wait_for(lambda: proxy.list_replicas() == {"b": "ready"})
        assert time.monotonic() - began < 10, "the pause for what only people can repair is 15 s at least"
        assert "role.yaml" not in proxy.log


def test_a_token_that_was_rotated_is_picked_up(api: ApiServer, tmp_path: Path) -> None:
    with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())]) as proxy:
        api.wait_for_watch()
        api.tokens = {"second-token"}
        (tmp_path / "token").write_text("second-token")
        began = time.monotonic()
        api.end_watches()
        api.wait_for(lambda: any(one.token == "second-token" for one in api.list_requests("watch", since=began)))
        api.put("endpointslices", "node-red", make_slice(make_endpoint("a", "127.0.1.1")))
        proxy.wait_for(lambda: proxy.list_replicas() == {"a": "ready"})

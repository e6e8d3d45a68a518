"""HA mode by annotation, both sources, and what a reload changes, seen through the whole proxy."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.discovery.api_server import ApiServer
from tests.discovery.cluster import AnyCluster
from tests.discovery.pods import Pods
from tests.discovery.things import make_endpoint, make_port, make_service, make_slice
from tests.discovery.watcher import Watcher, describe_kubernetes
from tests.load import Load


def make_endpoints(*addresses: str, ready: bool = True) -> dict[str, Any]:
    entries = [{"ip": address} for address in addresses]
    subset = {"addresses" if ready else "notReadyAddresses": entries, "ports": [make_port()]}
    return {"metadata": {"name": "my-instance"}, "subsets": [subset] if entries else None}


# --- against any cluster ---


def test_replicas_follow_the_slices_of_the_service(cluster: AnyCluster, tmp_path: Path) -> None:
    cluster.put("services", make_service())
    cluster.put("endpointslices", make_slice(make_endpoint("", "10.1.0.1"), name="one"))
    cluster.put("endpointslices", make_slice(make_endpoint("", "10.1.0.9"), name="other", service="other"))
    with Watcher(tmp_path, [describe_kubernetes(cluster.write_kubeconfig())]) as proxy:
        assert proxy.list_replicas() == {"10.1.0.1:1880": "ready"}
        two = make_endpoint("", "10.1.0.2", ready=False, serving=True, terminating=True)
        cluster.put("endpointslices", make_slice(two, make_endpoint("", "10.1.0.3"), name="two"))
        expected = {"10.1.0.1:1880": "ready", "10.1.0.2:1880": "draining", "10.1.0.3:1880": "ready"}
        proxy.wait_for(lambda: proxy.list_replicas() == expected)
        cluster.delete("endpointslices", "two")
        proxy.wait_for(lambda: proxy.list_replicas() == {"10.1.0.1:1880": "ready"})


def test_replicas_follow_the_endpoints_of_the_service(cluster: AnyCluster, tmp_path: Path) -> None:
    cluster.put("endpoints", make_endpoints("10.1.0.1"))
    instance = describe_kubernetes(cluster.write_kubeconfig(), kubernetes={"source": "endpoints"})
    with Watcher(tmp_path, [instance]) as proxy:
        assert proxy.list_replicas() == {"10.1.0.1:1880": "ready"}
        cluster.put("endpoints", make_endpoints("10.1.0.2", "10.1.0.3"))
        proxy.wait_for(lambda: set(proxy.list_replicas()) == {"10.1.0.2:1880", "10.1.0.3:1880"})
        cluster.put("endpoints", make_endpoints("10.1.0.2", ready=False))
        proxy.wait_for(lambda: proxy.list_replicas() == {})
        assert proxy.get_metric('discovery_replicas{instance="test",state="unready"}') == 1
        cluster.delete("endpoints", "my-instance")
        proxy.wait_for(lambda: proxy.get_metric('discovery_replicas{instance="test",state="unready"}') == 0)


def test_ha_mode_follows_the_annotation(cluster: AnyCluster, tmp_path: Path) -> None:
    def is_ha() -> bool:
        return bool(proxy.get_status()["instances"][0]["ha"])

    cluster.put("services", make_service(ha="true"))
    with Watcher(tmp_path, [describe_kubernetes(cluster.write_kubeconfig(), ha="auto")]) as proxy:
        assert is_ha()
        cluster.put("services", make_service())
        proxy.wait_for(lambda: not is_ha())
        cluster.put("services", make_service(ha="true"))
        proxy.wait_for(is_ha)


# --- with traffic ---


def ask_editor(proxy: Watcher) -> int:
    return proxy.ask("/flows")[0]


def test_the_gate_closes_and_opens_within_a_second_of_the_change(api: ApiServer, tmp_path: Path) -> None:
    api.put("services", "node-red", make_service())
    with Pods(api) as pods:
        pods.scale(2)
        with (
            Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig(), ha="auto")]) as proxy,
            Load(proxy.port, threads=1) as load,
        ):
            proxy.wait_for(lambda: set(proxy.list_replicas()) == pods.names)
            assert ask_editor(proxy) == 200
            for annotations, status in (({"ha": "true"}, 403), ({"ha": "false"}, 200), ({"ha": "yes"}, 403), ({}, 200)):
                began = time.monotonic()
                api.put("services", "node-red", make_service(**annotations))
                proxy.wait_for(lambda status=status: ask_editor(proxy) == status)  # type: ignore[misc]
                assert time.monotonic() - began < 1.0
            assert load.list_failures() == []
            assert 'annotation haproxy-py.dev/ha is "yes", neither "true" nor "false"' in proxy.log


def test_the_gate_is_closed_as_long_as_the_service_is_not_known(api: ApiServer, tmp_path: Path) -> None:
    """Also when the Service goes: the mode stays as it was."""
    api.faults.forbidden = {"services"}
    with Pods(api) as pods:
        pods.scale(1)
        proxy = Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig(), ha="auto")])
        with proxy.run_unready():
            proxy.wait_for(lambda: proxy.list_replicas() != {})
            assert ask_editor(proxy) == 403
            assert proxy.ask()[0] == 200, "what is no editor passes"
            assert not proxy.is_ready()


def test_the_mode_stays_when_the_service_goes(api: ApiServer, tmp_path: Path) -> None:
    api.put("services", "node-red", make_service())
    with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig(), ha="auto")]) as proxy:
        proxy.wait_for(lambda: not proxy.get_status()["instances"][0]["ha"])
        api.delete("services", "node-red", "my-instance")
        proxy.wait_for_log(
            "there is no Service (own namespace)/my-instance to read haproxy-py.dev/ha from: HA mode stays off"
        )
        assert not proxy.get_status()["instances"][0]["ha"]


def test_a_service_that_selects_the_proxy_itself_is_refused(api: ApiServer, tmp_path: Path) -> None:
    proxy = Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())])
    own = make_slice(make_endpoint("sidecar", "127.0.0.1"), ports=[make_port(proxy.port)])
    api.put("endpointslices", "node-red", own)
    with proxy:
        assert proxy.ask()[1]["reason"] == "no_replica"
        assert f"127.0.0.1:{proxy.port} is this proxy itself" in proxy.log
        assert proxy.get_metric('discovery_ignored{why="own"}') == 1


# --- reload ---


def test_a_reload_that_widens_a_watch_keeps_what_is_known(api: ApiServer, tmp_path: Path) -> None:
    """Another Service of the namespace changes the query; nobody may lose replicas until the new list is there."""
    kubeconfig = api.write_kubeconfig()
    with Pods(api) as pods:
        pods.scale(1)
        with Watcher(tmp_path, [describe_kubernetes(kubeconfig)]) as proxy, Load(proxy.port, threads=1) as load:
            proxy.wait_for(lambda: set(proxy.list_replicas()) == pods.names)
            api.vanish()
            proxy.config["instances"].append(describe_kubernetes(kubeconfig, name="two", service="b", hosts=["b"]))
            proxy.write_config()
            proxy.signal(signal.SIGHUP)
            proxy.wait_for(lambda: len(proxy.get_status()["instances"]) == 2)
            load.run_for(20)
            assert proxy.ask(host="b")[1]["reason"] == "discovery_pending"
            assert proxy.is_ready(), "what a reload adds must not take away a proxy that carries traffic"
            api.put("endpointslices", "node-red", make_slice(make_endpoint("b", "127.0.1.99"), name="b", service="b"))
            api.open()
            proxy.wait_for(lambda: proxy.list_replicas("two") == {"b": "ready"})
            assert set(proxy.list_replicas()) == pods.names
            assert load.list_failures() == []


def test_a_reload_that_drops_an_instance_ends_its_watch(api: ApiServer, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig()
    instances = [
        describe_kubernetes(kubeconfig),
        describe_kubernetes(kubeconfig, name="two", hosts=["b"], kubernetes={"source": "endpoints"}),
    ]
    with Watcher(tmp_path, instances) as proxy:
        assert (
            proxy.get_metric(f'discovery_listed{{cluster="{kubeconfig}",kind="endpoints",namespace="node-red"}}') == 1
        )
        del proxy.config["instances"][1]
        proxy.write_config()
        proxy.signal(signal.SIGHUP)
        proxy.wait_for(lambda: len(proxy.get_status()["discovery"]["followed"]) == 1)
        assert proxy.get_status()["discovery"]["followed"][0]["kind"] == "endpointslices"


def test_static_replicas_import_nothing_of_kubernetes(tmp_path: Path) -> None:
    static = {"name": "test", "ha": True, "replicas": {"static": ["http://127.0.0.1:9"]}}
    with Watcher(tmp_path, [static]) as proxy:
        maps = Path(f"/proc/{proxy.pid}/maps").read_text()
        assert "pydantic" not in maps, "the package brings an extension module with it"
        assert "discovery_" not in proxy.get_ops("/metrics")[1]


@pytest.mark.parametrize("kind", ["endpointslices", "services"])
def test_workers_import_nothing_of_kubernetes(api: ApiServer, tmp_path: Path, kind: str) -> None:
    with Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig(), ha="auto")]) as proxy:
        assert "pydantic" in Path(f"/proc/{proxy.pid}/maps").read_text()
        for worker in proxy.get_status()["workers"]:
            assert "pydantic" not in Path(f"/proc/{worker['pid']}/maps").read_text()

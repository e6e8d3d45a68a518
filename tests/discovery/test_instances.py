"""Services that become instances, live."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.discovery.api_server import ApiServer
from tests.discovery.pods import Pods
from tests.discovery.things import make_endpoint, make_service, make_slice
from tests.discovery.watcher import Watcher
from tests.load import Load

LABELS = {"haproxy-py.dev/instance": "yes"}


def make_source(kubeconfig: Path, *namespaces: str, **more: Any) -> dict[str, Any]:
    return {"kubernetes": {"kubeconfig": str(kubeconfig), "namespaces": list(namespaces or ("node-red",))}, **more}


def list_instances(proxy: Watcher) -> dict[str, tuple[list[str], bool, int]]:
    """Hosts, mode and number of replicas by name."""
    return {one["name"]: (one["hosts"], one["ha"], len(one["replicas"])) for one in proxy.get_status()["instances"]}


def test_services_become_instances_and_go_again(api: ApiServer, tmp_path: Path) -> None:
    with Pods(api, "one") as first, Pods(api, "two") as second:
        first.scale(1)
        second.scale(1)
        source = make_source(api.write_kubeconfig())
        with Watcher(tmp_path, [], instances_from=source) as proxy:
            assert proxy.is_ready()
            assert proxy.ask(host="one.example.com")[0] in (400, 404, 421), "no Service, so no instance"
            api.put("services", "node-red", make_service("one", labels=LABELS, hosts="one.example.com", ha="true"))
            proxy.wait_for(lambda: list_instances(proxy) == {"one.node-red": (["one.example.com"], True, 1)})
            assert proxy.ask(host="one.example.com")[1]["replica"] == min(first.names)
            assert proxy.ask("/flows", host="one.example.com")[0] == 403

            with Load(proxy.port, threads=1, host="one.example.com") as load:
                api.put("services", "node-red", make_service("two", labels=LABELS, hosts="two.example.com"))
                proxy.wait_for(lambda: "two.node-red" in list_instances(proxy))
                assert proxy.ask(host="two.example.com")[1]["replica"] == min(second.names)
                assert proxy.ask("/flows", host="two.example.com")[0] == 200
                hosts = "two.example.com, three.example.com"
                api.put("services", "node-red", make_service("two", labels=LABELS, hosts=hosts))
                proxy.wait_for(lambda: proxy.ask(host="three.example.com")[0] == 200)
                api.put("services", "node-red", make_service("two", hosts=hosts))  # the label has gone
                proxy.wait_for(lambda: list(list_instances(proxy)) == ["one.node-red"])
                load.run_for(10)
                assert load.list_failures() == []
            api.delete("services", "node-red", "one")
            proxy.wait_for_log("instance one.node-red is gone")
            proxy.wait_for(lambda: proxy.ask(host="one.example.com")[0] in (400, 404, 421))


def test_until_the_services_are_known_every_host_is_pending(api: ApiServer, tmp_path: Path) -> None:
    source = make_source(api.write_kubeconfig())
    api.vanish()
    proxy = Watcher(tmp_path, [], instances_from=source)
    with proxy.run_unready():
        assert proxy.ask(host="one.example.com")[1]["reason"] == "discovery_pending"
        assert not proxy.is_ready()
        api.open()
        proxy.wait_for(proxy.is_ready)


def test_one_watch_per_kind_and_namespace_whatever_the_number_of_instances(api: ApiServer, tmp_path: Path) -> None:
    for namespace in ("a", "b"):
        for number in range(10):
            name = f"s{number}"
            api.put("services", namespace, make_service(name, labels=LABELS, hosts=f"{name}.{namespace}.example.com"))
            endpoint = make_endpoint(f"{name}-pod", f"127.0.2.{number + 1}")
            api.put("endpointslices", namespace, make_slice(endpoint, name=f"{name}-x", service=name))
    source = make_source(api.write_kubeconfig(), "a", "b", balance={"affinity": "all"})
    with Watcher(tmp_path, [], instances_from=source) as proxy:
        proxy.wait_for(lambda: len(list_instances(proxy)) == 20)
        proxy.wait_for(lambda: all(count == 1 for _, _, count in list_instances(proxy).values()))
        assert len(api.list_requests("watch")) == 4
        assert len(api.list_requests("list")) == 4
        assert {one["affinity"] for one in proxy.get_status()["instances"]} == {"all"}


def test_services_that_cannot_be_instances_are_named_in_log_and_status(api: ApiServer, tmp_path: Path) -> None:
    api.put("services", "node-red", make_service("bad", labels=LABELS))
    configured = {
        "name": "mine",
        "hosts": ["mine.example.com"],
        "ha": True,
        "replicas": {"static": ["http://127.0.0.1:9"]},
    }
    api.put("services", "node-red", make_service("thief", labels=LABELS, hosts="mine.example.com"))
    with Watcher(tmp_path, [configured], instances_from=make_source(api.write_kubeconfig())) as proxy:
        assert list(list_instances(proxy)) == ["mine"]
        complaints = "\n".join(proxy.get_status()["discovery"]["complaints"])
        for text in (
            "Service node-red/bad: it has no annotation haproxy-py.dev/hosts that names its hosts",
            "Service node-red/thief: host mine.example.com already belongs to instance mine of the configuration",
        ):
            assert text in complaints
            assert text in proxy.log

"""The manifests and the chart as they are, on a real control plane, and what becomes of requests while it changes or fails."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.cluster import Cluster, Load, ask
from tests.kubernetes.control_plane import FOLDER, GRACE, ControlPlane
from tests.manifests.render import CHART, KUBERNETES, find_tool

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def plane() -> ControlPlane:
    folder = os.environ.get(FOLDER)
    assert folder, "these tests need the control plane that `make test-kubernetes` starts"
    return ControlPlane(Path(folder))


@pytest.fixture(scope="module")
def base(plane: ControlPlane) -> Iterator[Cluster]:
    """The example Node-RED and the base in front of it."""
    cluster = Cluster(plane, "node-red")
    plane.kubectl("create", "namespace", "node-red")
    for folder in ("node-red", "base"):
        plane.kubectl("apply", "-k", str(KUBERNETES / folder))
    for deployment in ("my-instance", "haproxy-py"):
        cluster.wait_for_rollout(deployment)
    cluster.scale("my-instance", 3)
    yield cluster
    plane.kubectl("delete", "namespace", "node-red", "--wait=true", "--timeout=120s")


def test_the_base_serves_the_example_with_its_editor_closed(base: Cluster) -> None:
    for proxy in base.list_pods("haproxy-py").values():
        assert ask(proxy, 8080, "/api/hello")[0] == 200
        assert ask(proxy, 8080, "/admin/flows")[0] == 403, "the Service says haproxy-py.dev/ha: true"
        assert ask(proxy, 9090, "/readyz")[0] == 200


def test_scaling_up_and_down_costs_no_request(base: Cluster) -> None:
    with Load(*base.list_pods("haproxy-py").values()) as load:
        base.scale("my-instance", 5)
        base.scale("my-instance", 2)
        base.scale("my-instance", 3)
    assert load.failures == []
    assert load.total > 100


def test_an_api_server_that_was_away_costs_no_request(base: Cluster) -> None:
    """The node controller calls every pod unready until the kubelet has reported, which it does a little later."""
    proxies = base.list_pods("haproxy-py").values()
    with Load(*proxies) as load:
        base.plane.stop("kubelet")
        base.plane.stop("apiserver")
        time.sleep(GRACE + 2)  # the time that it is away is what the test is about
        base.plane.resume("apiserver")
        try:
            base.wait_for(lambda: all(base.count_kept(proxy) == 3 for proxy in proxies))
        finally:
            base.plane.resume("kubelet")
        base.wait_for(lambda: all(base.count_kept(proxy) == 0 for proxy in proxies))
    assert load.failures == []
    for proxy in base.list_pods("haproxy-py"):
        assert "turned unready together" in base.read_log(proxy)
        assert "has no replica" not in base.read_log(proxy).partition("3 ready")[2]


def test_an_api_server_that_is_killed_and_starts_again_is_followed_and_blames_no_role(base: Cluster) -> None:
    with Load(*base.list_pods("haproxy-py").values()) as load:
        base.plane.kill("apiserver")
        time.sleep(3)
        base.plane.start("apiserver")
        base.scale("my-instance", 4)
        base.scale("my-instance", 3)
    assert load.failures == []
    for proxy in base.list_pods("haproxy-py"):
        assert "role.yaml" not in base.read_log(proxy)


def test_a_restored_etcd_leaves_no_ghost(base: Cluster) -> None:
    backup = base.plane.back_up()
    base.scale("my-instance", 5)
    base.plane.restore(backup)
    base.scale("my-instance", 3)


def test_the_chart_serves_the_services_of_a_namespace(plane: ControlPlane) -> None:
    cluster = Cluster(plane, "many")
    helm = find_tool("helm")
    assert helm, "`make test-kubernetes` gets helm"
    own = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
    form = ["--set", "config.instances_from.kubernetes.selector=haproxy-py.dev/instance"]
    command = [helm, "install", "haproxy-py", str(CHART), "--namespace", "many", "--create-namespace", *form]
    subprocess.run(command, env=own, check=True, capture_output=True)
    try:
        cluster.kubectl("create", "deployment", "one", "--image=nodered/node-red:5", "--port=1880")
        cluster.kubectl("expose", "deployment", "one", "--port=1880", "--name=one")
        cluster.kubectl("annotate", "service", "one", "haproxy-py.dev/hosts=one.example.com", "haproxy-py.dev/ha=true")
        cluster.kubectl("label", "service", "one", "haproxy-py.dev/instance=")
        cluster.wait_for_rollout("haproxy-py")
        proxies = cluster.list_pods("haproxy-py").values()
        cluster.wait_for(lambda: all(ask(one, 8080, "/api/hello", "one.example.com")[0] == 200 for one in proxies))
        assert all(ask(one, 8080, "/flows", "one.example.com")[0] == 403 for one in proxies)
    finally:
        plane.kubectl("delete", "namespace", "many", "--wait=true", "--timeout=120s")

"""The manifests: valid against Kubernetes' schemas, least privilege, and in agreement with what the program needs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from haproxy_py.config import Config
from haproxy_py.config_file import parse
from haproxy_py.config_values import duration
from haproxy_py.control.supervisor import KILL_AFTER_DEADLINE
from haproxy_py.discovery.reflector import MANIFEST
from haproxy_py.discovery.scopes import GROUPS, plan_scopes
from tests.manifests.render import KUBERNETES, ROOT, Thing, find, render_chart, render_kustomization

FOLDERS = {
    "base": KUBERNETES / "base",
    "many-instances": KUBERNETES / "overlays" / "many-instances",
    "monitoring": KUBERNETES / "overlays" / "monitoring",
    "ingress-sidecar": KUBERNETES / "overlays" / "ingress-sidecar",
    "node-red": KUBERNETES / "node-red",
}
WITH_PROXY = [name for name in FOLDERS if name != "node-red"]
VERSIONS = ("1.28", "1.37")
CUSTOM = {"ServiceMonitor"}  # of the Prometheus operator, not of Kubernetes
CHART_FORMS = {
    "chart": (),
    "chart with everything": (
        "serviceMonitor.create=true",
        "networkPolicy.replicas.app=node-red",
        "rbac.namespaces={a,b}",
        "rbac.service=",
        "image.tag=1",
        "tolerations[0].key=x",
    ),
    "chart with endpoints": ("rbac.source=endpoints", "networkPolicy.create=false"),
    "chart of many instances": ("config.instances_from.kubernetes.selector=haproxy-py.dev/instance",),
    "chart of another instance": (
        "config.instances[0].name=one",
        "config.instances[0].ha=auto",
        "config.instances[0].replicas.kubernetes.service=one",
    ),
    "chart of two instances": (
        *(f"config.instances[{n}].name={name}" for n, name in enumerate("ab")),
        *(f"config.instances[{n}].hosts={{{name}.example.com}}" for n, name in enumerate("ab")),
        *(f"config.instances[{n}].replicas.kubernetes.service={name}" for n, name in enumerate("ab")),
        *(f"config.instances[{n}].ha=auto" for n in range(2)),
    ),
}
CONFIGURED = ["chart", "chart of many instances", "chart of another instance", "chart of two instances"]


# Helm takes minutes to build, so what needs it is not part of `make test` but of `make test-kubernetes`.
CHARTS = [pytest.param(name, marks=pytest.mark.helm) for name in CHART_FORMS]


def render(name: str) -> list[Thing]:
    return render_kustomization(FOLDERS[name]) if name in FOLDERS else render_chart(*CHART_FORMS[name])


@pytest.fixture(scope="module", params=[*FOLDERS, *CHARTS])
def things(request: pytest.FixtureRequest) -> list[Thing]:
    return render(request.param)


def list_pods(things: list[Thing]) -> list[Thing]:
    return [thing["spec"]["template"]["spec"] for thing in things if thing["kind"] == "Deployment"]


def find_proxy(things: list[Thing]) -> tuple[Thing, Thing]:
    """Spec of the pod, and the container of the proxy in it."""
    for pod in list_pods(things):
        for container in pod["containers"]:
            if container["name"] == "haproxy-py":
                return pod, container
    raise AssertionError("no container haproxy-py")


def read_configuration(things: list[Thing], pod: Thing, container: Thing) -> Config:
    """The configuration that the proxy of this pod reads, as the program reads it."""
    path = Path(container["args"][container["args"].index("--config") + 1])
    (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == str(path.parent)]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    return parse(find(things, "ConfigMap", volume["configMap"]["name"])["data"][path.name], path.name)


# --- Kubernetes ---


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_for_kubernetes(things: list[Thing], version: str) -> None:
    for thing in things:
        if thing["kind"] not in CUSTOM:
            kubernetes_validate.validate(thing, version, strict=True)


def test_selectors_find_the_pods_they_mean(things: list[Thing]) -> None:
    labels = [thing["spec"]["template"]["metadata"]["labels"] for thing in things if thing["kind"] == "Deployment"]
    for thing in things:
        if thing["kind"] == "Service":
            selector = thing["spec"]["selector"]
        elif thing["kind"] in ("PodDisruptionBudget", "Deployment"):
            selector = thing["spec"]["selector"]["matchLabels"]
        else:
            continue
        assert any(selector.items() <= one.items() for one in labels), thing["metadata"]["name"]


def test_containers_have_no_privileges(things: list[Thing]) -> None:
    for pod in list_pods(things):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_every_container_that_serves_has_probes_and_a_pre_stop(things: list[Thing]) -> None:
    for pod in list_pods(things):
        for container in pod["containers"]:
            assert container["readinessProbe"]
            assert container["livenessProbe"]
            assert container["lifecycle"]["preStop"]["exec"]["command"][0] == "sleep"


# --- the proxy ---

PROXIES = [*WITH_PROXY, *CHARTS]


@pytest.mark.parametrize("name", PROXIES)
def test_the_configuration_is_right_and_agrees_with_the_pod(name: str) -> None:
    things = render(name)
    pod, container = find_proxy(things)
    config = read_configuration(things, pod, container)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert ports[container[probe]["httpGet"]["port"]] == config.ops.port
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert config.ops.host == "::", "probes come from outside of the pod, over IPv4 or IPv6"
    assert {listen.host for listen in config.listen} <= {"::", "127.0.0.1"}
    pre_stop = duration(f"{container['lifecycle']['preStop']['exec']['command'][1]}s")
    assert pod["terminationGracePeriodSeconds"] >= pre_stop + config.drain.deadline + KILL_AFTER_DEADLINE
    assert pod["automountServiceAccountToken"] is True


@pytest.mark.parametrize("name", [*WITH_PROXY, *(pytest.param(name, marks=pytest.mark.helm) for name in CONFIGURED)])
def test_the_role_grants_exactly_what_the_configuration_needs(name: str) -> None:
    things = render(name)
    pod, container = find_proxy(things)
    scopes = plan_scopes(read_configuration(things, pod, container)).values()
    needed = {}
    for scope in scopes:
        collection = scope.make_collection()
        names = (min(scope.names or ()),) if collection.field_selector else ()
        needed[GROUPS[scope.key.kind][0], scope.key.kind] = names
    roles = [thing for thing in things if thing["kind"] == "Role"]
    assert len(roles) == 1
    granted = {
        (group, resource): tuple(rule.get("resourceNames", ()))
        for rule in roles[0]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert granted == needed
    assert all(sorted(rule["verbs"]) == ["list", "watch"] for rule in roles[0]["rules"])
    assert {scope.key.namespace or "node-red" for scope in scopes} == {roles[0]["metadata"]["namespace"]} | {"node-red"}
    binding = find(things, "RoleBinding")
    assert binding["roleRef"]["name"] == roles[0]["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [pod["serviceAccountName"]]
    assert find(things, "ServiceAccount", pod["serviceAccountName"])
    assert not [thing for thing in things if thing["kind"].startswith("ClusterRole")]


@pytest.mark.helm
def test_the_chart_has_its_default_instance_only_where_nothing_else_says_which_there_are() -> None:
    found = {}
    for name in CONFIGURED:
        things = render(name)
        config = read_configuration(things, *find_proxy(things))
        found[name] = [instance.name for instance in config.instances]
    assert found == {
        "chart": ["my-instance"],
        "chart of many instances": [],
        "chart of another instance": ["one"],
        "chart of two instances": ["a", "b"],
    }


def test_the_sidecar_takes_nothing_away_from_the_base() -> None:
    """Both may be applied: an object of one name is one object, and the later one wins."""

    def name_all(folder: str) -> set[tuple[str, str, str]]:
        return {
            (thing["kind"], thing["metadata"].get("namespace", ""), thing["metadata"]["name"])
            for thing in render_kustomization(FOLDERS[folder])
        }

    sidecar = name_all("ingress-sidecar")
    assert sidecar.isdisjoint(name_all("base"))
    assert sidecar.isdisjoint(name_all("node-red"))


def test_the_manifest_that_the_log_names_is_the_one_with_the_role() -> None:
    assert "kind: Role\n" in (ROOT / MANIFEST).read_text()


@pytest.mark.parametrize("name", WITH_PROXY)
def test_network_policies_close_the_operators_port_and_the_management_port(name: str) -> None:
    things = render(name)
    pod, container = find_proxy(things)
    ops = read_configuration(things, pod, container).ops.port
    policies = [thing["spec"] for thing in things if thing["kind"] == "NetworkPolicy"]
    assert len(policies) == 2
    for policy in policies:
        assert policy["policyTypes"] == ["Ingress"]
        for rule in policy["ingress"]:
            ports = {port["port"] for port in rule["ports"]}
            assert 2880 not in ports
            assert ports, "a rule without ports opens all of them"
            if ports & {ops, 1880}:
                assert rule["from"], "not for everybody"


@pytest.mark.parametrize("name", PROXIES)
def test_no_service_shows_the_operators_port_to_users(name: str) -> None:
    for thing in render(name):
        if thing["kind"] == "Service" and not thing["metadata"]["name"].endswith("-ops"):
            assert [port["name"] for port in thing["spec"]["ports"]] == ["http"]


def test_several_proxies_are_spread_and_never_all_taken_away() -> None:
    things = render("base")
    deployment = find(things, "Deployment")["spec"]
    assert deployment["replicas"] >= 2
    assert deployment["template"]["spec"]["topologySpreadConstraints"]
    assert find(things, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("name", [*WITH_PROXY, pytest.param("chart", marks=pytest.mark.helm)])
def test_image_and_user_are_those_of_the_image_that_is_built(name: str) -> None:
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    user = re.search(r"^USER (\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert version
    assert user
    pod, container = find_proxy(render(name))
    assert container["image"] == f"haproxy-py:{version[1]}"
    assert (pod["securityContext"] | container["securityContext"])["runAsUser"] == int(user[1])


# --- Node-RED ---


def test_the_example_replicas_are_probed_by_a_route_of_their_flows() -> None:
    things = render_kustomization(FOLDERS["node-red"])
    (pod,) = list_pods(things)
    (container,) = pod["containers"]
    (configuration,) = [thing for thing in things if thing["kind"] == "ConfigMap"]
    flows: list[dict[str, Any]] = json.loads(configuration["data"]["flows.json"])
    routes = {node["url"] for node in flows if node["type"] == "http in"}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in routes
    pre_stop = duration(f"{container['lifecycle']['preStop']['exec']['command'][1]}s")
    assert pod["terminationGracePeriodSeconds"] > pre_stop
    assert pod["affinity"]["podAntiAffinity"]


def test_the_proxy_looks_for_the_example_service() -> None:
    service = find(render_kustomization(FOLDERS["node-red"]), "Service")
    pod, container = find_proxy(render("base"))
    (instance,) = read_configuration(render("base"), pod, container).instances
    assert instance.kubernetes is not None
    assert instance.kubernetes.service == service["metadata"]["name"]
    assert instance.kubernetes.port in {port["name"] for port in service["spec"]["ports"]}
    assert service["metadata"]["annotations"]["haproxy-py.dev/ha"] == "true"

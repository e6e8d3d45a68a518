"""Which collections are followed for a configuration, and how they are asked for."""

from __future__ import annotations

from haproxy_py.config import Cluster, Config, Instance, InstancesFrom, KubernetesSelector, KubernetesService
from haproxy_py.discovery.api import Collection
from haproxy_py.discovery.scopes import plan_scopes


def make_instance(service: str, ha: bool | None = True, **more: str) -> Instance:
    return Instance(service, (service,), ha, kubernetes=KubernetesService(service, **{"namespace": "a", **more}))  # type: ignore[arg-type]


def plan(*instances: Instance, source: KubernetesSelector | None = None) -> set[Collection]:
    config = Config((), instances, InstancesFrom(source) if source else None)
    return {scope.make_collection() for scope in plan_scopes(config).values()}


def ask(kind: str, label: str = "", field: str = "", namespace: str = "a") -> Collection:
    return Collection(kind, "discovery.k8s.io" if kind == "endpointslices" else "", "v1", namespace, label, field)


def test_static_replicas_need_nothing() -> None:
    assert plan(Instance("one", (), True, (("a", 1),))) == set()


def test_one_service_is_asked_for_by_its_name() -> None:
    assert plan(make_instance("x")) == {ask("endpointslices", "kubernetes.io/service-name=x")}
    assert plan(make_instance("x", source="endpoints")) == {ask("endpoints", field="metadata.name=x")}


def test_ha_auto_needs_the_service_too() -> None:
    assert plan(make_instance("x", ha=None)) == {
        ask("endpointslices", "kubernetes.io/service-name=x"),
        ask("services", field="metadata.name=x"),
    }


def test_services_of_one_namespace_share_one_watch_per_kind() -> None:
    assert plan(make_instance("y", ha=None), make_instance("x", ha=None)) == {
        ask("endpointslices", "kubernetes.io/service-name in (x,y)"),
        ask("services"),
    }


def test_very_many_services_are_not_named_one_by_one() -> None:
    assert plan(*(make_instance(f"s{n}") for n in range(51))) == {ask("endpointslices", "kubernetes.io/service-name")}


def test_namespaces_and_clusters_are_followed_apart() -> None:
    other = Instance("o", ("o",), True, kubernetes=KubernetesService("x", "a", cluster=Cluster("file")))
    config = Config((), (make_instance("x"), make_instance("z", namespace="b"), other))
    assert len(plan_scopes(config)) == 3


def test_a_selection_is_two_watches_per_namespace() -> None:
    found = plan(make_instance("x"), source=KubernetesSelector(("a", "b"), "l=v", source="endpointslices"))
    assert found == {
        collection
        for namespace in ("a", "b")
        for collection in (
            ask("services", "l=v", namespace=namespace),
            ask("endpointslices", "kubernetes.io/service-name", namespace=namespace),
        )
    }

"""Services: HA mode by annotation, and Services that become instances."""

from __future__ import annotations

from typing import Any

import pytest

from haproxy_py.config import Instance, InstancesFrom, KubernetesSelector, KubernetesService
from haproxy_py.discovery.services import Selected, Service, is_ha, make_instances, parse_service
from tests.discovery.things import make_service


def make(name: str = "one", namespace: str = "prod", created: str = "", **annotations: str) -> Service:
    thing = make_service(name, **annotations)
    thing["metadata"] |= {"namespace": namespace, "creationTimestamp": created}
    return parse_service(thing)


def select(*services: Service, configured: tuple[Instance, ...] = (), most: int = 100) -> Selected:
    return make_instances(services, InstancesFrom(replica_header="name"), configured, most)


@pytest.mark.parametrize(
    ("annotations", "ha"), [({}, False), ({"ha": "true"}, True), ({"ha": "false"}, False), ({"ha": " true "}, True)]
)
def test_the_annotation_switches_ha_mode(annotations: dict[str, str], ha: bool) -> None:
    assert is_ha(make(**annotations)) == (ha, "")


@pytest.mark.parametrize("written", ["yes", "True", "1", "", " ", "x" * 100_000])
def test_a_slip_of_the_pen_closes_the_gate(written: str) -> None:
    ha, complaint = is_ha(make(ha=written))
    assert ha
    assert 'neither "true" nor "false"' in complaint


@pytest.mark.parametrize("written", [1, True, [], {}])
def test_an_annotation_that_is_no_text_closes_the_gate(written: Any) -> None:
    assert is_ha(make(ha=written))[0]


def test_a_service_becomes_an_instance_with_the_settings_for_all() -> None:
    (instance,) = select(make("one", hosts="A.example.com, b.example.com", port="web")).instances
    assert instance == Instance(
        name="one.prod",
        hosts=("a.example.com", "b.example.com"),
        ha=None,
        kubernetes=KubernetesService("one", "prod", "web"),
        replica_header="name",
    )


def test_source_and_family_are_those_of_the_selection() -> None:
    source = InstancesFrom(KubernetesSelector(source="endpoints", family="ipv6"))
    (instance,) = make_instances([make(hosts="a")], source, (), 1).instances
    assert instance.kubernetes == KubernetesService("one", "prod", source="endpoints", family="ipv6")


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, "no annotation haproxy-py.dev/hosts"),
        ({"hosts": "*.example.com"}, "no wildcards"),
        ({"hosts": "a,,b"}, "is no host name"),
        ({"hosts": "a.example.com:80"}, "leave the port out"),
        ({"hosts": ",".join(f"h{n}" for n in range(257))}, "at most 256"),
        ({"hosts": "a", "port": "2880"}, "management port"),
        ({"hosts": "a", "port": "a b"}, "lower-case"),
    ],
)
def test_a_service_that_cannot_be_an_instance_is_not_served(annotations: dict[str, str], expected: str) -> None:
    selected = select(make(**annotations), make("two", hosts="two.example.com"))
    assert [instance.name for instance in selected.instances] == ["two.prod"]
    ((service, complaint),) = selected.complaints
    assert service == "prod/one"
    assert expected in complaint


def test_the_older_service_keeps_its_hosts() -> None:
    old = make("zz", created="2026-01-01T00:00:00Z", hosts="a,b")
    new = make("aa", created="2026-01-02T00:00:00Z", hosts="b,c")
    for order in ((old, new), (new, old)):
        selected = select(*order)
        assert [(one.name, one.hosts) for one in selected.instances] == [("zz.prod", ("a", "b")), ("aa.prod", ("c",))]
        assert selected.complaints == (("prod/aa", "host b already belongs to Service prod/zz"),)


def test_a_service_cannot_take_host_or_name_of_the_configuration() -> None:
    configured = (Instance("one.prod", ("mine",), True), Instance("x", ("yours",), True))
    selected = select(make("one", hosts="a"), make("two", hosts="yours"), configured=configured)
    assert selected.instances == ()
    assert [complaint for _, complaint in selected.complaints] == [
        "the configuration has an instance one.prod already; this Service is not served",
        "host yours already belongs to instance x of the configuration; this Service is not served",
    ]


def test_more_services_than_there_is_room_for_are_named() -> None:
    selected = select(*(make(f"s{n}", hosts=f"h{n}") for n in range(3)), most=2)
    assert len(selected.instances) == 2
    assert "at most 2 Services" in selected.complaints[0][1]

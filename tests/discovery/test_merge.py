"""Slices to replicas: one test per rule DSC-*, and what must hold for all of them."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from haproxy_py.config_file import MAX_INSTANCE_REPLICAS
from haproxy_py.discovery.found import FoundReplica
from haproxy_py.discovery.merge import Merged, merge
from haproxy_py.discovery.slices import parse_endpoints, parse_slice
from haproxy_py.table import ReplicaState
from tests.discovery.things import Thing, make_endpoint, make_port, make_slice

READY, DRAINING = ReplicaState.READY, ReplicaState.DRAINING


def merge_all(*things: Thing, port: str = "http", family: str = "ipv4", own: Any = ()) -> Merged:
    pieces = [piece for thing in things for piece in parse_slice(thing).slices]
    return merge(pieces, port, family, lambda host, number: (host, number) in own)


def name_replicas(*things: Thing, **more: Any) -> list[str]:
    return [replica.name for replica in merge_all(*things, **more).replicas]


# --- states ---


@pytest.mark.parametrize(
    ("ready", "serving", "terminating", "state"),
    [
        (True, True, False, READY),
        (True, False, False, READY),  # publishNotReadyAddresses
        (None, None, None, READY),
        (False, True, True, DRAINING),
        (False, None, True, DRAINING),
        (True, True, True, DRAINING),
        (True, False, True, DRAINING),
        (False, False, True, None),
        (False, True, False, None),
        (False, False, False, None),
        (False, None, None, None),
    ],
)
def test_conditions_decide_the_state(
    ready: bool | None, serving: bool | None, terminating: bool | None, state: ReplicaState | None
) -> None:
    merged = merge_all(make_slice(make_endpoint("a", ready=ready, serving=serving, terminating=terminating)))
    assert [replica.state for replica in merged.replicas] == ([state] if state else [])
    assert merged.unready == (state is None)


def test_nothing_gives_nothing() -> None:
    assert merge_all() == Merged(())
    assert merge_all(make_slice()) == Merged(())


# --- who is the same ---


def test_a_replica_has_the_name_of_its_pod() -> None:
    (replica,) = merge_all(make_slice(make_endpoint("pod-a", "10.0.0.7"))).replicas
    assert replica == FoundReplica("pod-a", "10.0.0.7", 1880, READY)


def test_an_endpoint_that_is_no_pod_has_the_name_of_its_address() -> None:
    assert name_replicas(make_slice(make_endpoint("", "10.0.0.7"))) == ["10.0.0.7:1880"]
    six = make_slice(make_endpoint("", "fd00::7"), family="IPv6")
    assert name_replicas(six) == ["[fd00::7]:1880"]


def test_a_name_that_no_pod_could_have_is_not_used() -> None:
    assert name_replicas(make_slice(make_endpoint("a\r\nX-Evil: 1", "10.0.0.7"))) == ["10.0.0.7:1880"]


def test_a_pod_in_two_slices_is_one_replica_in_both_orders() -> None:
    old = make_slice(make_endpoint("a"), name="s-old")
    new = make_slice(make_endpoint("a"), name="s-new")
    assert name_replicas(old, new) == name_replicas(new, old) == name_replicas(old) == name_replicas(new) == ["a"]


@pytest.mark.parametrize(
    ("one", "other", "state"),
    [
        ({"ready": True}, {"ready": False, "serving": False, "terminating": True}, DRAINING),
        ({"ready": True}, {"ready": False, "serving": False}, READY),
        ({"ready": False, "serving": True, "terminating": True}, {"ready": False, "serving": False}, DRAINING),
        ({"ready": False, "serving": False}, {"ready": False, "serving": False}, None),
    ],
)
def test_what_several_slices_say_of_one_pod_is_combined(one: Thing, other: Thing, state: ReplicaState | None) -> None:
    things = [make_slice(make_endpoint("a", **one), name="s-1"), make_slice(make_endpoint("a", **other), name="s-2")]
    for order in (things, things[::-1]):
        assert [replica.state for replica in merge_all(*order).replicas] == ([state] if state else [])


def test_of_two_pods_with_one_address_the_one_that_lives_counts() -> None:
    gone = make_endpoint("old", ready=False, serving=True, terminating=True)
    for order in ((gone, make_endpoint("new")), (make_endpoint("new"), gone)):
        assert name_replicas(make_slice(*order)) == ["new"]


def test_of_two_terminating_pods_with_one_address_the_one_of_the_later_slice_counts() -> None:
    def ending(pod: str, created: str) -> Thing:
        endpoint = make_endpoint(pod, ready=False, serving=True, terminating=True)
        return make_slice(endpoint, name=f"s-{pod}", created=created)

    early, late = ending("zz", "2026-01-01T00:00:00Z"), ending("aa", "2026-01-02T00:00:00Z")
    assert name_replicas(early, late) == name_replicas(late, early) == ["aa"]


def test_a_pod_that_came_back_with_its_name_is_the_new_one() -> None:
    gone = make_endpoint("set-0", "10.0.0.1", uid="1", ready=False, serving=True, terminating=True)
    (replica,) = merge_all(make_slice(gone, make_endpoint("set-0", "10.0.0.2", uid="2"))).replicas
    assert (replica.host, replica.state) == ("10.0.0.2", READY)


# --- ports ---


def test_a_port_is_found_by_name_or_by_number() -> None:
    ports = [make_port(9090, "metrics"), make_port(1880, "http"), make_port(1881, "")]
    thing = make_slice(make_endpoint("a"), ports=ports)
    for port, number in (("http", 1880), ("1880", 1880), ("metrics", 9090), ("1881", 1881)):
        assert [replica.port for replica in merge_all(thing, port=port).replicas] == [number]


def test_the_only_port_needs_no_name() -> None:
    thing = make_slice(make_endpoint("a"), ports=[make_port(1880, None, None)])
    assert [replica.port for replica in merge_all(thing, port="").replicas] == [1880]


def test_several_ports_without_a_configured_one_are_no_guess() -> None:
    merged = merge_all(make_slice(make_endpoint("a"), ports=[make_port(1, "x"), make_port(2, "y")]), port="")
    assert merged.replicas == ()
    assert merged.ignored == {"port": 1}
    assert merged.complaints == (
        "its endpoints have the TCP ports x (1), y (2), and the configuration names no port; set kubernetes.port",
    )


def test_a_port_that_is_not_there_is_named_with_those_that_are() -> None:
    merged = merge_all(make_slice(make_endpoint("a")), port="web")
    assert merged.replicas == ()
    assert merged.complaints == ("its endpoints have the TCP ports http (1880), but no TCP port web; correct the port",)


@pytest.mark.parametrize("port", ["http", ""])
def test_endpoints_without_any_port_are_said_to_have_none(port: str) -> None:
    merged = merge_all(make_slice(make_endpoint("a"), ports=[]), port=port)
    assert merged.complaints == (
        "its endpoints have no TCP port at all; the Service must name one, and its pods must have what targetPort says",
    )


def test_endpoints_that_are_host_names_are_complained_of() -> None:
    merged = merge_all(make_slice(make_endpoint(address="node-red.example.com"), family="FQDN"))
    assert merged.ignored == {"family": 1}
    (complaint,) = merged.complaints
    assert "an EndpointSlice of type FQDN" in complaint
    assert "replicas.dns" in complaint


def test_one_name_may_be_another_number_in_each_slice() -> None:
    one = make_slice(make_endpoint("a", "10.0.0.1"), name="s-1", ports=[make_port(1880)])
    two = make_slice(make_endpoint("b", "10.0.0.2"), name="s-2", ports=[make_port(1999)])
    assert [replica.port for replica in merge_all(one, two).replicas] == [1880, 1999]


@pytest.mark.parametrize("port", [make_port(protocol="UDP"), make_port(None), make_port(0), make_port(70000)])
def test_ports_that_are_no_tcp_ports_are_ignored(port: Thing) -> None:
    assert merge_all(make_slice(make_endpoint("a"), ports=[port])).ignored == {"port": 1}


def test_the_management_port_is_refused_under_any_name() -> None:
    merged = merge_all(make_slice(make_endpoint("a"), ports=[make_port(2880)]))
    assert (merged.replicas, merged.ignored) == ((), {"management": 1})
    assert "2880" in merged.complaints[0]


def test_the_proxy_itself_is_dropped_with_a_complaint() -> None:
    thing = make_slice(make_endpoint("a", "10.0.0.1"), make_endpoint("b", "10.0.0.2"))
    merged = merge_all(thing, own={("10.0.0.2", 1880)})
    assert [replica.name for replica in merged.replicas] == ["a"]
    assert merged.ignored == {"own": 1}
    assert "10.0.0.2:1880 is this proxy itself" in merged.complaints[0]


# --- families ---


def make_dual(*pods: str, both: bool = True) -> list[Thing]:
    four = [make_endpoint(pod, f"10.0.0.{number}") for number, pod in enumerate(pods, 1)]
    six = [make_endpoint(pod, f"fd00::{number}") for number, pod in enumerate(pods, 1)]
    return [make_slice(*four, name="v4"), make_slice(*six, name="v6", family="IPv6")]


@pytest.mark.parametrize(("family", "sign"), [("ipv4", "."), ("ipv6", ":")])
def test_a_pod_with_two_families_appears_once_with_the_chosen_one(family: str, sign: str) -> None:
    for things in (make_dual("a", "b"), make_dual("a", "b")[::-1]):
        replicas = merge_all(*things, family=family).replicas
        assert [replica.name for replica in replicas] == ["a", "b"]
        assert all(sign in replica.host for replica in replicas)


def test_a_pod_with_the_other_family_only_is_used_all_the_same() -> None:
    four, six = make_dual("a")
    six["endpoints"].append(make_endpoint("b", "fd00::b"))
    assert name_replicas(four, six) == ["a", "b"]


def test_addresses_of_two_families_without_pods_do_not_count_twice() -> None:
    four = make_slice(make_endpoint("", "10.0.0.1"), name="v4")
    six = make_slice(make_endpoint("", "fd00::1"), name="v6", family="IPv6")
    assert name_replicas(four, six) == ["10.0.0.1:1880"]
    assert name_replicas(four, six, family="ipv6") == ["[fd00::1]:1880"]


@pytest.mark.parametrize("family", ["FQDN", "IPv7", ""])
def test_slices_of_another_family_are_ignored_and_counted(family: str) -> None:
    merged = merge_all(make_slice(make_endpoint("a", "a.example.com"), family=family))
    assert (merged.replicas, merged.ignored) == ((), {"family": 1})


# --- the set as a whole ---


def test_the_result_is_sorted_by_name() -> None:
    pods = [make_endpoint(pod, f"10.0.0.{number}") for number, pod in enumerate("cab", 1)]
    assert name_replicas(make_slice(*pods)) == ["a", "b", "c"]


@pytest.mark.parametrize("count", [100, 101, 1000, 1001])
def test_many_endpoints_over_several_slices(count: int) -> None:
    endpoints = [make_endpoint(f"pod-{n}", f"10.0.{n // 250}.{n % 250 + 1}") for n in range(count)]
    things = [make_slice(*endpoints[at : at + 100], name=f"s-{at}") for at in range(0, count, 100)]
    assert len(merge_all(*things).replicas) == count


def test_more_replicas_than_an_instance_may_have_are_cut_with_a_complaint() -> None:
    count = MAX_INSTANCE_REPLICAS + 6
    endpoints = [make_endpoint(f"pod-{n}", f"10.0.{n // 250}.{n % 250 + 1}") for n in range(count)]
    merged = merge_all(make_slice(*endpoints))
    assert len(merged.replicas) == MAX_INSTANCE_REPLICAS
    assert merged.ignored == {"too_many": 6}
    assert str(count) in merged.complaints[0]


@pytest.mark.parametrize("seed", range(100))
def test_any_order_of_slices_gives_the_same_set_without_a_name_or_address_twice(seed: int) -> None:
    chance = random.Random(seed)
    things = [
        make_slice(
            *(
                make_endpoint(
                    chance.choice(("", "a", "b", "c")),
                    f"10.0.0.{chance.randint(1, 4)}" if family == "IPv4" else f"fd00::{chance.randint(1, 4)}",
                    uid=chance.choice(("1", "2", "3")),
                    ready=chance.choice((True, False, None)),
                    serving=chance.choice((True, False, None)),
                    terminating=chance.choice((True, False, None)),
                )
                for _ in range(chance.randint(0, 4))
            ),
            name=f"s-{number}",
            family=family,
            ports=[make_port(chance.choice((1880, 1881)))],
            created=f"2026-01-0{chance.randint(1, 3)}T00:00:00Z",
        )
        for number in range(4)
        for family in [chance.choice(("IPv4", "IPv6"))]
    ]
    expected = merge_all(*things).replicas
    for order in itertools.permutations(things):
        assert merge_all(*order).replicas == expected
    assert len({replica.name for replica in expected}) == len(expected)
    assert len({(replica.host, replica.port) for replica in expected}) == len(expected)


# --- Endpoints ---


def test_every_subset_of_an_endpoints_object_counts() -> None:
    def address(number: int) -> Thing:
        return {"ip": f"10.0.0.{number}", "targetRef": {"kind": "Pod", "name": f"pod-{number}", "uid": str(number)}}

    thing = {
        "metadata": {"name": "my-instance"},
        "subsets": [
            {"addresses": [address(1)], "notReadyAddresses": [address(2)], "ports": [make_port(1880)]},
            {"addresses": [address(3)], "ports": [make_port(1999)]},
        ],
    }
    merged = merge(parse_endpoints(thing).slices, "http", "ipv4", lambda host, port: False)
    assert [(one.name, one.port, one.state) for one in merged.replicas] == [
        ("pod-1", 1880, READY),
        ("pod-3", 1999, READY),
    ]
    assert merged.unready == 1

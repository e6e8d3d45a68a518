"""What the API server says may be anything: it is read, left out and counted, or refused as a whole; never more."""

from __future__ import annotations

from typing import Any

import pytest

from haproxy_py.discovery.fields import MalformedError
from haproxy_py.discovery.slices import MAX_ENDPOINTS, parse_endpoints, parse_slice
from tests.discovery.things import Thing, make_endpoint, make_slice


def read(thing: Thing) -> tuple[int, dict[str, int]]:
    """Endpoints that were read, and what was ignored."""
    (piece,) = parse_slice(thing).slices
    return len(piece.endpoints), dict(piece.ignored)


def test_the_service_is_the_one_of_the_label() -> None:
    assert parse_slice(make_slice(service="other")).service == "other"


@pytest.mark.parametrize("key", ["endpoints", "ports"])
@pytest.mark.parametrize("value", [None, "absent"])
def test_null_and_absent_lists_are_empty(key: str, value: str | None) -> None:
    thing = make_slice()
    if value is None:
        thing[key] = None
    else:
        del thing[key]
    assert read(thing) == (0, {})


@pytest.mark.parametrize("key", ["endpoints", "ports"])
@pytest.mark.parametrize("value", [{}, "x", 1, True])
def test_a_list_that_is_none_refuses_the_object(key: str, value: Any) -> None:
    with pytest.raises(MalformedError, match=f"{key} is no list"):
        parse_slice(make_slice() | {key: value})


@pytest.mark.parametrize(
    "endpoint",
    [
        None,
        1,
        [],
        {},
        {"addresses": None},
        {"addresses": []},
        {"addresses": [1]},
        {"addresses": ["10.0.0.256"]},
        {"addresses": ["host.example.com"]},
        {"addresses": ["0.0.0.0"]},
        {"addresses": ["224.0.0.1"]},
        {"addresses": ["fd00::1"]},  # in a slice of IPv4
        {"addresses": ["1" * 1000]},
    ],
)
def test_an_endpoint_nobody_could_connect_to_is_counted(endpoint: Any) -> None:
    assert read(make_slice(make_endpoint("a"), endpoint)) == (1, {"malformed": 1})


def test_a_link_local_address_with_a_zone_is_left_out() -> None:
    thing = make_slice({"addresses": ["fe80::1%eth0"]}, family="IPv6")
    assert read(thing) == (0, {"malformed": 1})


def test_only_the_first_address_counts() -> None:
    (piece,) = parse_slice(make_slice({"addresses": ["10.0.0.1", "10.0.0.2"]})).slices
    assert [endpoint.address for endpoint in piece.endpoints] == ["10.0.0.1"]


@pytest.mark.parametrize("conditions", [None, [], "x", {"ready": "true", "terminating": 1}])
def test_conditions_of_another_type_are_absent(conditions: Any) -> None:
    (piece,) = parse_slice(make_slice({"addresses": ["10.0.0.1"], "conditions": conditions})).slices
    assert (piece.endpoints[0].ready, piece.endpoints[0].terminating) == (True, False)


@pytest.mark.parametrize("target", [None, [], {"kind": "Node", "name": "a", "uid": "1"}, {"kind": "Pod", "name": 1}])
def test_a_target_that_is_no_pod_gives_no_name(target: Any) -> None:
    (piece,) = parse_slice(make_slice({"addresses": ["10.0.0.1"], "targetRef": target})).slices
    assert piece.endpoints[0].pod == ""


def test_an_object_with_too_many_endpoints_is_refused() -> None:
    with pytest.raises(MalformedError, match="at most"):
        parse_slice(make_slice() | {"endpoints": [None] * (MAX_ENDPOINTS + 1)})


def test_the_time_of_the_change_is_read() -> None:
    thing = make_slice()
    thing["metadata"]["annotations"] = {"endpoints.kubernetes.io/last-change-trigger-time": "2026-11-23T01:02:03.5Z"}
    assert parse_slice(thing).changed == 1795395723.5
    thing["metadata"]["annotations"] = {"endpoints.kubernetes.io/last-change-trigger-time": "yesterday"}
    assert parse_slice(thing).changed is None


def test_endpoints_without_subsets_are_empty() -> None:
    assert parse_endpoints({"metadata": {"name": "a"}}).slices == ()
    assert parse_endpoints({"metadata": {"name": "a"}, "subsets": None}).slices == ()


@pytest.mark.parametrize("subset", [None, 1, [], {"addresses": [None, {"ip": 5}]}])
def test_subsets_may_hold_anything(subset: Any) -> None:
    (piece,) = parse_endpoints({"metadata": {"name": "a"}, "subsets": [subset]}).slices
    assert piece.endpoints == ()


def test_endpoints_that_were_cut_off_are_known_as_such() -> None:
    annotations = {"endpoints.kubernetes.io/over-capacity": "truncated"}
    assert parse_endpoints({"metadata": {"name": "a", "annotations": annotations}}).truncated

"""Objects of any shape: nothing but MalformedError ever comes out, and what is read is bounded."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from haproxy_py.config import InstancesFrom
from haproxy_py.discovery.fields import MAX_NAME, MalformedError
from haproxy_py.discovery.merge import merge
from haproxy_py.discovery.services import is_ha, make_instances, parse_service
from haproxy_py.discovery.slices import parse_endpoints, parse_slice
from tests.discovery.things import make_endpoint, make_port, make_service, make_slice

ENDPOINTS = {
    "metadata": {"name": "a", "annotations": {"endpoints.kubernetes.io/over-capacity": "truncated"}},
    "subsets": [{"addresses": [{"ip": "10.0.0.1", "targetRef": {"kind": "Pod", "name": "p"}}], "ports": [make_port()]}],
}
SERVICE = make_service(ha="true", hosts="a.example.com", port="http")
SLICE = make_slice(make_endpoint("p", serving=True, terminating=False), created="2026-01-01T00:00:00Z")

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 10**30, 1.5, float("inf"), "", "x", "x" * 100_000, "\x00", "\ud800", "../../etc", "10.0.0.1",
    "9999-12-31T23:59:59-23:59", "::1%x", [], {}, [[]], [None], {"a": 1}, ["10.0.0.1"], {"name": "x", "ip": "y"},
)  # fmt: skip


def spoil(thing: Any, chance: random.Random) -> Any:
    """The same with something else at one place."""
    if chance.random() < 0.2 or not isinstance(thing, dict | list) or not thing:
        return copy.deepcopy(chance.choice(VALUES))
    if isinstance(thing, list):
        place = chance.randrange(len(thing))
        return [spoil(item, chance) if index == place else item for index, item in enumerate(thing)]
    key = chance.choice(list(thing))
    if chance.random() < 0.1:
        return {name: value for name, value in thing.items() if name != key}
    return thing | {key: spoil(thing[key], chance)}


@pytest.mark.parametrize("seed", range(20))
def test_any_slice_is_read_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        for good, parse in ((SLICE, parse_slice), (ENDPOINTS, parse_endpoints)):
            thing = spoil(spoil(good, chance), chance)
            if not isinstance(thing, dict):
                continue
            try:
                found = parse(thing)
            except MalformedError:
                continue
            merged = merge(found.slices, chance.choice(("", "http", "1880")), "ipv4", lambda host, port: False)
            for replica in merged.replicas:
                assert replica.name.isprintable()
                assert replica.name.isascii()
                assert len(replica.name) <= MAX_NAME
                assert 1 <= replica.port <= 65535


@pytest.mark.parametrize("seed", range(20))
def test_any_service_is_read(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        thing = spoil(spoil(SERVICE, chance), chance)
        if not isinstance(thing, dict):
            continue
        service = parse_service(thing)
        is_ha(service)
        selected = make_instances([service], InstancesFrom(), (), 10)
        for _, complaint in selected.complaints:
            assert len(complaint) < 1000, "a complaint stands in the log"


def test_json_from_the_wire_may_hold_lone_surrogates() -> None:
    thing = json.loads('{"metadata": {"name": "a", "annotations": {"haproxy-py.dev/hosts": "\\ud800"}}}')
    selected = make_instances([parse_service(thing)], InstancesFrom(), (), 10)
    assert selected.instances == ()
    selected.complaints[0][1].encode()

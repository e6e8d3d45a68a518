"""The gate and the admin routes of popular packages: each is denied, and nothing that dashboards need is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from haproxy_py import config
from haproxy_py.datapath.gate import Gate
from haproxy_py.node_red.admin_surface import PACKAGE_ROUTES, SHARED, build_gate_rules

REPORTED = Path(__file__).parents[1] / "gate_corpus" / "package_routes.txt"
"""Admin routes of popular packages that passed before there was a list: package, method, path."""

PACKAGES = json.loads(PACKAGE_ROUTES.read_text())

ANY_METHOD = {"all": "POST", "use": "GET"}


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate(build_gate_rules(config.Gate()))


def fill_in(path: str) -> bytes:
    return re.sub(r":\w+\??|\*|\{\}", "x", path).encode()


def test_every_reported_route_is_denied(gate: Gate) -> None:
    passed = []
    for line in REPORTED.read_text().splitlines():
        _, method, path = line.split()
        if path == "/uibuilder":  # a prefix of what users need too: what lies below it is listed one by one
            continue
        if gate.rule_for(fill_in(path), ANY_METHOD.get(method, method.upper()).encode()) is None:
            passed.append(line)
    assert passed == []


def test_every_listed_route_whose_first_segment_is_the_packages_own_is_denied(gate: Gate) -> None:
    passed = []
    for package in PACKAGES:
        for route in (*package["routes"], *package.get("also", ())):
            method, path = route.split(" ", 1)
            first, _, rest = path[1:].partition("/")
            fixed = re.fullmatch(r"[\w.@~-]+", first) and (first not in SHARED or re.match(r"[\w.@~-]+(/|$)", rest))
            method = ANY_METHOD.get(method, method.upper())
            if fixed and first != "resources" and gate.rule_for(fill_in(path), method.encode()) is None:
                passed.append(f"{package['name']} {route}")
    assert passed == []


@pytest.mark.parametrize(
    "path",
    [
        "/uibuilder",
        "/uibuilder/",
        "/uibuilder/vendor/socket.io/",
        "/uibuilder/vendor/socket.io/socket.io.js",
        "/uibuilder/vendor/vue/dist/vue.js",
        "/uibuilder/images/node-blue.ico",
        "/uib/index.html",
        "/worldmap",
        "/worldmap/",
        "/worldmap/leaflet/leaflet.js",
        "/worldmap/socket.io/",
        "/worldmap-tracks",
        "/ui/socket.io/",
        "/ui/js/app.js",
        "/dashboard/page1",
        "/dashboard/_setup",
        "/dashboard/assets/index.js",
        "/dashboard/socket.io/",
        "/hue",
        "/modbus/values",
        "/oauth2/token",
        "/test/1",
        "/api/config",
    ],
)
def test_what_dashboards_and_flows_need_may_pass(gate: Gate, path: str) -> None:
    assert gate.rule_for(path.encode(), b"GET") is None


def test_the_list_is_in_order_and_each_package_is_in_it_once() -> None:
    names = [package["name"] for package in PACKAGES]
    assert names == sorted(set(names))
    assert len(names) > 200


def test_every_entry_says_how_it_was_found() -> None:
    for package in PACKAGES:
        assert package["found"] in ("scan", "report"), package["name"]
        assert package["version"] or package["found"] == "report", package["name"]
        assert not package.get("also") or package["also_found"] in ("live", "report"), package["name"]
        for route in (*package["routes"], *package.get("also", ())):
            assert re.fullmatch(r"(all|use|get|post|put|patch|delete|head|options) [/{].*", route), route

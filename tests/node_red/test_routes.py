"""What flows declare, against the Express of a real Node-RED."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from haproxy_py import config
from haproxy_py.datapath.gate import Gate
from haproxy_py.node_red.admin_surface import build_gate_rules
from haproxy_py.node_red.routes import FlowsError, learn, read_flows
from haproxy_py.table import GateRules
from tests.node_red.replicas import find_node_red

PATTERNS = [
    "/", "/a", "/A/b/", "/a/:x", "/a/:x/", "/:x", "/:x/:y", "/a/:x?", "/a/:x?/b", "/:x?", "/a/*", "/*", "/a/*/b", "*", "/a*",
    "/a/:x.json", "/a/:x.:y", "/a/:x-:y", "/a/:x-:y?", "/a/b:x", "/ab?c", "/ab+c", "/a/?", "/a/:id(\\d+)", "/:id([0-9]+)/x",
    "/a/:x*", "/a.b/:x", "/a.b/c", "/a\\.b", "/a\\:b", "/a%20b", "/a/:x_y", "/a/:xy", "/a//b", "/a//", "/a~b-c_d",
    "/a/:x/*", "/:a?/:b?/:c?", "/a=b&c", "/a/:x@:y", "/x:a:b", "/a/:x:y", "a", "/:x-a", "/a/.:x", "/a/:x.tar.gz", "/a/:x.:y?",
    "/a/:x/b+", "/a/b?/c", "/a-:x-b", "/a/:b/:c*", "/*/a/:x",
]  # fmt: skip
UNCLEAR = [
    "/a(b|c)", "/(a)", "/a/:x(a|b)", "/a/:x([a-z]+)", "/[ab]", "/a{2}", "/^a", "/a$", "/a|b", "/a\\d", "/a++", "/a??", "/a/*?",
    "/ä", "/:x.a:y", "/a/:x--:y", "/:a?/:b?/:c?/:d?/:e?", "/a/?:x", "/" + "a" * 300, "${NAME}",
]  # fmt: skip
PIECES = ["a", "b", "A", "ab", "abc", "abbc", "1", "12", "1a", "x", "/", "/", "/", ".", "-", "_", "..", "%2f", "%20", ";", "@",
          ".json", "a.b", "=b&c", "a:b", "~b-c_d", "tar.gz", "*", ":x"]  # fmt: skip


def http_in(url: str, method: str = "get", **more: Any) -> dict[str, Any]:
    return {"id": "n", "type": "http in", "z": "t", "url": url, "method": method, **more}


def make_gate(flows: list[dict[str, Any]], node_root: str = "/", admin_root: str = "/admin") -> Gate:
    learnt = learn([{"id": "t", "type": "tab"}, *flows], node_root, admin_root)
    assert not learnt.unclear
    root = tuple(segment for segment in admin_root.split("/") if segment)
    return Gate(GateRules(root, frozenset(), frozenset(), (), (), strict=True, routes=learnt.routes))


def passes(gate: Gate, path: str, method: str = "GET", *, upgrades: bool = False) -> bool:
    return gate.strict_rule_for(path.encode(), method.encode(), upgrades) is None


def make_paths(source: random.Random) -> list[str]:
    paths = {"/" + "".join(source.choices(PIECES, k=source.randint(0, 7))) for _ in range(400)}
    paths |= {pattern.replace(":", "").replace("?", "") for pattern in PATTERNS if "\\" not in pattern}
    paths |= {path + "/" for path in list(paths)[:100]} | {"", "/a/x-y", "/a/x-y-z", "/a/1.2", "/a/1.2.3", "/a/x@y"}
    return sorted(paths)


@pytest.mark.parametrize("version", ["v5", "v4"])
def test_a_pattern_fits_what_it_fits_for_express(version: str) -> None:
    node, red = find_node_red(version)
    paths = make_paths(random.Random(11))
    pairs = [(pattern, path) for pattern in PATTERNS for path in paths]
    done = subprocess.run(
        [str(node), str(Path(__file__).with_name("express.js")), str(red.parent.parent)],
        input=json.dumps([(pattern if pattern[0] in "/" else f"/{pattern}", path) for pattern, path in pairs]),
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    gates = {pattern: make_gate([http_in(pattern)]) for pattern in PATTERNS}
    differences = []
    for (pattern, path), expected in zip(pairs, json.loads(done.stdout), strict=True):
        if ".." in path or path == "" or "//" in path:
            continue  # judged in all readings, too; below
        if passes(gates[pattern], path) != expected:
            differences.append((pattern, path, expected))
    assert not differences, (len(differences), differences[:30])
    assert len(pairs) > 10_000


@pytest.mark.parametrize("pattern", UNCLEAR)
def test_a_pattern_that_cannot_be_translated_is_named_and_opens_nothing(pattern: str) -> None:
    learnt = learn([http_in(pattern, id="n17")], "/", "/")
    assert learnt.routes == ()
    assert "n17" in learnt.unclear[0]


def test_a_path_below_another_root_fits_with_it_alone() -> None:
    gate = make_gate([http_in("/a/:x")], node_root="/api")
    assert passes(gate, "/api/a/1")
    assert passes(gate, "/API/a/1/")
    assert passes(gate, "/api//a/1")
    assert not passes(gate, "/a/1")
    assert not passes(gate, "/apix/a/1")
    assert not passes(gate, "/api///a/1")


def test_a_route_is_open_for_its_methods_alone() -> None:
    gate = make_gate([http_in("/a", "get"), http_in("/b", "post")])
    assert [method for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE") if passes(gate, "/a", method)] == [
        "GET", "HEAD", "OPTIONS",
    ]  # fmt: skip
    assert passes(gate, "/b", "POST")
    assert not passes(gate, "/b")


def test_no_path_that_goes_back_leaves_what_is_declared() -> None:
    gate = make_gate([http_in("/files/*"), http_in("/:x/y")])
    for path in ("/files/a/../b", "/files/a%2fb", "/files/%2e", "/files/a;b"):
        assert passes(gate, path), path
    for path in (
        "/files/../pkg",
        "/files/..%2fpkg",
        "/files/%2e%2e/pkg",
        "/files/%252e%252e%252fpkg",
        "/..%2fpkg/y/..%2f..",
    ):
        assert not passes(gate, path), path


def test_websocket_listeners_are_open_for_upgrades_alone_and_by_the_letter() -> None:
    listeners = [{"id": "w", "type": "websocket-listener", "path": path} for path in ("/ws/Echo", "wss://elsewhere/x")]
    gate = make_gate(listeners, node_root="/api")
    assert passes(gate, "/api/ws/Echo", upgrades=True)
    assert not passes(gate, "/api/ws/Echo")
    for path in ("/api/ws/echo", "/api/ws/Echo/", "/ws/Echo", "/x", "/api/ws/%45cho"):
        assert not passes(gate, path, upgrades=True), path
    assert not passes(make_gate([http_in("/a")]), "/a", upgrades=True)


@pytest.mark.parametrize("value", ["${PLACE}", "$(PLACE)", "${A}b}"])
@pytest.mark.parametrize(
    ("kind", "key"), [("http in", "url"), ("websocket-listener", "path"), ("uibuilder", "url"), ("worldmap", "path")]
)
def test_what_comes_from_the_environment_is_named_and_opens_nothing(kind: str, key: str, value: str) -> None:
    node = {"id": "n1", "type": kind, "z": "t", "method": "get", key: value}
    learnt = learn([{"id": "t", "type": "tab"}, node], "/", "/")
    assert learnt.routes == ()
    (said,) = learnt.unclear
    assert "n1" in said
    assert value in said


def test_what_is_disabled_declares_nothing() -> None:
    flows = [
        {"id": "off", "type": "tab", "disabled": True},
        {"id": "s", "type": "subflow"},
        {"id": "unused", "type": "subflow"},
        {"id": "inner", "type": "subflow"},
        http_in("/tab", z="off"),
        http_in("/node", d=True),
        http_in("/unused", z="unused"),
        http_in("/used", z="s"),
        http_in("/inner", z="inner"),
        {"id": "i1", "type": "subflow:s", "z": "t"},
        {"id": "i2", "type": "subflow:inner", "z": "s"},
        {"id": "i3", "type": "subflow:unused", "z": "t", "d": True},
        {"id": "i4", "type": "subflow:unused", "z": "off"},
        http_in("/on"),
    ]
    gate = make_gate(flows)
    assert [path for path in ("/tab", "/node", "/unused", "/used", "/inner", "/on") if passes(gate, path)] == [
        "/used", "/inner", "/on",
    ]  # fmt: skip


def test_dashboards_uibuilder_and_worldmap_have_what_they_need_and_no_admin_route() -> None:
    flows = [
        {"id": "d1", "type": "ui_base"},
        {"id": "d2", "type": "ui-base", "path": "/board"},
        {"id": "u", "type": "uibuilder", "url": "shop"},
        {"id": "w", "type": "worldmap", "path": ""},
    ]
    learnt = learn(flows, "/", "/")
    settings = config.Gate(mode="strict", flows=config.Flows(file="x"))
    gate = Gate(build_gate_rules(settings, learnt.routes))
    for path in ("/ui", "/ui/js/app.js", "/board", "/board/page1", "/board/_setup", "/shop/", "/shop/index.js", "/worldmap/a.css",
                 "/uibuilder/vendor/socket.io/socket.io.js", "/uibuilder/uibuilder.iife.min.js", "/uibuilder/images/a.png",
                 "/resources/node-red-x/widget.umd.js", "/dashboard/manifest.webmanifest"):  # fmt: skip
        assert passes(gate, path), path
    for path in (
        "/ui/socket.io/",
        "/board/socket.io/",
        "/uibuilder/vendor/socket.io/",
        "/worldmap/socket/1/2/websocket",
    ):
        assert passes(gate, path, upgrades=True), path
    for path in ("/ui/socket.io/", "/board/socket.io/", "/uibuilder/vendor/socket.io/"):
        assert passes(gate, path, "POST"), path
    for path in ("/uibuilder/admin/shop", "/uibuilder/instance/shop", "/uibuilder/uibindex", "/uibuilder/uibgetfile", "/flows",
                 "/",
                 "/board/_debug/datastore/1", "/uibuilder/techdocs/x", "/other"):  # fmt: skip
        assert not passes(gate, path), path


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b"[1]", b'"x"', b"[" * 100_000, b'{"flows": 1}', b"\xff"])
def test_what_are_no_flows_is_an_error(data: bytes) -> None:
    with pytest.raises(FlowsError):
        read_flows(data)


def test_nodes_that_are_not_as_expected_do_no_harm() -> None:
    odd = [None, 1, [], {}, "", "/x"]
    kinds = ["http in", "ui-base", "tab", 1, None, "subflow:"]
    flows = [
        {"id": i, "type": t, "url": u, "path": u, "method": m, "z": z}
        for i, t, u, m, z in itertools.product(odd, kinds, odd, ("get", None), odd)
    ]
    assert learn(flows, "/", "/").routes


def test_too_many_routes_are_an_error() -> None:
    with pytest.raises(FlowsError, match="more than"):
        learn([http_in(f"/r{number}") for number in range(5000)], "/", "/")


def test_a_hostile_path_is_matched_in_linear_time() -> None:
    gate = make_gate([http_in("/a/*/b/*/:x-:y/*/c")])
    started = time.perf_counter()
    for path in ("/a/" + "b/" * 4000, "/a/" + "x-" * 4000, "/a" + "/b/x-y" * 1300 + "/d"):
        assert not passes(gate, path)
    assert time.perf_counter() - started < 1.0

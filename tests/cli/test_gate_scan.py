"""`haproxy-py gate scan`: admin routes of installed packages are found, judged, and closed by what it prints."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from haproxy_py import config
from haproxy_py.cli import main
from haproxy_py.datapath.gate import Gate
from haproxy_py.node_red.admin_surface import build_gate_rules


def add_package(modules: Path, source: str, *, name: str = "node-red-contrib-x", file: str = "x.js") -> Path:
    folder = modules / name
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(json.dumps({"name": name, "version": "1.2.3", "node-red": {"nodes": {}}}))
    (folder / file).write_text(source)
    return folder


def scan(modules: Path, *more: str) -> int:
    return main(["gate", "scan", str(modules), *more])


def test_a_route_that_passes_is_told_with_its_package_and_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_package(tmp_path, "\nRED.httpAdmin.post('/secret-door/:id', RED.auth.needsPermission('x'), function () {})\n")
    assert scan(tmp_path) == 1
    out = capsys.readouterr().out
    assert "node-red-contrib-x 1.2.3:" in out
    assert "POST    /secret-door/:id  (x.js:2)" in out
    assert "httpAdminRoot: '/admin'" in out


def test_what_it_prints_is_configuration_that_closes_what_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_package(
        tmp_path,
        "RED.httpAdmin.post('/door/a/:id', f); RED.httpAdmin.get('/door', f); RED.httpAdmin.use('/modbus/new', f);",
    )
    assert scan(tmp_path) == 1
    out = capsys.readouterr().out
    printed = yaml.safe_load(out[out.index("gate:\n") : out.index("\n\nWhat closes all")])
    assert printed["gate"]["deny"] == ["/door", "/modbus/new"]
    gate = Gate(build_gate_rules(config.Gate(deny=tuple(printed["gate"]["deny"]))))
    for path in (b"/door/a/1", b"/door", b"/modbus/new/x"):
        assert gate.rule_for(path, b"POST") == "deny_list"


def test_routes_that_the_gate_knows_are_no_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_package(tmp_path, "RED.httpAdmin.get('/flow-debugger/x', f); RED.httpAdmin.get('/uibuilder/admin/:url', f)")
    assert scan(tmp_path) == 0
    assert "1 packages with 2 admin routes" in capsys.readouterr().out


def test_with_an_admin_root_of_its_own_nothing_passes(tmp_path: Path) -> None:
    add_package(tmp_path, "RED.httpAdmin.get('/door', f); RED.httpAdmin.get(somewhere(), f)")
    assert scan(tmp_path) == 1
    assert scan(tmp_path, "--admin-root", "/admin") == 0


@pytest.mark.parametrize(
    "source",
    [
        "const BASE = '/door/'; RED.httpAdmin.get(BASE + 'x', f)",
        "const base = `/door`; RED.httpAdmin.get(`${base}/x`, f)",
        "const app = RED.httpAdmin; app.get('/door/x', f)",
        "const { httpAdmin } = RED; httpAdmin.get('/door/x', f)",
        "const { httpAdmin: app } = RED; app.get('/door/x', f)",
        "this.RED.httpAdmin\n  .get(\n    // which one\n    '/door/x',\n f)",
        "RED.httpAdmin.get(['/flows/y', '/door/x'], f)",
        "RED.httpAdmin?.get('/door/x', f)",
        "RED.httpAdmin.route('/door/x').get(f)",
        "const router = express.Router(); router.get('/door/x', f); RED.httpAdmin.use(router)",
        'RED.httpAdmin.get("/door/" + id, f)',
        "RED.httpAdmin.get('/door/x', f)" + " " * 100_000,
    ],
)
def test_a_route_is_found_however_it_is_written(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_package(tmp_path, source)
    assert scan(tmp_path) == 1
    assert "    - /door" in capsys.readouterr().out


@pytest.mark.parametrize(
    "source",
    [
        "RED.httpAdmin.get(somewhere(), f)",
        "RED.httpAdmin.get('/' + name, f)",
        "RED.httpAdmin.get(/^\\/x/, f)",
        "RED.httpAdmin[method]('/door', f)",
        "register(RED.httpAdmin)",
        "RED.httpAdmin.get('/door",
        "RED.httpAdmin.get(",
    ],
)
def test_what_cannot_be_read_is_told_and_not_left_out(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_package(tmp_path, source)
    assert scan(tmp_path) == 1
    assert "(not readable)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "source", ["// RED.httpAdmin.get('/door', f)", "RED.httpNode.get('/door', f)", "RED.httpAdmin.use(express.json())"]
)
def test_what_registers_nothing_is_no_finding(source: str, tmp_path: Path) -> None:
    add_package(tmp_path, source)
    assert scan(tmp_path) == 0


def test_constants_of_another_source_of_the_package_are_known(tmp_path: Path) -> None:
    folder = add_package(tmp_path, "RED.httpAdmin.get(PREFIX + '/x', f)")
    (folder / "paths.js").write_text("const PREFIX = '/flow-debugger'\nexports.PREFIX = PREFIX\n")
    assert scan(tmp_path) == 0


def test_packages_without_a_node_red_entry_are_not_looked_at(tmp_path: Path) -> None:
    folder = add_package(tmp_path, "RED.httpAdmin.get('/door', f)")
    (folder / "package.json").write_text('{"name": "express"}')
    assert scan(tmp_path) == 0


def test_odd_files_are_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = add_package(tmp_path, "RED.httpAdmin.get('/flows', f)")
    (folder / "binary.js").write_bytes(bytes(range(256)) * 10)
    (folder / "folder.js").mkdir()
    os.mkfifo(folder / "pipe.js")
    for number, text in enumerate(["[]", "{", "[" * 100_000, '{"node-red": 1}', '{"node-red": {}, "name": 7}', "\xff"]):
        odd = tmp_path / f"odd{number}"
        odd.mkdir()
        (odd / "package.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "package.json").mkdir()
    assert scan(tmp_path) == 0
    assert "2 packages" in capsys.readouterr().out


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    outside = add_package(tmp_path / "outside", "RED.httpAdmin.get('/door', f)")
    inside = tmp_path / "node_modules"
    add_package(inside, "f()", name="node-red-contrib-y")
    (inside / "linked").symlink_to(outside)
    (inside / "node-red-contrib-y" / "linked.js").symlink_to(outside / "x.js")
    (inside / "round").symlink_to(inside)
    assert scan(inside) == 0


def test_a_source_too_large_to_read_is_told_if_it_could_hold_a_route(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = add_package(tmp_path, "f()")
    (folder / "bundle.js").write_text("/".ljust(5 << 20))
    assert scan(tmp_path) == 0
    (folder / "bundle.js").write_text("/".ljust(5 << 20) + "RED.httpAdmin.get('/door', f)")
    assert scan(tmp_path) == 1
    assert "not read: bundle.js: larger than 4 MiB" in capsys.readouterr().out


def test_text_of_a_package_cannot_write_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_package(tmp_path, "RED.httpAdmin.get('/door\x1b[2J\u202e', f)")
    assert scan(tmp_path) == 1
    assert capsys.readouterr().out.isascii()


@pytest.mark.parametrize("more", [["--admin-root", "admin"], ["--admin-root", "/a/../b"], ["/nowhere/at/all"]])
def test_wrong_usage_is_2(more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = [] if more[0].startswith("/") else [str(tmp_path)]
    assert main(["gate", "scan", *folder, *more]) == 2
    assert capsys.readouterr().err.startswith("haproxy-py gate scan: ")

"""The gate: its rules one by one, against a second implementation, and against what Node-RED was seen to do."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import unquote_to_bytes

import pytest

from haproxy_py import config
from haproxy_py.counters import GATE_RULES
from haproxy_py.datapath import gate
from haproxy_py.node_red.admin_surface import DENIED_NAMES, DENIED_PAIRS, build_gate_rules
from haproxy_py.table import GateRules
from tests.gate_corpus import ADMIN_ROOTS, read_rows


def make_gate(admin_root: str = "/", allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> gate.Gate:
    return gate.Gate(build_gate_rules(config.Gate(admin_root=admin_root, allow=allow, deny=deny)))


def test_gate_is_compiled() -> None:
    assert gate.__file__.endswith(".so")


# --- the rules ------------------------------------------------------------------------------------------------------

ROOT_VERDICTS = [
    # The editor's page: a reading without segments.
    (b"/", "editor_page"),
    (b"", "editor_page"),
    (b"//", "editor_page"),
    (b"/.", "editor_page"),
    (b"/..", "editor_page"),
    (b"/;x", "editor_page"),
    (b"/%2F", "editor_page"),
    (b"/%252f", "editor_page"),
    (b"/a/..", "editor_page"),
    (b"/api/hello/../../", "editor_page"),
    (b"\\", "editor_page"),
    # A first segment of the list, whatever follows it.
    (b"/flows", "admin_route"),
    (b"/flows/", "admin_route"),
    (b"/flows/state", "admin_route"),
    (b"/FlOwS", "admin_route"),
    (b"/flows/..", "admin_route"),
    (b"flows", "admin_route"),
    (b"//flows", "admin_route"),
    (b"/./flows", "admin_route"),
    (b"/../flows", "admin_route"),
    (b"/a/../flows", "admin_route"),
    (b"/a/b/../../flows", "admin_route"),
    (b"/%66lows", "admin_route"),
    (b"/%2566lows", "admin_route"),
    (b"/%46LOWS", "admin_route"),
    (b"/a/../%66lows", "admin_route"),
    (b"/a/%2e%2e/flows", "admin_route"),
    (b"/a/%252e%252E/flows", "admin_route"),
    (b"/a%2f..%2fflows", "admin_route"),
    (b"/flows%2fx", "admin_route"),
    # As `new URL` resolves: undecoded but for the dots, and back from empty segments.
    (b"/a%2fb/%2e%2e/comms", "admin_route"),
    (b"/a/../comms//../x", "admin_route"),
    (b"/a/.%2E/comms/;/../x", "admin_route"),
    (b"/flows;x", "admin_route"),
    (b"/flows%3bx", "admin_route"),
    (b"/;x/flows", "admin_route"),
    (b"/..;x/flows", "admin_route"),
    (b"/a/..;x/flows", "admin_route"),
    (b"/\\flows", "admin_route"),
    (b"/%5cflows", "admin_route"),
    (b"/flows\\x", "admin_route"),
    (b"/favicon.ico", "admin_route"),
    (b"/comms", "admin_route"),
    (b"/inject/inj%31", "admin_route"),
    (b"/wemoNG/notification", "admin_route"),
    # Pairs under a segment that belongs to users.
    (b"/dashboard/api", "dashboard_admin"),
    (b"/dashboard/api/v1/x/flows", "dashboard_admin"),
    (b"/Dashboard/CHART/x/clear", "dashboard_admin"),
    (b"/dashboard//api", "dashboard_admin"),
    (b"/dashboard/./api", "dashboard_admin"),
    (b"/dashboard/x/../api", "dashboard_admin"),
    (b"/dashboard%2fapi", "dashboard_admin"),
    (b"/uibuilder/instance/x", "dashboard_admin"),
    (b"/uibuilder/uib-sidebar", "dashboard_admin"),
    # A widget's data.
    (b"/dashboard/_debug", "dashboard_debug"),
    (b"/dashboard/_debug/anything", "dashboard_debug"),
    (b"/my/base/_debug/datastore/1", "dashboard_debug"),
    (b"/base/_DEBUG/StateStore", "dashboard_debug"),
    (b"/_debug/datastore", "dashboard_debug"),
    (b"/base/%5fdebug/datastore/1", "dashboard_debug"),
    (b"/base/_debug/_debug/datastore", "dashboard_debug"),
    (b"/x/dashboard/_debug", "dashboard_debug"),
    # What users need.
    (b"/api/hello", None),
    (b"/api/hello/", None),
    (b"/item/1", None),
    (b"/dashboard", None),
    (b"/dashboard/", None),
    (b"/dashboard/page1", None),
    (b"/dashboard/apix", None),
    (b"/dashboard/socket.io/", None),
    (b"/ui", None),
    (b"/ui/socket.io/", None),
    (b"/uibuilder/vendor/socket.io", None),
    (b"/.well-known/acme-challenge/x", None),
    (b"/flow-chart", None),
    (b"/flowsx", None),
    (b"/xflows", None),
    (b"/api/flows", None),
    (b"/re", None),
    (b"/red2", None),
    (b"/_debug", None),
    (b"/_debug/x", None),
    (b"/a_debug/datastore", None),
    (b"/_debugger/datastore", None),
    (b"/_debug/datastores", None),
    (b"/mydashboard/_debug", None),
    (b"/%zz", None),
    (b"/%", None),
    (b"/%6", None),
    (b"/%252566lows", None),  # three times encoded: nothing in front of Node-RED's routes decodes that often
    (b"*", None),
]


@pytest.mark.parametrize(("path", "rule"), ROOT_VERDICTS)
def test_verdict_with_admin_root_slash(path: bytes, rule: str | None) -> None:
    assert make_gate().rule_for(path, b"GET") == rule


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        (b"/admin", "admin_root"),
        (b"/admin/", "admin_root"),
        (b"/ADMIN/flows", "admin_root"),
        (b"/admin//flows", "admin_root"),
        (b"/admin/dashboard/api/v1", "admin_root"),
        (b"/%61dmin/comms", "admin_root"),
        (b"/x/../admin", "admin_root"),
        (b"/admin\\comms", "admin_root"),
        (b"/admin;x", "admin_root"),
        (b"/dashboard/_debug/datastore/1", "dashboard_debug"),
        (b"/", None),
        (b"/flows", None),
        (b"/red/x", None),
        (b"/dashboard/api", None),
        (b"/administrator", None),
        (b"/x/admin", None),
        (b"/admi", None),
    ],
)
def test_verdict_with_admin_root_below_slash(path: bytes, rule: str | None) -> None:
    assert make_gate("/admin").rule_for(path, b"GET") == rule


def test_admin_root_of_two_segments_needs_both() -> None:
    judge = make_gate("/Team/Edit").rule_for
    assert judge(b"/team/edit/flows", b"GET") == "admin_root"
    assert judge(b"/team//EDIT", b"GET") == "admin_root"
    assert judge(b"/team", b"GET") is None
    assert judge(b"/team/editor", b"GET") is None


@pytest.mark.parametrize("name", sorted(DENIED_NAMES))
def test_every_denied_name_is_denied_with_and_without_a_tail(name: str) -> None:
    judge = make_gate().rule_for
    assert judge(f"/{name}".encode(), b"GET") == "admin_route"
    assert judge(f"/{name.upper()}/x/y".encode(), b"GET") == "admin_route"
    assert judge(f"/{name}x".encode(), b"GET") is None
    assert judge(f"/x/{name}".encode(), b"GET") is None


@pytest.mark.parametrize(("first", "second"), sorted(DENIED_PAIRS))
def test_every_denied_pair_is_denied_and_its_first_half_is_not(first: str, second: str) -> None:
    judge = make_gate().rule_for
    assert judge(f"/{first}/{second}/x".encode(), b"GET") == "dashboard_admin"
    assert judge(f"/{first}/x/{second}".encode(), b"GET") is None
    assert judge(f"/{first}".encode(), b"GET") is None


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"POST", b"PATCH", b"NOTIFY", b"BREW"])
def test_methods_do_not_matter_to_the_built_in_rules(method: bytes) -> None:
    judge = make_gate().rule_for
    assert judge(b"/", method) == "editor_page"
    assert judge(b"/flows", method) == "admin_route"
    assert judge(b"/api/hello", method) is None


def test_names_of_any_length_are_told_apart_from_their_neighbours() -> None:
    for length in (1, 2, 31, 62, 63, 64, 65, 127, 128, 300):
        name = "n" * length
        rules = GateRules(admin_root=(), names=frozenset({name}), pairs=frozenset({(name, "p")}), allow=(), deny=())
        judge = gate.Gate(rules).rule_for
        assert judge(f"/{name}".encode(), b"GET") == "admin_route"
        assert judge(f"/{name}n".encode(), b"GET") is None
        assert judge(f"/x{name}/p".encode(), b"GET") is None


# --- allow and deny -------------------------------------------------------------------------------------------------


RESOURCES = ["/resources/pkg/a.js", "/resources/@scope/pkg/dist/a.umd.js", "/resources/pkg/a.js/", "/resources/a/b"]
"""Static files of packages, as Dashboard 2 loads the widgets of other packages (GATE-11)."""


@pytest.mark.parametrize("admin_root", ["/", "/admin", "/a/Long"])
@pytest.mark.parametrize("path", RESOURCES)
def test_static_files_of_packages_may_pass_with_any_admin_root(admin_root: str, path: str) -> None:
    judge = make_gate(admin_root).rule_for
    for method in (b"GET", b"HEAD"):
        assert judge((admin_root.rstrip("/") + path).encode(), method) is None


@pytest.mark.parametrize("admin_root", ["", "/admin"])
@pytest.mark.parametrize(
    "path",
    [
        "/resources",
        "/resources/",
        "/resources/pkg",
        "/resources/pkg/",
        "/Resources/pkg/a.js",
        "/resources//pkg/a.js",
        "/resources/pkg//a.js",
        "/resources/../flows/x",
        "/resources/pkg/../../flows",
        "/resources/pkg/..%2f..%2f..%2fflows",
        "/resources/pkg/%2e%2e/a",
        "/resources/%2e%2e/flows/x",
        "/resources/pkg/..;/flows",
        "/resources/pkg;x/a.js",
        "/resources/pkg/a\\..\\flows",
        "/resources/pkg/.env",
        "/./resources/pkg/a.js",
        "/%72esources/pkg/a.js",
        "/resourcesx/../flows/x/y",
    ],
)
def test_every_other_spelling_below_resources_stays_denied(admin_root: str, path: str) -> None:
    assert make_gate(admin_root or "/").rule_for((admin_root + path).encode(), b"GET") is not None


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"get", b"GETS"])
def test_static_files_of_packages_are_only_read(method: bytes) -> None:
    assert make_gate().rule_for(b"/resources/pkg/a.js", method) == "admin_route"


def test_deny_closes_static_files_of_packages_too() -> None:
    judge = make_gate(deny=("/resources/pkg",)).rule_for
    assert judge(b"/resources/pkg/a.js", b"GET") == "deny_list"
    assert judge(b"/resources/other/a.js", b"GET") is None


def test_resources_is_not_looked_for_behind_another_root() -> None:
    judge = make_gate("/admin").rule_for
    assert judge(b"/admin/x/resources/pkg/a.js", b"GET") == "admin_root"
    assert judge(b"/admin", b"GET") == "admin_root"


def test_allow_opens_exactly_one_spelling() -> None:
    judge = make_gate(allow=("/",)).rule_for
    assert judge(b"/", b"GET") is None
    for path in (b"//", b"", b"/.", b"/;", b"/a/..", b"/%2f"):
        assert judge(path, b"GET") == "editor_page"
    assert judge(b"/flows", b"GET") == "admin_route"


def test_allow_opens_its_methods_only() -> None:
    judge = make_gate(allow=("GET,HEAD /icons/a/b",)).rule_for
    assert judge(b"/icons/a/b", b"GET") is None
    assert judge(b"/icons/a/b", b"HEAD") is None
    assert judge(b"/icons/a/b", b"POST") == "admin_route"
    assert judge(b"/icons/a/B", b"GET") == "admin_route"
    assert judge(b"/icons/a/b/", b"GET") == "admin_route"
    assert judge(b"/icons/a/b/c", b"GET") == "admin_route"


def test_allow_entries_of_one_path_add_up() -> None:
    judge = make_gate(allow=("GET /", "POST /")).rule_for
    assert [judge(b"/", method) for method in (b"GET", b"POST", b"PUT")] == [None, None, "editor_page"]
    for allow in (("GET /", "/"), ("/", "GET /"), ("/", "GET /", "POST /")):
        assert make_gate(allow=allow).rule_for(b"/", b"PUT") is None


def test_allow_stands_above_deny() -> None:
    judge = make_gate(allow=("/secret/open",), deny=("/secret",)).rule_for
    assert judge(b"/secret/open", b"GET") is None
    assert judge(b"/secret/other", b"GET") == "deny_list"


def test_deny_closes_a_tree_in_every_reading() -> None:
    judge = make_gate(deny=("/Secret/Area",)).rule_for
    for path in (
        b"/secret/area", b"/SECRET/area/x", b"/secret//area", b"/x/../secret/area", b"/secret%2farea",
        b"/secret;v/area", b"/%2573ecret/area",
    ):  # fmt: skip
        assert judge(path, b"GET") == "deny_list", path
    for path in (b"/secret", b"/secret/areal", b"/x/secret/area"):
        assert judge(path, b"GET") is None, path


def test_deny_closes_its_methods_only() -> None:
    judge = make_gate(deny=("POST,PUT /item",)).rule_for
    assert judge(b"/item/1", b"POST") == "deny_list"
    assert judge(b"/item/1", b"PUT") == "deny_list"
    assert judge(b"/item/1", b"GET") is None


def test_deny_of_get_closes_head_too() -> None:
    judge = make_gate(deny=("GET /item",)).rule_for
    assert judge(b"/item/1", b"HEAD") == "deny_list"
    assert judge(b"/item/1", b"POST") is None


def test_deny_of_the_root_closes_everything() -> None:
    judge = make_gate("/admin", deny=("/",)).rule_for
    for path in (b"/", b"", b"/x", b"/x/y"):
        assert judge(path, b"GET") == "deny_list"


def test_deny_holds_with_any_admin_root() -> None:
    assert make_gate("/admin", deny=("/x",)).rule_for(b"/x/y", b"GET") == "deny_list"


@pytest.mark.parametrize("entry", ["/private", "/private/", "/private/*"])
def test_deny_with_a_star_closes_what_it_closes_without(entry: str) -> None:
    judge = make_gate(deny=(entry,)).rule_for
    for path in (
        b"/private",
        b"/PRIVATE/",
        b"/private/a",
        b"/a/../private/b",
        b"/%70rivate/x",
        b"/private;x/y",
        b"/private/a/b",
    ):
        assert judge(path, b"GET") == "deny_list", path
    for path in (b"/privately", b"/private-x/a", b"/a/private"):
        assert judge(path, b"GET") is None, path


def test_deny_of_a_star_alone_closes_everything() -> None:
    judge = make_gate("/admin", deny=("/*",)).rule_for
    for path in (b"/", b"/a", b"", b"/%2e"):
        assert judge(path, b"GET") == "deny_list", path


def test_deny_with_a_parameter_closes_any_one_segment_and_its_tree() -> None:
    judge = make_gate(deny=("/shop/:tenant/Audit", "DELETE /:any")).rule_for
    for path in (b"/shop/a/audit", b"/SHOP/b/AUDIT/x", b"/shop/a%2fb/../audit", b"/shop//a/audit", b"/shop/%00/audit"):
        assert judge(path, b"GET") == "deny_list", path
    for path in (b"/shop/audit", b"/shop/a/b/audit", b"/shop/a", b"/shop/a/auditor"):
        assert judge(path, b"GET") is None, path
    assert judge(b"/x/y", b"DELETE") == "deny_list"


def test_allow_with_a_star_opens_what_lies_below_and_not_the_path_itself() -> None:
    judge = make_gate(allow=("/library/*",)).rule_for
    for path in (b"/library/a", b"/library/a/b/", b"/library/my%20file.txt", b"/library/.hidden", b"/library/flows"):
        assert judge(path, b"GET") is None, path
    for path in (b"/library", b"/library/", b"/flows", b"/librarya/b", b"/Library/a", b"/x/library/a"):
        assert judge(path, b"GET") == (None if path.startswith((b"/x", b"/librarya")) else "admin_route"), path


def test_allow_with_a_parameter_opens_exactly_one_segment() -> None:
    judge = make_gate(allow=("GET /context/:tenant",)).rule_for
    assert judge(b"/context/a", b"GET") is None
    for path in (b"/context", b"/context/", b"/context/a/", b"/context/a/b"):
        assert judge(path, b"GET") == "admin_route", path
    assert judge(b"/context/a", b"POST") == "admin_route"


@pytest.mark.parametrize(
    "path",
    [
        b"/library/../flows",
        b"/library/./../flows",
        b"/library/a/../../flows",
        b"/library/%2e%2e/flows",
        b"/library/.%2E/flows",
        b"/library/%252e%252e/flows",
        b"/library/..%2fflows",
        b"/library/a%2fb",
        b"/library/a%5cb",
        b"/library\\a",
        b"/library/..\\flows",
        b"/library/a;b",
        b"/library/..;/flows",
        b"/library//a",
        b"/library/a//..//flows",
        b"/library/%00",
        b"/library/%zz",
        b"/library/%2",
        b"/library/\xff",
        b"/%6cibrary/a",
        b"/LIBRARY/a",
    ],
)
def test_allow_with_a_star_opens_no_path_that_has_another_reading(path: bytes) -> None:
    assert make_gate(allow=("/library/*",)).rule_for(path, b"GET") is not None


def test_wildcards_of_allow_open_nothing_that_their_literal_segments_do_not_name() -> None:
    judge = make_gate(allow=("/*", "/:any", "/:any/settings", "/dashboard/*", "/pub/*"), deny=("/pub/secret",)).rule_for
    for path in (b"/", b"/flows", b"/flows/settings", b"/dashboard/api/x", b"/dashboard/_debug/x", b"/pub/secret/a"):
        assert judge(path, b"GET") is not None, path
    assert make_gate(allow=("/pub/secret/*",), deny=("/:any/secret",)).rule_for(b"/pub/secret/a", b"GET") is None
    assert make_gate("/admin", allow=("/*",)).rule_for(b"/admin/flows", b"GET") == "admin_root"
    assert make_gate("/admin", allow=("/admin/icons/*",)).rule_for(b"/admin/icons/a", b"GET") is None


# --- a second implementation ----------------------------------------------------------------------------------------


def resolve_as_url(path: bytes) -> bytes:
    resolved: list[bytes] = []
    segments = re.split(rb"[/\\]", path.removeprefix(b"/") if not path.startswith(b"\\") else path[1:])
    for segment in segments:
        dots = re.sub(b"(?i)%2e", b".", segment)
        if dots == b"..":
            resolved = resolved[:-1]
        elif dots != b".":
            resolved.append(segment)
    if dots in (b".", b".."):
        resolved.append(b"")
    return b"/" + b"/".join(resolved)


def read_all_ways(path: bytes) -> Iterator[list[bytes]]:
    yield from read_six_ways(path)
    yield from read_six_ways(resolve_as_url(path))


def read_six_ways(path: bytes) -> Iterator[list[bytes]]:
    """The readings of GATE-2, written from the rule and for nothing but clarity."""
    for decoded in (path, unquote_to_bytes(path), unquote_to_bytes(unquote_to_bytes(path))):
        cut = [segment.split(b";")[0] for segment in re.split(rb"[/\\]", decoded.lower())]
        kept = [segment for segment in cut if segment not in (b"", b".")]
        yield kept
        resolved: list[bytes] = []
        for segment in kept:
            if segment != b"..":
                resolved.append(segment)
            elif resolved:
                resolved.pop()
        yield resolved


def expect_rule(rules: GateRules, path: bytes, method: str) -> str | None:
    if any(path == p.encode() and (not methods or method in methods) for methods, p in rules.allow):
        return None
    if is_resource(rules, path, method):
        rules = replace(rules, admin_root=("\0nowhere",))
    verdicts = (expect_of_reading(rules, [s.decode("latin-1") for s in r], method) for r in read_all_ways(path))
    return next(filter(None, verdicts), None)


def is_resource(rules: GateRules, path: bytes, method: str) -> bool:
    root = "".join(f"/{segment}" for segment in rules.admin_root).encode()
    plain = rb"(?i:%b)/resources(/[^/.;%%\\][^/;%%\\]*){2,}/?" % re.escape(root)
    return method in ("GET", "HEAD") and re.fullmatch(plain, path, re.DOTALL) is not None


def expect_of_reading(rules: GateRules, reading: list[str], method: str) -> str | None:
    root = list(rules.admin_root)
    if root and reading[: len(root)] == root:
        return "admin_root"
    if not root:
        if not reading:
            return "editor_page"
        if reading[0] in rules.names:
            return "admin_route"
        if tuple(reading[:2]) in rules.pairs:
            return "dashboard_admin"
    for before, middle, behind in zip(["", *reading], reading, [*reading[1:], ""], strict=False):
        if middle == "_debug" and (before == "dashboard" or behind in ("datastore", "statestore")):
            return "dashboard_debug"
    for methods, tree in rules.deny:
        asked = methods | {"HEAD"} if "GET" in methods else methods
        if reading[: len(tree)] == list(tree) and (not asked or method in asked):
            return "deny_list"
    return None


PIECES = (
    "/", "/", "/", "//", "\\", ".", "..", "/..", "/../", "/./", ";", ";x", "%", "%2", "%2f", "%2F", "%5c", "%2e",
    "%2e%2e", "%3b", "%25", "%252f", "%252e", "%25252f", "%00", "%zz", "\x00", "\xff", "?", "#", "a", "B", "_", "x",
    "flows", "FLOWS", "%66lows", "flow%73", "%2566lows", "flow", "red", "ui_base", "favicon.ico", "dashboard",
    "Dashboard", "d%61shboard", "api", "chart", "_debug", "%5fdebug", "_DEBUG", "datastore", "StateStore", "admin",
    "ADMIN", "edit", "secret", "area", "item", "hello", "resources", "/resources/", "/resources/a/b",
)  # fmt: skip


def make_path(source: random.Random) -> bytes:
    """Mostly pieces that mean something, put together without a plan; now and then octets without meaning."""
    text = "".join(source.choice(PIECES) for _ in range(source.randrange(12)))
    if source.random() < 0.1:
        text = "".join(chr(source.randrange(256)) for _ in range(source.randrange(30)))
    if source.random() < 0.8:
        text = "/" + text
    path = text.encode("latin-1")
    if source.random() < 0.1:
        path = b"".join(b"%%%02x" % octet if source.random() < 0.5 else bytes([octet]) for octet in path)
    return path


@pytest.mark.parametrize(
    "settings",
    [
        config.Gate(),
        config.Gate(admin_root="/admin"),
        config.Gate(admin_root="/admin/edit"),
        config.Gate(allow=("GET /", "/flows"), deny=("/secret/area", "POST /item", "GET /hello")),
        config.Gate(admin_root="/admin", deny=("/",)),
    ],
)
def test_verdict_equals_that_of_a_second_implementation(settings: config.Gate) -> None:
    rules = build_gate_rules(settings)
    judge = gate.Gate(rules).rule_for
    source = random.Random(20_261_122)
    seen = set()
    for _ in range(60_000):
        path, method = make_path(source), source.choice(("GET", "HEAD", "POST"))
        expected = expect_rule(rules, path, method)
        seen.add(expected)
        assert judge(path, method.encode()) == expected, (path, method)
    assert len(seen) >= 2  # the paths are not all of one kind


def test_every_prefix_is_judged_without_a_look_at_what_lies_behind_it() -> None:
    """In the data path a path is a pointer into a larger buffer: the octets behind it are not its own."""
    judge = make_gate().rule_for
    for path, _ in ROOT_VERDICTS:
        for end in range(len(path) + 1):
            assert judge(path, b"GET", end) == expect_rule(RULES, path[:end], "GET"), path[:end]


@pytest.mark.parametrize("size", [-1, 4])
def test_a_size_outside_the_path_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        make_gate().rule_for(b"/ab", b"GET", size)


RULES = build_gate_rules(config.Gate())

HOSTILE = [
    b"/" * 98_304,
    b"/a" * 49_152,
    b"/.." * 32_768,
    b"/a" * 32_768 + b"/.." * 10_922,
    b"/a/.." * 19_660,
    b"/%2e%2e" * 14_043,
    b"%25" * 32_768,
    b"%2525" * 19_660,
    b"%252f" * 19_660,
    b"/%" * 49_152,
    b";" * 98_304,
    b"/;" * 49_152,
    b"_" * 98_304,
    b"/_debug" * 14_043,
    b"/_debug/dashboard" * 5_782,
    b"\\" * 98_304,
    b"/" + b"a" * 98_303,
    b"/" + b"\xff" * 98_303,
]


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: f"{path[:12]!r}x{len(path)}")
def test_96_kib_of_hostile_path_are_judged_in_linear_time(path: bytes) -> None:
    judge = make_gate(deny=("/secret",)).rule_for
    assert judge(path, b"GET") == expect_rule(build_gate_rules(config.Gate(deny=("/secret",))), path, "GET")
    started = time.process_time()
    judge(path, b"GET")
    # Measured: 1.4 ms at worst. A quadratic walk would take seconds.
    assert time.process_time() - started < 0.2


@pytest.mark.parametrize("wrong", ["/", bytearray(b"/"), memoryview(b"/"), None])
def test_a_path_that_is_not_bytes_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError):
        make_gate().rule_for(wrong, b"GET")  # type: ignore[arg-type]


def test_every_rule_has_a_path_that_it_denies() -> None:
    rules = {rule for _, rule in ROOT_VERDICTS if rule}
    assert rules | {"admin_root", "deny_list", "not_declared"} == set(GATE_RULES)


# --- what Node-RED was seen to do -----------------------------------------------------------------------------------


def reduce_to_path(target: str) -> bytes | None:
    """The path of a target (GATE-1, REQ-16, REQ-17), or None if the rules of the message refuse it before the gate."""
    octets = target.encode("latin-1")
    path = octets.partition(b"?")[0]
    if re.search(rb"[\x00-\x20\x7f-\xff#]", octets) or b"\\" in path:  # REQ-22
        return None
    if path.startswith(b"/"):
        return path
    absolute = re.fullmatch(rb"https?://([^/@]+)(/.*)?", path, re.IGNORECASE)  # REQ-16
    if absolute is None or re.search(rb":(6553[6-9]|655[4-9].|65[6-9]..|6[6-9]...|[7-9]....)$", absolute[1]):
        return None
    return absolute[2] or b"/"


@pytest.mark.parametrize("name", ADMIN_ROOTS)
def test_every_spelling_that_reached_the_admin_side_is_denied(name: str) -> None:
    judge = make_gate(ADMIN_ROOTS[name]).rule_for
    asked, passed = 0, []
    for row in read_rows(name):
        if row.raw or not row.must_be_denied or (path := reduce_to_path(row.target)) is None:
            continue
        asked += 1
        if judge(path, row.method.encode()) is None:
            passed.append(row)
    assert asked > 600
    assert not passed, "\n".join(map(str, passed))


@pytest.mark.parametrize("name", ADMIN_ROOTS)
def test_no_spelling_that_a_user_route_answered_is_denied(name: str) -> None:
    judge = make_gate(ADMIN_ROOTS[name]).rule_for
    rows = [row for row in read_rows(name) if row.is_user_request]
    assert len(rows) == 15
    for row in rows:
        path = reduce_to_path(row.target)
        assert path is not None
        assert judge(path, row.method.encode()) is None, str(row)

"""What flows declare: the paths of a Node-RED's user side, learnt from its flows.

HTTP In nodes by method and pattern, WebSocket listeners, both dashboards, uibuilder and worldmap. Tabs and nodes that are
disabled declare nothing, nor does a subflow without an active instance. What other packages register on the user side, and
`httpStatic`, stands in no flow: that is what `gate.allow` is for.

A HTTP In node's url is an Express 4 pattern, which path-to-regexp 0.1 turns into a regular expression. What of it a gate can
match exactly in linear time is translated; the rest (most regular expressions) cannot be learnt, and is told by node. A
pattern becomes operations, two octets each: what octet of the path fits (`EXACT` and the others, with `LOOP` or `MAYBE`), and
the octet that it is compared with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from haproxy_py.table import DeclaredRoute

FOLDED, EXACT, IN_SEGMENT, IN_SEGMENT_BUT, ANY, DIGIT = range(6)
"""Fits: this letter in either case; this octet; any but a slash; any but a slash and this; any; a digit."""

LOOP = 8
"""Fits any number of octets, none as well."""

MAYBE = 16
"""Fits once or not at all."""

MAX_BYTES = 50 * 1024 * 1024
"""Of flows. Node-RED itself refuses a deploy of more than 5 MB unless it is told otherwise."""

MAX_ROUTES = 4096
"""Of an instance, variants included."""

MAX_OPERATIONS = 255
"""Of a pattern."""

MAX_VARIANTS = 16
"""Of a pattern: every optional part doubles them."""

_PARTS = re.compile(r"\\.|(/)?(\.)?:(\w+)(\(.*?\))?(\*)?(\?)?|[.*]|/\(", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9_~!@%&=,;'\"<>#:/ -]")
_ENVIRONMENT = re.compile(
    r"\$(?:\{\S+\}|\(\S+\))"
)  # as in Node-RED, which still knows its former spelling with round brackets
_METHODS = {
    "get": frozenset(("GET", "HEAD", "OPTIONS")),
    "post": frozenset(("POST", "OPTIONS")),
    "put": frozenset(("PUT", "OPTIONS")),
    "delete": frozenset(("DELETE", "OPTIONS")),
    "patch": frozenset(("PATCH", "OPTIONS")),
}  # Express answers OPTIONS of every route by itself
_READ = frozenset(("GET", "HEAD", "OPTIONS"))
_TALK = frozenset(("GET", "HEAD", "OPTIONS", "POST"))

Operations = tuple[tuple[int, int], ...]


class FlowsError(Exception):
    """These are no flows that anything can be learnt from. The text says why."""


class _UnclearError(Exception):
    """A pattern that cannot be translated. The text says what in it."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What flows declare, and what they declare in a way that cannot be learnt: one sentence for each node."""

    routes: tuple[DeclaredRoute, ...]
    unclear: tuple[str, ...]


def read_flows(data: bytes) -> list[dict[str, Any]]:
    """The nodes of a flows file, or of an answer of the admin API. Raises FlowsError."""
    if len(data) > MAX_BYTES:
        raise FlowsError(f"larger than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise FlowsError("not JSON") from None
    if isinstance(found, dict):
        found = found.get("flows")
    if not isinstance(found, list) or not all(isinstance(node, dict) for node in found):
        raise FlowsError("expected a list of nodes, as Node-RED saves it")
    return found


def learn(flows: list[dict[str, Any]], node_root: str, admin_root: str) -> Learnt:
    """What these flows declare below `httpNodeRoot`. Raises FlowsError where it is too much."""
    routes: dict[DeclaredRoute, None] = {}
    unclear: list[str] = []
    root = node_root.rstrip("/")
    for node in _list_active(flows):
        try:
            for route in _declare(node, root, admin_root.rstrip("/")):
                routes[route] = None
        except _UnclearError as error:
            said = " ".join(str(node.get(key, ""))[:80] for key in ("type", "id"))
            unclear.append(f"{said}: {error}")
        if len(routes) > MAX_ROUTES:
            raise FlowsError(f"more than {MAX_ROUTES} routes")
    return Learnt(tuple(routes), tuple(unclear))


def _list_active(flows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The nodes that Node-RED starts."""
    closed: set[str] = set()  # tabs that are disabled, and subflows without an active instance
    contents: dict[str, list[dict[str, Any]]] = {}
    for node in flows:
        if node.get("type") == "subflow" or (node.get("type") == "tab" and node.get("disabled") is True):
            closed.add(str(node.get("id")))
        contents.setdefault(str(node.get("z") or ""), []).append(node)
    left = [container for container in contents if container not in closed]
    seen = set(left)
    while left:
        for node in contents.get(left.pop(), ()):
            kind = node.get("type")
            if node.get("d") is True or not isinstance(kind, str):
                continue
            yield node
            used = kind.removeprefix("subflow:")
            if used != kind and used not in seen:
                seen.add(used)
                left.append(used)


def _declare(node: dict[str, Any], root: str, admin_root: str) -> Iterator[DeclaredRoute]:
    kind = node["type"]
    if kind == "http in":
        url, methods = node.get("url"), _METHODS.get(str(node.get("method")))
        if isinstance(url, str) and url and methods:
            _check_environment(url)
            for operations in translate(url if url.startswith("/") else f"/{url}"):
                mount = (*_spell(root), (FOLDED | MAYBE, ord("/"))) if root else ()
                yield _route(methods, mount + operations)
    elif kind == "websocket-listener":
        path = node.get("path")
        if isinstance(path, str) and path and not re.match(r"wss?://", path, re.IGNORECASE):
            _check_environment(path)
            yield _route(frozenset(("GET",)), _spell(f"{root}/{path.removeprefix('/')}", EXACT), upgrades=True)
    elif kind.startswith("ui_"):
        yield from _tree(f"{root}/ui", _READ)
        yield _socket(f"{root}/ui")
        yield _route(_READ, (*_spell(f"{admin_root}/resources/"), (ANY | LOOP, 0)))
    elif kind == "ui-base":
        base = _path_of(node, "path", "/dashboard")
        yield from _tree(f"{root}{base}", _READ)
        yield _route(_READ, _spell(f"{root}/dashboard/manifest.webmanifest"))
        yield _socket(f"{root}{base}")
        yield _route(_READ, (*_spell(f"{admin_root}/resources/"), (ANY | LOOP, 0)))
    elif kind == "uibuilder":
        url = node.get("url")
        if isinstance(url, str) and url:
            _check_environment(url)
            yield from _tree(f"{root}/{url.strip('/')}", frozenset())
            for shared in ("vendor", "common", "images", "utils"):
                yield _route(_READ, (*_spell(f"{root}/uibuilder/{shared}/"), (ANY | LOOP, 0)))
            segment = ((IN_SEGMENT, 0), (IN_SEGMENT | LOOP, 0))
            for ending in (".js", ".css", ".map"):
                yield _route(_READ, (*_spell(f"{root}/uibuilder/"), *segment, *_spell(ending)))
            yield _socket(f"{root}/uibuilder/vendor")
    elif kind == "worldmap":
        base = _path_of(node, "path", "/worldmap")
        yield from _tree(f"{root}{base}", _TALK)
        yield _route(frozenset(("GET",)), (*_spell(f"{root}{base}/", EXACT), (ANY | LOOP, 0)), upgrades=True)
        yield _route(_READ, _spell(f"{root}/-worldmap3d-key"))


def _path_of(node: dict[str, Any], key: str, default: str) -> str:
    """A path below the root, as a dashboard has it: one slash in front, none at the end."""
    path = node.get(key)
    if not isinstance(path, str) or not path:
        return default
    _check_environment(path)
    if "//" in path or not all("!" <= sign <= "~" and sign not in "?#%\\:*()[]{}+$^|" for sign in path):
        raise _UnclearError(f"its {key} {path[:80]!r} is no plain path")
    return "/" + path.strip("/") if path.strip("/") else ""


def _check_environment(text: str) -> None:
    if _ENVIRONMENT.fullmatch(text):
        raise _UnclearError(f"{text[:80]} comes from the replica's environment")


def _route(methods: frozenset[str], operations: Operations, *, upgrades: bool = False) -> DeclaredRoute:
    """For requests, or for upgrades alone."""
    if len(operations) > MAX_OPERATIONS:
        raise _UnclearError(f"longer than {MAX_OPERATIONS} signs")
    return DeclaredRoute(
        methods, bytes(octet for operation in operations for octet in operation), upgrades, not upgrades
    )


def _tree(base: str, methods: frozenset[str]) -> Iterator[DeclaredRoute]:
    """A path and everything below."""
    yield _route(methods, (*_spell(base), (FOLDED | MAYBE, ord("/"))))
    yield _route(methods, (*_spell(f"{base}/"), (ANY | LOOP, 0)))


def _socket(base: str) -> DeclaredRoute:
    """socket.io compares octets, before Express sees anything; polling needs no more than what `_TALK` has."""
    route = _route(_TALK, (*_spell(f"{base}/socket.io/", EXACT), (ANY | LOOP, 0)))
    return DeclaredRoute(_TALK, route.operations, upgrades=True, requests=True)


def _spell(text: str, fits: int = FOLDED) -> Operations:
    try:
        return tuple((fits, octet) for octet in (text if fits == EXACT else text.lower()).encode("ascii"))
    except UnicodeEncodeError:
        raise _UnclearError(f"{text[:80]!r} is not ASCII, so no request has this path") from None


def translate(pattern: str) -> list[Operations]:
    """What fits a pattern as path-to-regexp 0.1 reads it; several where parts are optional. Raises _UnclearError."""
    made = _Translation(pattern)
    last = 0  # where the part before ended
    at = 0  # `pos` of path-to-regexp, which is not the same behind a dot
    behind = ""  # its `backtrack`: what a parameter inside a segment may not run over
    for match in _PARTS.finditer(pattern):
        made.add_plain(pattern[last : match.start()])
        last = match.end()
        part = match[0]
        if part.startswith("\\"):
            if part[1].isalnum():
                raise made.refuse(part)
            made.add_literal(part[1])
            behind += part
            at += 2
            continue
        if part == ".":
            made.add_literal(".")
            behind += "\\."
            at += 1
            continue
        slash, dot, _name, capture, star, optional = match.groups()
        behind = "" if slash or dot else behind + pattern[at : match.start()]
        at = match.end()
        if part == "*":
            made.add([((ANY | LOOP, 0),)])
        elif part == "/(":
            raise made.refuse("(")
        else:
            body = _spell((dot or "") + (slash or "")) + _parameter(made, capture, dot, behind)
            choices = [body]
            if star:
                if dot:
                    raise made.refuse(part)
                choices.append((*body, *_spell("/"), (ANY, 0), (ANY | LOOP, 0)))
            if optional:
                choices.append(())
            made.add(choices)
        behind = ""
    made.add_plain(pattern[last:])
    return made.end()


def _parameter(made: _Translation, capture: str | None, dot: str | None, behind: str) -> Operations:
    if capture in (r"(\d+)", "([0-9]+)"):
        return ((DIGIT, 0), (DIGIT | LOOP, 0))
    if capture:
        raise made.refuse(capture)
    if dot:
        return ((IN_SEGMENT_BUT, ord(".")), (IN_SEGMENT_BUT | LOOP, ord(".")))
    if behind == "" or (behind.startswith("/") and all(_PLAIN.fullmatch(sign) for sign in behind)):
        return ((IN_SEGMENT, 0), (IN_SEGMENT | LOOP, 0))
    if len(behind) == 1 and _PLAIN.fullmatch(behind):
        other = ord(behind.lower())
        return ((IN_SEGMENT_BUT, other), (IN_SEGMENT_BUT | LOOP, other))
    raise made.refuse(f"a parameter behind {behind}")


class _Translation:
    """The variants of a pattern, as far as it has been read."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._variants: list[Operations] = [()]
        self._is_literal = False  # the last operation is one literal, which a sign behind it may change

    def refuse(self, what: str) -> _UnclearError:
        return _UnclearError(f"{what[:40]} in {self._pattern[:80]} cannot be translated")

    def add(self, choices: list[Operations]) -> None:
        self._variants = [variant + choice for variant in self._variants for choice in choices]
        self._is_literal = False
        if len(self._variants) > MAX_VARIANTS:
            raise _UnclearError(f"{self._pattern[:80]} has too many optional parts")

    def add_literal(self, sign: str) -> None:
        self.add([_spell(sign)])
        self._is_literal = True

    def add_plain(self, text: str) -> None:
        """Text that path-to-regexp takes over as it is: literal, but for what means something in a regular expression."""
        for sign in text:
            if sign in "?+" and self._is_literal:
                self._change_last(MAYBE if sign == "?" else LOOP)
            elif _PLAIN.fullmatch(sign):
                self.add_literal(sign)
            else:
                raise self.refuse(sign)

    def _change_last(self, flag: int) -> None:
        changed = []
        for variant in self._variants:
            fits, octet = variant[-1]
            changed.append(
                (*variant[:-1], (fits | MAYBE, octet)) if flag == MAYBE else (*variant, (fits | LOOP, octet))
            )
        self._variants = changed
        self._is_literal = False

    def end(self) -> list[Operations]:
        """With the one slash at the end that may be there or not."""
        if self._is_literal and self._variants[0][-1] == (FOLDED, ord("/")):
            self._change_last(MAYBE)
        else:
            self.add([((FOLDED | MAYBE, ord("/")),)])
        return self._variants

"""Which admin routes installed Node-RED packages register: read from their sources, without running any of it.

A package is a folder whose `package.json` has a `node-red` entry. In its sources every call of a router's method on
`httpAdmin`, or on a name that stands for it, is a route. The path is read where it is written in the call, or put
together from literals and constants of the package. The rest is told as not readable, never left out: a route that is
not known is a route that nobody closes.

The tree may hold anything. What is read is bounded in size, number and depth, and no symbolic link is followed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MANIFEST_LIMIT = 1 << 20  # octets; the largest package.json of a published package has about 100 KiB
SOURCE_LIMIT = 4 << 20  # octets of one source; bundles of editor pages are larger, and register nothing
DEPTH_LIMIT = 32  # folders within folders
FOLDER_LIMIT = 200_000  # a Node-RED with its dashboards has about 4,000
SOURCE_COUNT_LIMIT = 20_000  # sources of one package
ROUTE_LIMIT = 2_000  # routes of one package
ARGUMENT_LIMIT = 2_000  # characters of the expression that gives a path
CHUNK = 1 << 16

SUFFIXES = (".js", ".cjs", ".mjs", ".ts", ".cts", ".mts")
NOT_LOADED = frozenset(("node_modules", ".git", "test", "tests", "__tests__"))
"""Folders that hold other packages, or what Node-RED does not load."""

DYNAMIC = "{}"
"""Stands in a path for a part that only the running code knows."""

_METHODS = "get|post|put|patch|delete|head|options|all|use|route"
_CALL = rf"\s*\??\.\s*({_METHODS})\s*\("
_ADMIN_CALL = re.compile(rf"\bhttpAdmin{_CALL}")
_INDIRECT = re.compile(r"\bhttpAdmin\s*\[|[(,]\s*(?:[\w$]+\s*\.\s*)*httpAdmin\s*[,)]")
_ALIAS = re.compile(r"([\w$]+)\s*=\s*(?:[\w$]+\s*\.\s*)+httpAdmin\b(?!\s*[.(\[?])|\bhttpAdmin\s*:\s*([\w$]+)\s*[,}]")
_CONSTANT = re.compile(r"""\b(?:const|let|var)\s+([\w$]+)\s*=\s*('[^'\\\n]*'|"[^"\\\n]*"|`[^`\\$\n]*`)\s*(?=[;,\n])""")
_NAME = re.compile(r"[\w$]+(?:\s*\??\.\s*[\w$]+)*")
_SPACE = re.compile(r"(?:\s|/\*.*?\*/|//[^\n]*)+", re.DOTALL)
_LITERAL = {quote: re.compile(rf"{quote}((?:[^{quote}\\]|\\.)*){quote}", re.DOTALL) for quote in "'\"`"}
_PLACEHOLDER = re.compile(r"\$\{\s*([^}]*?)\s*\}")
_PARSERS = re.compile(r"(?:express|bodyParser)\b|cors\b|compression\b|cookieParser\b")
"""What is mounted without a path and answers nothing."""


@dataclass(frozen=True, slots=True)
class Route:
    """One call that registers a route."""

    method: str  # "get", …; "all" and "use" stand for every method
    path: str  # as Express takes it, with DYNAMIC for what cannot be read; empty: nothing of it can be
    place: str  # file within the package, and line

    @property
    def segments(self) -> tuple[str, ...]:
        """The segments before the first one that is not fixed."""
        fixed: list[str] = []
        for segment in self.path.split("/")[1:]:
            if not re.fullmatch(r"[\w.@~-]+", segment):
                break
            fixed.append(segment)
        return tuple(fixed)

    @property
    def is_readable(self) -> bool:
        """Whether its first segment is fixed, so that a rule can close it."""
        return bool(self.segments)


@dataclass(slots=True)
class Package:
    """One package, and what it registers."""

    name: str
    version: str
    folder: Path
    routes: list[Route] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)  # what could not be read, and why


@dataclass(slots=True)
class Scan:
    """What was found below one folder."""

    packages: list[Package] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def scan(root: Path) -> Scan:
    """The packages below a folder, by name. Raises OSError only if the folder itself cannot be listed."""
    os.scandir(root).close()
    found = Scan()
    for folder in _walk(root, frozenset((".git",)), found.unread):
        package = _read_manifest(folder)
        if package is not None:
            _scan_package(package)
            found.packages.append(package)
    found.packages.sort(key=lambda package: (package.name, package.version, str(package.folder)))
    return found


def find_routes(text: str, place: str, constants: Mapping[str, str] | None = None) -> list[Route]:
    """The routes that one source registers; constants of other sources of the package may be given."""
    known = dict(constants or {}) | find_constants(text)
    calls = [(match.start(), match.end(), match[1]) for match in _ADMIN_CALL.finditer(text)]
    for alias in sorted({match[1] or match[2] for match in _ALIAS.finditer(text)} - {"httpAdmin"}):
        calls += _find_calls(text, alias)
    routes: list[Route] = []
    mounted: set[str] = set()
    while calls:
        start, end, method = calls.pop()
        if _is_comment(text, start):
            continue
        at = f"{place}:{text.count(chr(10), 0, start) + 1}"
        argument = _SPACE.sub("", text[end : end + ARGUMENT_LIMIT], count=1) if _SPACE.match(text, end) else ""
        argument = argument or text[end : end + ARGUMENT_LIMIT]
        paths = _read_paths(argument, known)
        if method == "use" and len(paths) == 1 and not _normalize(paths[0]):
            if _PARSERS.match(argument):
                continue
            # A router mounted at the root: its own calls are the routes, if they stand in this source.
            router = _NAME.match(argument)
            own = _find_calls(text, router[0]) if router and router[0] not in mounted else []
            if router and own:
                mounted.add(router[0])
                calls += own
                continue
        for path in paths:
            routes.append(Route("all" if method == "route" else method, _normalize(path), at))
            if len(routes) >= ROUTE_LIMIT:
                return routes
    for match in _INDIRECT.finditer(text):
        if not _is_comment(text, match.start()):
            routes.append(Route("all", "", f"{place}:{text.count(chr(10), 0, match.start()) + 1}"))
    return routes[:ROUTE_LIMIT]


def find_constants(text: str) -> dict[str, str]:
    """Names that are bound to one string literal in a source."""
    return {match[1]: match[2][1:-1] for match in _CONSTANT.finditer(text)}


def _walk(root: Path, skipped: frozenset[str], unread: list[str]) -> Iterator[Path]:
    """A folder and those below it, not through symbolic links."""
    waiting = [(root, 0)]
    visited = 0
    while waiting:
        folder, depth = waiting.pop()
        visited += 1
        if visited > FOLDER_LIMIT:
            unread.append(f"{root}: more than {FOLDER_LIMIT} folders")
            return
        yield folder
        if depth >= DEPTH_LIMIT:
            unread.append(f"{folder}: more than {DEPTH_LIMIT} folders deep")
            continue
        try:
            with os.scandir(folder) as entries:
                below = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            unread.append(f"{folder}: {error.strerror}")
            continue
        waiting += [(each, depth + 1) for each in below if each.name not in skipped]


def _read_manifest(folder: Path) -> Package | None:
    path = folder / "package.json"
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MANIFEST_LIMIT:
            return None
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("node-red"), dict):
        return None
    name, version = manifest.get("name"), manifest.get("version")
    return Package(
        name=name if isinstance(name, str) and name else folder.name,
        version=version if isinstance(version, str) else "",
        folder=folder,
    )


def _scan_package(package: Package) -> None:
    sources: list[tuple[str, str]] = []
    number = 0
    for folder in _walk(package.folder, NOT_LOADED, package.unread):
        if folder != package.folder and _read_manifest(folder) is not None:
            continue
        for path in _list_sources(folder):
            number += 1
            if number > SOURCE_COUNT_LIMIT:
                package.unread.append(f"more than {SOURCE_COUNT_LIMIT} sources")
                break
            place = str(path.relative_to(package.folder))
            try:
                if path.stat().st_size > SOURCE_LIMIT:
                    if _mentions_admin(path):
                        package.unread.append(f"{place}: larger than {SOURCE_LIMIT >> 20} MiB")
                    continue
                text = path.read_bytes().decode(errors="replace")
            except OSError as error:
                package.unread.append(f"{place}: {error.strerror}")
                continue
            sources.append((place, text if "httpAdmin" in text else _keep_constants(text)))
    constants: dict[str, str] = {}
    for _, text in sources:
        constants |= find_constants(text)
    routes: dict[tuple[str, str], Route] = {}
    for place, text in sources:
        if "httpAdmin" not in text:
            continue
        for route in find_routes(text, place, constants):
            routes.setdefault((route.method, route.path or route.place), route)
    package.routes = sorted(routes.values(), key=lambda route: (route.path, route.method, route.place))[:ROUTE_LIMIT]


def _keep_constants(text: str) -> str:
    """Of a source that registers nothing only what others may name: memory stays small whatever a package holds."""
    return "\n".join(match[0] + ";" for match in _CONSTANT.finditer(text) if "/" in match[2])


def _list_sources(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if entry.name.endswith(SUFFIXES)
                and not re.search(r"[._-](test|spec)\.\w+$|\.d\.\w+$", entry.name)
                and entry.is_file(follow_symlinks=False)
            )
    except OSError:
        return []


def _mentions_admin(path: Path) -> bool:
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            if b"httpAdmin" in tail + chunk:
                return True
            tail = chunk[-8:]
    return False


def _find_calls(text: str, name: str) -> list[tuple[int, int, str]]:
    pattern = re.compile(rf"(?<![\w$]){re.escape(name)}{_CALL}")
    return [(match.start(), match.end(), match[1]) for match in pattern.finditer(text)]


def _is_comment(text: str, at: int) -> bool:
    line = text[text.rfind("\n", 0, at) + 1 : at].lstrip()
    return line.startswith(("//", "*", "/*"))


def _normalize(path: str) -> str:
    """A path with the slash that Express adds; empty if nothing of it is known."""
    if path.strip(f"{DYNAMIC}/") == "" and DYNAMIC in path:
        return ""
    path = path.replace(DYNAMIC * 2, DYNAMIC)
    return path if path.startswith(("/", DYNAMIC)) else f"/{path}"


def _read_paths(text: str, constants: Mapping[str, str]) -> list[str]:
    """The paths that a call's first argument gives: one, or those of an array."""
    if not text.startswith("["):
        return [_read_expression(text, 0, constants)[0]]
    paths: list[str] = []
    at = 1
    while at < len(text) and text[at] != "]":
        path, at = _read_expression(text, at, constants)
        paths.append(path)
        if at >= len(text) or text[at] not in ",]":
            return [*paths, DYNAMIC]
        at += text[at] == ","
        at = _skip_space(text, at)
    return paths or [DYNAMIC]


def _read_expression(text: str, at: int, constants: Mapping[str, str]) -> tuple[str, int]:
    """The value of strings and constants that are put together, and where it ends."""
    value = ""
    while True:
        at = _skip_space(text, at)
        quote = text[at : at + 1]
        if quote in _LITERAL and (literal := _LITERAL[quote].match(text, at)):
            piece = literal[1]
            if quote == "`":
                piece = _PLACEHOLDER.sub(lambda match: constants.get(match[1], DYNAMIC), piece)
            value += re.sub(r"\\(.)", r"\1", piece)
            at = literal.end()
        elif name := _NAME.match(text, at):
            value += constants.get(name[0], DYNAMIC)
            at = name.end()
        else:
            return value + DYNAMIC, at
        at = _skip_space(text, at)
        if text[at : at + 1] == "+":
            at += 1
            continue
        return (value, at) if text[at : at + 1] in (",", ")", "]") else (value + DYNAMIC, at)


def _skip_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at

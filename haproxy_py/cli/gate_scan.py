"""`haproxy-py gate scan`: which admin routes of installed packages pass the built-in gate, and what closes them."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from haproxy_py.config import Gate
from haproxy_py.config_values import UnacceptableError, admin_root

if TYPE_CHECKING:
    from haproxy_py.datapath.gate import Gate as CompiledGate
    from haproxy_py.node_red.package_scan import Package, Route, Scan

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DESCRIPTION = """\
Find the admin routes that installed Node-RED packages register, say which of them the gate lets pass with its built-in
rules, and print the configuration that closes them. Packages are read, not run. NODE_MODULES is the node_modules of
Node-RED's user directory, usually ~/.node-red/node_modules."""

EXAMPLES = """\
examples:
  haproxy-py gate scan ~/.node-red/node_modules
  haproxy-py gate scan ~/.node-red/node_modules --admin-root /admin    if settings.js has httpAdminRoot: '/admin'

exit codes: 0 nothing passes; 1 something passes, or could not be read; 2 wrong usage
"""

METHODS = {"all": ("GET", "POST"), "use": ("GET", "POST"), "head": ("GET",)}
"""What is asked for a route that is not of one method."""


def add_parser(commands: Commands) -> None:
    """Say how the command is called."""
    parser = commands.add_parser(
        "scan",
        help="find admin routes of installed packages that pass",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="NODE_MODULES", type=Path, help="the folder with the packages")
    parser.add_argument("--admin-root", metavar="PATH", default="/", help="Node-RED's httpAdminRoot (default /)")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print what passes, and the configuration that closes it."""
    from haproxy_py.node_red.package_scan import scan

    try:
        root = admin_root(args.admin_root)
        found = scan(args.folder)
    except UnacceptableError as error:
        print(f"haproxy-py gate scan: --admin-root: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"haproxy-py gate scan: {args.folder}: {error.strerror}", file=sys.stderr)
        return 2
    return report(found, root)


def report(found: Scan, root: str) -> int:
    """Print a scan's findings for an admin root; give the exit code."""
    if not found.packages:
        print("No Node-RED package there: no package.json with a node-red entry.")
    gate = _make_gate(root)
    findings = False
    entries: dict[str, str] = {}
    for package in found.packages:
        passing = [route for route in package.routes if may_pass(gate, root, route)]
        unread = package.unread if root == "/" else []
        if not passing and not unread:
            continue
        findings = True
        print(f"{_show(package)}:")
        for route in passing:
            print(f"  passes: {route.method.upper():7} {_printable(route.path) or '(not readable)'}  ({route.place})")
            if entry := spell_entry(route):
                entries.setdefault(entry, package.name)
        for text in unread:
            print(f"  not read: {_printable(text)}")
    for text in found.unread:
        findings = True
        print(f"not read: {_printable(text)}")
    routes = sum(len(package.routes) for package in found.packages)
    print(f"{len(found.packages)} packages with {routes} admin routes were read.")
    if not findings:
        print(f"None of these routes passes the gate with admin_root: {root}")
        return 0
    _print_advice(entries)
    return 1


def may_pass(gate: CompiledGate, root: str, route: Route) -> bool:
    """Whether the gate lets a request for a route pass. A route that cannot be read could be anything."""
    if not route.is_readable:
        return root == "/"
    path = sample_path(route.path)
    for method in METHODS.get(route.method, (route.method.upper(),)):
        if gate.rule_for((root.rstrip("/") + path).encode(), method.encode()) is None:
            # What Node-RED serves to everybody from `resources` a package may add nothing to: it answers first.
            return route.segments[0] != "resources"
    return False


def sample_path(path: str) -> str:
    """A path that a route's pattern matches: parameters and wildcards are filled in, what is optional is left out."""
    segments = []
    for segment in path.split("/")[1:]:
        if segment.endswith("?") and segment.startswith(":"):
            continue
        segments.append(re.sub(r"\{\}|:\w+(\([^)]*\))?|\*|\([^)]*\)", "x", segment).rstrip("?+"))
    return "/" + "/".join(segments)


def spell_entry(route: Route) -> str | None:
    """The entry of `gate.deny` that closes a route; None if no path can: its first segment is not fixed, or is
    where a package's users are as well."""
    from haproxy_py.node_red.admin_surface import SHARED

    segments = route.segments
    if not segments or (len(segments) == 1 and segments[0].lower() in SHARED):
        return None
    return "/" + "/".join(segments)


def drop_covered(entries: dict[str, str]) -> dict[str, str]:
    """The entries without those below another one."""
    return {
        entry: package
        for entry, package in sorted(entries.items())
        if not any(entry.startswith(f"{other}/") for other in entries)
    }


def _print_advice(entries: dict[str, str]) -> None:
    if entries:
        print("\nThis closes what a path can close. Entries that your flows serve themselves need another way:\n")
        print("gate:\n  deny:")
        for entry, package in drop_covered(entries).items():
            print(f"    - {entry}  # {_printable(package)}")
    print(
        "\nWhat closes all of it, also what could not be read, and what is installed later: httpAdminRoot: '/admin' in\n"
        "Node-RED's settings.js together with gate.admin_root: /admin here."
    )


def _make_gate(root: str) -> CompiledGate:
    from haproxy_py.datapath.gate import Gate as CompiledGate
    from haproxy_py.node_red.admin_surface import build_gate_rules

    return CompiledGate(build_gate_rules(Gate(admin_root=root)))


def _show(package: Package) -> str:
    return _printable(f"{package.name} {package.version}".rstrip())


def _printable(text: str) -> str:
    """Text of a package, which may hold anything, as one line for a terminal."""
    return "".join(sign if sign.isprintable() and sign.isascii() else "?" for sign in text)[:200]

"""Renews `haproxy_py/node_red/package_routes.json`: the admin routes of popular Node-RED packages.

    python tests/gate_corpus/renew_package_routes.py FOLDER…            scan packages that are already there
    python tests/gate_corpus/renew_package_routes.py --install NAME…    npm installs these first, into a temporary folder
    python tests/gate_corpus/renew_package_routes.py --install          the same for every package that the file names

Only facts are kept: names, versions, methods and paths. No package's install script runs, and nothing of it is started.
What was seen in a running router, or reported by somebody, stays until it is taken out by hand: a scan can miss it.
Prints what has changed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from haproxy_py.node_red.package_scan import Package, scan

LIST = Path(__file__).resolve().parents[2] / "haproxy_py" / "node_red" / "package_routes.json"
BATCH = 20  # packages that are installed together; a batch that npm refuses is left out and named
INSTALL_TIMEOUT = 600.0  # seconds for one batch


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="FOLDER|NAME")
    parser.add_argument("--install", action="store_true", help="what is given are names of npm packages")
    args = parser.parse_args(argv)
    known = {entry["name"]: entry for entry in json.loads(LIST.read_text())} if LIST.exists() else {}
    if args.install:
        for package in install_and_scan(args.what or sorted(known)):
            merge(known, package)
    else:
        for folder in args.what:
            for package in scan(Path(folder)).packages:
                merge(known, package)
    write(known)
    return 0


def install_and_scan(names: Sequence[str]) -> Iterator[Package]:
    """The packages of these names, each batch in a folder that is gone afterwards."""
    wanted = set(names)
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        with tempfile.TemporaryDirectory(prefix="package-routes-") as folder:
            command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder, *batch]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=INSTALL_TIMEOUT)
            if done.returncode != 0:
                print(f"npm did not install {' '.join(batch)}:\n{done.stderr.decode()[-500:]}", file=sys.stderr)
                continue
            yield from (package for package in scan(Path(folder)).packages if package.name in wanted)


def merge(known: dict[str, dict[str, Any]], package: Package) -> None:
    """Put what was found in place of what an earlier scan found."""
    routes = sorted({f"{route.method} {route.path}" for route in package.routes if route.is_readable})
    unread = sum(not route.is_readable for route in package.routes)
    before = known.get(package.name, {"routes": [], "also": []})
    entry: dict[str, Any] = {"name": package.name, "version": package.version, "found": "scan", "routes": routes}
    if unread:
        entry["unread"] = unread
    # Seen otherwise, and not by this scan.
    also = [each for each in before.get("also", []) if each not in routes]
    if also:
        entry |= {"also": also, "also_found": before["also_found"]}
    for change, each in [("+", set(routes) - set(before["routes"])), ("-", set(before["routes"]) - set(routes))]:
        for route in sorted(each):
            print(f"{change} {package.name} {package.version} {route}")
    known[package.name] = entry


def write(known: dict[str, dict[str, Any]]) -> None:
    """One package per line, so that a change can be read."""
    lines = [json.dumps(known[name], ensure_ascii=False) for name in sorted(known)]
    LIST.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

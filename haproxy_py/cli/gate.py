"""`haproxy-py gate`: what the gate of a configuration makes of a request."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from haproxy_py.cli import gate_scan
from haproxy_py.config import Config, Gate
from haproxy_py.config_file import ConfigError, load
from haproxy_py.config_values import METHODS, UnacceptableError, host_name, quote
from haproxy_py.node_red.routes import FlowsError, learn, read_flows

if TYPE_CHECKING:
    from haproxy_py.cli import Subparsers

TEST_DESCRIPTION = """\
Say whether the gate lets a request pass to the replicas, and by which rule it does not. Asks nobody: only the file is
read, and what it names."""

TEST_EXAMPLES = """\
examples:
  haproxy-py gate test haproxy-py.yaml GET /flows
  haproxy-py gate test haproxy-py.yaml POST '/api/orders?x=1' --instance shop
  haproxy-py gate test haproxy-py.yaml GET http://shop.example.com/ui/

exit codes: 0 it passes; 1 it is denied; 2 wrong usage or configuration
"""

_TARGET = re.compile(r"[!-~]+")


_UNKNOWN = "routes_unknown"
"""No rule: what the flows declare is not known here."""


class _UsageError(Exception):
    """What was asked cannot be answered. The text says why."""


def add_parser(subparsers: Subparsers) -> None:
    """Say how the command is called."""
    parser = subparsers.add_parser("gate", help="what the gate lets pass", allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    test = commands.add_parser(
        "test",
        help="whether a request may pass, and by which rule it may not",
        description=TEST_DESCRIPTION,
        epilog=TEST_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    test.add_argument("file", metavar="FILE", type=Path, help="the configuration file (YAML)")
    test.add_argument("method", metavar="METHOD", help="of the request, in capitals: GET, POST, …")
    test.add_argument("target", metavar="TARGET", help="its path as it is sent, or a whole http:// address")
    test.add_argument("--instance", metavar="NAME", help="whose gate; needed if several have the host")
    test.add_argument("--host", metavar="HOST", help="the Host of the request, which says the instance")
    test.add_argument("--flows", metavar="FILE", type=Path, help="flows for strict mode, in place of gate.flows")
    test.add_argument("--websocket", action="store_true", help="the request is a WebSocket handshake")
    test.set_defaults(command=run_test)
    gate_scan.add_parser(commands)


def run_test(args: argparse.Namespace) -> int:
    """Print the verdict."""
    try:
        config = load(args.file)
        if args.method not in METHODS:
            raise _UsageError(f"unknown method {quote(args.method)}: methods are written in capitals, like GET")
        host, path = _split_target(args.target)
        name, ha, gate = _find_gate(config, args.instance, args.host or host)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except _UsageError as error:
        print(f"haproxy-py gate test: {error}", file=sys.stderr)
        return 2
    try:
        rule = judge(gate, path, args.method, args.flows, upgrades=args.websocket)
    except (OSError, FlowsError) as error:
        print(f"haproxy-py gate test: the flows cannot be read: {error}", file=sys.stderr)
        return 2
    if rule is None:
        print(f"passes: {args.method} {path} of {name}")
        return 0
    if rule == _UNKNOWN:
        print(
            "haproxy-py gate test: strict mode asks the admin API; name a file of the flows by --flows", file=sys.stderr
        )
        return 2
    if ha is False and rule != "bad_target":
        print(f"passes: {args.method} {path} of {name}, which is not in HA mode; in HA mode: denied by {rule}")
        return 0
    mode = " while it is in HA mode" if ha is None and rule != "bad_target" else ""
    print(f"denied by {rule}: {args.method} {path} of {name}{mode}")
    return 1


def judge(gate: Gate, path: str, method: str, flows: Path | None = None, *, upgrades: bool = False) -> str | None:
    """The rule that denies a path, without its query; None if it passes. `bad_target`: no gate is even asked.

    Raises OSError or FlowsError where the flows of strict mode cannot be read.
    """
    from haproxy_py.datapath.gate import Gate as CompiledGate
    from haproxy_py.node_red.admin_surface import build_gate_rules

    if not _TARGET.fullmatch(path) or "\\" in path or path.startswith("//"):
        return "bad_target"
    routes = None
    if gate.mode == "strict":
        file = flows or (Path(gate.flows.file) if gate.flows.file else None)
        if file is None:
            return _UNKNOWN
        routes = learn(read_flows(file.read_bytes()), gate.node_root, gate.admin_root).routes
    compiled = CompiledGate(build_gate_rules(gate, routes))
    rule: str | None = compiled.strict_rule_for(path.encode("ascii"), method.encode("ascii"), upgrades)
    return rule


def _split_target(target: str) -> tuple[str | None, str]:
    """Host, if the target names one, and path without the query."""
    if "#" in target:
        raise _UsageError(f"a target has no fragment: leave out what begins at '#' in {quote(target)}")
    if target.startswith("/"):
        return None, target.partition("?")[0]
    try:
        parts = urlsplit(target)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise _UsageError(f"expected a path like /flows or an address like http://HOST/flows, found {quote(target)}")
    path = target.partition("://")[2].partition("?")[0].partition("/")[2]
    return f"[{host}]" if ":" in host else host, f"/{path}"


def _find_gate(config: Config, name: str | None, host: str | None) -> tuple[str, bool | None, Gate]:
    """Whose gate it is: the instance in words, its HA mode, and its settings."""
    named = [instance for instance in config.instances if instance.name == name or name is None]
    if host is not None and name is None:
        try:
            wanted = host_name(host)
        except UnacceptableError as error:
            raise _UsageError(str(error)) from None
        named = [instance for instance in named if wanted in instance.hosts] or [
            instance for instance in named if not instance.hosts
        ]
    if len(named) == 1:
        return f"instance {named[0].name}", named[0].ha, named[0].gate
    if config.instances_from is not None and not named:
        whose = f"instance {name}" if name else "an instance"
        return f"{whose} from a Service", None, config.instances_from.gate
    names = ", ".join(instance.name for instance in config.instances[:20])
    if named:
        raise _UsageError(f"several instances could be meant: name one by --instance or --host; there are: {names}")
    what = f"of the name {quote(name)}" if name is not None else f"with the host {quote(host or '')}"
    raise _UsageError(f"there is no instance {what}; there are: {names}")

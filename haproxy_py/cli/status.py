"""`haproxy-py status`: the instances of a running proxy and their replicas, as a table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from haproxy_py.cli.call import CallError, add_options, fail, find_caller, find_instance
from haproxy_py.config_values import spell_address

if TYPE_CHECKING:
    from haproxy_py.cli import Subparsers

EXAMPLES = """\
examples:
  haproxy-py status
  haproxy-py status my-instance --ops http://10.0.0.5:9090

exit codes: 0 the proxy is ready; 1 it is not, or does not answer; 2 wrong usage or configuration
"""

COLUMNS = ("replica", "id", "address", "state", "running", "tunnels", "requests", "failed connections")


def add_parser(subparsers: Subparsers) -> None:
    """Say how the command is called."""
    parser = subparsers.add_parser(
        "status",
        help="show what a running proxy does",
        description="Show the instances of a running proxy and their replicas.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("instance", metavar="INSTANCE", nargs="?", help="only this one")
    add_options(parser, changes=False)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    try:
        status = find_caller(args).get("/api/v1/status")
        instances = [find_instance(status, args.instance)] if args.instance else status["instances"]
    except CallError as error:
        return fail(error)
    print("\n\n".join([describe_proxy(status), *map(describe_instance, instances)]))
    return 0 if status["ready"] else 1


def describe_proxy(status: Any) -> str:
    """One line, and one for each warning."""
    state = "ready" if status["ready"] else f"not ready: {', '.join(status['not_ready_because'])}"
    ready = sum(worker["ready"] for worker in status["workers"])
    warnings = "".join(f"\n  warning: {warning}" for warning in status["warnings"])
    return (
        f"haproxy_py {status['version']}, {state}, up {status['uptime_seconds']:.0f} s, "
        f"{ready} of {len(status['workers'])} workers ready, client connections: {status['client_connections']}"
        f"{warnings}"
    )


def describe_instance(instance: Any) -> str:
    """A headline, and a table of the replicas."""
    mode = "in HA mode" if instance["ha"] else "not in HA mode"
    head = f"{instance['name']}: {', '.join(instance['hosts']) or 'any host'}, {mode}"
    head += "".join(f"\n  warning: {warning}" for warning in instance["warnings"])
    if not instance["replicas"]:
        return f"{head}\n  no replica"
    return f"{head}\n{lay_out([COLUMNS, *map(_describe_replica, instance['replicas'])])}"


def lay_out(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest entry; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  "
        + "  ".join(
            entry.rjust(width) if index >= COLUMNS.index("running") else entry.ljust(width)
            for index, (entry, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _describe_replica(replica: Any) -> tuple[str, ...]:
    return (
        replica["name"],
        replica["id"],
        spell_address(replica["host"], replica["port"]),
        _describe_state(replica),
        str(replica["active_requests"]),
        str(replica["active_tunnels"]),
        str(replica["requests"]),
        str(replica["failed_connections"]),
    )


def _describe_state(replica: Any) -> str:
    drain = replica["drain"]
    if drain is None:
        state: str = replica["state"]
        return state
    if drain["by"] == "operator" and not replica["active_requests"] and not replica["active_tunnels"]:
        return "drained by operator"
    return f"{replica['state']} by {drain['by']}, {drain['seconds_left']:.0f} s left"

"""`haproxy-py undrain`: let a replica back in."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from haproxy_py.cli.call import CallError, add_options, fail, find_caller, spell_replica_path

if TYPE_CHECKING:
    from haproxy_py.cli import Subparsers

EXAMPLES = """\
examples:
  haproxy-py undrain my-instance 3fa1 --config haproxy-py.yaml
  haproxy-py undrain my-instance my-instance-7d4b9-x2k5q --ops http://10.0.0.5:9090 --token-file ops-token

exit codes: 0 it is no longer drained; 1 failed; 2 wrong usage or configuration
"""


def add_parser(subparsers: Subparsers) -> None:
    """Say how the command is called."""
    parser = subparsers.add_parser(
        "undrain",
        help="let a drained replica back in",
        description="Take back what `haproxy-py drain` said. Harmless if it said nothing.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("instance", metavar="INSTANCE", help="name of the instance")
    parser.add_argument("replica", metavar="REPLICA", help="name or short id of the replica, as `status` shows them")
    add_options(parser, changes=True)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Take it back, and say what the replica is now."""
    try:
        answer = find_caller(args).post(spell_replica_path(args.instance, args.replica, "undrain"))
    except CallError as error:
        return fail(error)
    replica = answer["replica"]
    print(f"{replica['name']} is {replica['state']}" + (": its pod terminates" if replica["drain"] else ""))
    return 0

"""`haproxy-py config example`: a configuration file to begin with.

The files beside this one are links to those in `config/` of a checkout; a package has their contents.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haproxy_py.cli import Subparsers

DESCRIPTION = "Print a configuration file with every key, its default, and what it means."

EXAMPLES = """\
examples:
  haproxy-py config example > haproxy-py.yaml
  haproxy-py config example --kubernetes | less
"""


def add_parser(subparsers: Subparsers) -> None:
    """Say how the command is called."""
    parser = subparsers.add_parser("config", help="a configuration file to begin with", allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    example = commands.add_parser(
        "example",
        help="print one with every key",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    example.add_argument("--kubernetes", action="store_true", help="the one with the keys for Kubernetes")
    example.set_defaults(command=run_example)


def run_example(args: argparse.Namespace) -> int:
    """Print it."""
    name = "example-kubernetes.yaml" if args.kubernetes else "example.yaml"
    print(Path(__file__).with_name(name).read_text(encoding="utf-8"), end="")
    return 0

"""`haproxy-py demo`: everything on one machine, to see what the proxy does."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haproxy_py.cli import Subparsers

EXAMPLES = """\
examples:
  haproxy-py demo
  haproxy-py demo --listen 127.0.0.1:8000
  haproxy-py demo --node-red             with real Node-RED replicas
"""


def add_parser(subparsers: Subparsers) -> None:
    """Say how the command is called."""
    parser = subparsers.add_parser(
        "demo",
        help="start two replicas and the proxy, and say what to try",
        description="Start two demo replicas and the proxy in front of them in HA mode; print the URLs and what to try.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--node-red", action="store_true", help="real Node-RED as replicas instead of the embedded ones (needs node)"
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", default="127.0.0.1:8080", help="where to connect (default: %(default)s)"
    )
    parser.add_argument(
        "--ops", metavar="HOST:PORT", default="127.0.0.1:9090", help="metrics, probes and status (default: %(default)s)"
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo until told to end."""
    from haproxy_py.demo import run_demo

    return run_demo(args)

"""The demo: two replicas and the proxy in front of them in HA mode, on one machine, with something to try."""

from __future__ import annotations

import argparse


def run_demo(args: argparse.Namespace) -> int:
    """What `haproxy-py demo` does: `args` has `node_red`, and `listen` and `ops` as HOST:PORT. The exit status."""
    from haproxy_py.demo.show import show_demo  # a replica process imports this package too, and needs none of it

    return show_demo(args.listen, args.ops, node_red=args.node_red)

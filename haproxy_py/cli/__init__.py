"""The commands of `haproxy-py`, one module each.

A command is a module with `add_parser(subparsers)`, which says how it is called, and `run(args)`, which gives the exit
code: 0 fine, 1 failed, 2 wrong usage or configuration. What a command starts is imported when it runs, so that `check`
stays small and fast.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from haproxy_py import __version__
from haproxy_py.cli.own_process import own_process, spare_reader

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DESCRIPTION = """\
A reverse proxy for Node-RED instances in High Availability mode: it spreads requests over the replicas of an instance,
keeps dashboards working, and answers 403 for the editor and the admin API."""

EXAMPLES = """\
examples:
  haproxy-py demo                            two small replicas and the proxy in front of them, to try it out
  haproxy-py run --config haproxy-py.yaml    the proxy, in the foreground
  haproxy-py config example > haproxy-py.yaml    a file with every key, its default and what it means
  haproxy-py check haproxy-py.yaml           every error of a configuration file
  haproxy-py gate scan ~/.node-red/node_modules      admin routes of installed packages that the gate does not know
  haproxy-py gate test haproxy-py.yaml GET /flows    whether a request may pass to the replicas
  haproxy-py status                          the replicas of a running proxy and what they do
  haproxy-py drain my-instance 3fa1 --config haproxy-py.yaml    take a replica out before it is stopped

exit codes: 0 fine, 1 failed, 2 wrong usage or configuration, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code. Never raises `SystemExit`.

    Without `argv` it is the process's own command line, and the process belongs to the command.
    """
    if argv is None:
        own_process()
    return spare_reader(lambda: _run(sys.argv[1:] if argv is None else list(argv)))


def _run(arguments: list[str]) -> int:
    parser = build_parser()
    if not arguments:
        parser.print_help()
        return 2
    try:
        args = parser.parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = args.command
        return command(args)
    except SystemExit as exit_:  # argparse ends the process for --help, --version and wrong usage
        return exit_.code if isinstance(exit_.code, int) else 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    # Only now: what takes time to import is imported when Ctrl-C has a meaning.
    import argparse

    from haproxy_py.cli import check, config, demo, drain, gate, run, status, undrain

    parser = argparse.ArgumentParser(
        prog="haproxy-py",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"haproxy-py {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (run, demo, check, config, status, drain, undrain, gate):
        command.add_parser(subparsers)
    return parser

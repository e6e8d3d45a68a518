"""`haproxy-py run`: the proxy itself, in the foreground."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from haproxy_py.compiled import CompiledError, check_compiled, list_stale
from haproxy_py.config_file import ConfigError, from_flags, load

if TYPE_CHECKING:
    from haproxy_py.cli import Subparsers
    from haproxy_py.config import Config

DESCRIPTION = """\
Run the proxy in the foreground: one control process and as many workers as configured.

Either a file says what to do, or flags do for one instance that takes any host:"""

EXAMPLES = """\
signals:
  SIGTERM, SIGINT   drain: finish what runs, then end
  SIGHUP            read FILE again (needs --config FILE); a changed FILE is read without it, too
  SIGUSR1, SIGUSR2  nothing: there are no log files to open again

examples:
  haproxy-py run --config haproxy-py.yaml
  haproxy-py run --listen 0.0.0.0:8080 --replica http://127.0.0.1:1880 --replica http://127.0.0.1:1881 --ha
  haproxy-py run --config haproxy-py.yaml --takeover    instead of the one that runs, which drains and ends
  haproxy-py run --listen '[::1]:8080' --replica 'http://[::1]:1880' --ops 127.0.0.1:9091 --workers 2
"""


def add_parser(subparsers: Subparsers) -> None:
    """Say how the command is called."""
    parser = subparsers.add_parser(
        "run",
        help="run the proxy in the foreground",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        usage="%(prog)s --config FILE\n"
        "       %(prog)s --listen HOST:PORT --replica URL [--replica URL ...] [--ha] [--ops HOST:PORT] [--workers N]\n"
        "       either with --takeover, to replace the proxy that runs",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="configuration file; `haproxy-py config example` prints one with every key; - for standard input",
    )
    parser.add_argument("--listen", metavar="HOST:PORT", help="where users connect; port 0 lets the system choose")
    parser.add_argument(
        "--replica", metavar="URL", action="append", help="a replica, http://HOST[:PORT]; once for each replica"
    )
    parser.add_argument(
        "--ha",
        action="store_true",
        help="HA mode: answer 403 for the editor and the admin API (default: let them through)",
    )
    parser.add_argument(
        "--ops", metavar="HOST:PORT", help="where metrics, probes and status are (default: 127.0.0.1:9090)"
    )
    parser.add_argument("--workers", metavar="N", help="processes that carry traffic (default: the CPUs it may use)")
    parser.add_argument(
        "--takeover",
        action="store_true",
        help="take the listening sockets of the proxy that runs with the same ops.address, which then drains and ends: no "
        "connection is refused; without one, start as ever",
    )
    parser.set_defaults(command=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Run until told to end."""
    _check_usage(args)
    for number in (
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
    ):  # until they mean something: unhandled, they would kill
        signal.signal(number, signal.SIG_IGN)
    try:
        config = _read_config(args)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        check_compiled()
    except CompiledError as error:
        print(f"haproxy-py: {error}", file=sys.stderr)
        return 1
    for source in list_stale():
        print(f"haproxy-py: {source} has changed since it was compiled: run `make build`", file=sys.stderr)
    from haproxy_py.control.supervisor import supervise

    return supervise(config, args.config, takeover=args.takeover)


def _check_usage(args: argparse.Namespace) -> None:
    """A file or flags, not both: neither could say which of the two is in force."""
    parser: argparse.ArgumentParser = args.parser
    given = [
        f"--{name}"
        for name in ("listen", "replica", "ha", "ops", "workers")
        if getattr(args, name) not in (None, False)
    ]
    if args.config is not None and given:
        parser.error(f"--config stands alone: {', '.join(given)} would contradict the file")
    if args.config is None and not (args.listen and args.replica):
        parser.error("either --config FILE is needed, or --listen HOST:PORT and at least one --replica URL")


def _read_config(args: argparse.Namespace) -> Config:
    if args.config is not None:
        return load(args.config)
    return from_flags(args.listen, args.replica, args.ha, args.ops, args.workers)

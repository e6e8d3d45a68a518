"""`haproxy-py drain`: take a replica out, so that it can be stopped without losing a request."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from haproxy_py.cli.call import Caller, CallError, add_options, fail, find_caller, find_instance, spell_replica_path

if TYPE_CHECKING:
    from haproxy_py.cli import Subparsers

DESCRIPTION = """\
Give a replica no new requests. Clients that stick to it move to another with their next request, what runs on it ends
by itself, and its tunnels are closed within drain.deadline, spread over the last 10 seconds of it. The replica is out
until `haproxy-py undrain`, until it is no longer found, or until the proxy ends; a process that takes over keeps it out.
If there are several proxies, tell each of them."""

EXAMPLES = """\
examples:
  haproxy-py drain my-instance my-instance-7d4b9-x2k5q --config haproxy-py.yaml --wait
  haproxy-py drain my-instance 3fa1 --ops http://10.0.0.5:9090 --token-file ops-token

exit codes: 0 it drains, or with --wait: nothing runs on it any more; 1 failed, or something still runs after the
deadline; 2 wrong usage or configuration
"""

LOOK_EVERY = 0.5
"""Seconds between two looks while waiting."""

SAY_EVERY = 5.0
"""Seconds between two lines of progress where they are not shown in place."""

PATIENCE = 3.0
"""Seconds after the deadline for the last tunnels to close."""


def add_parser(subparsers: Subparsers) -> None:
    """Say how the command is called."""
    parser = subparsers.add_parser(
        "drain",
        help="take a replica out: no new requests",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("instance", metavar="INSTANCE", help="name of the instance")
    parser.add_argument("replica", metavar="REPLICA", help="name or short id of the replica, as `status` shows them")
    parser.add_argument("--force", action="store_true", help="also if no other replica of the instance is ready")
    parser.add_argument(
        "--wait", action="store_true", help="until nothing runs on it any more; Ctrl-C leaves it drained"
    )
    add_options(parser, changes=True)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Drain, and wait if that was asked for."""
    try:
        caller = find_caller(args)
        path = spell_replica_path(args.instance, args.replica, "drain")
        answer = caller.post(path + ("?force=true" if args.force else ""))
        replica = answer["replica"]
        if not args.wait:
            print(f"{replica['name']} drains: {_describe_rest(replica)}")
            return 0
        return _wait(caller, args.instance, replica["name"], answer["table_version"])
    except CallError as error:
        return fail(error)


def _wait(caller: Caller, instance: str, name: str, version: int) -> int:
    """Until nothing runs on the replica, or somebody has had enough of waiting. Raises CallError."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _look_until_empty(caller, instance, name, version)
    except KeyboardInterrupt:
        print(
            f"\nnot waiting any longer: {name} stays drained. Back with: haproxy-py undrain {instance} {name}",
            file=sys.stderr,
        )
        return 1
    finally:
        signal.signal(signal.SIGINT, former)


def _look_until_empty(caller: Caller, instance: str, name: str, version: int) -> int:
    """The exit code, once nothing runs on the replica and every worker has the table in which it drains."""
    progress = Progress()
    late_since: float | None = None
    while True:
        status = caller.get("/api/v1/status")
        is_known = all(worker["table_version"] >= version for worker in status["workers"] if worker["ready"])
        replica = _find_replica(status, instance, name)
        if replica is None:
            progress.end(f"{name} is no longer a replica of {instance}")
            return 0
        if not replica["drain"] or replica["drain"]["by"] != "operator":
            progress.end(f"{name} is no longer drained: somebody has taken it back")
            return 1
        if is_known and not replica["active_requests"] and not replica["active_tunnels"]:
            progress.end(f"{name} is drained: nothing runs on it any more")
            return 0
        if not replica["drain"]["seconds_left"]:
            late_since = late_since or time.monotonic()
            if time.monotonic() - late_since > PATIENCE:
                progress.end(f"{name} is drained, but after the deadline there are still {_count(replica)}")
                return 1
        progress.show(f"{name} drains: {_describe_rest(replica)}")
        time.sleep(LOOK_EVERY)


class Progress:
    """One line: rewritten in place on a terminal, else written now and then."""

    def __init__(self) -> None:
        self._in_place = sys.stderr.isatty()
        self._said = 0.0  # monotonic seconds

    def show(self, text: str) -> None:
        if self._in_place:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif not self._said or time.monotonic() - self._said >= SAY_EVERY:
            self._said = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def end(self, text: str) -> None:
        if self._in_place:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        print(text, flush=True)


def _find_replica(status: Any, instance: str, name: str) -> Any:
    for replica in find_instance(status, instance)["replicas"]:
        if replica["name"] == name:
            return replica
    return None


def _describe_rest(replica: Any) -> str:
    return f"{_count(replica)}, seconds to the deadline: {replica['drain']['seconds_left']:.0f}"


def _count(replica: Any) -> str:
    return f"running requests: {replica['active_requests']}, open tunnels: {replica['active_tunnels']}"

"""Runs the demo: ports, replicas, the guide, the live counts and the proxy itself, until Ctrl-C."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import shlex
import signal
import socket
import sys
from types import FrameType

from haproxy_py.child import make_command
from haproxy_py.compiled import CompiledError, check_compiled
from haproxy_py.config import Config, Drain, Log, StaticReplica
from haproxy_py.config_file import ConfigError, from_flags
from haproxy_py.demo.counts import LiveCounts
from haproxy_py.demo.replicas import HOST, DemoError, DemoReplica, run_replicas

FIRST_REPLICA_PORT = 1880  # Node-RED's own
PORTS_TRIED = 50  # from the wished one upwards
DRAIN = Drain(delay=0.0, deadline=1.0)  # Ctrl-C in a demo ends it now; open pages hold tunnels
ENDING = (signal.SIGINT, signal.SIGTERM)
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # where to connect to, when the proxy listens on every address


def show_demo(listen: str, ops: str, *, node_red: bool) -> int:
    """Run until a signal ends it. The exit status: 0 ended by a signal, 1 could not start, 2 an address is wrong."""
    _interrupted.clear()
    former = {number: signal.signal(number, _interrupt) for number in ENDING}
    try:
        # Only to judge the addresses: the real replicas are not known yet.
        config = from_flags(listen, [f"http://{HOST}:{FIRST_REPLICA_PORT}"], True, ops)
        check_compiled()
        return _run(config, node_red=node_red)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (CompiledError, DemoError) as error:
        print(f"haproxy-py demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the proxy took the signals, or after it gave them back
        return 0
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def choose_port(host: str, wished: int, taken: set[int], what: str) -> int:
    """The wished port, or the next one up that is free. Adds it to `taken`, the demo's own. Raises DemoError.

    Says so when a stranger has the wished one.
    """
    is_own = wished in taken
    if wished == 0:
        raise DemoError(f"{what}: port 0 would leave nothing to print; name one")
    for port in range(wished, min(wished + PORTS_TRIED, 65536)):
        if port in taken or not _is_free(host, port, what):
            continue
        taken.add(port)
        if port != wished and not is_own:
            print(f"Port {wished} is taken, so {what} is on port {port}.")
        return port
    raise DemoError(
        f"{what}: no free port on {host} from {wished} to {wished + PORTS_TRIED - 1}. "
        "End what uses them (`ss -ltnp` shows what does), or choose others with --listen HOST:PORT and --ops HOST:PORT."
    )


def _run(config: Config, *, node_red: bool) -> int:
    from haproxy_py.control.supervisor import supervise

    listen, ops = config.listen[0], config.ops
    taken: set[int] = set()
    port = choose_port(listen.host, listen.port, taken, "the proxy")
    ops_port = choose_port(ops.host, ops.port, taken, "the operators' port")
    replica_ports = tuple(choose_port(HOST, FIRST_REPLICA_PORT, taken, what) for what in ("replica 1", "replica 2"))
    kind = "Node-RED replicas" if node_red else "demo replicas"
    print(f"Starting two {kind} …", flush=True)
    with contextlib.ExitStack() as stack:
        replicas = stack.enter_context(run_replicas(replica_ports, node_red=node_red))
        instance = dataclasses.replace(
            config.instances[0], name="demo", static=tuple(StaticReplica(HOST, replica.port) for replica in replicas)
        )
        config = dataclasses.replace(
            config,
            listen=(dataclasses.replace(listen, port=port),),
            ops=dataclasses.replace(ops, port=ops_port),
            instances=(instance,),
            workers=1,  # each worker goes round on its own; one alone shows it best
            drain=DRAIN,
            log=Log(access="off", level="warning"),
        )
        proxy_url = _format_url(listen.host, port)
        ops_url = _format_url(ops.host, ops_port)
        print(write_guide(proxy_url, ops_url, replicas, kind), flush=True)
        ops_host = ANY_HOST.get(ops.host, ops.host).strip("[]")
        # From here on they wait until the proxy obeys them: an exception while the thread starts would leave it running for ever.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        if _interrupted:
            raise KeyboardInterrupt
        stack.enter_context(LiveCounts(ops_host, ops_port, replicas, sys.stdout))
        return supervise(config, None)


def write_guide(proxy: str, ops: str, replicas: list[DemoReplica], kind: str) -> str:
    """What to open and what to try; every command can be pasted as it stands."""
    first, second = replicas
    return f"""
The proxy is in front of two {kind}, in HA mode: {first.url} and {second.url}

Open in a browser
  {proxy}/demo      HTTP, events and a WebSocket, and which replica answers
  {proxy}/          the editor: refused, with a page that says why
  {ops}/          the status page for operators

Try with curl
  # an HTTP In route; X-HA-Replica names the replica that answered
  curl -i {proxy}/api/hello
  # round robin: the replicas take turns
  for n in 1 2 3 4 5 6; do curl -s -o /dev/null -D - {proxy}/api/hello | grep -i x-ha-replica; done
  # the admin API, in any spelling: 403
  curl -i {proxy}/flows
  curl -i {proxy}/%66LOWS/
  # the same without the proxy: what the gate keeps from the world
  curl -i {first.url}/flows
  # a body goes there and back; an answer that takes 2 s; events as they happen (Ctrl-C ends them)
  curl -H 'Content-Type: text/plain' -d hello {proxy}/api/echo
  curl {proxy}/api/slow
  curl -N {proxy}/events
  # a WebSocket: each text comes back; who? is answered with the replica
  {shlex.join(make_command("haproxy_py.demo.talk"))} ws{proxy.removeprefix("http")}/ws/echo hello 'who?' 'who?'
  # metrics per replica
  curl -s {ops}/metrics | grep replica_requests_total
  # a replica dies: nobody notices
  kill {first.pid}; for n in 1 2 3 4; do curl -s {proxy}/api/hello; echo; done

Ctrl-C ends everything. Answers so far:
"""


def _is_free(host: str, port: int, what: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that is only in TIME_WAIT is free
        try:
            probe.bind((host.strip("[]"), port))
        except PermissionError:
            raise DemoError(f"{what}: port {port} needs root; choose one above 1023") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise DemoError(f"{what}: {host}:{port}: {error.strerror}") from None
    return True


def _format_url(host: str, port: int) -> str:
    host = ANY_HOST.get(host, host)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{port}"


_interrupted: list[int] = []
"""The signals that have come. An exception that is raised while Python runs a callback, as it does in each import, is lost."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupted.append(number)
    raise KeyboardInterrupt

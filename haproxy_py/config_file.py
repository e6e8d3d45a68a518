"""How a configuration file, or the flags that replace one, becomes a `Config`.

Strict on purpose: a key that is not known, or that only a later version will act on, is an error, because a proxy that
ignores what it was told is worse than one that does not start. Workers do not import this file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from haproxy_py import config_values as values
from haproxy_py import counters
from haproxy_py.config import (
    Balance,
    Config,
    Cookie,
    DnsName,
    Drain,
    Eject,
    Flows,
    Gate,
    Instance,
    InstancesFrom,
    KubernetesService,
    Limits,
    Listen,
    Log,
    Ops,
    Retries,
    StaticReplica,
    Timeouts,
    Tls,
    Watchdog,
)
from haproxy_py.config_dns import read_dns
from haproxy_py.config_error import ConfigError, Place, Problem, Problems
from haproxy_py.config_health import read_health
from haproxy_py.config_kubernetes import read_selector, read_service
from haproxy_py.config_reader import (
    Reader,
    boolean,
    duration,
    file_path,
    is_true,
    kept,
    list_of,
    number,
    once,
    percent,
    read_keys,
    section,
    size,
    text_only,
    word,
)
from haproxy_py.config_tree import MAX_BYTES, Mapping, Node, Scalar, describe, read_tree
from haproxy_py.config_tree import Sequence as ListNode

__all__ = ["ConfigError", "Place", "Problem", "from_flags", "load", "parse", "parse_data"]

STANDARD_INPUT = "-"
"""In place of a path, as for most commands. It can be read once only."""

MAX_INSTANCES = counters.MAX_INSTANCES - 1
"""Slot 0 of the counters belongs to no instance."""

MAX_INSTANCE_REPLICAS = 1024
"""Replicas of one instance. Kubernetes itself truncates an Endpoints object at 1,000 addresses."""

MAX_WEIGHT = 256
"""Of a replica. As in HAProxy."""

MAX_WORKERS = 128
"""Each is a process with its own counters; more than any machine this runs on has CPUs."""

MAX_CONNECTIONS = 1_000_000
"""Open client connections: more than a process may have files."""

MAX_HOSTS = 256
"""Hosts of one instance."""

MAX_RULES = 256
"""Entries of one of `gate.allow`, `gate.deny`, `trusted_proxies`: they are walked in order for a request."""

MIN_STALL = 0.5
"""Seconds: the loop of a worker ticks every 100 ms, and is late when all CPUs are busy."""

KIB = 1024
MIB = 1024 * KIB

HEAD_SCRATCH = 96 * KIB
"""The data path rewrites heads in a buffer of this size: the maxima of request_line and request_head fit together."""


def load(path: str | Path) -> Config:
    """The configuration in a file, or `STANDARD_INPUT`. Raises `ConfigError` with every problem, also when it cannot be read.

    Relative paths in what came by standard input count from the current folder.
    """
    return parse_data(_read_data(path), name_source(path))


def load_ops(path: str | Path) -> Ops:
    """Only the operators' port in such a file: what else is wrong there is of no matter to whoever calls a running proxy.

    Raises `ConfigError` with what is wrong with `ops`, or if the file is no YAML at all.
    """
    source = name_source(path)
    noted, problems = Problems(), Problems()
    tree = read_tree(_decode(_read_data(path), source), source, noted)
    problems.take(noted, below="ops")
    ops = tree.values.get("ops") if isinstance(tree, Mapping) else None
    found = None if ops is None else _read_ops(_Addresses())(ops, problems)
    problems.raise_if_any()
    return found or Ops()


def _read_data(path: str | Path) -> bytes:
    is_standard_input = str(path) == STANDARD_INPUT
    try:
        with open(0 if is_standard_input else path, "rb", closefd=not is_standard_input) as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError((Problem(Place(name_source(path)), f"cannot be read: {error.strerror or error}"),)) from error


def name_source(path: str | Path) -> str:
    """What a file is called in messages."""
    return "standard input" if str(path) == STANDARD_INPUT else str(path)


def parse_data(data: bytes, source: str) -> Config:
    """The configuration in what was read of a file, up to one byte more than it may have. Raises `ConfigError`."""
    return parse(_decode(data, source), source)


def _decode(data: bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        raise ConfigError((Problem(Place(source), f"the file is larger than {values.spell_size(MAX_BYTES)}"),))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line_start = data.rfind(b"\n", 0, error.start) + 1
        place = Place(source, data.count(b"\n", 0, error.start) + 1, error.start - line_start + 1)
        raise ConfigError((Problem(place, "the file is not UTF-8"),)) from error


def parse(text: str, source: str) -> Config:
    """The configuration in a text; `source` names it in messages. Raises `ConfigError` with every problem."""
    problems = Problems()
    tree = read_tree(text, source, problems)
    return _read_config(tree, problems)


def from_flags(
    listen: str, replicas: Sequence[str], ha: bool = False, ops: str | None = None, workers: str | None = None
) -> Config:
    """The configuration that flags of `run` stand for: one instance named `default` for any host.

    Texts are as on the command line, checks as for a file. Raises `ConfigError`; its places are the flags.
    """
    here = Place("command line")

    def tree(flag: Place = here, /, **entries: Node) -> Mapping:
        return Mapping(dict(entries), {key: node.place for key, node in entries.items()}, flag)

    def written(flag: str, text: str, kind: str = "text") -> Scalar:
        return Scalar(text, kind, Place(flag))

    static = ListNode(tuple(written("--replica", url) for url in replicas), Place("--replica"))
    instance = tree(
        name=written("--name", "default"),
        ha=written("--ha", str(ha).lower(), "boolean"),
        replicas=tree(Place("--replica"), static=static),
    )
    root: dict[str, Node] = {
        "listen": ListNode((tree(address=written("--listen", listen)),), here),
        "instances": ListNode((instance,), here),
    }
    if ops is not None:
        root["ops"] = tree(address=written("--ops", ops))
    if workers is not None:
        root["workers"] = written("--workers", workers)
    return _read_config(tree(**root), Problems())


# --- sections ---


def _read_ha(node: Node, problems: Problems) -> bool | str | None:
    """True, False or "auto"."""
    if isinstance(node, Scalar) and node.kind == "boolean":
        return is_true(node)
    if isinstance(node, Scalar) and node.kind == "text" and node.text == "auto":
        return "auto"
    problems.add(node.place, f"expected true, false or auto, found {describe(node)}")
    return None


def _check_timeouts(timeouts: Timeouts) -> str | None:
    if timeouts.connect_total and timeouts.connect_total < timeouts.connect:
        total, one = values.spell_duration(timeouts.connect_total), values.spell_duration(timeouts.connect)
        return f"connect_total ({total}, all attempts) must not be below connect ({one}, one attempt)"
    return None


def _check_limits(limits: Limits) -> str | None:
    if limits.request_line > limits.request_head:
        line, head = values.spell_size(limits.request_line), values.spell_size(limits.request_head)
        return f"request_line ({line}) must not exceed request_head ({head}), which it is part of"
    return None


def _check_eject(eject: Eject) -> str | None:
    if eject.longest < eject.first:
        longest, first = values.spell_duration(eject.longest), values.spell_duration(eject.first)
        return f"longest ({longest}) must not be below first ({first}): a replica is out longer every time"
    return None


def _check_drain(drain: Drain) -> str | None:
    if drain.deadline <= drain.delay:
        deadline, delay = values.spell_duration(drain.deadline), values.spell_duration(drain.delay)
        return f"deadline ({deadline}) must exceed delay ({delay}): both count from SIGTERM"
    return None


def _check_watchdog(watchdog: Watchdog) -> str | None:
    if watchdog.replace and watchdog.replace < watchdog.report + MIN_STALL:
        replace, report = values.spell_duration(watchdog.replace), values.spell_duration(watchdog.report)
        least = values.spell_duration(MIN_STALL)
        return f"replace ({replace}) must exceed report ({report}) by {least} or more: a stall is reported first"
    return None


_NO_ZERO = ("client_head", "connect", "queue")
_read_timeouts = section(
    Timeouts,
    {field.name: duration(may_be_off=field.name not in _NO_ZERO) for field in dataclasses.fields(Timeouts)},
    _check_timeouts,
)
# Minima: what a browser needs. Maxima: the scratch buffers of the data path, and the memory a slow client may hold.
_read_limits = section(
    Limits,
    {
        "request_line": size(512, 32 * KIB),
        "request_head": size(1 * KIB, 64 * KIB),
        "request_fields": number(10, 200),
        "response_head": size(1 * KIB, 256 * KIB),
        "response_fields": number(10, 500),
        "request_body": size(1, 1024 * 1024 * MIB, may_be_off=True),
        "gather": size(1, 1 * MIB, may_be_off=True),
        "body_rate": size(1, 1 * MIB, may_be_off=True),
        "buffer": size(4 * KIB, 16 * MIB),
        "exchanges": number(1, 65536),
        "queue": number(0, 65536),
        "idle_connections": number(0, 65536),
        "connect_attempts": number(1, 16),
        "client_connections": number(0, 65536),
        "client_exchanges": number(0, 65536),
        "client_rate": number(0, 65536),
        "client_burst": number(1, 65536),
    },
    _check_limits,
)
_read_retries = section(Retries, {"resend": boolean, "budget": percent, "budget_min": number(0, 1000)})
_read_eject = section(
    Eject,
    {
        "failures": number(0, 1000),
        "first": duration(may_be_off=False),
        "longest": duration(may_be_off=False),
        "slow_start": duration(),
    },
    _check_eject,
)
_read_cookie = section(
    Cookie,
    {
        "name": text_only(values.cookie_name, "the name of a cookie"),
        "same_site": word("lax", "strict", "none"),
        "domain": text_only(values.cookie_domain, "a domain"),
    },
)
_read_balance = section(
    Balance,
    {
        "policy": word("round-robin", "least-connections", "random-two"),
        "affinity": word("none", "dashboard", "all"),
        "cookie": _read_cookie,
    },
)
_read_drain = section(Drain, {"delay": duration(), "deadline": duration(may_be_off=False)}, _check_drain)
_read_watchdog = section(Watchdog, {"report": duration(MIN_STALL), "replace": duration(MIN_STALL)}, _check_watchdog)
_read_log = section(Log, {"access": word("json", "off"), "level": word("debug", "info", "warning", "error")})


def _read_gate(node: Node, problems: Problems) -> Gate:
    def rules() -> Reader[tuple[str, ...]]:
        rule = text_only(kept(values.gate_rule), '"/path" or "GET /path"')
        return list_of(once(rule, {}), MAX_RULES, may_be_empty=True)

    readers: dict[str, Reader[Any]] = {
        "mode": word("deny", "strict"),
        "admin_root": text_only(values.admin_root, "a path like / or /admin"),
        "allow": rules(),
        "deny": rules(),
        "node_root": text_only(values.admin_root, "a path like / or /api"),
        "flows": _read_flows,
    }
    return section(Gate, readers, _check_gate)(node, problems)


def _check_gate(gate: Gate) -> str | None:
    has_flows = gate.flows != Flows()
    if gate.mode == "strict" and not (gate.flows.file or gate.flows.admin):
        return "mode strict needs to know what the flows declare: flows: {file: PATH}, or flows: {admin: true}"
    if gate.mode != "strict" and has_flows:
        return "flows is read in mode strict only"
    return None


def _read_flows(node: Node, problems: Problems) -> Flows:
    def admin(node: Node, problems: Problems) -> str | None:
        if isinstance(node, Scalar) and node.kind == "boolean":
            return "replicas" if boolean(node, problems) else ""
        return text_only(values.admin_url, "true or a URL like http://127.0.0.1:1880/admin")(node, problems)

    readers: dict[str, Reader[Any]] = {
        "file": file_path("a path like /data/flows.json"),
        "admin": admin,
        "token_file": file_path("a path like /etc/haproxy-py/node-red-token"),
        "interval": duration(1.0, may_be_off=False),
    }

    def check(flows: Flows) -> str | None:
        if bool(flows.file) == bool(flows.admin):
            return "expected exactly one of file and admin"
        return "token_file is for admin" if flows.token_file and not flows.admin else None

    return section(Flows, readers, check)(node, problems)


# What an instance has beside its name, its hosts, its mode and its replicas.
_SETTINGS: dict[str, Reader[Any]] = {
    "balance": _read_balance,
    "gate": _read_gate,
    "health": read_health,
    "replica_header": word("id", "name", "off"),
    "half_close": word("abort", "serve"),
    "timeouts": _read_timeouts,
    "limits": _read_limits,
    "retries": _read_retries,
    "eject": _read_eject,
    "trusted_proxies": list_of(text_only(values.network, "a network like 10.0.0.0/8"), MAX_RULES, may_be_empty=True),
}


def _read_instances_from(node: Node, problems: Problems) -> InstancesFrom:
    readers: dict[str, Reader[Any]] = {"kubernetes": read_selector, **_SETTINGS}
    return InstancesFrom(**read_keys(node, readers, problems, needed=["kubernetes"]))


class _Addresses:
    """The addresses this proxy listens on: they may not overlap, and no replica may be one of them."""

    def __init__(self) -> None:
        self._taken: list[tuple[Place, tuple[str, int]]] = []
        self._listeners: list[tuple[str, int]] = []

    def read_listener(self, node: Node, problems: Problems) -> tuple[str, int] | None:
        """As `read`; an IPv4 and an IPv6 listener may share a port, because `[::]` is then for IPv6 only."""
        address = text_only(values.address, "HOST:PORT")(node, problems)
        if address is not None:
            self._refuse_overlapped(
                node, address, problems, {one for one in self._listeners if values.are_of_two_families(one, address)}
            )
            self._listeners.append(address)
            self.take(node.place, address)
        return address

    def read(self, node: Node, problems: Problems) -> tuple[str, int] | None:
        address = text_only(values.address, "HOST:PORT")(node, problems)
        if address is not None:
            self._refuse_overlapped(node, address, problems)
            self.take(node.place, address)
        return address

    def take(self, place: Place, address: tuple[str, int]) -> None:
        """Take an address that nobody wrote down."""
        self._taken.append((place, address))

    def read_replica(self, node: Node, problems: Problems) -> tuple[str, int] | None:
        replica = text_only(values.replica_url, "a URL like http://127.0.0.1:1880")(node, problems)
        overlapped = self._overlapped(replica) if replica else None
        if overlapped:
            # DSC-13: requests would go in a circle.
            problems.add(node.place, f"a replica cannot be the proxy itself, which listens there: {overlapped}")
        return replica

    def _refuse_overlapped(
        self, node: Node, address: tuple[str, int], problems: Problems, beside: Collection[tuple[str, int]] = ()
    ) -> None:
        overlapped = self._overlapped(address, beside)
        if overlapped:
            problems.add(node.place, f"{values.spell_address(*address)} is already taken: {overlapped}")

    def _overlapped(self, address: tuple[str, int], beside: Collection[tuple[str, int]] = ()) -> Place | None:
        for place, taken in self._taken:
            if taken not in beside and values.may_be_same(taken, address):
                return place
        return None


def _read_listen(addresses: _Addresses) -> Reader[Listen]:
    readers: dict[str, Reader[Any]] = {
        "address": addresses.read_listener,
        "tls": _read_tls,
        "connections": number(1, MAX_CONNECTIONS, auto=True),
    }

    def read(node: Node, problems: Problems) -> Listen:
        found = read_keys(node, readers, problems, needed=["address"])
        host, port = found.pop("address", ("", 0))
        return Listen(host, port, **found)

    return read


def _read_tls(node: Node, problems: Problems) -> Tls | None:
    path = file_path("a path like /etc/haproxy-py/tls.crt")
    found = read_keys(node, {"certificate": path, "key": path}, problems, needed=["certificate"])
    return Tls(**found) if "certificate" in found else None


def _read_ops(addresses: _Addresses) -> Reader[Ops]:
    def read(node: Node, problems: Problems) -> Ops:
        token_file = file_path("a path like /etc/haproxy-py/ops-token")
        host: Reader[str] = once(text_only(values.host_name, "a host name"), {})
        keys = {
            "address": addresses.read,
            "token_file": token_file,
            "hosts": list_of(host, MAX_HOSTS, may_be_empty=True),
        }
        found = read_keys(node, keys, problems)
        return Ops(*found.pop("address", ()), **found)

    return read


_Replicas = tuple[StaticReplica, ...] | DnsName | KubernetesService


def _read_static(addresses: _Addresses) -> Reader[StaticReplica]:
    """Reads a URL, or a mapping of it and a weight."""
    read_url = once(addresses.read_replica, {})
    readers: dict[str, Reader[Any]] = {"url": read_url, "weight": number(0, MAX_WEIGHT)}

    def read(node: Node, problems: Problems) -> StaticReplica | None:
        if not isinstance(node, Mapping):
            address = read_url(node, problems)
            return StaticReplica(*address) if address else None
        found = read_keys(node, readers, problems, needed=["url"])
        if "url" not in found:
            return None
        host, port = found["url"]
        return StaticReplica(host, port, found.get("weight", 1))

    return read


def _read_replicas(addresses: _Addresses) -> Reader[_Replicas]:
    def read(node: Node, problems: Problems) -> _Replicas | None:
        static = list_of(_read_static(addresses), MAX_INSTANCE_REPLICAS)
        readers: dict[str, Reader[Any]] = {"static": static, "dns": read_dns, "kubernetes": read_service}
        found = read_keys(node, readers, problems)
        if isinstance(node, Mapping):
            sources = [key for key in ("static", "dns", "kubernetes") if key in node.values]
            if len(sources) != 1:
                named = " and ".join(sources) or "none"
                problems.add(node.place, f"expected exactly one of static, dns and kubernetes, found {named}")
        if found.get("static") and not any(replica.weight for replica in found["static"]):
            problems.add(
                node.place, "every replica has weight 0: at least one must have more, or nothing gets new clients"
            )
        return found.get("static") or found.get("dns") or found.get("kubernetes")

    return read


def _read_instances(addresses: _Addresses) -> Reader[tuple[Instance, ...]]:
    names: dict[str, Place] = {}
    hosts: dict[str, Place] = {}
    name: Reader[str] = text_only(values.instance_name, "a name")
    host: Reader[str] = text_only(values.host_name, "a host name")
    readers: dict[str, Reader[Any]] = {
        "name": once(name, names),
        "hosts": list_of(once(host, hosts), MAX_HOSTS),
        "ha": _read_ha,
        "replicas": _read_replicas(addresses),
        **_SETTINGS,
    }

    def read_instance(node: Node, problems: Problems) -> Instance:
        needed = ["name", "ha", "replicas"]
        found = read_keys(node, readers, problems, needed=needed)
        ha = found.pop("ha", True)
        replicas: _Replicas = found.pop("replicas", ())
        service = replicas if isinstance(replicas, KubernetesService) else None
        if ha == "auto" and service is None and replicas and isinstance(node, Mapping):
            problems.add(
                node.values["ha"].place,
                "auto takes the mode from an annotation of the Service: it needs replicas.kubernetes. "
                "Write true or false",
            )
        return Instance(
            name=found.pop("name", ""),
            hosts=found.pop("hosts", ()),
            ha=None if ha == "auto" else ha,
            static=replicas if isinstance(replicas, tuple) else (),
            dns=replicas if isinstance(replicas, DnsName) else None,
            kubernetes=service,
            **found,
        )

    def read(node: Node, problems: Problems) -> tuple[Instance, ...] | None:
        instances = list_of(read_instance, MAX_INSTANCES)(node, problems)
        _check_any_host(node, problems)
        total = sum(len(instance.static) for instance in instances or ())
        if total > counters.MAX_REPLICAS:
            problems.add(node.place, f"{total} replicas in all are too many: at most {counters.MAX_REPLICAS}")
        return instances

    return read


def _check_any_host(node: Node, problems: Problems) -> None:
    """Two instances that take any host: a request could belong to either."""
    first: Place | None = None
    for item in node.items if isinstance(node, ListNode) else ():
        if not isinstance(item, Mapping) or "hosts" in item.values:
            continue
        if first:
            problems.add(item.place, f'key "hosts" is missing, but {first} has none either: only one may take any host')
        first = first or item.place


def _read_config(tree: Node, problems: Problems) -> Config:
    addresses = _Addresses()
    readers: dict[str, Reader[Any]] = {
        "listen": list_of(_read_listen(addresses), 64),
        "ops": _read_ops(addresses),
        "workers": number(1, MAX_WORKERS, auto=True),
        "instances": _read_instances(addresses),
        "instances_from": _read_instances_from,
        "drain": _read_drain,
        "watchdog": _read_watchdog,
        "log": _read_log,
    }
    if not _names_ops_address(tree):
        addresses.take(Place("the default of ops.address"), (Ops().host, Ops().port))
    # In this order, wherever they stand in the file: replicas are compared with the own addresses.
    has_source = isinstance(tree, Mapping) and "instances_from" in tree.values
    found = read_keys(tree, readers, problems, needed=["listen"] if has_source else ["listen", "instances"])
    problems.raise_if_any()
    return Config(**{"instances": (), **found})


def _names_ops_address(tree: Node) -> bool:
    ops = tree.values.get("ops") if isinstance(tree, Mapping) else None
    return isinstance(ops, Mapping) and "address" in ops.values

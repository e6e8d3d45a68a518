"""What a name in the DNS stands for, as replicas. DSC-12 to DSC-14 hold as they do in `merge`; nothing is remembered."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable

from haproxy_py.config_file import MAX_INSTANCE_REPLICAS
from haproxy_py.config_values import MANAGEMENT_PORT, spell_address
from haproxy_py.discovery.found import FoundReplica
from haproxy_py.discovery.lookup import Member
from haproxy_py.discovery.merge import IsOwn, Merged


def merge_members(members: Iterable[Member], port: int, is_own: IsOwn) -> Merged:
    """The replicas; `port` is that of the instance, 0 where the records say it."""
    replicas: list[FoundReplica] = []
    ignored: Counter[str] = Counter()
    complaints: list[str] = []
    named = _name_members(members, port)
    for name in sorted(named):
        host, number = named[name]
        refused = _judge(host, number, is_own)
        if refused is not None:
            ignored[refused[0]] += 1
            complaints.append(refused[1])
        elif len(replicas) == MAX_INSTANCE_REPLICAS:
            ignored["too_many"] += 1
        else:
            replicas.append(FoundReplica(name, host, number))
    if ignored["too_many"]:
        complaints.append(f"{len(named)} replicas are too many: the first {MAX_INSTANCE_REPLICAS} by name are used")
    return Merged(tuple(replicas), 0, ignored or None, tuple(dict.fromkeys(complaints)))


def _name_members(members: Iterable[Member], port: int) -> dict[str, tuple[str, int]]:
    """Address and port of each replica by its name."""
    if port:
        return {spell_address(member.address, port): (member.address, port) for member in members}
    found = list(members)
    ports = Counter(member.target for member in found)
    return {
        member.target if ports[member.target] == 1 else f"{member.target}:{member.port}": (member.address, member.port)
        for member in found
    }


def _judge(host: str, port: int, is_own: IsOwn) -> tuple[str, str] | None:
    """Why it must not be used: one of `merge.REASONS`, and in words."""
    where = spell_address(host, port)
    address = ipaddress.ip_address(host)
    if port == 0 or address.is_unspecified or address.is_multicast:
        return "malformed", f"{where} is no address to connect to; correct the zone"
    if port == MANAGEMENT_PORT:
        return "management", f"port {MANAGEMENT_PORT} is FlowFuse's management port and is never used"
    if is_own(host, port):
        return (
            "own",
            f"{where} is this proxy itself, and requests would go in a circle: the name must stand for Node-RED, not for "
            "the proxy",
        )
    return None

"""EndpointSlices and Endpoints, as far as they matter here: both become slices, which `merge` makes replicas of.

- An endpoint has one address that counts, the first (DSC-8). Absent conditions mean ready, serving, not terminating.
- A slice of host names has no meaning and is ignored (DSC-10). Null lists are empty (DSC-11).
- An Endpoints object is one slice per subset: its addresses are ready, its notReadyAddresses are not, and nothing says
  that one is terminating (DSC-16).
- Ports of other protocols than TCP, and ports without a number, are left out (DSC-5, DSC-7).

What the API server sends is not trusted to be well-formed: an endpoint that is not is left out and counted.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import Any

from haproxy_py.discovery.fields import (
    MalformedError,
    read_flag,
    read_list,
    read_mapping,
    read_moment,
    read_name,
    read_text,
)

SERVICE_LABEL = "kubernetes.io/service-name"
"""The label of an EndpointSlice that names its Service."""

CHANGE_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
"""The annotation with the time of the change of pod or Service that the controller answered with this version."""

OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
"""The annotation of an Endpoints object that could not hold every address."""

MAX_ENDPOINTS = 5000
"""Endpoints of one object. A slice has at most 1,000, an Endpoints object as well."""

MAX_PORTS = 100
"""Ports of one slice (API documentation of EndpointSlice)."""

MAX_UID = 128
"""Characters of a uid; Kubernetes writes 36."""

_FAMILIES = {"IPv4": 4, "IPv6": 6}


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: str  # IP address in normal form
    family: str  # ipv4 | ipv6
    uid: str  # of the pod; empty: not a pod
    pod: str  # its name; empty: not a pod
    ready: bool
    serving: bool
    terminating: bool


@dataclass(frozen=True, slots=True)
class Port:
    name: str  # may be empty
    number: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Endpoints that all have the same ports."""

    name: str
    service: str
    created: str  # RFC 3339 in UTC, so that the text sorts
    ports: tuple[Port, ...]  # TCP only
    endpoints: tuple[Endpoint, ...]
    ignored: tuple[tuple[str, int], ...] = ()  # how many endpoints were left out, by reason


@dataclass(frozen=True, slots=True)
class Slices:
    """What one object of the API says."""

    service: str
    slices: tuple[Slice, ...]
    changed: float | None = None  # seconds since the epoch: when what it tells of happened
    truncated: bool = False  # more addresses exist than the object may hold


def parse_slice(thing: dict[str, Any]) -> Slices:
    """An EndpointSlice of discovery.k8s.io/v1. Raises MalformedError."""
    metadata = read_mapping(thing, "metadata")
    service = read_name(read_mapping(metadata, "labels"), SERVICE_LABEL)
    entries = _bound(read_list(thing, "endpoints"))
    version = _FAMILIES.get(read_text(thing, "addressType", 16))
    ignored: Counter[str] = Counter()
    endpoints = []
    for entry in entries:
        if version is None:
            ignored["family"] += 1
            continue
        conditions = read_mapping(entry, "conditions")
        addresses = entry.get("addresses") if isinstance(entry, dict) else None
        endpoint = _read_endpoint(
            addresses[0] if isinstance(addresses, list) and addresses else None,
            read_mapping(entry, "targetRef"),
            ready=read_flag(conditions, "ready", True),
            serving=read_flag(conditions, "serving", True),
            terminating=read_flag(conditions, "terminating", False),
        )
        if endpoint is None or endpoint.family != f"ipv{version}":
            ignored["malformed"] += 1
        else:
            endpoints.append(endpoint)
    found = Slice(
        name=read_name(metadata),
        service=service,
        created=read_text(metadata, "creationTimestamp", 64),
        ports=_read_ports(thing),
        endpoints=tuple(endpoints),
        ignored=tuple(ignored.items()),
    )
    return Slices(service, (found,), read_moment(read_mapping(metadata, "annotations"), CHANGE_TIME))


def parse_endpoints(thing: dict[str, Any]) -> Slices:
    """An Endpoints of v1. Raises MalformedError."""
    metadata = read_mapping(thing, "metadata")
    annotations = read_mapping(metadata, "annotations")
    service = read_name(metadata)
    slices = []
    for number, subset in enumerate(_bound(read_list(thing, "subsets"))):
        ignored: Counter[str] = Counter()
        endpoints = []
        for key, ready in (("addresses", True), ("notReadyAddresses", False)):
            for entry in _bound(read_list(subset, key)):
                target = read_mapping(entry, "targetRef")
                address = entry.get("ip") if isinstance(entry, dict) else None
                endpoint = _read_endpoint(address, target, ready=ready, serving=ready, terminating=False)
                if endpoint is None:
                    ignored["malformed"] += 1
                else:
                    endpoints.append(endpoint)
        slices.append(
            Slice(
                name=f"{service}#{number}",
                service=service,
                created=read_text(metadata, "creationTimestamp", 64),
                ports=_read_ports(subset),
                endpoints=tuple(endpoints),
                ignored=tuple(ignored.items()),
            )
        )
    return Slices(
        service,
        tuple(slices),
        read_moment(annotations, CHANGE_TIME),
        truncated=read_text(annotations, OVER_CAPACITY, 64) == "truncated",
    )


def _bound(entries: list[Any]) -> list[Any]:
    if len(entries) > MAX_ENDPOINTS:
        raise MalformedError(f"it has {len(entries)} entries, and at most {MAX_ENDPOINTS} are read")
    return entries


def _read_endpoint(
    address: object, target: dict[str, Any], *, ready: bool, serving: bool, terminating: bool
) -> Endpoint | None:
    """None if no connection could be made to such an address."""
    if not isinstance(address, str) or len(address) > 45 or "%" in address:
        return None
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    if parsed.is_unspecified or parsed.is_multicast:
        return None
    is_pod = target.get("kind") == "Pod"
    return Endpoint(
        address=str(parsed),
        family=f"ipv{parsed.version}",
        uid=read_text(target, "uid", MAX_UID) if is_pod else "",
        pod=read_name(target) if is_pod else "",
        ready=ready,
        serving=serving,
        terminating=terminating,
    )


def _read_ports(holder: Any) -> tuple[Port, ...]:
    ports = []
    for entry in read_list(holder, "ports")[:MAX_PORTS]:
        number = entry.get("port") if isinstance(entry, dict) else None
        if type(number) is not int or not 1 <= number <= 65535:
            continue
        if entry.get("protocol", "TCP") in ("TCP", None):
            ports.append(Port(read_text(entry, "name", 63), number))
    return tuple(ports)

"""Slices to replicas. All slices of a Service go in, the complete set comes out (DSC-1); nothing is remembered.

- A replica is a pod, known by its uid (DSC-2); an endpoint that is no pod is known by its address. A pod that stands in several
  slices, as it does while endpoints move, is one replica: terminating if any says so, else ready or serving if any does
  (DSC-3).
- Two pods with one address, or with one name: the one that is not terminating counts, else the one in the later slice
  (DSC-4). Pods that have both IP families appear with the chosen one (DSC-9).
- The port is chosen per slice: by name, by number, or the only TCP port there is (DSC-5, DSC-6). FlowFuse's management port
  is refused (DSC-12), and so is an address where this proxy itself listens (DSC-13).
- Ready: new work. Terminating and still serving: draining, new work only while nothing is ready (KEP-1672). Anything else
  is no replica; what runs on it goes on. The result is sorted by name (DSC-14); zones and weights do not matter (DSC-18).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from haproxy_py.config_file import MAX_INSTANCE_REPLICAS
from haproxy_py.config_values import MANAGEMENT_PORT, spell_address
from haproxy_py.discovery.found import FoundReplica
from haproxy_py.discovery.slices import Endpoint, Slice
from haproxy_py.table import ReplicaState

IsOwn = Callable[[str, int], bool]
"""Whether a connection to this address and port would end at the proxy itself."""

REASONS = ("family", "malformed", "management", "own", "port", "too_many")
"""The closed set of reasons for which an endpoint is ignored."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The replicas of a Service, and what was left out."""

    replicas: tuple[FoundReplica, ...]
    unready: int = 0
    ignored: Mapping[str, int] | None = None  # endpoints, by one of REASONS; None: nothing
    complaints: tuple[str, ...] = ()  # what an operator should know and can change
    ready: frozenset[str] = frozenset()  # uids of the pods that are
    listed: Mapping[str, FoundReplica] = field(
        default_factory=dict
    )  # pods that are neither ready nor terminating, by uid


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An endpoint with the port that was chosen for it."""

    endpoint: Endpoint
    port: int
    age: tuple[str, str]  # of its slice: creation, name

    @property
    def key(self) -> str:
        return self.endpoint.uid or self.address

    @property
    def address(self) -> str:
        return spell_address(self.endpoint.address, self.port)

    @property
    def name(self) -> str:
        return self.endpoint.pod or self.address

    @property
    def rank(self) -> tuple[object, ...]:
        """The greater one is the later; the rest of it only makes sure that no order of arrival ever matters."""
        return (self.age, self.address, self.key, self.name, self.endpoint.ready, self.endpoint.serving)

    @property
    def claim(self) -> tuple[object, ...]:
        """The greater one counts, where there can be one only (DSC-4)."""
        return (not self.endpoint.terminating, self.rank)


def merge(slices: Iterable[Slice], port: str, family: str, is_own: IsOwn) -> Merged:
    """The replicas that `slices`, all of one Service, describe.

    `port` is the name or number of a port or empty, `family` is ipv4 or ipv6.
    """
    ignored: Counter[str] = Counter()
    complaints: list[str] = []
    candidates = []
    for piece in slices:
        ignored.update(dict(piece.ignored))
        if any(reason == "family" for reason, _ in piece.ignored):
            complaints.append(
                "it has endpoints that are no IP addresses (an EndpointSlice of type FQDN), which are never used; for a name "
                "in the DNS there is replicas.dns"
            )
        if not piece.endpoints:
            continue
        number = _choose_port(piece, port, complaints)
        if number is None:
            ignored["port"] += len(piece.endpoints)
        elif number == MANAGEMENT_PORT:
            ignored["management"] += len(piece.endpoints)
            complaints.append(f"port {MANAGEMENT_PORT} is FlowFuse's management port and is never used")
        else:
            age = (piece.created, piece.name)
            candidates += [_Candidate(endpoint, number, age) for endpoint in piece.endpoints]
    pods = _keep_one(_join_pods(candidates, family, ignored), attrgetter("address"))
    pods = _keep_one(pods, attrgetter("name"))
    return _judge(pods, is_own, ignored, complaints)


def _choose_port(piece: Slice, wanted: str, complaints: list[str]) -> int | None:
    if not piece.ports:
        complaints.append(
            "its endpoints have no TCP port at all; the Service must name one, and its pods must have what targetPort says"
        )
        return None
    if not wanted:
        if len(piece.ports) == 1:
            return piece.ports[0].number
        complaints.append(
            f"its endpoints have {_spell_ports(piece)}, and the configuration names no port; set kubernetes.port"
        )
        return None
    for candidate in piece.ports:
        if wanted in (candidate.name, str(candidate.number)):
            return candidate.number
    complaints.append(f"its endpoints have {_spell_ports(piece)}, but no TCP port {wanted}; correct the port")
    return None


def _spell_ports(piece: Slice) -> str:
    ports = ", ".join(f"{port.name or 'unnamed'} ({port.number})" for port in piece.ports[:10])
    return f"the TCP ports {ports}"


def _join_pods(candidates: list[_Candidate], family: str, ignored: Counter[str]) -> list[_Candidate]:
    """One candidate per pod (DSC-3, DSC-9)."""
    groups: dict[str, list[_Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.key, []).append(candidate)
    # Without a pod nothing tells that two addresses of different families are the same replica, but they usually are.
    lone = {candidate.endpoint.family for candidate in candidates if not candidate.endpoint.uid}
    joined = []
    for group in groups.values():
        if not group[0].endpoint.uid and family in lone and group[0].endpoint.family != family:
            ignored["family"] += 1
            continue
        chosen = [candidate for candidate in group if candidate.endpoint.family == family] or group
        if len(chosen) == 1:
            joined.append(chosen[0])
            continue
        latest = max(chosen, key=attrgetter("rank"))
        endpoint = latest.endpoint
        combined = Endpoint(
            address=endpoint.address,
            family=endpoint.family,
            uid=endpoint.uid,
            pod=endpoint.pod,
            ready=any(candidate.endpoint.ready for candidate in chosen),
            serving=any(candidate.endpoint.serving for candidate in chosen),
            terminating=any(candidate.endpoint.terminating for candidate in chosen),
        )
        joined.append(_Candidate(combined, latest.port, latest.age))
    return joined


def _keep_one(candidates: Iterable[_Candidate], read: Callable[[_Candidate], str]) -> list[_Candidate]:
    """Among those of which `read` gives the same, the one with the best claim (DSC-4)."""
    best: dict[str, _Candidate] = {}
    for candidate in candidates:
        value = read(candidate)
        there = best.get(value)
        if there is None or candidate.claim > there.claim:
            best[value] = candidate
    return list(best.values())


def _judge(candidates: list[_Candidate], is_own: IsOwn, ignored: Counter[str], complaints: list[str]) -> Merged:
    replicas = []
    unready = 0
    ready = set()
    listed = {}
    for candidate in candidates:
        endpoint = candidate.endpoint
        if is_own(endpoint.address, candidate.port):
            ignored["own"] += 1
            complaints.append(
                f"{candidate.address} is this proxy itself, and requests would go in a circle: the Service or its port "
                "must name Node-RED, not the proxy"
            )
        elif endpoint.ready and not endpoint.terminating:
            replicas.append(_make(candidate, ReplicaState.READY))
            ready.add(endpoint.uid)
        elif endpoint.terminating and (endpoint.serving or endpoint.ready):
            replicas.append(_make(candidate, ReplicaState.DRAINING))
        else:
            unready += 1
            if endpoint.uid and not endpoint.terminating:
                listed[endpoint.uid] = _make(candidate, ReplicaState.READY)
    replicas.sort(key=attrgetter("name"))
    if len(replicas) > MAX_INSTANCE_REPLICAS:
        ignored["too_many"] += len(replicas) - MAX_INSTANCE_REPLICAS
        complaints.append(f"{len(replicas)} replicas are too many: the first {MAX_INSTANCE_REPLICAS} by name are used")
        del replicas[MAX_INSTANCE_REPLICAS:]
    texts = tuple(dict.fromkeys(complaints))
    return Merged(tuple(replicas), unready, ignored or None, texts, frozenset(ready - {""}), listed)


def _make(candidate: _Candidate, state: ReplicaState) -> FoundReplica:
    return FoundReplica(candidate.name, candidate.endpoint.address, candidate.port, state)

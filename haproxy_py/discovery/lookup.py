"""One look-up of a name in the DNS: which replicas it stands for, and for how long that is good.

- With a port the name has addresses (A for family ipv4, AAAA for ipv6; RFC 1035, 3596), each a replica named ADDRESS:PORT. Only
  one family is asked for: nothing would tell that two addresses are the same replica.
- Without a port the name has SRV records (RFC 2782), each a replica named by its target, or TARGET:PORT where a target has
  several ports. Those of the best priority count; weights do not. Addresses of targets come from the same answer or are asked
  for; of several the lowest is used, so that an answer in another order changes nothing. The target `.` says that there is none.
- An answer is used only whole: if the address of a target cannot be asked for, the look-up has failed.
- Truncated answers are asked for over TCP; what is not an answer to the question (another id, garbage) is passed over.

The dnspython package is imported here and nowhere else, when the first name is followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dns.asyncresolver
    import dns.resolver

WITHIN = 4.0
"""Seconds for one question, to all name servers together."""

ONE_SERVER = 1.5
"""Seconds until a question is asked again, or of the next name server."""

MAX_TARGETS = 1024
"""SRV records of one name that are used, as many as an instance may have replicas."""

AT_ONCE = 16
"""Targets whose addresses are asked for at once."""

LONGEST_TTL = 7 * 24 * 3600.0
"""Seconds. RFC 2181 section 8 allows 68 years."""


_TARGET = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9_])?")


class Outcome(Enum):
    """How a look-up ended: the `outcome` label of the metrics."""

    OK = "ok"
    NO_NAME = "no_name"  # NXDOMAIN: there is no such name
    NO_RECORDS = "no_records"  # the name has none of the kind that was asked for
    SERVER = "server"  # SERVFAIL, REFUSED, or an answer that makes no sense, of every name server
    TIMEOUT = "timeout"
    CLIENT = "client"  # the name server could not be asked at all


class LookupFailedError(Exception):
    """The text says what went wrong."""

    def __init__(self, outcome: Outcome, text: str) -> None:
        super().__init__(text)
        self.outcome = outcome

    @property
    def is_answer(self) -> bool:
        """Whether a name server has said that there is nothing."""
        return self.outcome in (Outcome.NO_NAME, Outcome.NO_RECORDS)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked again and again. Equal questions have one answer, whatever port an instance wants."""

    name: str
    is_srv: bool
    family: str  # ipv4 | ipv6
    servers: tuple[tuple[str, int], ...]  # empty: those of /etc/resolv.conf


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One replica that a name stands for."""

    address: str
    port: int = 0  # of an SRV record
    target: str = ""  # of an SRV record


@dataclass(frozen=True, slots=True)
class Looked:
    """An answer."""

    members: tuple[Member, ...]  # sorted, at least one
    ttl: float  # seconds


async def look_up(question: Question) -> Looked:
    """Ask the name servers now. Raises LookupFailedError."""
    resolver = _make_resolver(question)
    if not question.is_srv:
        addresses, ttl = await _ask_addresses(resolver, question.name, question.family)
        return Looked(tuple(sorted(Member(address) for address in addresses)), ttl)
    answer = await _ask(resolver, question.name, "SRV")
    best = min(record.priority for record in answer)
    records = {
        (record.target.to_text(omit_final_dot=True).lower(), record.port)
        for record in answer
        if record.priority == best and record.target.to_text() != "."
    }
    if not records:
        raise LookupFailedError(Outcome.NO_RECORDS, f"the SRV record of {question.name} says that there is no replica")
    for target, _ in records:
        if not _TARGET.fullmatch(target):
            raise LookupFailedError(
                Outcome.SERVER, f"an SRV record of {question.name} names {target!r}, which is no host"
            )
    chosen = sorted(records)[:MAX_TARGETS]
    known = _read_additional(answer, question.family)
    room = asyncio.Semaphore(AT_ONCE)

    async def find(target: str) -> tuple[str, float]:
        if target in known:
            return known[target], LONGEST_TTL
        async with room:
            addresses, ttl = await _ask_addresses(resolver, target + ".", question.family)
        return _choose(addresses), ttl

    targets = sorted({target for target, _ in chosen})
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {target: group.create_task(find(target)) for target in targets}
    except* LookupFailedError as failures:
        first = failures.exceptions[0]
        raise LookupFailedError(Outcome.SERVER, f"a target of {question.name}: {first}") from None
    found = {target: task.result() for target, task in tasks.items()}
    ttl = min(_read_ttl(answer), *(ttl for _, ttl in found.values()))
    return Looked(tuple(sorted(Member(found[target][0], port, target) for target, port in chosen)), ttl)


async def _ask_addresses(resolver: dns.asyncresolver.Resolver, name: str, family: str) -> tuple[set[str], float]:
    answer = await _ask(resolver, name, "A" if family == "ipv4" else "AAAA")
    return {record.address for record in answer}, _read_ttl(answer)


async def _ask(resolver: dns.asyncresolver.Resolver, name: str, kind: str) -> dns.resolver.Answer:
    import dns.exception
    import dns.resolver

    try:
        async with asyncio.timeout(WITHIN + 1.0):  # `lifetime` is kept by the clock of the day, which may be set
            return await resolver.resolve(name, kind, search=True, lifetime=WITHIN)
    except dns.resolver.NXDOMAIN:
        raise LookupFailedError(Outcome.NO_NAME, f"there is no name {name} (NXDOMAIN)") from None
    except dns.resolver.NoAnswer:
        raise LookupFailedError(Outcome.NO_RECORDS, f"{name} has no {kind} record") from None
    except (dns.resolver.LifetimeTimeout, TimeoutError):
        raise LookupFailedError(Outcome.TIMEOUT, f"no answer to {name} {kind} within {WITHIN:g} s") from None
    except dns.resolver.NoNameservers as error:
        reasons = ", ".join(dict.fromkeys(_explain(one) for one in error.kwargs.get("errors", ())))
        raise LookupFailedError(
            Outcome.SERVER, f"no name server answers {name} {kind}: {reasons or 'none is left'}"
        ) from None
    except (dns.exception.DNSException, OSError) as error:
        raise LookupFailedError(
            Outcome.CLIENT, f"{name} {kind} cannot be asked: {error or type(error).__name__}"
        ) from None


def _explain(error: Any) -> str:
    """One attempt, as dnspython keeps it: server, TCP, port, what went wrong, response."""
    server, _, _, problem, _ = error
    return f"{server} says {problem}" if isinstance(problem, str) else f"{server}: {problem or type(problem).__name__}"


def _make_resolver(question: Question) -> dns.asyncresolver.Resolver:
    """Made anew each time: /etc/resolv.conf may have changed."""
    import dns.asyncresolver
    import dns.nameserver
    import dns.resolver

    try:
        resolver = dns.asyncresolver.Resolver(configure=not question.servers)
    except (dns.resolver.NoResolverConfiguration, OSError) as error:
        raise LookupFailedError(Outcome.CLIENT, f"/etc/resolv.conf names no name server: {error}") from None
    if question.servers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in question.servers]
    resolver.timeout = ONE_SERVER
    return resolver


def _read_additional(answer: dns.resolver.Answer, family: str) -> Mapping[str, str]:
    """Addresses by name that came along with an answer. They are believed as much as the answer is: same server, same id."""
    import dns.rdatatype

    wanted = dns.rdatatype.A if family == "ipv4" else dns.rdatatype.AAAA
    return {
        rrset.name.to_text(omit_final_dot=True).lower(): _choose({record.address for record in rrset})
        for rrset in answer.response.additional
        if rrset.rdtype == wanted and len(rrset)
    }


def _choose(addresses: set[str]) -> str:
    return str(min(map(ipaddress.ip_address, addresses), key=int))


def _read_ttl(answer: dns.resolver.Answer) -> float:
    return min(float(answer.chaining_result.minimum_ttl), LONGEST_TTL)

"""By which names the operators' port may be called: a defence against DNS rebinding.

A page of any site can have its own name lead to this address a moment later, and then its script reads what is here as its own,
also on loopback, where no other machine can come. What it cannot do is hide the name that it was loaded by: it stands in Host.

- Nobody can own an address, so IP addresses pass: so do kubelets and Prometheus ask.
- Nor can anybody in the world have a name without a dot, or below a domain that is never delegated: `localhost`, the names of
  Compose services and Kubernetes Services.
- The name of this machine (of a pod: the pod's) passes, and what `ops.hosts` names.
- No Host at all passes: no browser leaves it out.
- The probes pass whatever they are called by: load balancers send what they are told to, and there is nothing to learn.

Everything else is 421 (RFC 9110 section 15.5.20). What changes something needs the token besides (`changes.py`).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Sequence

from aiohttp import web

from haproxy_py.ops.answers import answer_error

PROBES = frozenset({"/livez", "/readyz"})

NEVER_DELEGATED = ("localhost", "internal", "svc", "cluster.local")
"""Domains below which no registry gives anybody a name: RFC 6761, ICANN's for private use, and what Kubernetes uses."""

_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+(%[^\[\]\s]*)?\]|[^\[\]:@/\s]+)(:[0-9]{0,5})?")

MAX_NAMED = 100
"""Characters of a name that an answer repeats."""


def refuse_host(request: web.Request, allowed: Collection[str]) -> web.Response | None:
    """The answer to a request that may not be called by the name it is; None if it may. `allowed`: in lower case."""
    fields = request.headers.getall("Host", ())
    if request.path in PROBES or may_call(fields, allowed):
        return None
    name = ", ".join(fields)[:MAX_NAMED]
    return answer_error(
        421,
        "unknown_host",
        f"This port does not answer by the name {name!r}, because a page of another site could have brought it up. Call it by "
        "its IP address, or list the name under ops.hosts in the configuration.",
    )


def may_call(fields: Sequence[str], allowed: Collection[str]) -> bool:
    """Whether these fields Host lead nobody astray."""
    if not fields:
        return True
    if len(fields) > 1 or not (parts := _AUTHORITY.fullmatch(fields[0].strip())):
        return False
    host = parts["host"].lower().removesuffix(".")
    if host.startswith("[") or _is_address(host):
        return True
    labels = host.split(".")
    return (
        len(labels) == 1
        or any(host.endswith(f".{domain}") for domain in NEVER_DELEGATED)
        or host == socket.gethostname().lower()
        or host in allowed
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True

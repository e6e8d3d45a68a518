"""Networks: which addresses belong to proxies whose word about a client is taken."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

_REMEMBERED = 4096
"""Addresses whose verdict is kept: a proxy sees the same few ingress addresses with every request."""


_LONGEST_HOP = 64
"""Characters of a hop that is read: an IPv6 address with an IPv4 tail has 45; with brackets, port and quotes 55."""

_PORT = re.compile(":[0-9]{1,5}")


@lru_cache(_REMEMBERED)
def _read_short_hop(text: str) -> str | None:
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if text.startswith("["):
        written, bracket, port = text[1:].partition("]")
        if not bracket or ":" not in written:
            return None
    elif text.count(":") == 1:
        written = text.partition(":")[0]
        port = text[len(written) :]
    else:
        written, port = text, ""
    if port and not _PORT.fullmatch(port):
        return None
    try:
        address = ipaddress.ip_address(written.partition("%")[0])  # a zone means nothing elsewhere
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def read_hop(text: str) -> str | None:
    """The IP address of a hop in X-Forwarded-For, in normal form; None if it is none.

    Proxies write it with a port (Azure), in brackets, in quotes (as in Forwarded), or an IPv4 address as an IPv6 one.
    """
    return _read_short_hop(text) if len(text) <= _LONGEST_HOP else None


class Networks:
    """A set of networks in CIDR notation."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._judge = lru_cache(_REMEMBERED)(self._contains)

    def __contains__(self, address: str) -> bool:
        return self._judge(address)

    def _contains(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks if network.version == address.version)

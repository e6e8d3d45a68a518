"""Networks: which addresses belong to proxies whose word about a client is taken."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

_REMEMBERED = 4096
"""Addresses whose verdict is kept: a proxy sees the same few ingress addresses with every request."""


class Networks:
    """A set of networks in CIDR notation."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._judge = lru_cache(_REMEMBERED)(self._contains)

    def __contains__(self, address: str) -> bool:
        return self._judge(address) is True

    def is_address(self, text: str) -> bool:
        """Whether a hop of X-Forwarded-For is an IP address at all."""
        return self._judge(text) is not None

    def _contains(self, text: str) -> bool | None:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks if network.version == address.version)

"""The part of a configuration that names replicas in the DNS."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from haproxy_py.config import DnsName
from haproxy_py.config_error import Problems
from haproxy_py.config_reader import Reader, duration, list_of, number, once, read_keys, text_only, word
from haproxy_py.config_tree import Node
from haproxy_py.config_values import MANAGEMENT_PORT, UnacceptableError, address, quote

MAX_SERVERS = 3
"""Name servers, as many as resolv.conf(5) takes."""

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def dns_name(text: str) -> str:
    """A name in the DNS, in lower case; with a dot at the end it is never completed by a search domain."""
    name = text.lower()
    labels = name.removesuffix(".").split(".")
    try:
        ipaddress.ip_address(text)
    except ValueError:
        pass
    else:
        raise UnacceptableError(f'{quote(text)} is an address, which needs no look-up: list it under "static"')
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UnacceptableError(f"expected a name like my-instance.example.com, found {quote(text)}")
    return name


def _server(text: str) -> tuple[str, int]:
    host, port = address(text if ":" in text.rpartition("]")[2] else f"{text}:53")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise UnacceptableError(f"expected an IP address, with or without a port, found {quote(text)}") from None
    if port == 0:
        raise UnacceptableError("expected a port from 1 to 65535, found 0")
    return host, port


def read_dns(node: Node, problems: Problems) -> DnsName:
    """A `replicas.dns`."""
    before = len(problems)
    server: Reader[tuple[str, int]] = text_only(_server, "an IP address like 10.0.0.10 or 127.0.0.1:8600")
    readers: dict[str, Reader[Any]] = {
        "name": text_only(dns_name, "a name"),
        "port": number(1, 65535),
        "interval": duration(least=1.0, may_be_off=False),
        "family": word("ipv4", "ipv6"),
        "servers": list_of(once(server, {}), MAX_SERVERS),  # once in this list, that is
    }
    found = DnsName(**{"name": "", **read_keys(node, readers, problems, needed=["name"])})
    if len(problems) > before:
        return found
    if found.name.startswith("_") and found.port:
        problems.add(
            node.place, "the records of a name that begins with '_' (SRV) say the port themselves: remove port"
        )
    if found.port == MANAGEMENT_PORT:
        problems.add(
            node.place,
            f"port {MANAGEMENT_PORT} is FlowFuse's management port, which asks nobody for a password: "
            "name the port of Node-RED, usually 1880",
        )
    return found

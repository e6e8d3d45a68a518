"""The parts of a configuration that name something in Kubernetes: a Service, or a selection of Services."""

from __future__ import annotations

import re
from typing import Any

from haproxy_py.config import Cluster, KubernetesSelector, KubernetesService
from haproxy_py.config_error import Problems
from haproxy_py.config_reader import Reader, file_path, list_of, once, read_keys, scalar, text_only, word
from haproxy_py.config_tree import Node
from haproxy_py.config_values import MANAGEMENT_PORT, UnacceptableError, quote

MAX_NAMESPACES = 64
"""Namespaces of one selection: each is followed by two connections to the API server."""

MAX_SELECTOR = 1024
"""Characters of a label selector; it travels in the query of every request."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_NUMBER = re.compile(r"[0-9]{1,5}")
# The grammar of label selectors (Kubernetes documentation, "Labels and Selectors").
_KEY = rf"(?:{_LABEL}(?:\.{_LABEL})*/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,61}}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"
_REQUIREMENT = rf"(?:!?{_KEY}|{_KEY} ?(?:=|==|!=) ?{_VALUE}|{_KEY} (?:in|notin) \({_VALUE}(?:, ?{_VALUE})*\))"
_SELECTOR = re.compile(rf"{_REQUIREMENT}(?:, ?{_REQUIREMENT})*")


def object_name(text: str) -> str:
    """The name of a Service or of a namespace (RFC 1123 label)."""
    if not _DNS_LABEL.fullmatch(text):
        raise UnacceptableError(
            f"expected 1 to 63 lower-case letters, digits or '-', a letter or digit at both ends, found {quote(text)}"
        )
    return text


def endpoint_port(text: str) -> str:
    """The name of a port, or its number in decimal digits without leading zeros."""
    if not _NUMBER.fullmatch(text):
        return object_name(text)
    number = int(text)
    if not 1 <= number <= 65535:
        raise UnacceptableError(f"expected the name of a port or a number from 1 to 65535, found {quote(text)}")
    if number == MANAGEMENT_PORT:
        raise UnacceptableError(
            f"port {MANAGEMENT_PORT} is FlowFuse's management port, which asks nobody for a password: "
            "name the port of Node-RED, usually 1880"
        )
    return str(number)


def label_selector(text: str) -> str:
    """A label selector as kubectl takes it."""
    if len(text) > MAX_SELECTOR or not _SELECTOR.fullmatch(text):
        raise UnacceptableError(
            f"expected a label selector like haproxy-py.dev/instance or app=node-red,tier!=test, found {quote(text)}"
        )
    return text


def _context(text: str) -> str:
    if not 1 <= len(text) <= 253:
        raise UnacceptableError(f"expected the name of a context of the kubeconfig, found {quote(text)}")
    return text


_name: Reader[str] = text_only(object_name, "a name")
_COMMON: dict[str, Reader[Any]] = {
    "source": word("endpointslices", "endpoints"),
    "family": word("ipv4", "ipv6"),
    "kubeconfig": file_path("the path of a file"),
    "context": text_only(_context, "the name of a context"),
}


def read_service(node: Node, problems: Problems) -> KubernetesService:
    """A `replicas.kubernetes`."""
    readers = {"service": _name, "namespace": _name, "port": scalar(endpoint_port, "the name or number of a port")}
    found = read_keys(node, readers | _COMMON, problems, needed=["service"])
    cluster = _take_cluster(node, found, problems)
    return KubernetesService(**{"service": "", **found}, cluster=cluster)


def read_selector(node: Node, problems: Problems) -> KubernetesSelector:
    """An `instances_from.kubernetes`."""
    readers: dict[str, Reader[Any]] = {
        "namespaces": list_of(once(_name, {}), MAX_NAMESPACES),
        "selector": text_only(label_selector, "a label selector"),
    }
    found = read_keys(node, readers | _COMMON, problems)
    cluster = _take_cluster(node, found, problems)
    return KubernetesSelector(**found, cluster=cluster)


def _take_cluster(node: Node, found: dict[str, Any], problems: Problems) -> Cluster:
    cluster = Cluster(found.pop("kubeconfig", ""), found.pop("context", ""))
    if cluster.context and not cluster.kubeconfig:
        problems.add(node.place, 'a context is one of a kubeconfig: name its file under "kubeconfig"')
    return cluster

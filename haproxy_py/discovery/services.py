"""Services, as far as they matter here: an annotation switches HA mode, and some of them are instances.

- `haproxy-py.dev/ha: "true"` closes the gate, `"false"` or its absence opens it. Anything else closes it: a slip of the
  pen must not open an editor.
- `haproxy-py.dev/hosts: a.example.com, b.example.com` names the hosts of the instance that the Service becomes;
  `haproxy-py.dev/port` the name or number of its endpoints' port.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from haproxy_py.config import Instance, InstancesFrom, KubernetesService
from haproxy_py.config_file import MAX_HOSTS
from haproxy_py.config_kubernetes import endpoint_port
from haproxy_py.config_values import UnacceptableError, host_name, quote
from haproxy_py.discovery.fields import read_mapping, read_name, read_text

HA = "haproxy-py.dev/ha"
HOSTS = "haproxy-py.dev/hosts"
PORT = "haproxy-py.dev/port"

MAX_ANNOTATION = 65536
"""Characters of an annotation that is read: 256 hosts of 253 characters."""


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    namespace: str
    created: str  # RFC 3339 in UTC, so that the text sorts
    ha: str  # the annotations as they are written; empty if absent
    hosts: str
    port: str
    is_external: bool = False  # of type ExternalName


def parse_service(thing: dict[str, Any]) -> Service:
    """A Service of v1."""
    metadata = read_mapping(thing, "metadata")
    annotations = read_mapping(metadata, "annotations")
    return Service(
        name=read_name(metadata),
        namespace=read_name(metadata, "namespace"),
        created=read_text(metadata, "creationTimestamp", 64),
        ha=_read_annotation(annotations, HA),
        hosts=_read_annotation(annotations, HOSTS),
        port=_read_annotation(annotations, PORT),
        is_external=read_text(read_mapping(thing, "spec"), "type", 64) == "ExternalName",
    )


def _read_annotation(annotations: dict[str, Any], key: str) -> str:
    value = annotations.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_ANNOTATION:
        return "?"  # there, but nothing that could be meant
    return value.strip()


def is_ha(service: Service) -> tuple[bool, str]:
    """Whether the Service asks for HA mode, and a complaint or nothing."""
    if service.ha in ("", "false"):
        return False, ""
    if service.ha == "true":
        return True, ""
    return True, f'its annotation {HA} is {quote(service.ha)}, neither "true" nor "false": it is taken for "true"'


@dataclass(frozen=True, slots=True)
class Selected:
    """The instances that Services have become."""

    instances: tuple[Instance, ...]
    complaints: tuple[tuple[str, str], ...]  # namespace/name of a Service, and what is wrong with it


def make_instances(
    services: Iterable[Service], source: InstancesFrom, configured: Iterable[Instance], most: int
) -> Selected:
    """The instances of these Services, the oldest first, which also decides who has a host that two ask for.

    Names and hosts of `configured` instances are theirs. At most `most` instances are made.
    """
    names = {instance.name for instance in configured}
    hosts = {
        host: f"instance {instance.name} of the configuration" for instance in configured for host in instance.hosts
    }
    instances: list[Instance] = []
    complaints: list[tuple[str, str]] = []
    for service in sorted(services, key=lambda one: (one.created, one.namespace, one.name)):
        own = f"{service.namespace}/{service.name}"
        try:
            if len(instances) >= most:
                raise UnacceptableError(f"at most {most} Services can be instances; this one is not served")
            instance = _make_instance(service, source, hosts, names)
        except UnacceptableError as error:
            complaints.append((own, str(error)))
            continue
        refused = [host for host in _list_hosts(service) if host not in instance.hosts]
        complaints += [(own, f"host {host} already belongs to {hosts[host]}") for host in refused]
        hosts |= {host: f"Service {own}" for host in instance.hosts}
        instances.append(instance)
    return Selected(tuple(instances), tuple(complaints))


def _make_instance(service: Service, source: InstancesFrom, hosts: dict[str, str], names: set[str]) -> Instance:
    name = f"{service.name}.{service.namespace}"
    wanted = _list_hosts(service)
    free = tuple(host for host in wanted if host not in hosts)
    if name in names:
        raise UnacceptableError(f"the configuration has an instance {name} already; this Service is not served")
    if not free:
        raise UnacceptableError(f"host {wanted[0]} already belongs to {hosts[wanted[0]]}; this Service is not served")
    selector = source.kubernetes
    return Instance(
        name=name,
        hosts=free,
        ha=None,
        kubernetes=KubernetesService(
            service=service.name,
            namespace=service.namespace,
            port=endpoint_port(service.port) if service.port else "",
            source=selector.source,
            family=selector.family,
            cluster=selector.cluster,
        ),
        balance=source.balance,
        gate=source.gate,
        health=source.health,
        replica_header=source.replica_header,
        half_close=source.half_close,
        timeouts=source.timeouts,
        limits=source.limits,
        retries=source.retries,
        eject=source.eject,
        trusted_proxies=source.trusted_proxies,
    )


def _list_hosts(service: Service) -> list[str]:
    """Raises UnacceptableError."""
    if not service.hosts:
        raise UnacceptableError(f"it has no annotation {HOSTS} that names its hosts; it is not served")
    written = service.hosts.split(",")
    if len(written) > MAX_HOSTS:
        raise UnacceptableError(f"{len(written)} hosts are too many: at most {MAX_HOSTS}; it is not served")
    return list(dict.fromkeys(host_name(host.strip()) for host in written))

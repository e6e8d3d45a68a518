"""Which collections must be followed for a configuration: one per cluster, kind, namespace and selector.

The narrowest query that covers what is wanted is used, so that the Role can be as narrow: one Service alone is asked for by
its name, several by their names, and a selection of Services by its selector (their slices then by the whole namespace,
because which Services are selected is not known beforehand).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from haproxy_py.config import Cluster, Config, KubernetesService
from haproxy_py.discovery.api import Collection
from haproxy_py.discovery.slices import SERVICE_LABEL

SERVICES = "services"
GROUPS = {"endpointslices": ("discovery.k8s.io", "v1"), "endpoints": ("", "v1"), SERVICES: ("", "v1")}
"""API group and version of each kind."""

MAX_NAMES = 50
"""Names in a selector; with more the whole namespace is read and filtered here."""


@dataclass(frozen=True, slots=True)
class Key:
    """What one list-and-watch is for."""

    cluster: Cluster
    kind: str  # one of GROUPS
    namespace: str  # empty: the own one
    selector: str = ""  # of Services that become instances


@dataclass(frozen=True, slots=True)
class Scope:
    """What it must cover."""

    key: Key
    names: frozenset[str] | None  # of Services; None: all

    def covers(self, service: str) -> bool:
        return self.names is None or service in self.names

    def make_collection(self) -> Collection:
        """The query for it."""
        group, version = GROUPS[self.key.kind]
        labels = self.key.selector
        fields = ""
        if self.key.kind == "endpointslices":
            labels = SERVICE_LABEL
            if self.names is not None and len(self.names) == 1:
                labels += f"={min(self.names)}"
            elif self.names is not None and len(self.names) <= MAX_NAMES:
                labels += f" in ({','.join(sorted(self.names))})"
        elif self.names is not None and len(self.names) == 1:
            fields = f"metadata.name={min(self.names)}"
        return Collection(self.key.kind, group, version, self.key.namespace, labels, fields)


def plan_scopes(config: Config) -> dict[Key, Scope]:
    """Everything that must be followed for this configuration."""
    names: dict[Key, frozenset[str] | None] = {}
    for key, name in _list_needs(config):
        there = names.get(key, frozenset())
        names[key] = None if name is None or there is None else there | {name}
    return {key: Scope(key, wanted) for key, wanted in names.items()}


def locate_endpoints(service: KubernetesService) -> Key:
    """Where the endpoints of a Service are found."""
    return Key(service.cluster, service.source, service.namespace)


def locate_service(service: KubernetesService) -> Key:
    """Where the Service of a configured instance is found."""
    return Key(service.cluster, SERVICES, service.namespace)


def locate_selected(config: Config) -> list[Key]:
    """Where the Services are found that become instances."""
    if config.instances_from is None:
        return []
    source = config.instances_from.kubernetes
    return [Key(source.cluster, SERVICES, namespace, source.selector) for namespace in source.namespaces or ("",)]


def _list_needs(config: Config) -> Iterator[tuple[Key, str | None]]:
    for instance in config.instances:
        if instance.kubernetes is not None:
            yield locate_endpoints(instance.kubernetes), instance.kubernetes.service
            if instance.ha is None:
                yield locate_service(instance.kubernetes), instance.kubernetes.service
    for key in locate_selected(config):
        yield key, None
        if config.instances_from is not None:
            yield Key(key.cluster, config.instances_from.kubernetes.source, key.namespace), None

"""Objects of the Kubernetes API as tests need them."""

from __future__ import annotations

from typing import Any

Thing = dict[str, Any]


def make_endpoint(
    pod: str = "",
    address: str = "10.0.0.1",
    *,
    uid: str | None = None,
    ready: bool | None = True,
    serving: bool | None = None,
    terminating: bool | None = None,
) -> Thing:
    """An endpoint of a slice; conditions that are None are absent."""
    conditions = {"ready": ready, "serving": serving, "terminating": terminating}
    endpoint: Thing = {
        "addresses": [address],
        "conditions": {key: value for key, value in conditions.items() if value is not None},
    }
    if pod:
        endpoint["targetRef"] = {"kind": "Pod", "namespace": "node-red", "name": pod, "uid": uid or f"uid-of-{pod}"}
    return endpoint


def make_slice(
    *endpoints: Thing,
    name: str = "my-instance-abc",
    service: str = "my-instance",
    ports: list[Thing] | None = None,
    family: str = "IPv4",
    created: str = "",
) -> Thing:
    """An EndpointSlice with one port, http 1880, unless told otherwise."""
    metadata: Thing = {"name": name, "labels": {"kubernetes.io/service-name": service}}
    if created:
        metadata["creationTimestamp"] = created
    return {
        "metadata": metadata,
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": ports if ports is not None else [make_port()],
    }


def make_port(number: int | None = 1880, name: str | None = "http", protocol: str | None = "TCP") -> Thing:
    port = {"name": name, "port": number, "protocol": protocol}
    return {key: value for key, value in port.items() if value is not None}


def make_service(name: str = "my-instance", *, labels: dict[str, str] | None = None, **annotations: str) -> Thing:
    """A Service; annotations `ha`, `hosts`, `port` are those of haproxy-py.dev."""
    return {
        "metadata": {
            "name": name,
            "labels": labels or {},
            "annotations": {f"haproxy-py.dev/{key}": value for key, value in annotations.items()},
        },
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 1880, "protocol": "TCP"}], "clusterIP": "None"},
    }

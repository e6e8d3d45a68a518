"""A real cluster, driven as the API server of the tests is: where TEST_KUBECONFIG names a kubeconfig."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.discovery.api_server import GROUPS, KINDS, ApiServer, Thing

REAL = os.environ.get("TEST_KUBECONFIG", "")
"""Path of a kubeconfig whose user may create and delete a namespace, Services, Endpoints and EndpointSlices."""

SAY_ABSENT = (
    "TEST_KUBECONFIG is not set: the Kubernetes tests use their own API server only. Set it to the kubeconfig of a test "
    "cluster to run them against that too; they make a namespace of their own there and delete it."
)


class OwnCluster:
    """The API server of the tests, in one namespace."""

    namespace = "node-red"

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def put(self, kind: str, thing: Thing) -> str:
        """Create or replace an object; its version."""
        return self._server.put(kind, self.namespace, thing)

    def delete(self, kind: str, name: str) -> None:
        self._server.delete(kind, self.namespace, name)

    def write_kubeconfig(self, **user: str) -> Path:
        """A kubeconfig for it; `token` replaces the right one."""
        return self._server.write_kubeconfig(**user)


class RealCluster:
    """A context manager: a namespace of its own in a real cluster, which goes with it."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.namespace = f"haproxy-py-test-{secrets.token_hex(4)}"
        self._kubeconfig = kubeconfig
        self._folder = folder
        self._client: Any = None

    def __enter__(self) -> Self:
        from kubernetes.config import new_client_from_config

        self._client = new_client_from_config(str(self._kubeconfig))
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        self._call("POST", "/api/v1/namespaces", namespace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call("DELETE", f"/api/v1/namespaces/{self.namespace}")
        self._client.close()

    def put(self, kind: str, thing: Thing) -> str:
        name = thing["metadata"]["name"]
        body = {"apiVersion": GROUPS[kind], "kind": KINDS[kind], **thing}
        found = self._call("GET", self._path(kind, name), may_fail=404)
        method, path = ("POST", self._path(kind)) if found is None else ("PUT", self._path(kind, name))
        made = self._call(method, path, body)
        version: str = made["metadata"]["resourceVersion"]
        return version

    def delete(self, kind: str, name: str) -> None:
        self._call("DELETE", self._path(kind, name), may_fail=404)

    def write_kubeconfig(self, **user: str) -> Path:
        config = yaml.safe_load(self._kubeconfig.read_text())
        current = config["current-context"]
        for context in config["contexts"]:
            if context["name"] == current:
                context["context"]["namespace"] = self.namespace
        if user:
            for entry in config["users"]:
                entry["user"] = user
        path = self._folder / "real-kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def _path(self, kind: str, name: str = "") -> str:
        group = GROUPS[kind]
        root = f"/apis/{group}" if "/" in group else f"/api/{group}"
        return f"{root}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def _call(self, method: str, path: str, body: Thing | None = None, may_fail: int = 0) -> Any:
        config = self._client.configuration
        fields = {"Accept": "application/json", "Content-Type": "application/json"}
        if token := config.get_api_key_with_prefix("BearerToken", alias="authorization"):
            fields["Authorization"] = token
        answer = self._client.rest_client.request(method, config.host + path, headers=fields, body=body)
        data = answer.read()
        if answer.status == may_fail:
            return None
        assert answer.status < 300, f"{method} {path} was answered {answer.status}: {data[:500]!r}"
        return json.loads(data)


AnyCluster = OwnCluster | RealCluster

"""Where the API server is, and how to prove who we are: the `kubernetes` package reads it, from the pod or from a kubeconfig.

The package is imported here and nowhere else, when a cluster is first asked for: it takes 20 MiB. Files are read again every
`REREAD_AFTER` and when the server says 401, because tokens and certificates are rotated in place.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haproxy_py.config import Cluster
from haproxy_py.config_kubernetes import object_name
from haproxy_py.config_values import UnacceptableError
from haproxy_py.discovery.exec_plugin import PluginError, run_plugin

REREAD_AFTER = 60.0
"""Seconds. The kubelet replaces a token when a fifth of its life is left, at least two minutes before it ends."""

DEFAULT_NAMESPACE = "default"
"""What kubectl uses where a kubeconfig names none."""

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class CredentialsError(Exception):
    """There are none, or they cannot be read. The text says what and what to do."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a request to the API server needs."""

    server: str  # URL without slash at the end
    namespace: str  # the own one
    authorization: str  # value of the field; empty: none (a client certificate, or an open server)
    tls: ssl.SSLContext | None  # None: plain HTTP
    server_name: str | None  # that the certificate must have, if not the host of the URL
    proxy: str | None  # URL of an HTTP proxy


class Credentials:
    """Those of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._access: Access | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()
        self._tls_of: tuple[str, ssl.SSLContext] | None = None  # digest of the files, and what they became

    def expire(self) -> None:
        """The server did not accept them: the next request reads them again."""
        self._read_at = float("-inf")

    async def read(self) -> Access:
        """The access of now. Raises CredentialsError."""
        async with self._reading:
            if self._access is None or time.monotonic() - self._read_at > REREAD_AFTER:
                self._access = await self._load()
                self._read_at = time.monotonic()
            return self._access

    async def _load(self) -> Access:
        config = await asyncio.to_thread(_import_configuration)
        if self._cluster.kubeconfig:
            namespace = await self._load_kubeconfig(config)
        else:
            namespace = self._load_service_account(config)
        try:
            object_name(namespace)
        except UnacceptableError as error:
            raise CredentialsError(f"the own namespace is no name: {error}") from error
        server = str(config.host).rstrip("/")
        if not server.startswith(("https://", "http://")):
            raise CredentialsError(f"the address of the API server is no URL: {server[:100]!r}")
        try:
            tls = self._make_tls(config) if server.startswith("https://") else None
        except (OSError, ssl.SSLError, ValueError) as error:
            raise CredentialsError(f"the certificates for {server} cannot be used: {error}") from error
        authorization = str(config.api_key.get("BearerToken", "")).strip()
        if not authorization.isascii() or not authorization.isprintable():
            raise CredentialsError("the token holds characters that no token has")
        return Access(server, namespace, authorization, tls, config.tls_server_name, config.proxy)

    def _load_service_account(self, config: Any) -> str:
        from kubernetes.aio.config import ConfigException, load_incluster_config

        load: Any = load_incluster_config  # has no types
        try:
            load(client_configuration=config)
            return _POD_NAMESPACE.read_text().strip() or DEFAULT_NAMESPACE
        except (ConfigException, OSError, UnicodeDecodeError) as error:
            raise CredentialsError(
                f"this is no pod with a service account ({error}): run in one with automountServiceAccountToken, or set "
                "kubernetes.kubeconfig"
            ) from error

    async def _load_kubeconfig(self, config: Any) -> str:
        path = self._cluster.kubeconfig
        if not os.path.isfile(path):  # noqa: ASYNC240
            raise CredentialsError(f"the kubeconfig {path} does not exist")
        try:
            loader = _make_loader(path, self._cluster.context)
            await loader.load_and_set(config)
            namespace = loader.current_context.get("context", {}).get("namespace")
        except PluginError as error:
            raise CredentialsError(f"the kubeconfig {path}: {error}") from error
        except Exception as error:  # a file that people write, read by code that checks little of it
            raise CredentialsError(f"the kubeconfig {path} cannot be used: {error}") from error
        return namespace if isinstance(namespace, str) and namespace else DEFAULT_NAMESPACE

    def _make_tls(self, config: Any) -> ssl.SSLContext:
        files = [config.ssl_ca_cert, config.cert_file, config.key_file]
        digest = hashlib.sha256(repr((files, config.verify_ssl)).encode())
        for file in files:
            digest.update(Path(file).read_bytes() if file else b"")
        if self._tls_of is None or self._tls_of[0] != digest.hexdigest():
            self._tls_of = (digest.hexdigest(), _build_tls(config))
        return self._tls_of[1]


def _import_configuration() -> Any:
    """An empty configuration of the package. Importing it takes half a second, so this runs on a thread."""
    from kubernetes.aio.client import Configuration

    return Configuration()


def _make_loader(path: str, context: str) -> Any:
    """The package's reader of a kubeconfig. Its way to run an exec plugin is replaced: it has no timeout, and hides errors."""
    from kubernetes.aio.config import kube_config

    base: Any = kube_config.KubeConfigLoader  # the package has no types
    file_or_data: Any = kube_config.FileOrData
    folder = os.path.dirname(os.path.abspath(path))

    class Loader(base):  # type: ignore[misc]
        async def load_from_exec_plugin(self) -> bool:
            status = await run_plugin(self._user["exec"].value, folder)
            if token := status.get("token"):
                self.token = f"Bearer {token}"
                return True
            for attribute, key in (("cert_file", "clientCertificateData"), ("key_file", "clientKeyData")):
                found = file_or_data(status, None, data_key_name=key, base64_file_content=False)
                setattr(self, attribute, found.as_file())
            return True

    read: Any = kube_config.KubeConfigMerger
    return Loader(config_dict=read(path).config, active_context=context or None, config_base_path=None)


def _build_tls(config: Any) -> ssl.SSLContext:
    tls = ssl.create_default_context(cafile=config.ssl_ca_cert)
    # Since Python 3.13 a CA without key identifier is refused by default; cluster CAs are often made without.
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if config.cert_file:
        tls.load_cert_chain(config.cert_file, config.key_file)
    if not config.verify_ssl:  # `insecure-skip-tls-verify` of the kubeconfig
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls

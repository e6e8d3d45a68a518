"""A small API server of Kubernetes: list, watch, bookmarks, resource versions, 410, TLS, bearer tokens; and writes.

It does what the API documentation says ("Kubernetes API Concepts"), for three kinds of objects, and misbehaves on command:
see `Faults`. It runs on a thread of its own, so that a test can drive it while it drives a proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.discovery.selectors import is_selected

GROUPS = {"endpointslices": "discovery.k8s.io/v1", "endpoints": "v1", "services": "v1"}
KINDS = {"endpointslices": "EndpointSlice", "endpoints": "Endpoints", "services": "Service"}
TOKEN = "first-token"
USER = "system:serviceaccount:node-red:haproxy-py"

Thing = dict[str, Any]


@dataclass
class Faults:
    """What goes wrong, until it is changed back."""

    status: int = 0  # every request gets this status
    retry_after: str = ""  # with it
    forbidden: set[str] = field(default_factory=set)  # kinds that the user may not read
    expired_watch: bool = False  # a watch from any version gets status 410
    error_event: Thing | None = None  # a watch begins with this ERROR object and ends
    stall: bool = False  # watches are accepted and say nothing, not even bookmarks
    end_at_once: bool = False  # watches are accepted and end
    reset_after: int = 0  # a watch is reset when so many bytes of events have been sent
    garbage: bytes = b""  # a watch begins with these bytes and ends
    cut: int = 0  # the stream of a watch is sent in pieces of so many bytes
    no_bookmarks: bool = False


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    at: float  # monotonic seconds
    verb: str  # list | watch
    kind: str
    namespace: str
    query: dict[str, str]
    token: str


@dataclass(frozen=True)
class Entry:
    """One change, as it stands in the history."""

    version: int
    kind: str
    namespace: str
    before: Thing | None
    after: Thing | None


@dataclass(frozen=True)
class Backup:
    """Everything that an API server stores."""

    things: dict[tuple[str, str, str], Thing]  # by kind, namespace, name
    version: int


class ApiServer:
    """A context manager; inside it serves on `url`."""

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        self.faults = Faults()
        self.tokens = {TOKEN}
        self.requests: list[Request] = []
        self.bookmark_interval = 60.0  # seconds
        self._folder = folder
        self._tls = make_certificates(folder) if tls else None
        self._port = 0
        self._things: dict[tuple[str, str, str], Thing] = {}  # kind, namespace, name
        self._version = 1000
        self._compacted = 0  # versions below this are forgotten
        self._history: list[Entry] = []
        self._changed = asyncio.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="api-server")
        self._runner: web.AppRunner | None = None
        self._watches: set[asyncio.Task[Any]] = set()
        self._transports: set[asyncio.Transport] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.vanish()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- what a test says ---

    def open(self) -> None:
        """Serve; on the same port as before."""
        self._run(self._open())

    def vanish(self) -> None:
        """Stop serving: the port is closed and every connection is reset. What is stored stays."""
        self._run(self._close())

    def put(self, kind: str, namespace: str, thing: Thing) -> str:
        """Create or replace an object; its version."""
        return self._run(self._put(kind, namespace, copy.deepcopy(thing)))

    def delete(self, kind: str, namespace: str, name: str) -> None:
        self._run(self._delete(kind, namespace, name))

    def compact(self) -> None:
        """Forget the history: watches from an older version than the newest get 410."""

        async def forget() -> None:
            self._version += 1
            self._compacted = self._version
            self._history.clear()

        self._run(forget())

    def back_up(self) -> Backup:
        """What is stored now, for `restore`."""
        return Backup(copy.deepcopy(self._things), self._version)

    def restore(self, backup: Backup) -> None:
        """As after `etcdctl snapshot restore`: versions begin again where the backup ended, so clients know higher ones."""

        async def go_back() -> None:
            self._things, self._version = copy.deepcopy(backup.things), backup.version
            self._history.clear()
            for task in list(self._watches):
                task.cancel()

        self._run(go_back())

    def end_watches(self) -> None:
        """End every watch, as a server does that restarts politely."""

        async def end() -> None:
            for task in list(self._watches):
                task.cancel()

        self._run(end())

    def write_kubeconfig(self, *, token: str = TOKEN) -> Path:
        """A kubeconfig for this server; the token stands in a file beside it, and may be replaced there."""
        token_file = self._folder / "token"
        token_file.write_text(token)
        cluster: Thing = {"server": self.url}
        if self._tls:
            cluster["certificate-authority"] = str(self._folder / "ca.crt")
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"tokenFile": str(token_file)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "node-red"}}],
        }
        path = self._folder / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def list_requests(self, verb: str = "", kind: str = "", since: float = 0.0) -> list[Request]:
        return [
            one
            for one in list(self.requests)
            if (not verb or one.verb == verb) and (not kind or one.kind == kind) and one.at >= since
        ]

    def wait_for(self, is_true: Callable[[], bool], within: float = 20.0) -> None:
        """Until something holds. Raises AssertionError."""
        deadline = time.monotonic() + within
        while not is_true():
            assert time.monotonic() < deadline, f"not within {within} s; the requests were {self.requests[-20:]}"
            time.sleep(0.005)

    def wait_for_watch(self, kind: str = "endpointslices", since: float = 0.0) -> None:
        self.wait_for(lambda: bool(self.list_requests("watch", kind, since)))

    # --- serving ---

    def _run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(doing, self._loop)
        return future.result(30)

    async def _open(self) -> None:
        app = web.Application()
        app.add_routes([web.route("*", "/{path:.*}", self._answer)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        context = None
        if self._tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*self._tls)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self._port))
        self._port = sock.getsockname()[1]
        await web.SockSite(self._runner, sock, ssl_context=context).start()

    async def _close(self) -> None:
        for task in list(self._watches):
            task.cancel()
        if self._runner is not None:
            for transport in self._transports:
                transport.abort()
            self._transports.clear()
            await self._runner.cleanup()
            self._runner = None
            for _ in range(3):
                await asyncio.sleep(0)  # what was aborted learns of it

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            self._transports.add(request.transport)
        found = re.fullmatch(
            r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))/namespaces/(?P<namespace>[^/]+)/(?P<kind>[^/]+)"
            r"(?:/(?P<name>[^/]+))?",
            request.path,
        )
        if request.method == "POST" and request.path == "/api/v1/namespaces":
            return web.json_response(await request.json(), status=201)
        if request.method == "DELETE" and re.fullmatch(r"/api/v1/namespaces/[^/]+", request.path):
            return web.json_response({"kind": "Status", "status": "Success"})
        if not found or GROUPS.get(found["kind"]) != (found["core"] or found["group"]):
            return _refuse(404, "NotFound", "the server could not find the requested resource")
        token = request.headers.get("Authorization", "").partition(" ")[2]
        kind, namespace = found["kind"], found["namespace"]
        if found["name"] and request.method == "GET":
            thing = self._things.get((kind, namespace, found["name"]))
            return web.json_response(thing) if thing else _refuse(404, "NotFound", "not found")
        if request.method != "GET":
            return await self._write(request, kind, namespace, found["name"])
        verb = "watch" if request.query.get("watch") == "true" else "list"
        self.requests.append(Request(time.monotonic(), verb, kind, namespace, dict(request.query), token))
        if token not in self.tokens:
            return _refuse(401, "Unauthorized", "Unauthorized")
        if self.faults.status:
            fields = {"Retry-After": self.faults.retry_after} if self.faults.retry_after else {}
            return _refuse(self.faults.status, "InternalError", "on command", fields)
        if kind in self.faults.forbidden:
            group = GROUPS[kind].rpartition("/")[0]
            text = f'{kind} is forbidden: User "{USER}" cannot {verb} resource "{kind}" in API group "{group}"'
            return _refuse(403, "Forbidden", f'{text} in the namespace "{namespace}"')
        try:
            is_selected({"metadata": {"name": ""}}, *_read_selectors(request))
        except ValueError as error:
            return _refuse(400, "BadRequest", str(error))
        if verb == "watch":
            return await self._watch(request, kind, namespace)
        return self._list(request, kind, namespace)

    # --- writing ---

    async def _write(self, request: web.Request, kind: str, namespace: str, name: str | None) -> web.Response:
        if request.method == "DELETE" and name:
            await self._delete(kind, namespace, name)
            return web.json_response({"kind": "Status", "status": "Success"})
        thing = await request.json()
        await self._put(kind, namespace, thing)
        return web.json_response(self._things[kind, namespace, thing["metadata"]["name"]], status=201)

    async def _put(self, kind: str, namespace: str, thing: Thing) -> str:
        key = (kind, namespace, thing["metadata"]["name"])
        before = self._things.get(key)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        created = before["metadata"]["creationTimestamp"] if before else now
        self._version += 1
        thing["metadata"] |= {
            "namespace": namespace,
            "creationTimestamp": thing["metadata"].get("creationTimestamp", created),
            "resourceVersion": str(self._version),
        }
        self._things[key] = {"apiVersion": GROUPS[kind], "kind": KINDS[kind], **thing}
        await self._record(kind, namespace, before, self._things[key])
        return str(self._version)

    async def _delete(self, kind: str, namespace: str, name: str) -> None:
        before = self._things.pop((kind, namespace, name), None)
        if before is not None:
            self._version += 1
            await self._record(kind, namespace, before, None)

    async def _record(self, kind: str, namespace: str, before: Thing | None, after: Thing | None) -> None:
        self._history.append(Entry(self._version, kind, namespace, before, after))
        async with self._changed:
            self._changed.notify_all()

    # --- reading ---

    def _list(self, request: web.Request, kind: str, namespace: str) -> web.Response:
        label_selector, field_selector = _read_selectors(request)
        version, start = self._version, 0
        if token := request.query.get("continue"):
            version, start = map(int, token.split("-"))
            if version < self._compacted:
                text = "The provided continue parameter is too old to display a consistent list result."
                return _refuse(410, "Expired", text)
        # A page of an older version would show that version; the tests only ever change what comes after it.
        items = [
            thing
            for key, thing in sorted(self._things.items())
            if key[:2] == (kind, namespace) and is_selected(thing, label_selector, field_selector)
        ]
        limit = int(request.query.get("limit", 0)) or len(items)
        metadata: Thing = {"resourceVersion": str(version)}
        if start + limit < len(items):
            metadata |= {"continue": f"{version}-{start + limit}", "remainingItemCount": len(items) - start - limit}
        page = [{key: value for key, value in thing.items() if key not in ("kind", "apiVersion")} for thing in items]
        return web.json_response(
            {
                "kind": f"{KINDS[kind]}List",
                "apiVersion": GROUPS[kind],
                "metadata": metadata,
                "items": page[start : start + limit],
            }
        )

    async def _watch(self, request: web.Request, kind: str, namespace: str) -> web.StreamResponse:
        version = int(request.query.get("resourceVersion") or self._version)
        too_old = f"too old resource version: {version} ({self._compacted})"
        if self.faults.expired_watch or version < self._compacted:
            return _refuse(410, "Expired", too_old)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._watches.add(task)
        with contextlib.suppress(ConnectionError):
            stream = _Stream(self, request, response)
            try:
                async with asyncio.timeout(float(request.query.get("timeoutSeconds", 1800))):
                    await self._send_events(request, stream, kind, namespace, version)
            except (TimeoutError, asyncio.CancelledError):
                pass
            finally:
                self._watches.discard(task)
            await response.write_eof()
        return response

    async def _send_events(
        self, request: web.Request, stream: _Stream, kind: str, namespace: str, version: int
    ) -> None:
        faults = self.faults
        if faults.end_at_once:
            return
        if faults.garbage:
            await stream.write(faults.garbage)
            return
        if faults.error_event is not None:
            await stream.send("ERROR", faults.error_event)
            return
        if faults.stall:
            await asyncio.sleep(3600)
        selectors = _read_selectors(request)
        bookmarks = request.query.get("allowWatchBookmarks") == "true" and not faults.no_bookmarks
        while True:
            for entry in [entry for entry in self._history if entry.version > version]:
                version = entry.version
                if (entry.kind, entry.namespace) == (kind, namespace):
                    await stream.send_change(entry, selectors)
            if any(entry.version > version for entry in self._history):
                continue
            try:
                async with asyncio.timeout(self.bookmark_interval), self._changed:
                    await self._changed.wait()
            except TimeoutError:
                if bookmarks and version <= self._version:  # a watch from the future is told nothing at all
                    version = max(version, self._version)
                    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
                    await stream.send(
                        "BOOKMARK", {"kind": KINDS[kind], "apiVersion": GROUPS[kind], "metadata": metadata}
                    )


class _Stream:
    """The lines of one watch."""

    def __init__(self, server: ApiServer, request: web.Request, response: web.StreamResponse) -> None:
        self._server = server
        self._request = request
        self._response = response
        self._sent = 0

    async def send_change(self, entry: Entry, selectors: tuple[str, str]) -> None:
        """What a change means to a watch with these selectors."""
        before = entry.before is not None and is_selected(entry.before, *selectors)
        after = entry.after is not None and is_selected(entry.after, *selectors)
        if after:
            assert entry.after is not None
            await self.send("MODIFIED" if before else "ADDED", entry.after)
        elif before:
            assert entry.before is not None
            gone = copy.deepcopy(entry.before)
            gone["metadata"]["resourceVersion"] = str(entry.version)
            await self.send("DELETED", gone)

    async def send(self, kind: str, thing: Thing) -> None:
        await self.write(json.dumps({"type": kind, "object": thing}).encode() + b"\n")

    async def write(self, data: bytes) -> None:
        limit = self._server.faults.reset_after
        if limit and self._sent + len(data) > limit:
            await self._response.write(data[: max(1, limit - self._sent)])
            await asyncio.sleep(0.01)
            transport = self._request.transport
            assert transport is not None
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            raise ConnectionResetError
        size = self._server.faults.cut or len(data)
        for at in range(0, len(data), size):
            await self._response.write(data[at : at + size])
            if size < len(data):
                await asyncio.sleep(0)  # a write of its own
        self._sent += len(data)


def _read_selectors(request: web.Request) -> tuple[str, str]:
    return request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")


def _refuse(code: int, reason: str, message: str, fields: dict[str, str] | None = None) -> web.Response:
    """A Status, as every answer is that is no success."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return web.json_response(body, status=code, headers=fields)


def make_certificates(folder: Path) -> tuple[Path, Path]:
    """A CA (`ca.crt`) and a certificate of it for 127.0.0.1: files of certificate and key. Needs the openssl command."""
    ca, ca_key = folder / "ca.crt", folder / "ca.key"
    certificate, key, request = folder / "server.crt", folder / "server.key", folder / "server.csr"
    extensions = folder / "server.ext"
    extensions.write_text("subjectAltName=IP:127.0.0.1\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *new_key, "-days", "30", "-subj", "/CN=test-ca", "-keyout", ca_key, "-out", ca],
        ["req", *new_key, "-subj", "/CN=kube-apiserver", "-keyout", key, "-out", request],
        [
            *("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "30"),
            *("-extfile", extensions, "-out", certificate),
        ],
    ):
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return certificate, key

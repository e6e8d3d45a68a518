"""The operators' port: probes, metrics, status, the page, and the calls that change something.

It shows what control hands it, and what `changes.py` lets through it hands to control.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from functools import partial

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from haproxy_py.ops.answers import Handler, Say, answer_json, answer_safely, bound_exchange
from haproxy_py.ops.changes import Changes
from haproxy_py.ops.connections import KEEP_ALIVE, OpsConnections
from haproxy_py.ops.hosts import refuse_host
from haproxy_py.ops.metrics import Scrape
from haproxy_py.ops.page import PAGE, POLICY
from haproxy_py.ops.status import describe_status
from haproxy_py.ops.view import Proxy
from haproxy_py.tasks import keep_running

MAX_BODY = 16 * 1024
"""Bytes of a request body. Nothing here takes a large one."""

MAX_LINE = 8 * 1024
"""Bytes of a request line and of a field."""

SHUTDOWN_WITHIN = 1.0
"""Seconds for running exchanges when the port closes."""


class OpsPort:
    """An HTTP server on a listening socket that control has bound."""

    def __init__(self, proxy: Proxy, say: Say) -> None:
        self.changes = Changes(proxy, say)
        self.hosts: tuple[str, ...] = ()  # names that it may be called by, beside those that `hosts.py` knows
        self._proxy = proxy
        self._say = say
        self._scraping = asyncio.Lock()
        self._connections: OpsConnections | None = None
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None
        app = web.Application(middlewares=[self._answer], client_max_size=MAX_BODY)
        app.add_routes(
            [
                web.get("/livez", self._show_liveness),
                web.get("/readyz", self._show_readiness),
                web.get("/metrics", self._show_metrics),
                web.get("/api/v1/status", self._show_status),
                web.get("/", self._show_page),
                *self.changes.list_routes(),
            ]
        )
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=KEEP_ALIVE,
            shutdown_timeout=SHUTDOWN_WITHIN,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            lingering_time=2.0,
        )

    async def open(self, sock: socket.socket) -> None:
        """Serve on a bound socket, which then belongs to the port."""
        await self._runner.setup()
        server = self._runner.server
        if server is None:
            raise RuntimeError("aiohttp made no server: AppRunner.setup() promises one")
        self._connections = OpsConnections(partial(_make_handler, server))
        self._server = await asyncio.get_running_loop().create_server(self._connections.accept, sock=sock)
        self._sweeping = asyncio.create_task(keep_running("ops", self._connections.sweep_forever, self._say))

    async def close(self) -> None:
        """Stop listening, finish what runs within `SHUTDOWN_WITHIN`, reset the rest."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeping
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
        if self._connections is not None:
            self._connections.reset_all()

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connections = self._connections
        if connections is None:
            raise RuntimeError("a request before the port was opened")
        connections.begin_exchange(request.protocol)
        try:
            answer = await answer_safely(request, partial(self._answer_host, handler), self._say)
            await bound_exchange(request, answer)
        finally:
            connections.end_exchange(request.protocol)
        return answer

    async def _answer_host(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        return refuse_host(request, self.hosts) or await handler(request)

    async def _show_liveness(self, request: web.Request) -> web.Response:
        return answer_json({"live": True})

    async def _show_readiness(self, request: web.Request) -> web.Response:
        reasons = self._proxy.view().explain_not_ready()
        if reasons:
            return answer_json({"ready": False, "reasons": reasons}, 503)
        return answer_json({"ready": True})

    async def _show_status(self, request: web.Request) -> web.Response:
        return answer_json(describe_status(self._proxy.view()))

    async def _show_page(self, request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html", headers={"Content-Security-Policy": POLICY})

    async def _show_metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        registry = CollectorRegistry(auto_describe=False)
        # One scrape at a time, and beside the loop: with hundreds of replicas the text takes tens of milliseconds, in
        # which control must still be able to replace a worker.
        async with self._scraping:
            registry.register(Scrape(self._proxy.view()))
            body = await asyncio.to_thread(encode, registry)
        return web.Response(body=body, headers={"Content-Type": content_type})


def _make_handler(server: web.Server) -> RequestHandler:
    return server()

"""What one would write in Python: an aiohttp server and client. usage: aiohttp_proxy.py LISTEN REPLICA REPLICA [CERT KEY]"""

import asyncio
import itertools
import ssl
import sys
import uuid

import aiohttp
import uvloop
from aiohttp import web

ADMIN = {
    *("", "auth", "comms", "context", "credentials", "debug", "diagnostics", "favicon.ico", "flow", "flows", "icons"),
    *("inject", "library", "locales", "nodes", "plugins", "projects", "red", "resources", "settings", "theme", "types"),
    "vendor",
}
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "proxy-connection"}
Tunnel = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


async def forward_messages(source: Tunnel, sink: Tunnel) -> None:
    """Pass WebSocket messages on until the source closes, then close the sink."""
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)
    await sink.close()


async def main(listen: int, replicas: list[str], certificate: list[str]) -> None:
    """Serve until killed."""
    turn = itertools.cycle(f"http://127.0.0.1:{port}" for port in replicas)
    session = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0))
    scheme = "https" if certificate else "http"

    async def forward_tunnel(request: web.Request) -> web.WebSocketResponse:
        client = web.WebSocketResponse()
        await client.prepare(request)
        async with session.ws_connect(next(turn) + request.path_qs) as replica:
            await asyncio.gather(forward_messages(client, replica), forward_messages(replica, client))
        return client

    async def forward(request: web.Request) -> web.StreamResponse:
        if request.path.split("/")[1].lower() in ADMIN:
            return web.Response(status=403)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await forward_tunnel(request)
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
        headers += [("X-Forwarded-For", request.remote or ""), ("X-Forwarded-Proto", scheme)]
        headers += [("X-Forwarded-Host", request.host), ("X-Forwarded-Port", str(listen))]
        headers += [("X-Real-IP", request.remote or ""), ("X-Request-Id", uuid.uuid4().hex), ("Via", "1.1 aiohttp")]
        body = request.content if request.can_read_body else None
        replica = next(turn)
        async with session.request(
            request.method, replica + request.path_qs, headers=headers, data=body, allow_redirects=False
        ) as answer:
            passed = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP]
            response = web.StreamResponse(status=answer.status, headers=[*passed, ("X-HA-Replica", replica)])
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
    await web.TCPSite(runner, "127.0.0.1", listen, backlog=4096, ssl_context=context).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2:4], sys.argv[4:]))

"""What one would write in Python: an aiohttp server and an aiohttp client. usage: aiohttp_proxy.py LISTEN REPLICA REPLICA"""

import asyncio
import itertools
import sys
import uuid

import aiohttp
import uvloop
from aiohttp import web

ADMIN = ("flows", "flow", "nodes", "settings", "plugins", "context", "diagnostics", "auth", "icons", "red", "comms", "")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "proxy-connection"}


async def main(listen: int, *replicas: str) -> None:
    """Serve until killed."""
    turn = itertools.cycle(f"http://127.0.0.1:{port}" for port in replicas)
    session = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0))

    async def forward(request: web.Request) -> web.StreamResponse:
        if request.path.split("/")[1].lower() in ADMIN:
            return web.Response(status=403)
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
        headers += [("X-Forwarded-For", request.remote or ""), ("X-Forwarded-Proto", "http")]
        headers += [("X-Request-Id", uuid.uuid4().hex), ("Via", "1.1 aiohttp")]
        body = request.content if request.can_read_body else None
        async with session.request(
            request.method, next(turn) + request.path_qs, headers=headers, data=body, allow_redirects=False
        ) as answer:
            passed = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP]
            response = web.StreamResponse(status=answer.status, headers=passed)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", listen, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *sys.argv[2:]))

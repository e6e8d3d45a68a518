"""A replica for the demo that behaves like a small Node-RED: `python -m haproxy_py.demo.replica --port N --name NAME`.

It has an editor and an admin API that anybody may use, as a Node-RED without `adminAuth` has, and some routes as flows
would declare them. Idle connections live as long as Node's (`node-red.md` section 5.3).
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import aiohttp
from aiohttp import web

from haproxy_py.demo.page import PAGE

KEEP_ALIVE_HINT = 5  # seconds: what Node says
KEEP_ALIVE = 6.0  # seconds: what Node does
SLOW = 2.0  # seconds that /api/slow takes
EVENT_INTERVAL = 1.0  # seconds between two events of /events
STOP_TIMEOUT = 1.0  # seconds that open exchanges have after SIGTERM

FLOWS: list[dict[str, Any]] = [
    {"id": "demo", "type": "tab", "label": "Demo"},
    {"id": "in", "type": "http in", "z": "demo", "url": "/api/hello", "method": "get", "x": 100, "y": 100},
]

EDITOR = """\
<!doctype html>
<title>Editor of {name}</title>
<h1>The editor of {name}</h1>
<p>You are past the gate: this page comes straight from a replica. Through the proxy in HA mode it is 403.</p>
"""

NOT_FOUND = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Error</title>
</head>
<body>
<pre>Cannot {method} {path}</pre>
</body>
</html>
"""

NAME = web.AppKey("name", str)
ENDING = web.AppKey("ending", asyncio.Event)


def build_app(name: str) -> web.Application:
    """The replica as an application; `name` is what its answers tell."""
    app = web.Application(client_max_size=5 * 1024 * 1024)  # Node-RED's apiMaxLength
    app[NAME] = name
    app[ENDING] = asyncio.Event()
    app.on_shutdown.append(_end_streams)
    app.on_response_prepare.append(_add_node_fields)
    routes = [
        web.get("/", show_editor),
        web.get("/flows", show_flows),
        web.post("/flows", take_flows),
        web.get("/settings", show_settings),
        web.get("/healthz", say_hello),
        web.get("/demo", show_page),
        web.get("/api/slow", answer_slowly),
        web.post("/api/echo", echo),
        web.get("/events", send_events),
        web.get("/ws/echo", echo_messages),
        *(web.route(method, "/api/hello", say_hello) for method in ("GET", "POST", "PUT", "DELETE")),
        web.route("*", "/{path:.*}", tell_unknown),
    ]
    app.add_routes(routes)
    return app


# --- the admin side ---


async def show_editor(request: web.Request) -> web.Response:
    return web.Response(text=EDITOR.format(name=request.app[NAME]), content_type="text/html")


async def show_flows(request: web.Request) -> web.Response:
    return web.json_response(FLOWS)


async def take_flows(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=204)


async def show_settings(request: web.Request) -> web.Response:
    return web.json_response({"httpNodeRoot": "/", "version": "demo", "replica": request.app[NAME]})


# --- what flows would declare ---


async def show_page(request: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def say_hello(request: web.Request) -> web.Response:
    told = {"replica": request.app[NAME], "method": request.method, "query": dict(request.query)}
    if request.can_read_body:
        told["body"] = (await request.read()).decode(errors="replace")
    return web.json_response(told)


async def answer_slowly(request: web.Request) -> web.Response:
    await asyncio.sleep(SLOW)
    return web.json_response({"replica": request.app[NAME], "seconds": SLOW})


async def echo(request: web.Request) -> web.StreamResponse:
    """The body of the request as the body of the answer, piece by piece: no size is too large."""
    answer = web.StreamResponse(headers={"Content-Type": request.headers.get("Content-Type", "text/plain")})
    if request.content_length is not None:
        answer.content_length = request.content_length
    await answer.prepare(request)
    async for piece in request.content.iter_any():
        await answer.write(piece)
    await answer.write_eof()
    return answer


async def send_events(request: web.Request) -> web.StreamResponse:
    """One server-sent event a second, until the client goes or the replica ends."""
    ending = request.app[ENDING]
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await answer.prepare(request)
    number = 0
    while not ending.is_set():
        number += 1
        try:
            await answer.write(f"data: event {number} of {request.app[NAME]}\n\n".encode())
        except ConnectionError:
            break
        try:
            await asyncio.wait_for(ending.wait(), EVENT_INTERVAL)
        except TimeoutError:
            continue
    return answer


async def echo_messages(request: web.Request) -> web.StreamResponse:
    """A WebSocket that sends each message back; `who?` is answered with the replica's name."""
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return await tell_unknown(request)
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    ending = asyncio.create_task(_close_at_end(request.app[ENDING], socket))
    try:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(request.app[NAME] if message.data == "who?" else message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
    finally:
        ending.cancel()
        await asyncio.wait({ending})
    return socket


async def tell_unknown(request: web.Request) -> web.Response:
    """What Express says about a path without a route."""
    path = request.path.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return web.Response(
        status=404,
        text=NOT_FOUND.format(method=request.method, path=path),
        content_type="text/html",
        headers={"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff"},
    )


async def _add_node_fields(request: web.Request, answer: web.StreamResponse) -> None:
    if answer.status != 101:
        answer.headers["X-Replica"] = request.app[NAME]
        if answer.keep_alive is not False and request.keep_alive:
            answer.headers["Keep-Alive"] = f"timeout={KEEP_ALIVE_HINT}"


async def _end_streams(app: web.Application) -> None:
    app[ENDING].set()


async def _close_at_end(ending: asyncio.Event, socket: web.WebSocketResponse) -> None:
    await ending.wait()
    await socket.close(code=aiohttp.WSCloseCode.GOING_AWAY)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m haproxy_py.demo.replica", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True, help="what the answers tell as `replica`")
    args = parser.parse_args()
    web.run_app(
        build_app(args.name),
        host=args.host,
        port=args.port,
        print=None,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE,
        shutdown_timeout=STOP_TIMEOUT,
    )


if __name__ == "__main__":
    main()

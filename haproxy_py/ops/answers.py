"""How the operators' port answers: errors as JSON, fields that every answer carries, and a bound on each exchange."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from haproxy_py.ops.connections import reset_connection

ANSWER_WITHIN = 10.0
"""Seconds for one exchange, the writing of the answer included. Prometheus itself gives up after 10 s."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Say = Callable[[str, str], None]

FIELDS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Server": "haproxy_py",
    "X-Content-Type-Options": "nosniff",
}
"""On every answer."""


def answer_json(body: Any, status: int = 200) -> web.Response:
    """A JSON answer, indented: people read it with curl."""
    text = json.dumps(body, indent=2, ensure_ascii=False) + "\n"
    return web.Response(text=text, status=status, content_type="application/json")


def answer_error(status: int, reason: str, message: str) -> web.Response:
    """An error in the same form as those of the data port."""
    return answer_json({"status": status, "reason": reason, "message": message}, status)


async def answer_safely(request: web.Request, handler: Handler, say: Say) -> web.StreamResponse:
    """What the handler answers, or the error that it became."""
    try:
        answer = await handler(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        answer = answer_error(405, "method_not_allowed", f"{request.path} understands {allowed}.")
        answer.headers["Allow"] = allowed
    except web.HTTPNotFound:
        answer = answer_error(404, "not_found", f"There is nothing at {request.path}; / shows what there is.")
    except web.HTTPException as error:
        answer = answer_error(error.status, error.reason.lower().replace(" ", "_"), f"{error.reason}.")
    except Exception as error:  # the operators' port must outlive a mistake in one of its pages
        say("error", f"operators' port: {request.method} {request.path} failed: {error!r}; it was answered with 500")
        answer = answer_error(500, "internal", "This is a mistake in haproxy_py: the log of the proxy says more.")
    answer.headers.update({name: value for name, value in FIELDS.items() if name not in answer.headers})
    return answer


async def bound_exchange(request: web.Request, answer: web.StreamResponse) -> None:
    """Write the whole answer within `ANSWER_WITHIN`, or reset the connection of a client that does not take it."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            await answer.prepare(request)
            await answer.write_eof()
    except TimeoutError:
        if request.transport is not None:
            reset_connection(request.transport)  # aiohttp then finds it closed, as if the client had gone

"""The embedded replica behaves like a small Node-RED."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from haproxy_py.demo.replica import build_app

Client = TestClient[aiohttp.web.Request, aiohttp.web.Application]


@pytest.fixture
async def replica() -> AsyncIterator[Client]:
    async with TestClient(TestServer(build_app("r1"))) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_hello_tells_replica_and_method(replica: Client, method: str) -> None:
    async with replica.request(method, "/api/hello?a=1", data=None if method == "GET" else b"body") as answer:
        told = await answer.json()
    assert (told["replica"], told["method"], told["query"]) == ("r1", method, {"a": "1"})
    assert told.get("body") == (None if method == "GET" else "body")


@pytest.mark.parametrize("path", ["/", "/flows", "/settings"])
async def test_admin_side_is_open_as_on_a_replica_without_logins(replica: Client, path: str) -> None:
    async with replica.get(path) as answer:
        assert answer.status == 200


async def test_unknown_path_is_answered_as_by_express(replica: Client) -> None:
    async with replica.put("/nothing/<b>") as answer:
        assert answer.status == 404
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'"
        assert "<pre>Cannot PUT /nothing/&lt;b&gt;</pre>" in await answer.text()


async def test_web_socket_path_without_upgrade_is_unknown(replica: Client) -> None:
    async with replica.get("/ws/echo") as answer:
        assert answer.status == 404


async def test_web_socket_echoes_and_tells_who(replica: Client) -> None:
    async with replica.ws_connect("/ws/echo") as socket:
        await socket.send_str("text")
        await socket.send_bytes(b"\x00\xff")
        await socket.send_str("who?")
        assert await socket.receive_str(timeout=5) == "text"
        assert await socket.receive_bytes(timeout=5) == b"\x00\xff"
        assert await socket.receive_str(timeout=5) == "r1"


async def test_events_come_one_by_one(replica: Client) -> None:
    async with replica.get("/events") as answer:
        assert answer.content_type == "text/event-stream"
        assert await answer.content.readuntil(b"\n\n") == b"data: event 1 of r1\n\n"
        assert await answer.content.readuntil(b"\n\n") == b"data: event 2 of r1\n\n"


async def test_echo_returns_body_and_type(replica: Client) -> None:
    body = b"x" * 1_000_000
    async with replica.post("/api/echo", data=body, headers={"Content-Type": "image/x-test"}) as answer:
        assert answer.content_type == "image/x-test"
        assert await answer.read() == body


async def test_keep_alive_hint_is_nodes(replica: Client) -> None:
    async with replica.get("/api/hello") as answer:
        assert answer.headers["Keep-Alive"] == "timeout=5"

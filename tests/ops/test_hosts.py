"""By which names the operators' port answers: no page that was loaded by a name of its own may read it."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from haproxy_py.ops.hosts import may_call
from tests.ops.test_port import Opened, opened

__all__ = ["opened"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:9090",
        "10.1.2.3:9090",
        "[::1]:9090",
        "[fe80::1%eth0]",
        "localhost",
        "LOCALHOST:9090",
        "localhost.:9090",
        "haproxy-py",
        "haproxy-py.node-red.svc:9090",
        "haproxy-py.node-red.svc.cluster.local:9090",
        "node.internal:9090",
        "ops.example.com",
        "ops.example.com:9090",
        "OPS.example.com.",
    ],
)
def test_name_that_no_stranger_can_have_is_answered(host: str) -> None:
    assert may_call([host], ("ops.example.com",))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9090",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "svc.evil.example",
        "evilsvc.example",
        "x.local",
        "ops.example.com.evil.example",
        "evil.example@127.0.0.1",
        "127.0.0.1@evil.example",
        "127.0.0.1, evil.example",
        "127.0.0.1/evil.example",
        "127.1.evil",
        "1.2.3.4.5",
        "",
        " ",
        ":9090",
        "..",
        "localhost:port",
    ],
)
def test_name_that_a_stranger_can_have_is_refused(host: str) -> None:
    assert not may_call([host], ("ops.example.com",))


def test_two_names_are_refused_and_none_is_no_browser() -> None:
    assert not may_call(["127.0.0.1", "127.0.0.1"], ())
    assert may_call([], ())


def test_name_of_this_machine_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Proxy-1.example.com")
    assert may_call(["proxy-1.example.com:9090"], ())
    assert not may_call(["proxy-2.example.com:9090"], ())


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/status", "/nothing"])
async def test_page_that_was_loaded_by_another_name_can_read_nothing(opened: Opened, path: str) -> None:
    status, body, fields = await opened.get(path, Host="evil.example:9090")
    assert status == 421
    assert json.loads(body)["reason"] == "unknown_host"
    assert "evil.example:9090" in body
    assert "ops.hosts" in body
    assert "Access-Control-Allow-Origin" not in fields


async def test_call_that_changes_something_is_refused_by_its_host_before_its_token_is_read(opened: Opened) -> None:
    opened.port.changes.token = b"0123456789abcdef"
    path = "/api/v1/instances/a/replicas/b/drain"
    status, _, _ = await opened.get(path, "POST", Host="evil.example", Authorization="Bearer 0123456789abcdef")
    assert status == 421


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probe_is_answered_whatever_name_it_was_told_to_send(opened: Opened, path: str) -> None:
    assert (await opened.get(path, Host="health.example.com"))[0] == 200


async def test_configured_name_is_answered(opened: Opened) -> None:
    opened.port.hosts = ("ops.example.com",)
    assert (await opened.get("/api/v1/status", Host="ops.example.com"))[0] == 200


async def test_request_without_host_is_answered(opened: Opened) -> None:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*opened.address)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b" 200 " in await reader.readline()
        writer.close()
        await writer.wait_closed()

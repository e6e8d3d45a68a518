"""The operators' port over real sockets."""

from __future__ import annotations

import asyncio
import json
import select
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from haproxy_py import counters
from haproxy_py.ops import answers, connections
from haproxy_py.ops.page import POLICY
from haproxy_py.ops.port import OpsPort
from haproxy_py.ops.view import View
from tests.ops.pictures import Pictured, count_exchanges, lose_workers, make_segment, make_view


class Opened:
    """A port that serves, a client for it, and the lines that it logged."""

    def __init__(self) -> None:
        self.cells = make_segment()
        self.proxy = Pictured(make_view(self.cells))
        self.lines: list[str] = []
        self.port = OpsPort(self.proxy, lambda level, text: self.lines.append(f"{level} {text}"))
        self.address: tuple[str, int] = ("", 0)
        self.client: aiohttp.ClientSession

    async def open(self) -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        self.address = sock.getsockname()
        await self.port.open(sock)
        self.client = aiohttp.ClientSession(f"http://127.0.0.1:{self.address[1]}")

    async def get(self, path: str, method: str = "GET", **fields: str) -> tuple[int, str, dict[str, str]]:
        async with self.client.request(method, path, headers=fields) as answer:
            return answer.status, await answer.text(), dict(answer.headers)


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    one = Opened()
    await one.open()
    yield one
    await one.client.close()
    await one.port.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that a test can wait for; must be asked for before `opened`."""
    monkeypatch.setattr(connections, "SWEEP_EVERY", 0.05)
    monkeypatch.setattr(connections, "EXCHANGE_WITHIN", 0.2)


async def read_until_closed(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""


def draining(view: View) -> View:
    return replace(view, draining=True)


def without_table(view: View) -> View:
    return replace(view, workers=tuple(replace(worker, table_version=0) for worker in view.workers))


async def test_readiness_is_200_when_a_worker_is_ready(opened: Opened) -> None:
    status, body, _ = await opened.get("/readyz")
    assert status == 200
    assert json.loads(body) == {"ready": True}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (draining, "draining"),
        (lose_workers, "no worker accepts connections"),
        (without_table, "no table is in force yet"),
    ],
)
async def test_readiness_is_503_with_the_reason(opened: Opened, change: object, reason: str) -> None:
    assert callable(change)
    well = opened.proxy.now
    opened.proxy.now = change(well)
    status, body, _ = await opened.get("/readyz")
    assert status == 503
    assert json.loads(body) == {"ready": False, "reasons": [reason]}
    assert (await opened.get("/livez"))[0] == 200
    opened.proxy.now = well
    assert (await opened.get("/readyz"))[0] == 200


async def test_readiness_needs_only_one_worker(opened: Opened) -> None:
    view = make_view(make_segment(), make_segment())
    broken = replace(view.workers[0], pid=None, ready=False)
    opened.proxy.now = replace(view, workers=(broken, view.workers[1]))
    assert (await opened.get("/readyz"))[0] == 200


async def test_status_tells_everything_of_a_replica(opened: Opened) -> None:
    at = counters.replica_at(0)
    count_exchanges(opened.cells, 0, 200, "GET", 5)
    count_exchanges(opened.cells, 0, 500, "PUT", 1)
    opened.cells[at + counters.REPLICA_ACTIVE_TUNNELS] = 2
    opened.cells[counters.instance_at(1) + counters.INSTANCE_GATE_DENIED] = 3
    opened.cells[counters.instance_at(1) + counters.INSTANCE_GATE_DENIED + 5] = 4
    opened.cells[counters.instance_at(1) + counters.REASONS.index("gate_denied")] = 7
    status, body, _ = await opened.get("/api/v1/status")
    told = json.loads(body)
    assert status == 200
    assert (told["ready"], told["draining"], told["table_version"]) == (True, False, 7)
    assert told["uptime_seconds"] == 12.5
    assert told["workers"] == [
        {
            "worker": 1,
            "pid": 101,
            "ready": True,
            "leaving": False,
            "restarts": 0,
            "stalls": 0,
            "stalled_seconds": 0.0,
            "table_version": 7,
        }
    ]
    assert told["listeners"] == [
        {"scheme": "http", "host": "0.0.0.0", "port": 8080, "certificate_ends": None},
        {"scheme": "https", "host": "0.0.0.0", "port": 8443, "certificate_ends": "2030-03-17T17:46:40+00:00"},
    ]
    (instance,) = told["instances"]
    assert (instance["name"], instance["ha"], instance["gate_denied"]) == ("one", True, 7)
    assert instance["proxy_replies"] == {"gate_denied": 7}
    assert ["gate.admin_root is /" in warning for warning in instance["warnings"]] == [True]
    first, second = instance["replicas"]
    assert (first["id"], first["name"], first["host"], first["port"]) == ("aaaa", "pod-a", "10.0.0.1", 1880)
    assert (first["state"], first["requests"], first["active_tunnels"]) == ("ready", 6, 2)
    assert first["drain"] is None
    assert (second["state"], second["drain"]) == ("draining", {"by": "discovery", "seconds_left": 12.3})


async def test_metrics_are_plain_text_for_those_who_ask_for_nothing(opened: Opened) -> None:
    status, body, fields = await opened.get("/metrics")
    assert status == 200
    assert fields["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE haproxy_py_replica_requests_total counter" in body


async def test_metrics_speak_open_metrics_to_prometheus(opened: Opened) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    _, body, fields = await opened.get("/metrics", Accept=accept)
    assert fields["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


async def test_page_runs_only_its_own_script(opened: Opened) -> None:
    status, body, fields = await opened.get("/")
    assert status == 200
    assert fields["Content-Type"].startswith("text/html")
    assert fields["Content-Security-Policy"] == POLICY
    assert "unsafe" not in POLICY
    assert "innerHTML" not in body
    assert "src=" not in body
    assert "http" not in body


async def test_unknown_path_is_404_in_json(opened: Opened) -> None:
    status, body, _ = await opened.get("/nothing")
    assert status == 404
    assert json.loads(body)["reason"] == "not_found"


async def test_wrong_method_is_405_in_json_with_allow(opened: Opened) -> None:
    status, body, fields = await opened.get("/readyz", method="POST")
    assert status == 405
    assert json.loads(body)["reason"] == "method_not_allowed"
    assert fields["Allow"] == "GET, HEAD"


async def test_head_has_the_fields_without_the_body(opened: Opened) -> None:
    status, body, fields = await opened.get("/livez", method="HEAD")
    assert (status, body) == (200, "")
    assert int(fields["Content-Length"]) > 0


async def test_mistake_in_a_page_is_500_in_json_and_logged(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> View:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(opened.proxy, "view", fail)
    status, body, _ = await opened.get("/api/v1/status")
    assert status == 500
    assert "ZeroDivisionError" not in body
    assert "ZeroDivisionError" in opened.lines[0]


async def test_connection_without_an_exchange_is_reset(hurried: None, opened: Opened) -> None:
    reader, writer = await asyncio.open_connection(*opened.address)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
    assert await read_until_closed(reader) == b""
    writer.close()


async def test_idle_connection_is_reset_after_its_last_exchange(hurried: None, opened: Opened) -> None:
    reader, writer = await asyncio.open_connection(*opened.address)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP" not in await read_until_closed(reader)
    writer.close()


async def test_one_connection_too_many_closes_the_longest_waiting(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    held = [await asyncio.open_connection(*opened.address) for _ in range(2)]
    assert (await opened.get("/livez"))[0] == 200
    assert await read_until_closed(held[0][0]) == b""
    for _, writer in held:
        writer.close()


async def test_client_that_does_not_read_its_answer_is_cut_off(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answers, "ANSWER_WITHIN", 0.2)
    one = opened.proxy.now.replicas[0]
    many = tuple(replace(one, replica=f"pod-{number}") for number in range(1000))
    opened.proxy.now = replace(opened.proxy.now, replicas=many)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, opened.address)
        await loop.sock_sendall(slow, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        poll = select.poll()
        poll.register(slow, 0)  # tells of nothing but a reset
        assert await asyncio.to_thread(poll.poll, 30_000)
    assert (await opened.get("/livez"))[0] == 200
    assert opened.lines == []
    assert caplog.records == []


async def test_large_request_body_is_not_waited_for(opened: Opened) -> None:
    async with opened.client.post("/livez", data=b"x" * 200_000) as answer:
        assert answer.status == 405


async def test_header_that_is_too_long_is_refused(opened: Opened) -> None:
    async with opened.client.get("/livez", headers={"X-Long": "x" * 20_000}) as answer:
        assert answer.status == 400

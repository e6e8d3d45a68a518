"""One check against real sockets that behave and misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from haproxy_py.config import Health
from haproxy_py.control.probe import LATE, probe, write_request
from haproxy_py.control.probe_answer import Outcome

TCP = Health(type="tcp", timeout=0.2)
HTTP = Health(type="http", path="/api/ready?a=b", timeout=0.2)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@contextlib.asynccontextmanager
async def serve(answer: bytes, *, stays_open: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Port, and every head that came."""
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
            if stays_open:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


async def test_tcp_is_content_with_a_connection() -> None:
    async with serve(b"") as (port, _):
        finding, seconds = await probe("127.0.0.1", port, "tcp", TCP)
    assert finding.outcome is Outcome.OK
    assert 0 < seconds < TCP.timeout


async def test_http_sends_one_request_and_judges_its_answer() -> None:
    async with serve(b"HTTP/1.1 200 OK\r\n\r\n", stays_open=True) as (port, heads):
        finding, _ = await probe("127.0.0.1", port, "http", HTTP)
    assert finding.outcome is Outcome.OK
    assert heads == [write_request("127.0.0.1", port, HTTP)]
    start, *fields = heads[0].decode().split("\r\n")
    assert start == "GET /api/ready?a=b HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in fields
    assert "Connection: close" in fields


def test_the_host_field_is_the_replica_or_what_was_configured() -> None:
    assert b"\r\nHost: [::1]:1880\r\n" in write_request("::1", 1880, HTTP)
    assert b"\r\nHost: a.example\r\n" in write_request("::1", 1880, Health(type="http", path="/", host="a.example"))


@pytest.mark.parametrize(
    ("answer", "stays_open", "expected"),
    [
        (b"HTTP/1.1 503 x\r\n\r\n", True, Outcome.STATUS),
        (b"220 mail.example.com ESMTP\r\n", True, Outcome.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nA:", False, Outcome.CLOSED),
        (b"", False, Outcome.CLOSED),
        (b"", True, Outcome.TIMEOUT),
        (b"HTTP/1.1 200 OK\r\n", True, Outcome.TIMEOUT),
    ],
)
async def test_what_a_replica_does_wrong_has_a_name(answer: bytes, stays_open: bool, expected: Outcome) -> None:
    async with serve(answer, stays_open=stays_open) as (port, _):
        finding, seconds = await probe("127.0.0.1", port, "http", HTTP)
    assert finding.outcome is expected
    assert seconds < HTTP.timeout + LATE


async def test_nobody_there_is_refused() -> None:
    with socket.socket() as bound:  # bound and not listening: nobody else can take it
        bound.bind(("127.0.0.1", 0))
        finding, _ = await probe("127.0.0.1", bound.getsockname()[1], "tcp", TCP)
    assert finding.outcome is Outcome.REFUSED


async def test_a_full_queue_is_a_timeout() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # the queue takes one or two; the rest are dropped
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        finding, seconds = await probe("127.0.0.1", listener.getsockname()[1], "tcp", TCP)
    assert finding.outcome is Outcome.TIMEOUT
    assert TCP.timeout <= seconds < TCP.timeout + LATE


async def test_a_network_that_says_no_is_unreachable() -> None:
    finding, _ = await probe("255.255.255.255", 80, "tcp", TCP)
    assert finding.outcome is Outcome.UNREACHABLE


async def test_a_name_without_an_address_says_nothing_of_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*args: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    finding, _ = await probe("replica.invalid", 80, "tcp", TCP)
    assert finding.outcome is Outcome.UNRESOLVED


async def test_a_name_is_looked_up_and_each_address_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(b"") as (port, _):

        async def find(*args: object, **more: object) -> list[object]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", find)
        finding, _ = await probe("replica.example", port, "tcp", TCP)
    assert finding.outcome is Outcome.OK


async def test_no_file_descriptor_is_the_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", fail)
    finding, _ = await probe("127.0.0.1", 80, "tcp", TCP)
    assert finding.outcome is Outcome.OWN_FAULT


async def test_a_loop_that_was_busy_blames_nobody() -> None:
    async with serve(b"", stays_open=True) as (port, _):
        check = asyncio.create_task(probe("127.0.0.1", port, "http", HTTP))
        await asyncio.sleep(0.05)
        time.sleep(HTTP.timeout + LATE)  # noqa: ASYNC251 - this is the fault
        finding, _ = await check
    assert finding.outcome is Outcome.OWN_FAULT


def count_time_wait(port: int) -> int:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if f":{port:04X} " in line]
    return sum(line[3] == "06" for line in lines)


async def test_a_check_leaves_no_connection_behind() -> None:
    async with serve(b"HTTP/1.1 200 OK\r\n\r\n") as (port, _):
        for kind, health in (("tcp", TCP), ("http", HTTP)) * 5:
            await probe("127.0.0.1", port, kind, health)
        assert count_time_wait(port) == 0

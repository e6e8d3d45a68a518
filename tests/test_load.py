"""The load that other tests rely on: it counts everything, and believes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

import pytest

from tests.load import Load
from tests.load_clients import METHODS, WITH_BODY, WrongAnswerError, read_answer
from tests.proxy_process import find_free_ports
from tests.wire.scripted import ScriptedReplica, Wire, eventually, get_field

CLIENTS = 8
SHORTEST = 40  # octets of an answer; after less the connection is closed


def write_answer(told: dict[str, object], *, head: bool = False, more: str = "") -> bytes:
    body = json.dumps(told).encode()
    text = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return text.encode() + (b"" if head else body)


@contextlib.asynccontextmanager
async def run_against(
    answer: Callable[[str, str, str], bytes], number: int = 200, rate: float = 0.0
) -> AsyncIterator[Load]:
    """A load that has had so many results from a server that gives `answer(method, n, body)`."""

    async def script(wire: Wire, count: int) -> None:
        while True:
            head = await wire.reader.readuntil(b"\r\n\r\n")
            body = await wire.reader.readexactly(int(get_field(head, "Content-Length") or 0))
            method, target = head.decode().split(" ", 2)[:2]
            reply = answer(method, target.partition("n=")[2], body.decode())
            wire.send(reply)
            if len(reply) < SHORTEST or get_field(head, "Connection") == "close":
                return

    async with ScriptedReplica(script) as server:
        load = Load(server.port, threads=CLIENTS, pause=0, rate=rate)
        load.__enter__()
        try:
            await eventually(lambda: load.total >= number)
        finally:
            await asyncio.to_thread(load.__exit__, None, None, None)  # it waits for this loop's answers
        yield load


def answer_well(method: str, number: str, body: str) -> bytes:
    told: dict[str, object] = {"replica": "one", "method": method, "query": {"n": number}}
    return write_answer(
        told | ({"body": body} if method in WITH_BODY else {}), head=method == "HEAD", more="X-Replica: one\r\n"
    )


async def test_every_method_is_sent_and_every_answer_counted() -> None:
    async with run_against(answer_well) as load:
        assert load.list_failures() == []
        assert {one.method for one in load.results} == set(METHODS)
        assert {one.replica for one in load.results} == {"one"}
        assert len(load.results) == load.total
        middle = load.results[100].began
        assert sum(load.count_replicas(middle, float("inf")).values()) == len(load.list_results(middle)) > 50


WRONG: dict[str, Callable[[str, str, str], bytes]] = {
    "of another request": lambda method, number, body: answer_well(method, str(int(number) + 1), body),
    "of another method": lambda method, number, body: answer_well("PATCH", number, body),
    "with another body": lambda method, number, body: answer_well(method, number, body + "x"),
    "too long": lambda method, number, body: answer_well(method, number, body) + b"x",
    "cut": lambda method, number, body: answer_well(method, number, body)[:20],
    "none": lambda method, number, body: b"",
    "an error": lambda method, number, body: b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("what", WRONG)
async def test_wrong_answer_is_a_failure(what: str) -> None:
    def answer(method: str, number: str, body: str) -> bytes:
        return WRONG[what](method, number, body) if method == "POST" else answer_well(method, number, body)

    async with run_against(answer, 50) as load:
        failures = load.list_failures()
        assert {one.method for one in failures} == {"POST"}
        assert len(failures) == load.failed == sum(one.method == "POST" for one in load.results)


def test_closed_port_is_a_failure() -> None:
    (port,) = find_free_ports(1)
    with Load(port, threads=2, pause=0) as load:
        load.run_for(20)
    assert {(one.status, one.detail) for one in load.list_failures()} == {
        (0, "ConnectionRefusedError(111, 'Connection refused')")
    }


async def test_rate_is_kept() -> None:
    async with run_against(answer_well, 50, rate=100) as load:
        assert load.results[-1].began - load.results[0].began >= 0.3


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nx",
    ],
)
def test_answer_that_is_none(data: bytes) -> None:
    with pytest.raises(WrongAnswerError):
        read_answer(data, "GET")

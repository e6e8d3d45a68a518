"""A replica leaves, or cannot be reached, while something is still under way to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from haproxy_py import counters
from haproxy_py.datapath import dial
from tests.proxy_process import describe_instance
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, ScriptedReplica, Wire, answer_each, eventually
from tests.wire.test_queue import Holding

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
LARGE_POST = b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\n"
ACTIVE = counters.REPLICA_ACTIVE_REQUESTS


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """The URL of a port that connections are made to and never stand: its queue is full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}"


class StopsReading:
    """A replica that reads the head and nothing more, and does one last thing when told."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, wire: Wire, number: int) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        transport: Any = wire.writer.transport
        transport.pause_reading()
        await self.go.wait()
        self.end(wire)
        await asyncio.Event().wait()

    def end(self, wire: Wire) -> None:
        wire.finish()


class AnswersEarly(StopsReading):
    def end(self, wire: Wire) -> None:
        wire.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")


async def fill(worker: InnerWorker, client: Wire) -> Any:
    """Send of a large body what the replica takes, and more. Gives the connection to the replica."""
    client.send(LARGE_POST + bytes(20_000_000))
    await eventually(lambda: worker.context.spare)
    [connection] = worker.context.spare
    await eventually(lambda: connection.stream.piped > 0)
    return connection


async def test_replica_that_finishes_before_its_answer_is_502_at_once_although_octets_wait_for_it() -> None:
    script = StopsReading()
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], timeouts={"linger": "100ms"}) as worker,
        await worker.open() as client,
    ):
        await fill(worker, client)
        script.go.set()
        await eventually(lambda: worker.list_replies() == {"upstream_closed": 1}, within=1)
        client.reset()


async def test_502_for_a_replica_that_finishes_reaches_the_client() -> None:
    async def script(wire: Wire, number: int) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.finish()
        await wire.reader.read()

    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        async with asyncio.timeout(2):
            status, _, body = await client.ask(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nab")
        assert status == 502
        assert b'"reason": "upstream_closed"' in body


async def test_discarded_connection_with_unsent_octets_is_cut() -> None:
    script = AnswersEarly()
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], timeouts={"linger": "100ms"}) as worker,
        await worker.open() as client,
    ):
        await fill(worker, client)
        script.go.set()
        assert (await client.read_head()).startswith(b"HTTP/1.1 413 ")
        client.reset()
        await eventually(lambda: not worker.context.spare, within=2)
        assert worker.count_replica(counters.REPLICA_IDLE_CONNECTIONS) == 0


async def wait_dials(worker: InnerWorker, count: int) -> None:
    await eventually(lambda: len(worker.context.dials) == count)


async def test_connections_under_way_for_clients_that_left_count_towards_the_limit() -> None:
    with black_hole() as url:
        async with InnerWorker([url], limits={"exchanges": 3, "queue": 0}, timeouts={"connect": "2s"}) as worker:
            for number in range(10):
                async with await worker.open() as client:
                    client.send(GET)
                    if number >= 3:
                        assert (await client.read_answer())[0] == 503
                        continue
                    await wait_dials(worker, number + 1)
                    client.reset()
                await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
                assert len(worker.context.dials) == worker.count_replica(ACTIVE) == min(number + 1, 3)
            await worker.settle()  # and each gives its place back, once
            assert worker.count_replica(ACTIVE) == 0
            assert worker.list_replies() == {"client_gone": 3, "replicas_full": 7}


async def test_cancelled_attempt_to_connect_is_500_and_gives_its_place_back() -> None:
    with black_hole() as url:
        async with InnerWorker([url], limits={"exchanges": 1}, timeouts={"linger": "100ms"}) as worker:
            for count in (1, 2):  # the second finds the place free again
                async with await worker.open() as client:
                    client.send(GET)
                    await eventually(lambda: worker.context.dials)
                    for attempt in worker.context.dials.copy():
                        attempt.cancel()
                    status, _, body = await client.read_answer()
                assert status == 500
                assert b'"reason": "internal"' in body
                assert worker.list_replies() == {"internal": count}
                assert worker.count_replica(ACTIVE) == 0


async def test_cancelled_attempt_whose_client_has_left_gives_its_place_back() -> None:
    with black_hole() as url:
        async with InnerWorker([url]) as worker:
            async with await worker.open() as client:
                client.send(GET)
                await wait_dials(worker, 1)
                client.reset()
            await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
            for attempt in worker.context.dials.copy():
                attempt.cancel()
            await eventually(lambda: worker.count_replica(ACTIVE) == 0)


async def test_attempt_to_connect_that_fails_unexpectedly_is_500_and_gives_its_place_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problems: list[dict[str, Any]] = []

    async def fail(loop: object, host: str) -> list[str]:
        raise ZeroDivisionError("whatever it is")

    monkeypatch.setattr(dial, "look_up", fail)
    async with (
        InnerWorker(["http://replica.test:1880"], timeouts={"linger": "100ms"}) as worker,
        await worker.open() as client,
    ):
        asyncio.get_running_loop().set_exception_handler(lambda loop, details: problems.append(details))
        status, _, body = await client.ask(GET)
        assert status == 500
        assert b'"reason": "internal"' in body
        assert worker.count_replica(ACTIVE) == 0
        await eventually(lambda: problems)  # and it is not kept quiet
        assert isinstance(problems[0]["exception"], ZeroDivisionError)


@pytest.mark.parametrize("stays", [True, False])
async def test_connection_that_stands_gives_the_place_back_whether_its_client_stays(stays: bool) -> None:
    async with ScriptedReplica(answer_each(OK)) as replica, InnerWorker([replica.url]) as worker:
        client = await worker.open()
        client.send(GET)
        if stays:
            assert (await client.read_answer())[0] == 200
        else:
            client.reset()
        await worker.settle()
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == (1 if stays else 0))
        await worker.settle()
        assert worker.count_replica(ACTIVE) == 0
        await client.close()


async def test_request_whose_replica_leaves_while_it_is_connected_to_goes_to_one_that_has_come_since() -> None:
    with black_hole() as url:
        async with (
            ScriptedReplica(answer_each()) as new,
            InnerWorker([url], timeouts={"connect": "300ms"}) as worker,
            await worker.open() as client,
        ):
            client.send(GET)
            await wait_dials(worker, 1)
            await worker.publish(describe_instance([new.url]))
            assert (await client.read_answer())[0] == 200


async def test_replica_that_fails_when_it_has_left_is_not_ejected() -> None:
    """Its counters could never be given to another: a gauge that is not zero says that something goes on there."""
    with black_hole() as url:
        async with (
            ScriptedReplica(answer_each()) as new,
            InnerWorker([url], timeouts={"connect": "300ms"}) as worker,
            await worker.open() as client,
        ):
            client.send(GET)
            await wait_dials(worker, 1)
            await worker.publish(describe_instance([new.url]))
            await wait_dials(worker, 0)
            await worker.settle()
            assert [worker.count_replica(counters.REPLICA_EJECTED, slot) for slot in (0, 1)] == [0, 0]


async def test_time_for_connecting_that_is_over_leaves_no_place_taken() -> None:
    """Though there is a replica that has not been tried, and a full one to wait for."""
    script = Holding()
    with black_hole() as url:
        async with (
            ScriptedReplica(answer_each()) as free,
            ScriptedReplica(script) as full,
            InnerWorker(
                [url, free.url, full.url],
                limits={"exchanges": 1},
                timeouts={"connect": "300ms", "connect_total": "300ms"},
                balance={"affinity": "all"},
            ) as worker,
            await worker.open() as one,
            await worker.open() as two,
        ):
            [entry] = worker.table.instances
            tokens = {f"http://{replica.name}": replica.token for replica in entry.replicas}

            def ask_at(path: str, wanted: str) -> bytes:
                cookie = f"Cookie: {entry.cookie.name}={tokens[wanted]}"
                return f"GET /{path} HTTP/1.1\r\nHost: test\r\n{cookie}\r\n\r\n".encode()

            one.send(ask_at("a", full.url))
            await eventually(lambda: script.paths == ["a"])
            assert (await two.ask(ask_at("b", url)))[0] == 200
            script.let_go()
            assert (await one.read_answer())[0] == 200

"""Every timeout of section 13: its outcome, its reason, its status; never early, never counted twice."""

from __future__ import annotations

import asyncio
import socket
import time

from haproxy_py import counters
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, ScriptedReplica, Wire, answer_each, eventually

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
LATE = 0.35
"""Seconds by which an end may come after its timeout: two ticks, and a busy machine."""

STEP = 0.005
"""Seconds by which an end may seem early: the loop's clock, by which connecting is timed, moves in milliseconds."""


class Watch:
    """Measures how long something took, and says whether that was its timeout."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def assert_is(self, seconds: float) -> None:
        took = time.monotonic() - self._began
        assert seconds - STEP <= took < seconds + LATE + 1.0, f"{took:.3f} s instead of {seconds} s"


async def hold_forever(wire: Wire, number: int) -> None:
    await wire.reader.read()


async def test_head_that_does_not_end_is_answered_408() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], timeouts={"client_head": "300ms", "linger": "100ms"}) as worker,
        await worker.open() as client,
    ):
        watch = Watch()
        client.send(b"GET / HTTP/1.1\r\nHost: te")
        status, _, body = await client.read_answer()
        watch.assert_is(0.3)
        assert status == 408
        assert b'"reason": "head_timeout"' in body
        assert await client.wait_end() == "fin"
        assert worker.list_replies() == {"head_timeout": 1}
        assert replica.accepted == 0


async def test_trickle_does_not_extend_a_head() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], timeouts={"client_head": "400ms", "linger": "100ms"}) as worker,
        await worker.open() as client,
    ):
        watch = Watch()
        answer = asyncio.create_task(client.read_answer())
        for octet in b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 1000:
            client.send(bytes((octet,)))
            if (await asyncio.wait({answer}, timeout=0.02))[0]:
                break
        assert (await answer)[0] == 408
        watch.assert_is(0.4)


async def test_connection_that_sends_nothing_is_closed_silently() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], timeouts={"client_head": "300ms"}) as worker,
        await worker.open() as client,
    ):
        watch = Watch()
        assert await client.read_rest() == b""
        watch.assert_is(0.3)
        assert worker.list_replies() == {}


async def test_head_of_a_later_request_has_its_own_time() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], timeouts={"client_head": "300ms", "client_idle": "2s", "linger": "100ms"}) as worker,
        await worker.open() as client,
    ):
        await client.ask(GET)
        assert not (await asyncio.wait({asyncio.create_task(client.reader.read(1))}, timeout=0.5))[0]
        watch = Watch()
        client.send(b"GET / ")
        await eventually(lambda: worker.list_replies() == {"head_timeout": 1})
        watch.assert_is(0.3)


async def test_idle_connection_is_closed_silently() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], timeouts={"client_idle": "400ms"}) as worker,
        await worker.open() as client,
    ):
        await client.ask(GET)
        watch = Watch()
        assert await client.read_rest() == b""
        watch.assert_is(0.4)
        assert worker.list_replies() == {}


async def test_stalled_request_body_is_answered_408() -> None:
    async with (
        ScriptedReplica(hold_forever) as replica,
        InnerWorker(
            [replica.url],
            timeouts={"client_body": "300ms", "linger": "100ms"},
            limits={"gather": 0, "body_rate": 0},
        ) as worker,
        await worker.open() as client,
    ):
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc")
        await eventually(lambda: replica.accepted)
        client.send(b"d")  # starts the time again
        watch = Watch()
        status, _, body = await client.read_answer()
        watch.assert_is(0.3)
        assert status == 408
        assert b'"reason": "body_timeout"' in body
        assert worker.list_replies() == {"body_timeout": 1}


async def test_trickling_body_ends_at_the_total() -> None:
    async with (
        ScriptedReplica(hold_forever) as replica,
        InnerWorker(
            [replica.url], timeouts={"client_body": "10s", "request_total": "500ms", "linger": "100ms"}
        ) as worker,
        await worker.open() as client,
    ):
        watch = Watch()
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n")
        answer = asyncio.create_task(client.read_answer())
        while not (await asyncio.wait({answer}, timeout=0.05))[0]:
            client.send(b"x")
        watch.assert_is(0.5)
        status, _, body = await answer
        assert status == 408
        assert b'"reason": "body_timeout"' in body
        assert worker.list_replies() == {"body_timeout": 1}


async def test_body_that_stops_ends_at_the_total_if_that_comes_first() -> None:
    async with (
        ScriptedReplica(hold_forever) as replica,
        InnerWorker(
            [replica.url], timeouts={"client_body": "0s", "request_total": "500ms", "linger": "100ms"}
        ) as worker,
        await worker.open() as client,
    ):
        watch = Watch()
        status, _, _body = await client.ask(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc")
        watch.assert_is(0.5)
        assert status == 408
        assert worker.list_replies() == {"body_timeout": 1}


async def test_body_that_stalls_during_its_answer_cuts_the_answer() -> None:
    async def answer_early(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nearly")
        await wire.reader.read()

    async with (
        ScriptedReplica(answer_early) as replica,
        InnerWorker([replica.url], timeouts={"client_body": "400ms"}, limits={"gather": 0}) as worker,
        await worker.open() as client,
    ):
        watch = Watch()
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc")
        assert b"200 OK" in await client.read_head()
        assert await client.wait_end() == "reset"
        watch.assert_is(0.4)
        assert worker.list_replies() == {"body_timeout": 1}


async def test_client_that_takes_nothing_is_cut_off() -> None:
    async def answer_much(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            wire.send(bytes(100_000))
            await wire.writer.drain()

    async with (
        ScriptedReplica(answer_much) as replica,
        InnerWorker([replica.url], timeouts={"client_write": "500ms"}) as worker,
        await worker.open(receive_buffer=4096) as client,
    ):
        client.writer.transport.pause_reading()
        client.send(GET)
        watch = Watch()
        await eventually(lambda: worker.list_replies())
        watch.assert_is(0.5)
        assert worker.list_replies() == {"client_stalled": 1}
        client.writer.transport.resume_reading()
        assert await client.wait_end() == "reset"


async def test_client_that_takes_a_little_now_and_then_is_not_stalled() -> None:
    size = 3_000_000

    async def answer_much(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        await wire.reader.read()

    async with (
        ScriptedReplica(answer_much) as replica,
        InnerWorker([replica.url], timeouts={"client_write": "400ms"}) as worker,
        await worker.open(receive_buffer=65536) as client,
    ):
        client.send(GET)
        await client.read_head()
        left = size
        began = time.monotonic()
        while left:
            piece = await client.reader.read(50_000)
            assert piece, "cut short"
            left -= len(piece)
            if time.monotonic() - began < 2.0:
                await asyncio.sleep(0.15)
        assert worker.list_replies() == {}


async def test_last_answer_may_be_taken_slowly() -> None:
    """The connection closes behind its last answer, but not before the client had the time for it."""
    size = 3_000_000

    async def answer_much(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        await wire.reader.read()

    async with (
        ScriptedReplica(answer_much) as replica,
        InnerWorker([replica.url], timeouts={"client_write": "600ms", "linger": "100ms"}) as worker,
        await worker.open(receive_buffer=16384) as client,
    ):
        client.send(b"GET /x HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        await client.read_head()
        left = size
        slow = 12
        while left:
            piece = await client.reader.read(40_000 if slow and left < 400_000 else 400_000)
            assert piece, f"cut short by {left}"
            left -= len(piece)
            if left < 400_000 and slow:
                slow -= 1
                await asyncio.sleep(0.2)
        assert await client.read_rest() == b""


async def test_early_answer_that_is_not_taken_in_time_is_a_reset() -> None:
    """FRM-11: nothing else says that it is not whole."""

    size = 0

    async def answer_early(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(size))
        await wire.writer.drain()
        wire.finish()
        await wire.reader.read()

    while size < 5_000_000:  # until some of it waits in the worker and the rest in the kernel
        size += 50_000
        async with (
            ScriptedReplica(answer_early) as replica,
            InnerWorker(
                [replica.url], timeouts={"linger": "300ms", "client_write": "300ms"}, limits={"gather": 0}
            ) as worker,
            await worker.open(receive_buffer=4096) as client,
        ):
            client.writer.transport.pause_reading()
            client.send(b"POST /x HTTP/1.0\r\nHost: test\r\nContent-Length: 100\r\n\r\n")
            await eventually(lambda: worker.context.clients)
            [connection] = worker.context.clients
            await eventually(lambda: worker.count_answers(200) or not worker.context.clients)
            if connection.stream.unsent == 0:
                client.reset()
                continue
            await eventually(lambda: not worker.context.clients)
            client.writer.transport.resume_reading()
            assert await client.wait_end() == "reset"
            return
    raise AssertionError("the kernel took every answer")


async def test_replica_that_cannot_be_reached_in_time_is_504() -> None:
    # Connections to a listening socket whose queue is full are neither accepted nor refused.
    import socket

    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        try:
            async with (
                InnerWorker(
                    [f"http://127.0.0.1:{port}"], timeouts={"connect": "300ms", "connect_total": "5s"}
                ) as worker,
                await worker.open() as client,
            ):
                watch = Watch()
                status, head, body = await client.ask(GET)
                watch.assert_is(0.3)
                assert status == 504
                assert b'"reason": "connect_timeout"' in body
                assert worker.list_replies() == {"connect_timeout": 1}
                assert worker.count_replica(counters.REPLICA_CONNECTIONS_FAILED) == 1
                assert b"onnection: close" not in head
                assert (await client.ask(GET))[0] == 504  # the connection stays
        finally:
            for filler in fillers:
                filler.close()


async def test_all_attempts_together_have_their_time() -> None:
    import socket

    with socket.socket() as one, socket.socket() as two:
        fillers = []
        for full in (one, two):
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
                fillers.append(filler)
        try:
            async with (
                InnerWorker(
                    [f"http://127.0.0.1:{full.getsockname()[1]}" for full in (one, two)],
                    timeouts={"connect": "400ms", "connect_total": "600ms"},
                ) as worker,
                await worker.open() as client,
            ):
                watch = Watch()
                assert (await client.ask(GET))[0] == 504
                watch.assert_is(0.6)
                assert worker.list_replies() == {"connect_timeout": 1}
        finally:
            for filler in fillers:
                filler.close()


async def test_replica_that_does_not_answer_is_504() -> None:
    async with (
        ScriptedReplica(hold_forever) as replica,
        InnerWorker([replica.url], timeouts={"response_head": "300ms"}) as worker,
        await worker.open() as client,
    ):
        watch = Watch()
        status, _, body = await client.ask(GET)
        watch.assert_is(0.3)
        assert status == 504
        assert b'"reason": "response_timeout"' in body
        assert worker.list_replies() == {"response_timeout": 1}
        assert (await client.ask(GET))[0] == 504  # the client's connection stays


async def test_trickling_answer_head_is_504_and_an_interim_one_starts_the_time_again() -> None:
    async def trickle(wire: Wire, number: int) -> None:
        await wire.read_head()
        await asyncio.sleep(0.25)
        wire.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        for octet in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            wire.send(bytes((octet,)))
            await asyncio.sleep(0.02)

    async with (
        ScriptedReplica(trickle) as replica,
        InnerWorker([replica.url], timeouts={"response_head": "400ms"}) as worker,
        await worker.open() as client,
    ):
        watch = Watch()
        client.send(GET)
        assert b"102" in await client.read_head()
        assert (await client.read_answer())[0] == 504
        watch.assert_is(0.65)
        assert worker.list_replies() == {"response_timeout": 1}


async def test_stalled_answer_cuts_the_client_off() -> None:
    async def stall(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        await asyncio.sleep(0.2)
        wire.send(b"d")
        await wire.reader.read()

    async with (
        ScriptedReplica(stall) as replica,
        InnerWorker([replica.url], timeouts={"response_body": "300ms"}) as worker,
        await worker.open() as client,
    ):
        watch = Watch()
        client.send(GET)
        assert b"200 OK" in await client.read_head()
        assert await client.wait_end() == "reset"
        watch.assert_is(0.5)
        assert worker.list_replies() == {"response_timeout": 1}


async def test_upload_that_the_replica_takes_slowly_is_not_stalled() -> None:
    size = 4_000_000

    async def take_slowly(wire: Wire, number: int) -> None:
        # A buffer that the kernel lets grow takes megabytes at once and then opens the window only when half is free again:
        # for the proxy, a replica that takes nothing for seconds. How much it grows depends on who else is running.
        wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        await wire.read_head()
        left = size
        began = time.monotonic()
        while left:
            left -= len(await wire.reader.read(60_000))
            if time.monotonic() - began < 2.0:
                await asyncio.sleep(0.1)
        wire.send(OK)

    async with (
        ScriptedReplica(take_slowly) as replica,
        InnerWorker([replica.url], timeouts={"response_body": "500ms", "client_body": "10s"}) as worker,
        await worker.open() as client,
    ):
        status, _, _ = await client.ask(
            b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
        )
        assert status == 200
        assert worker.list_replies() == {}


async def test_upload_that_the_replica_does_not_take_is_504() -> None:
    async def take_nothing(wire: Wire, number: int) -> None:
        wire.writer.transport.pause_reading()
        await asyncio.sleep(60)

    async with (
        ScriptedReplica(take_nothing) as replica,
        InnerWorker([replica.url], timeouts={"response_body": "500ms", "linger": "100ms"}) as worker,
        await worker.open() as client,
    ):
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 40000000\r\n\r\n" + bytes(20_000_000))
        status, _, body = await client.read_answer()
        assert status == 504
        assert b'"reason": "response_timeout"' in body
        assert worker.list_replies() == {"response_timeout": 1}


async def test_early_answer_lingers_for_the_rest_of_the_body() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], timeouts={"linger": "300ms"}) as worker,
        await worker.open() as client,
    ):
        watch = Watch()
        status, head, _ = await client.ask(
            b"POST /admin/../flows HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nab"
        )
        assert status == 403
        assert b"Connection: close" in head
        assert await client.read_rest() == b""  # its half is closed at once
        client.send(b"c")  # is thrown away
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
        watch.assert_is(0.3)

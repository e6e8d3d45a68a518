"""Everything goes on when it arrives: bodies in both directions, interim answers, answers that come early."""

from __future__ import annotations

import asyncio

from haproxy_py import counters
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, ScriptedReplica, Wire, eventually

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"


async def test_events_go_on_one_by_one() -> None:
    go_on = asyncio.Semaphore(0)

    async def send_events(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in range(5):
            await go_on.acquire()
            wire.send(b"8\r\ndata: %d\n\r\n" % event)
        await go_on.acquire()
        wire.send(b"0\r\n\r\n")
        await wire.reader.read()

    async with (
        ScriptedReplica(send_events) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(GET)
        assert b"text/event-stream" in await client.read_head()
        for event in range(5):
            go_on.release()
            assert await client.read_until(b"\n\r\n") == b"8\r\ndata: %d\n\r\n" % event
        go_on.release()
        assert await client.read(5) == b"0\r\n\r\n"


async def test_events_that_end_with_the_connection_are_sent_chunked() -> None:
    go_on = asyncio.Semaphore(0)

    async def send_events(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(3):
            await go_on.acquire()
            wire.send(b"event\n")

    async with (
        ScriptedReplica(send_events) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(GET)
        assert b"Transfer-Encoding: chunked" in await client.read_head()
        for _ in range(3):
            go_on.release()
            assert await client.read_until(b"\n\r\n") == b"6\r\nevent\n\r\n"
        assert await client.read(5) == b"0\r\n\r\n"
        assert worker.list_replies() == {}


async def test_upload_reaches_the_replica_octet_by_octet() -> None:
    arrived = bytearray()

    async def gather(wire: Wire, number: int) -> None:
        await wire.read_head()
        while not arrived.endswith(b"0\r\n\r\n"):
            arrived.extend(await wire.reader.read(1))
        wire.send(OK)
        await wire.reader.read()

    async with ScriptedReplica(gather) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        for octet in b"5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\n\r\n":
            client.send(bytes((octet,)))
            await asyncio.sleep(0)
        assert (await client.read_answer())[0] == 200
        assert bytes(arrived) == b"5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n"


async def test_each_octet_of_an_upload_arrives_before_the_next_is_sent() -> None:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def gather(wire: Wire, number: int) -> None:
        await wire.read_head()
        for _ in range(5):
            arrived.put_nowait(await wire.reader.read(100))
        wire.send(OK)
        await wire.reader.read()

    async with (
        ScriptedReplica(gather) as replica,
        InnerWorker([replica.url], limits={"gather": 0}) as worker,
        await worker.open() as client,
    ):
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n")
        for octet in b"abcde":
            client.send(bytes((octet,)))
            assert await asyncio.wait_for(arrived.get(), 5) == bytes((octet,))
        assert (await client.read_answer())[0] == 200


async def test_interim_answers_go_on_in_order() -> None:
    async def answer(wire: Wire, number: int) -> None:
        while True:
            await wire.read_head()
            wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK)

    async with ScriptedReplica(answer) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        for _ in range(2):
            client.send(GET)
            early = await client.read_head()
            assert early.startswith(b"HTTP/1.1 103 ")
            assert b"Link: </a>" in early
            assert (await client.read_head()).startswith(b"HTTP/1.1 102 ")
            assert (await client.read_answer())[::2] == (200, b"ok")
        assert replica.accepted == 1


async def test_more_interim_answers_than_the_limit_are_refused() -> None:
    async def answer(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 102 Processing\r\n\r\n" * (32 if number == 0 else 33))
        wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        await wire.reader.read()

    async with ScriptedReplica(answer) as replica, InnerWorker([replica.url]) as worker:
        for expected in (200, 502):
            async with await worker.open() as client:
                client.send(GET)
                status = 102
                while status == 102:
                    status, _, _ = await client.read_answer()
                assert status == expected
        assert worker.list_replies() == {"bad_response": 1}


async def test_expect_continue_end_to_end() -> None:
    async def answer(wire: Wire, number: int) -> None:
        head = await wire.read_head()
        assert b"Expect: 100-continue" in head
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await wire.read(5) == b"hello"
        wire.send(OK)
        await wire.reader.read()

    async with ScriptedReplica(answer) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert (await client.read_head()).startswith(b"HTTP/1.1 100 Continue\r\n")
        client.send(b"hello")
        assert (await client.read_answer())[0] == 200


async def test_final_answer_in_place_of_continue_closes_both_connections() -> None:
    async def answer(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
        assert await wire.reader.read() == b""

    async with ScriptedReplica(answer) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        status, head, body = await client.ask(
            b"POST /x HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        assert (status, body) == (417, b"no")
        assert b"Connection: close\r\n" in head
        assert await client.wait_end() == "fin"
        assert worker.count_replica(counters.REPLICA_IDLE_CONNECTIONS) == 0
        assert worker.list_replies() == {}


async def test_early_answer_goes_on_at_once_and_the_body_goes_on_until_it_is_complete() -> None:
    seen = bytearray()
    finish = asyncio.Event()

    async def answer(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n")
        while len(seen) < 6:
            seen.extend(await wire.reader.read(100))
        await finish.wait()
        wire.send(b"0\r\n\r\n")
        await wire.reader.read()

    async with (
        ScriptedReplica(answer) as replica,
        InnerWorker([replica.url], limits={"gather": 0}) as worker,
        await worker.open() as client,
    ):
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc")
        head = await client.read_head()
        assert b"Connection: close\r\n" in head
        assert await client.read(10) == b"5\r\nearly\r\n"
        client.send(b"def")
        await eventually(lambda: bytes(seen) == b"abcdef")
        finish.set()
        assert await client.read_rest() == b"0\r\n\r\n"
        assert worker.count_answers(200) == 1
        assert worker.list_replies() == {}
        assert worker.count_replica(counters.REPLICA_IDLE_CONNECTIONS) == 0


async def test_early_answer_whose_body_still_completes_keeps_no_connection() -> None:
    async def answer(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await wire.read(5)
        wire.send(b"cd")
        await wire.reader.read()

    async with (
        ScriptedReplica(answer) as replica,
        InnerWorker([replica.url], limits={"gather": 0}) as worker,
        await worker.open() as client,
    ):
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n")
        assert b"Connection: close" in await client.read_head()
        client.send(b"hello")
        assert await client.read_rest() == b"abcd"


async def test_replica_that_answers_and_closes_without_reading_the_body() -> None:
    async def answer(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await wire.writer.drain()

    async with (
        ScriptedReplica(answer) as replica,
        InnerWorker([replica.url], timeouts={"linger": "200ms"}) as worker,
        await worker.open() as client,
    ):
        client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n" + bytes(20_000))
        status, _, body = await client.read_answer()
        assert (status, body) == (413, b"no")
        assert await client.wait_end() in ("fin", "reset")
        assert worker.count_answers(413) == 1
        assert "client_gone" not in worker.list_replies()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def echo(wire: Wire, number: int) -> None:
        while True:
            target = (await wire.read_head()).split(b" ")[1]
            await asyncio.sleep(0)
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(target) + target)

    async with (
        ScriptedReplica(echo) as one,
        ScriptedReplica(echo) as two,
        InnerWorker([one.url, two.url]) as worker,
        await worker.open() as client,
    ):
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: test\r\n\r\n" % number for number in range(500)))
        for number in range(500):
            assert (await client.read_answer())[2] == b"/%d" % number


async def test_refusals_and_answers_keep_their_order_in_a_pipeline() -> None:
    async def echo(wire: Wire, number: int) -> None:
        while True:
            await wire.read_head()
            wire.send(OK)

    async with ScriptedReplica(echo) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send((GET + b"GET /flows HTTP/1.1\r\nHost: test\r\n\r\n") * 50)
        for _ in range(50):
            assert (await client.read_answer())[0] == 200
            assert (await client.read_answer())[0] == 403


async def test_requests_sent_with_a_fin_are_all_answered_where_half_closed_clients_are_served_con_11() -> None:
    async def echo(wire: Wire, number: int) -> None:
        while True:
            await wire.read_head()
            await asyncio.sleep(0.01)
            wire.send(OK)

    async with (
        ScriptedReplica(echo) as replica,
        InnerWorker([replica.url], half_close="serve") as worker,
        await worker.open() as client,
    ):
        client.send(GET * 3)
        client.finish()
        for _ in range(3):
            assert (await client.read_answer())[0] == 200
        assert await client.read_rest() == b""
        assert worker.list_replies() == {}

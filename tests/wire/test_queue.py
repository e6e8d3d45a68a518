"""Requests that wait for a place while every replica is at its limit."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from haproxy_py import counters
from haproxy_py.datapath.context import Context
from tests.proxy_process import describe_instance, find_free_ports
from tests.wire.inner_worker import InnerWorker, read_lines
from tests.wire.scripted import OK, ScriptedReplica, Wire, answer_each, eventually, get_field

ONE_EACH = {"exchanges": 1}


def ask_for(path: str) -> bytes:
    return f"GET /{path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


class Holding:
    """A replica that answers a request when it is let go; remembers the paths in the order they came."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        self._let_go = asyncio.Semaphore(0)

    async def __call__(self, wire: Wire, number: int) -> None:
        while True:
            head = await wire.reader.readuntil(b"\r\n\r\n")
            self.paths.append(head.split(b" ", 2)[1].decode()[1:])
            self.bodies.append(await wire.reader.readexactly(int(get_field(head, "Content-Length") or 0)))
            await self._let_go.acquire()
            wire.send(OK)

    def let_go(self, count: int = 1) -> None:
        for _ in range(count):
            self._let_go.release()


def count_queued(worker: InnerWorker, slot: int = 1) -> int:
    return worker.count_worker(counters.instance_at(slot) + counters.INSTANCE_QUEUED)


def count_served(worker: InnerWorker) -> int:
    """Requests that waited and got a place."""
    at = counters.instance_at(1) + counters.INSTANCE_QUEUE_DURATION
    return sum(worker.count_worker(at + bucket) for bucket in range(len(counters.DURATION_BUCKETS) + 1))


async def fill(worker: InnerWorker, script: Holding, names: list[str]) -> list[Wire]:
    """The first takes the only place, the others queue up in their order."""
    clients = []
    for number, name in enumerate(names):
        client = await worker.open()
        clients.append(client)
        client.send(ask_for(name))
        if number == 0:
            await eventually(lambda: script.paths == [names[0]])
        else:
            await eventually(lambda: count_queued(worker) == number)  # noqa: B023
    return clients


async def close_all(clients: list[Wire]) -> None:
    for client in clients:
        await client.close()


async def test_first_in_first_out() -> None:
    script = Holding()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url], limits=ONE_EACH) as worker:
        names = ["a", "b", "c", "d", "e"]
        clients = await fill(worker, script, names)
        for number, client in enumerate(clients):
            assert script.paths == names[: number + 1]
            script.let_go()
            assert (await client.read_answer())[0] == 200
            await eventually(lambda: len(script.paths) == min(number + 2, len(names)))  # noqa: B023
        assert script.paths == names
        assert replica.accepted == 1
        assert (count_queued(worker), count_served(worker)) == (0, 4)
        assert worker.list_replies() == {}
        await close_all(clients)


async def test_nobody_overtakes_not_even_on_the_connection_whose_exchange_ends() -> None:
    script = Holding()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url], limits=ONE_EACH) as worker:
        one, two = await fill(worker, script, ["a", "b"])
        one.send(ask_for("c"))  # sent ahead: it is read in the very moment when the place becomes free
        script.let_go()
        assert (await one.read_answer())[0] == 200
        await eventually(lambda: len(script.paths) == 2)
        script.let_go(2)
        assert (await two.read_answer())[0] == 200
        assert (await one.read_answer())[0] == 200
        assert script.paths == ["a", "b", "c"]
        await close_all([one, two])


async def test_full_queue_is_503_at_once() -> None:
    script = Holding()
    limits = {"exchanges": 1, "queue": 2}
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url], limits=limits) as worker:
        clients = await fill(worker, script, ["a", "b", "c"])
        async with await worker.open() as late:
            status, head, body = await late.ask(ask_for("d"))
            assert status == 503
            assert b'"reason": "replicas_full"' in body
            assert b"Retry-After: 1\r\n" in head
            assert b"error=connection_limit_reached" in head
            script.let_go(4)
            for client in clients:
                assert (await client.read_answer())[0] == 200
            assert (await late.ask(ask_for("e")))[0] == 200  # its connection stayed
        assert script.paths == ["a", "b", "c", "e"]
        assert worker.list_replies() == {"replicas_full": 1}
        await close_all(clients)


async def test_wait_ends_by_its_timeout_and_the_connection_stays() -> None:
    script = Holding()
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], limits=ONE_EACH, timeouts={"queue": "300ms"}) as worker,
    ):
        one, two = await fill(worker, script, ["a", "b"])
        two.send(ask_for("c"))  # sent ahead: it waits in its turn, with a time of its own
        began = asyncio.get_running_loop().time()
        for _ in range(2):
            status, head, body = await two.read_answer()
            assert status == 503
            assert b'"reason": "queue_timeout"' in body
            assert b"Retry-After: 1\r\n" in head
            assert b'error=connection_limit_reached; details="queue_timeout"' in head
            assert b"Connection: close" not in head
        assert 0.5 < asyncio.get_running_loop().time() - began < 3
        assert count_queued(worker) == 0
        script.let_go(2)
        assert (await one.read_answer())[0] == 200
        assert (await two.ask(ask_for("d")))[0] == 200
        assert script.paths == ["a", "d"]
        assert worker.list_replies() == {"queue_timeout": 2}
        await close_all([one, two])


async def test_other_activity_of_the_client_does_not_prolong_the_wait() -> None:
    script = Holding()
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], limits=ONE_EACH, timeouts={"queue": "400ms"}) as worker,
    ):
        one, two = await fill(worker, script, ["a", "b"])

        async def send_ahead() -> None:
            for _ in range(100):
                two.send(bytes(1000))
                await asyncio.sleep(0.02)

        sending = asyncio.create_task(send_ahead())
        async with asyncio.timeout(1.5):
            assert (await two.read_answer())[0] == 503
        sending.cancel()
        script.let_go()
        assert (await one.read_answer())[0] == 200
        await close_all([one, two])


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_client_that_goes_away_leaves_the_queue(how: str, tmp_path: Path) -> None:
    script = Holding()
    file = tmp_path / "log"
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], limits=ONE_EACH, log_file=file) as worker,
    ):
        one, two, three, four = await fill(worker, script, ["a", "b", "c", "d"])
        for leaving in (three, two):
            if how == "reset":
                leaving.reset()
            else:
                await leaving.close()
        await eventually(lambda: count_queued(worker) == 1)
        script.let_go(2)
        assert (await one.read_answer())[0] == 200
        assert (await four.read_answer())[0] == 200
        assert script.paths == ["a", "d"]
        assert worker.list_replies() == {"client_gone": 2}
        await close_all([one, four])
    lines = {str(line["target"]): line for line in read_lines(file)}
    assert [lines[path]["term"] for path in ("/b", "/c")] == ["CQ", "CQ"]
    assert (lines["/b"]["status"], lines["/b"]["replica"], lines["/b"]["attempts"]) == (499, "", 0)
    assert float(lines["/b"]["t_queue"]) > 0
    assert float(lines["/d"]["t_queue"]) > 0
    assert float(lines["/a"]["t_queue"]) == 0
    assert (lines["/a"]["attempts"], lines["/d"]["attempts"]) == (1, 1)


async def test_client_that_had_finished_before_it_had_to_wait_gets_its_answer() -> None:
    """CON-11: with `half_close: serve` a half-close is no departure."""
    script = Holding()
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], limits=ONE_EACH, half_close="serve") as worker,
    ):
        [one] = await fill(worker, script, ["a"])
        async with await worker.open() as two:
            two.send(ask_for("b") + ask_for("c"))
            await eventually(lambda: count_queued(worker) == 1)
            script.let_go()
            assert (await one.read_answer())[0] == 200
            await eventually(lambda: script.paths == ["a", "b"])
            two.finish()
            one.send(ask_for("d"))
            await eventually(lambda: count_queued(worker) == 1)
            script.let_go(3)
            assert (await two.read_answer())[0] == 200
            assert (await two.read_answer())[0] == 200
            assert (await one.read_answer())[0] == 200
        assert script.paths == ["a", "b", "d", "c"]
        await close_all([one])


async def test_body_is_not_read_while_the_request_waits() -> None:
    script = Holding()
    size = 8 << 20
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url], limits=ONE_EACH) as worker:
        [one] = await fill(worker, script, ["a"])
        async with await worker.open() as two:
            two.send(b"POST /b HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % size)
            await eventually(lambda: count_queued(worker) == 1)
            [waiting] = [client.stream for client in worker.context.clients if not client.stream.reading]
            two.send(bytes(size))
            await asyncio.sleep(0.2)
            assert not waiting.reading
            transport: Any = two.writer.transport
            assert transport.get_write_buffer_size() > 0  # what the kernel does not take, the client keeps
            script.let_go(2)
            assert (await one.read_answer())[0] == 200
            assert (await two.read_answer())[0] == 200
        assert [len(body) for body in script.bodies] == [0, size]
        await close_all([one])


async def test_upload_that_is_reset_while_it_waits_leaves_the_queue() -> None:
    script = Holding()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url], limits=ONE_EACH) as worker:
        [one] = await fill(worker, script, ["a"])
        two = await worker.open()
        two.send(b"POST /b HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000))
        await eventually(lambda: count_queued(worker) == 1)
        two.reset()
        await eventually(lambda: count_queued(worker) == 0)
        script.let_go()
        assert (await one.read_answer())[0] == 200
        assert script.paths == ["a"]
        assert worker.list_replies() == {"client_gone": 1}
        await close_all([one])


async def test_one_body_that_came_whole_is_sent_whole() -> None:
    script = Holding()
    body = bytes(range(256)) * 200
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url], limits=ONE_EACH) as worker:
        [one] = await fill(worker, script, ["a"])
        async with await worker.open() as two, await worker.open() as three:
            for client, method in ((two, b"POST"), (three, b"PUT")):
                client.send(
                    b"%s /%s HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % (method, method, len(body)) + body
                )
                await eventually(lambda: count_queued(worker) == (1 if client is two else 2))  # noqa: B023
            script.let_go(3)
            for client in (one, two, three):
                assert (await client.read_answer())[0] == 200
        assert script.bodies == [b"", body, body]
        await close_all([one])


async def test_replica_that_is_added_serves_those_that_wait() -> None:
    script = Holding()
    async with (
        ScriptedReplica(script) as replica,
        ScriptedReplica(answer_each()) as other,
        InnerWorker([replica.url], limits=ONE_EACH) as worker,
    ):
        clients = await fill(worker, script, [str(number) for number in range(150)])
        await worker.publish(describe_instance([replica.url, other.url], limits=ONE_EACH))
        for client in clients[1:]:
            assert (await client.read_answer())[0] == 200
        script.let_go()
        assert (await clients[0].read_answer())[0] == 200
        assert script.paths == ["0"]
        assert count_served(worker) == 149
        await close_all(clients)


async def test_higher_limit_serves_those_that_wait_and_more_of_them_at_a_time() -> None:
    script = Holding()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url], limits=ONE_EACH) as worker:
        clients = await fill(worker, script, ["0", *(str(number) for number in range(1, 101))])
        await worker.publish(describe_instance([replica.url], limits={"exchanges": 90}))
        await eventually(lambda: len(script.paths) == 90)
        assert sorted(map(int, script.paths)) == list(range(90))
        assert count_queued(worker) == 11
        script.let_go(101)
        for client in clients:
            assert (await client.read_answer())[0] == 200
        await close_all(clients)


async def test_removed_instance_empties_its_queue_with_503() -> None:
    script = Holding()
    async with (
        ScriptedReplica(script) as replica,
        ScriptedReplica(answer_each()) as other,
        InnerWorker([replica.url], limits=ONE_EACH) as worker,
    ):
        one, two = await fill(worker, script, ["a", "b"])
        await worker.publish(describe_instance([other.url], name="another"))
        status, _, body = await two.read_answer()
        assert status == 503
        assert b'"reason": "no_replica"' in body
        assert (await two.ask(ask_for("c")))[0] == 200
        script.let_go()
        assert (await one.read_answer())[0] == 200
        assert script.paths == ["a"]
        assert count_queued(worker) == 0
        await close_all([one, two])


async def test_replica_that_is_replaced_leaves_its_queue_to_the_new_one() -> None:
    script = Holding()
    async with (
        ScriptedReplica(script) as replica,
        ScriptedReplica(answer_each()) as other,
        InnerWorker([replica.url], limits=ONE_EACH) as worker,
    ):
        one, two, three = await fill(worker, script, ["a", "b", "c"])
        await worker.publish(describe_instance([other.url], limits=ONE_EACH))
        assert (await two.read_answer())[0] == 200
        assert (await three.read_answer())[0] == 200
        script.let_go()
        assert (await one.read_answer())[0] == 200
        assert script.paths == ["a"]
        await close_all([one, two, three])


async def test_request_whose_replica_cannot_be_reached_waits_for_the_full_one_before_all_others() -> None:
    script = Holding()
    dead = find_free_ports(1)[0]
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker(
            [replica.url, f"http://127.0.0.1:{dead}"], limits=ONE_EACH, balance={"policy": "least-connections"}
        ) as worker,
    ):
        first, second, third = [await worker.open() for _ in range(3)]
        first.send(ask_for("a"))
        await eventually(lambda: script.paths == ["a"])
        second.send(ask_for("b"))  # finds the other dead, or out
        third.send(ask_for("c"))
        await eventually(lambda: count_queued(worker) == 2)
        assert script.paths == ["a"]
        script.let_go(3)
        for client in (first, second, third):
            assert (await client.read_answer())[0] == 200
        assert script.paths == ["a", "b", "c"]
        assert worker.list_replies() == {}
        await close_all([first, second, third])


async def test_replica_that_was_out_is_tried_by_the_first_in_the_queue() -> None:
    script = Holding()
    dead = find_free_ports(1)[0]
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url, f"http://127.0.0.1:{dead}"], limits=ONE_EACH) as worker,
    ):
        first, second = await worker.open(), await worker.open()
        first.send(ask_for("a"))
        await eventually(lambda: script.paths == ["a"])
        second.send(ask_for("b"))
        await eventually(lambda: count_queued(worker) == 1)
        async with ScriptedReplica(answer_each(), dead):
            assert (await second.read_answer())[0] == 200  # within the seconds that it may be out
            script.let_go()
            assert (await first.read_answer())[0] == 200
            await close_all([first, second])
        assert worker.list_replies() == {}


async def test_client_keeps_its_replica_through_the_queue() -> None:
    one, two = Holding(), Holding()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url], limits=ONE_EACH, balance={"affinity": "all"}) as worker,
    ):
        clients = [await worker.open() for _ in range(4)]
        cookies = []
        for client in clients[:2]:
            client.send(ask_for("first"))
            await eventually(lambda: one.paths and two.paths if client is clients[1] else one.paths or two.paths)  # noqa: B023
        one.let_go()
        two.let_go()
        for client in clients[:2]:
            field = get_field((await client.read_answer())[1], "Set-Cookie")
            assert field is not None
            cookies.append(field.split(";")[0])
        for client, cookie in zip(clients[:2], cookies, strict=True):
            client.send(f"GET /busy HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n".encode())
        await eventually(lambda: one.paths[-1] == two.paths[-1] == "busy")
        for client, cookie in zip(clients[2:], cookies, strict=True):
            client.send(f"GET /again HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n".encode())
        await eventually(lambda: count_queued(worker) == 2)
        one.let_go(2)
        two.let_go(2)
        for client in clients:
            assert get_field((await client.read_answer())[1], "Set-Cookie") is None  # where it belongs
        await close_all(clients)


async def test_drain_serves_those_that_wait() -> None:
    script = Holding()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url], limits=ONE_EACH) as worker:
        one, two, three = await fill(worker, script, ["a", "b", "c"])
        await worker.drain(0.0, 8.0)
        script.let_go(3)
        for client in (one, two, three):
            status, head, _ = await client.read_answer()
            assert status == 200
            assert b"Connection: close" in head
            assert await client.wait_end() == "fin"
        await worker.wait_ended()
        await close_all([one, two, three])


async def test_end_of_the_drain_empties_the_queue(tmp_path: Path) -> None:
    script = Holding()
    file = tmp_path / "log"
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], limits=ONE_EACH, log_file=file) as worker,
    ):
        one, two = await fill(worker, script, ["a", "b"])
        await worker.drain(0.0, 0.5)
        await worker.wait_ended()
        assert count_queued(worker) == 0
        assert script.paths == ["a"]
        for client in (one, two):
            assert await client.wait_end() == "reset"
        await close_all([one, two])
    assert sorted(str(line["term"]) for line in read_lines(file)) == ["KH", "KQ"]


async def test_tunnel_may_wait_too() -> None:
    script = Holding()

    async def switch(wire: Wire, number: int) -> None:
        head = await wire.reader.readuntil(b"\r\n\r\n")
        if b"Upgrade" not in head:
            wire.writer.close()
            return
        wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        wire.send(await wire.reader.readexactly(3))
        await wire.reader.read()

    async with (
        ScriptedReplica(script) as replica,
        ScriptedReplica(switch) as other,
        InnerWorker([replica.url], limits=ONE_EACH) as worker,
    ):
        [one] = await fill(worker, script, ["a"])
        async with await worker.open() as two:
            two.send(
                b"GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nabc"
            )
            await eventually(lambda: count_queued(worker) == 1)
            await worker.publish(describe_instance([replica.url, other.url], limits=ONE_EACH))
            assert (await two.read_head()).startswith(b"HTTP/1.1 101 ")
            assert await two.read(3) == b"abc"
        script.let_go()
        assert (await one.read_answer())[0] == 200
        await close_all([one])


async def test_overload_costs_only_what_is_beyond_the_bounds() -> None:
    """Places and queue are used to the full, and in the end nothing is left over."""
    async with (
        ScriptedReplica(answer_each()) as first,
        ScriptedReplica(answer_each()) as second,
        InnerWorker([first.url, second.url], limits={"exchanges": 4, "queue": 500}) as worker,
    ):

        async def ask_many(number: int) -> list[int]:
            async with await worker.open() as client:
                return [(await client.ask(ask_for(str(number))))[0] for _ in range(20)]

        statuses = await asyncio.gather(*(ask_many(number) for number in range(100)))
        assert {status for found in statuses for status in found} == {200}
        assert first.accepted + second.accepted <= 8
        assert count_served(worker) > 200
        assert count_queued(worker) == 0


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_meanwhile_nothing_is_left_over(seed: int) -> None:
    """Clients that leave at any point, replicas that are slow, cut or garble their answers, and tables that change."""
    chance = random.Random(seed)

    async def behave(wire: Wire, number: int) -> None:
        while True:
            head = await wire.reader.readuntil(b"\r\n\r\n")
            await wire.reader.readexactly(int(get_field(head, "Content-Length") or 0))
            await asyncio.sleep(chance.random() * 0.03)
            way = chance.randrange(12)
            if way == 0:
                return
            if way == 1:
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
                wire.reset()
                return
            if way == 2:
                wire.send(b"nonsense\r\n\r\n")
                return
            wire.send(OK)

    async with contextlib.AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(ScriptedReplica(behave))).url for _ in range(4)]
        urls.append(f"http://127.0.0.1:{find_free_ports(1)[0]}")
        settings: dict[str, Any] = {
            "limits": {"exchanges": 2, "queue": 12},
            "timeouts": {"queue": "200ms", "linger": "100ms"},
            "eject": {"first": "100ms", "longest": "200ms", "slow_start": "500ms"},
            "balance": {"affinity": "all", "policy": ["round-robin", "least-connections", "random-two"][seed]},
        }
        worker = await stack.enter_async_context(InnerWorker(urls[:2], **settings))
        end = asyncio.get_running_loop().time() + 1.5

        async def come_and_go() -> None:
            while asyncio.get_running_loop().time() < end:
                client = await worker.open()
                for _ in range(chance.randrange(1, 4)):
                    body = bytes(chance.choice((0, 0, 10, 90_000)))
                    method = chance.choice(("GET", "POST", "PUT"))
                    request = (
                        f"{method} /x HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
                    )
                    request = request[: chance.choice((len(request), len(request), len(request) // 2))]
                    if client.writer.is_closing():
                        break
                    client.send(request + chance.choice((b"", b"", ask_for("ahead"))))
                    try:
                        async with asyncio.timeout(chance.choice((0.005, 0.05, 0.5))):
                            await client.read_answer()
                    except TimeoutError:
                        pass
                    except (OSError, asyncio.IncompleteReadError):
                        break
                if chance.random() < 0.5:
                    client.reset()
                await client.close()

        async def change_tables() -> None:
            while asyncio.get_running_loop().time() < end:
                await asyncio.sleep(0.1)
                some = chance.sample(urls, chance.randrange(1, len(urls) + 1))
                entry = describe_instance([], **settings)
                entry["replicas"] = {"static": [{"url": url, "weight": chance.randrange(1, 4)} for url in some]}
                if chance.random() < 0.2:
                    entry["name"] = "another"
                await worker.publish(entry)

        await asyncio.gather(change_tables(), *(come_and_go() for _ in range(30)))
        await worker.publish(describe_instance(urls[:2], **settings))
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
        assert count_served(worker) > 0
        for slot in range(1, 4):
            assert count_queued(worker, slot) == 0


async def test_queue_that_could_not_be_woken_for_want_of_memory_is_woken_by_the_next_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = False

    class Loop:
        """The worker's, without memory for once."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self._loop = loop

        def __getattr__(self, name: str) -> Any:
            return getattr(self._loop, name)

        def call_soon(self, callback: Any, *arguments: Any) -> Any:
            nonlocal failed
            if callback.__name__ == "serve" and not failed:
                failed = True
                raise MemoryError
            return self._loop.call_soon(callback, *arguments)

    monkeypatch.setattr("haproxy_py.worker.Context", lambda loop, *rest: Context(Loop(loop), *rest))
    script = Holding()
    async with ScriptedReplica(script) as replica, InnerWorker([replica.url], limits=ONE_EACH) as worker:
        clients = await fill(worker, script, ["a", "b"])
        script.let_go(2)
        for client in clients:
            assert (await client.read_answer())[0] == 200
        assert failed
        await close_all(clients)

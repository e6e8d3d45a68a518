"""Requests that are sent a second time, those that must not be, and replicas that are passed over for their failures."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from haproxy_py import counters
from tests.proxy_process import describe_instance
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, ScriptedReplica, Wire, answer_each, eventually

IDEMPOTENT = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS")
OTHERS = ("POST", "PATCH", "PROPFIND")
BODY = b"0123456789" * 100


def make_request(method: str, body: bytes = b"") -> bytes:
    head = f"{method} /x HTTP/1.1\r\nHost: test\r\n" + (f"Content-Length: {len(body)}\r\n" if body else "")
    return head.encode() + b"\r\n" + body


def answer(method: str) -> bytes:
    return OK if method != "HEAD" else b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


def count_retries(worker: InnerWorker) -> dict[str, int]:
    found = {name: worker.count_worker(counters.WORKER_RETRIES + at) for at, name in enumerate(counters.RETRIES)}
    return {name: count for name, count in found.items() if count}


def count_all(worker: InnerWorker, cell: int) -> int:
    """Of all replicas."""
    return sum(worker.count_replica(cell, slot) for slot in range(4))


class Dies:
    """A replica that closes after the head of a request: on the connections numbered below `until`."""

    def __init__(self, method: str, until: int = 1000, after: int = 0, first: bytes = b"") -> None:
        self.asked = 0
        self._method = method
        self._until = until
        self._after = after
        self._first = first

    async def __call__(self, wire: Wire, number: int) -> None:
        served = 0
        while True:
            head = await wire.read_head()
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await wire.reader.readexactly(int(length or 0))
            self.asked += 1
            if number < self._until and served >= self._after:
                wire.send(self._first)
                wire.finish()
                return
            served += 1
            wire.send(answer(self._method))


async def status_of(client: Wire, method: str, body: bytes = b"") -> int:
    client.send(make_request(method, body))
    head = await client.read_head()
    if method != "HEAD":
        await client.read(int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0]))
    return int(head.split(b" ")[1])


async def ask_both(worker: InnerWorker, method: str, body: bytes = b"") -> list[int]:
    """Two requests, so that each of two replicas is the first choice once. Their statuses in order."""
    statuses = []
    for _ in range(2):
        async with await worker.open() as client:
            statuses.append(await status_of(client, method, body))
    return sorted(statuses)


@pytest.mark.parametrize("body", [b"", BODY])
@pytest.mark.parametrize("method", IDEMPOTENT)
async def test_new_connection_that_dies_costs_an_idempotent_request_nothing(method: str, body: bytes) -> None:
    dies = Dies(method)
    async with (
        ScriptedReplica(dies) as first,
        ScriptedReplica(Dies(method, until=0)) as second,
        InnerWorker([first.url, second.url]) as worker,
    ):
        assert await ask_both(worker, method, body) == [200, 200]
        assert dies.asked == 1
        assert count_retries(worker) == {"new_closed": 1}
        assert worker.list_replies() == {}


@pytest.mark.parametrize("method", OTHERS)
async def test_other_methods_are_sent_once(method: str) -> None:
    other = Dies(method, until=0)
    async with (
        ScriptedReplica(Dies(method)) as first,
        ScriptedReplica(other) as second,
        InnerWorker([first.url, second.url]) as worker,
    ):
        assert await ask_both(worker, method, BODY) == [200, 502]
        assert other.asked == 1
        assert count_retries(worker) == {}


async def test_kept_connection_that_dies_is_tried_again_on_the_only_replica() -> None:
    dies = Dies("GET", until=1, after=1)
    async with ScriptedReplica(dies) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        assert await status_of(client, "GET") == 200
        assert await status_of(client, "GET") == 200
        assert dies.asked == 3
        assert replica.accepted == 2
        assert count_retries(worker) == {"reused_closed": 1}


async def test_new_connection_that_dies_is_502_where_there_is_no_other_replica() -> None:
    dies = Dies("GET")
    async with ScriptedReplica(dies) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        assert await status_of(client, "GET") == 502
        assert dies.asked == 1
        assert worker.list_replies() == {"upstream_closed": 1}


async def test_request_that_kills_two_replicas_is_not_shown_to_a_third() -> None:
    replicas = [Dies("GET") for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(ScriptedReplica(each))).url for each in replicas]
        worker = await stack.enter_async_context(InnerWorker(urls))
        client = await stack.enter_async_context(await worker.open())
        assert await status_of(client, "GET") == 502
        assert sum(each.asked for each in replicas) == 2


@pytest.mark.parametrize("first", [b"H", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
async def test_any_octet_of_an_answer_forbids_it(first: bytes) -> None:
    other = Dies("GET", until=0)
    async with (
        ScriptedReplica(Dies("GET", first=first)) as one,
        ScriptedReplica(other) as two,
        InnerWorker([one.url, two.url]) as worker,
    ):
        statuses = []
        for _ in range(2):
            async with await worker.open() as client:
                client.send(make_request("GET"))
                head = await client.read_head()
                if head.startswith(b"HTTP/1.1 103 "):
                    head = await client.read_head()
                statuses.append(int(head.split(b" ")[1]))
        assert sorted(statuses) == [200, 502]
        assert other.asked == 1


@pytest.mark.parametrize(("size", "status"), [(65536, 200), (65537, 502)])
async def test_bodies_are_kept_up_to_64_kib(size: int, status: int) -> None:
    async with (
        ScriptedReplica(Dies("PUT")) as first,
        ScriptedReplica(Dies("PUT", until=0)) as second,
        InnerWorker([first.url, second.url]) as worker,
    ):
        assert await ask_both(worker, "PUT", bytes(size)) == [200, status]


@pytest.mark.parametrize("when", ["before the replica dies", "after"])
async def test_body_that_comes_later_is_sent_again_as_far_as_it_came(when: str) -> None:
    read = asyncio.Event()

    async def dies(wire: Wire, number: int) -> None:
        await wire.read_head()
        if when == "before the replica dies":
            await wire.reader.readexactly(500)
        read.set()
        wire.finish()

    async def take(wire: Wire, number: int) -> None:
        while True:
            await wire.read_head()
            assert await wire.reader.readexactly(1000) == BODY
            wire.send(OK)

    async with ScriptedReplica(dies) as one, ScriptedReplica(take) as two, InnerWorker([one.url, two.url]) as worker:
        for _ in range(2):
            async with await worker.open() as client:
                client.send(make_request("PUT", BODY)[:-1000])
                await asyncio.sleep(0.02)
                client.send(BODY[:500])
                await asyncio.sleep(0.1)
                client.send(BODY[500:])
                assert (await client.read_answer())[0] == 200
        assert read.is_set()
        assert count_retries(worker) == {"new_closed": 1}


async def test_budget_keeps_retries_from_becoming_the_outage() -> None:
    """Three in ten seconds, and one of five exchanges."""
    async with (
        ScriptedReplica(Dies("GET")) as first,
        ScriptedReplica(Dies("GET")) as second,
        InnerWorker([first.url, second.url]) as worker,
    ):
        for _ in range(8):
            async with await worker.open() as client:
                assert await status_of(client, "GET") == 502
        retries = count_retries(worker)
        assert retries["new_closed"] == 3
        assert retries["over_budget"] == 5
        assert worker.list_replies() == {"upstream_closed": 3, "retry_budget": 5}


# --- replicas that are passed over ---


async def test_replica_that_refuses_is_asked_once_a_second_and_then_less() -> None:
    async with ScriptedReplica(answer_each()) as gone:
        url = gone.url
    async with ScriptedReplica(answer_each()) as good, InnerWorker([url, good.url]) as worker:
        began = time.monotonic()
        while time.monotonic() - began < 0.8:
            async with await worker.open() as client:
                assert await status_of(client, "POST", b"x") == 200
        assert count_all(worker, counters.REPLICA_CONNECTIONS_FAILED) == 1
        assert count_all(worker, counters.REPLICA_EJECTED) == 1
        while time.monotonic() - began < 2.5:
            async with await worker.open() as client:
                assert await status_of(client, "POST", b"x") == 200
            await asyncio.sleep(0.01)
        assert count_all(worker, counters.REPLICA_CONNECTIONS_FAILED) == 2  # after one second, and then not for two
        assert count_retries(worker) == {"connect_failed": 2}


async def test_replica_that_is_back_gets_one_exchange_first_and_then_its_share() -> None:
    async with ScriptedReplica(answer_each()) as gone:
        port, url = gone.port, gone.url
    async with (
        ScriptedReplica(answer_each()) as other,
        InnerWorker([url, other.url], eject={"slow_start": "0"}) as worker,
        await worker.open() as client,
    ):
        assert await ask_both(worker, "GET") == [200, 200]
        assert count_all(worker, counters.REPLICA_EJECTED) == 1
        async with ScriptedReplica(answer_each(), port=port):
            await asyncio.sleep(1.3)
            for _ in range(20):
                assert await status_of(client, "GET") == 200
            assert count_all(worker, counters.REPLICA_EJECTED) == 0
            assert min(worker.count_answers(200, slot) for slot in range(2)) >= 9


async def test_replica_that_refused_is_asked_again_at_once_where_there_is_no_other() -> None:
    async with ScriptedReplica(answer_each()) as gone:
        port, url = gone.port, gone.url
    async with InnerWorker([url]) as worker:
        async with await worker.open() as client:
            assert await status_of(client, "GET") == 503
        async with ScriptedReplica(answer_each(), port=port), await worker.open() as client:
            assert await status_of(client, "GET") == 200


async def test_three_failures_in_a_row_eject_but_never_more_than_half() -> None:
    async def garbage(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"SSH-2.0-nonsense\r\n")

    async with (
        ScriptedReplica(garbage) as one,
        ScriptedReplica(garbage) as two,
        ScriptedReplica(answer_each()) as three,
        InnerWorker([one.url, two.url, three.url]) as worker,
    ):
        for _ in range(20):
            async with await worker.open() as client:
                await status_of(client, "GET")
        assert count_all(worker, counters.REPLICA_EJECTED) == 1
        async with await worker.open() as client:
            assert await status_of(client, "GET") in (200, 502)


async def test_an_answer_in_between_is_no_row() -> None:
    turn = [0]

    async def half(wire: Wire, number: int) -> None:
        while True:
            await wire.read_head()
            turn[0] += 1
            if turn[0] % 3 == 0:
                wire.send(OK)
            else:
                wire.send(b"garbage\r\n\r\n")
                return

    async with (
        ScriptedReplica(half) as one,
        ScriptedReplica(answer_each()) as two,
        InnerWorker([one.url, two.url]) as worker,
    ):
        for _ in range(30):
            async with await worker.open() as client:
                await status_of(client, "GET")
        assert count_all(worker, counters.REPLICA_EJECTIONS) == 0


async def test_new_table_forgets_the_suspicion_of_a_replica_that_left() -> None:
    async with ScriptedReplica(answer_each()) as gone:
        url = gone.url
    async with ScriptedReplica(answer_each()) as good, InnerWorker([url, good.url]) as worker:
        assert await ask_both(worker, "GET") == [200, 200]
        assert count_all(worker, counters.REPLICA_EJECTED) == 1
        await worker.publish(describe_instance([good.url]))
        assert count_all(worker, counters.REPLICA_EJECTED) == 0


async def test_answers_that_break_off_eject_too() -> None:
    """A head is no proof that a replica works."""

    async def half(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789")

    async with (
        ScriptedReplica(half) as one,
        ScriptedReplica(answer_each()) as two,
        InnerWorker([one.url, two.url], eject={"first": "100ms", "longest": "400ms"}) as worker,
    ):
        cut = 0
        for _ in range(20):
            async with await worker.open() as client:
                client.send(make_request("GET"))
                try:
                    assert (await client.read_answer())[2] == b"ok"
                except (ConnectionResetError, asyncio.IncompleteReadError):
                    cut += 1
        assert cut in (3, 4)  # one that comes before anybody has answered such a request is not believed
        assert count_all(worker, counters.REPLICA_EJECTIONS) == 1
        await asyncio.sleep(0.3)
        for _ in range(4):  # one of them tries it, and that is all
            async with await worker.open() as client:
                client.send(make_request("GET"))
                with contextlib.suppress(ConnectionResetError, asyncio.IncompleteReadError):
                    await client.read_answer()
        assert one.accepted == cut + 1
        assert count_all(worker, counters.REPLICA_EJECTIONS) == 2


async def test_replica_that_never_answers_is_tried_less_and_less() -> None:
    """A trial that has had no answer after `connect` counts as failed, though its own exchange may wait on."""

    async def silent(wire: Wire, number: int) -> None:
        await wire.reader.read()

    async with (
        ScriptedReplica(silent) as one,
        ScriptedReplica(answer_each()) as two,
        InnerWorker(
            [one.url, two.url],
            timeouts={"response_head": "3s", "connect": "100ms"},
            eject={"failures": 1, "first": "100ms"},
        ) as worker,
    ):
        statuses: list[int] = []

        async def ask(wait: float) -> None:
            await asyncio.sleep(wait)
            async with await worker.open() as client:
                statuses.append(await status_of(client, "GET"))

        first = [asyncio.create_task(ask(0)) for _ in range(2)]  # one for each
        await asyncio.gather(*first)
        assert sorted(statuses) == [200, 504]
        await asyncio.gather(*(ask(number * 0.02) for number in range(125)))
        # Out after 0.1 s, then tried after 0.1, 0.2, 0.4, 0.8 and 1.6 s more, each up to two ticks late.
        assert 3 <= statuses.count(504) - 1 <= 6


async def test_kept_connections_that_close_as_they_are_used_say_nothing_against_the_replica() -> None:
    async with (
        ScriptedReplica(Dies("GET", after=1)) as one,
        ScriptedReplica(Dies("GET", after=1)) as two,
        InnerWorker([one.url, two.url], retries={"budget": "100%"}) as worker,
        await worker.open() as client,
    ):
        for _ in range(20):
            assert await status_of(client, "GET") == 200
        assert count_retries(worker)["reused_closed"] > 10
        assert count_all(worker, counters.REPLICA_EJECTIONS) == 0


async def test_resend_false_sends_every_request_once() -> None:
    async with (
        ScriptedReplica(Dies("GET")) as first,
        ScriptedReplica(Dies("GET", until=0)) as second,
        InnerWorker([first.url, second.url], retries={"resend": False}) as worker,
    ):
        assert await ask_both(worker, "GET") == [200, 502]
        assert count_retries(worker) == {}
        assert worker.list_replies() == {"upstream_closed": 1}


@pytest.mark.parametrize(("budget", "least", "sent_again"), [("0%", 0, 0), ("0%", 5, 5), ("50%", 0, 4), ("100%", 0, 8)])
async def test_budget_is_as_configured(budget: str, least: int, sent_again: int) -> None:
    async with (
        ScriptedReplica(Dies("GET")) as first,
        ScriptedReplica(Dies("GET")) as second,
        InnerWorker(
            [first.url, second.url], retries={"budget": budget, "budget_min": least}, eject={"failures": 0}
        ) as worker,
    ):
        for _ in range(8):
            async with await worker.open() as client:
                assert await status_of(client, "GET") == 502
        assert count_retries(worker).get("new_closed", 0) == sent_again
        assert count_all(worker, counters.REPLICA_EJECTIONS) == 0


async def test_each_instance_has_a_budget_of_its_own_that_outlives_tables() -> None:
    async with ScriptedReplica(Dies("GET")) as first, ScriptedReplica(Dies("GET")) as second:
        urls = [first.url, second.url]
        instances = [
            describe_instance(urls, name=name, hosts=[f"{name}.test"], eject={"failures": 0}) for name in ("a", "b")
        ]
        async with InnerWorker(instances=instances) as worker:
            for _ in range(2):
                for name in ("a", "b"):
                    for _ in range(3):
                        async with await worker.open() as client:
                            client.send(f"GET /x HTTP/1.1\r\nHost: {name}.test\r\n\r\n".encode())
                            assert (await client.read_answer())[0] == 502
                await worker.publish(*instances)
            assert count_retries(worker) == {"new_closed": 6, "over_budget": 6}


async def test_body_of_the_largest_size_that_is_kept_is_kept_even_if_it_comes_behind_its_head() -> None:
    """From this size on bodies go past the worker."""
    body = bytes(range(256)) * 256
    got: list[bytes] = []

    async def take(wire: Wire, number: int) -> None:
        while True:
            await wire.read_head()
            got.append(await wire.reader.readexactly(len(body)))
            wire.send(OK)

    async with (
        ScriptedReplica(Dies("PUT")) as one,
        ScriptedReplica(take) as two,
        InnerWorker([one.url, two.url], timeouts={"response_head": "2s"}, limits={"gather": 0}) as worker,
    ):
        for _ in range(2):
            async with await worker.open() as client:
                client.send(make_request("PUT", body)[: -len(body)])
                await eventually(lambda: count_all(worker, counters.REPLICA_SENT_BYTES) > 0)
                await asyncio.sleep(0.05)
                client.send(body)
                assert (await client.read_answer())[0] == 200
        assert got == [body, body]
        assert count_retries(worker) == {"new_closed": 1}


async def test_request_is_sent_again_to_a_replica_that_has_come_since() -> None:
    go = asyncio.Event()

    async def die_late(wire: Wire, number: int) -> None:
        await wire.read_head()
        await go.wait()

    async with (
        ScriptedReplica(die_late) as old,
        ScriptedReplica(answer_each()) as new,
        InnerWorker([old.url]) as worker,
        await worker.open() as client,
    ):
        client.send(make_request("GET"))
        await eventually(lambda: old.accepted == 1)
        await worker.publish(describe_instance([new.url]))
        go.set()
        assert (await client.read_answer())[0] == 200
        assert count_retries(worker) == {"new_closed": 1}


async def test_request_that_is_not_sent_again_for_want_of_budget_is_no_trial() -> None:
    """It would keep a replica that works again from being tried for twice as long every time."""
    async with ScriptedReplica(answer_each()) as gone:
        port, url = gone.port, gone.url
    async with (
        ScriptedReplica(Dies("GET")) as dying,
        InnerWorker(
            [url, dying.url],
            balance={"affinity": "all"},
            retries={"budget": "0%", "budget_min": 0},
            eject={"failures": 0, "first": "200ms"},
        ) as worker,
    ):
        [entry] = worker.table.instances
        tokens = {f"http://{replica.name}": replica.token for replica in entry.replicas}

        async def ask(wanted: str) -> int:
            async with await worker.open() as client:
                request = f"GET /x HTTP/1.1\r\nHost: test\r\nCookie: {entry.cookie.name}={tokens[wanted]}\r\n\r\n"
                return (await client.ask(request.encode()))[0]

        assert await ask(url) == 502  # and it is out
        assert count_all(worker, counters.REPLICA_EJECTED) == 1
        async with ScriptedReplica(answer_each(), port):
            await asyncio.sleep(0.6)
            assert await ask(dying.url) == 502
            assert await ask(url) == 200
        assert count_retries(worker)["over_budget"] == 2


# --- what a client can bring about ---


UPGRADE = (
    b"GET /nobody HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def close_nobody(wire: Wire, number: int) -> None:
    """As Node does with an upgrade that nobody listens for; everything else is answered."""
    while True:
        head = await wire.read_head()
        if b" /nobody " in head:
            wire.finish()
            return
        wire.send(OK)


@pytest.mark.parametrize("message", [UPGRADE, b"GET /nobody HTTP/1.1\r\nHost: test\r\n\r\n"])
async def test_path_that_is_always_closed_without_an_answer_ejects_nobody_rty_11(message: bytes) -> None:
    async with (
        ScriptedReplica(close_nobody) as one,
        ScriptedReplica(close_nobody) as two,
        InnerWorker([one.url, two.url], retries={"budget": "100%"}) as worker,
    ):
        for _ in range(12):
            async with await worker.open() as client:
                client.send(message)
                assert (await client.read_head()).split(b" ")[1] == b"502"
        assert count_all(worker, counters.REPLICA_EJECTIONS) == 0


async def test_path_that_no_longer_has_an_answer_loses_its_credit_rty_11() -> None:
    """It was answered once, so three failures are believed: less than it takes to eject two replicas."""
    asked = 0

    async def answer_once(wire: Wire, number: int) -> None:
        nonlocal asked
        await wire.read_head()
        asked += 1
        if asked == 1:
            wire.send(OK)
        wire.finish()

    async with (
        ScriptedReplica(answer_once) as one,
        ScriptedReplica(answer_once) as two,
        InnerWorker([one.url, two.url], retries={"resend": False}) as worker,
    ):
        for turn in range(20):
            async with await worker.open() as client:
                assert await status_of(client, "GET") == (502 if turn else 200)
        assert count_all(worker, counters.REPLICA_EJECTIONS) == 0


# --- a request that ends the process which reads it ---


class Fatal:
    """A replica whose process ends when it is asked for `/die`: its port closes, and then its connections are reset."""

    def __init__(self) -> None:
        self.replica = ScriptedReplica(self._serve)
        self.died = 0
        self._stopping: asyncio.Task[None] | None = None

    async def _serve(self, wire: Wire, number: int) -> None:
        while True:
            head = await wire.read_head()
            if b" /die " in head.partition(b"\r\n")[0]:
                self.died += 1
                self._stopping = asyncio.create_task(self.replica.stop())
                await asyncio.Event().wait()
            wire.send(OK)


@contextlib.asynccontextmanager
async def run_fatal(count: int) -> AsyncIterator[tuple[InnerWorker, list[Fatal]]]:
    fatal = [Fatal() for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(each.replica)).url for each in fatal]
        yield await stack.enter_async_context(InnerWorker(urls)), fatal


async def ask_to_die(worker: InnerWorker, lines: str = "") -> int:
    async with await worker.open() as client:
        return (await client.ask(f"GET /die HTTP/1.1\r\nHost: test\r\n{lines}\r\n".encode()))[0]


async def warm(worker: InnerWorker, count: int) -> None:
    """Have a kept connection at each replica."""
    for _ in range(count):
        async with await worker.open() as client:
            assert await status_of(client, "GET") == 200


@pytest.mark.parametrize("count", [2, 4])
async def test_request_that_ends_a_process_on_a_new_connection_ends_no_other(count: int) -> None:
    async with run_fatal(count) as (worker, fatal):
        assert await ask_to_die(worker) == 502
        assert sum(each.died for each in fatal) == 1
        assert worker.list_replies() == {"upstream_closed": 1}


async def test_request_that_ends_a_process_on_a_kept_connection_ends_one_other_at_most() -> None:
    async with run_fatal(4) as (worker, fatal):
        await warm(worker, 4)
        assert await ask_to_die(worker) == 502
        assert sum(each.died for each in fatal) == 2


async def test_request_that_ends_a_process_never_gets_to_the_last_that_works() -> None:
    async with run_fatal(2) as (worker, fatal):
        await warm(worker, 2)
        assert await ask_to_die(worker) in (502, 503)
        assert sum(each.died for each in fatal) == 1
        async with await worker.open() as client:
            assert await status_of(client, "GET") == 200


@pytest.mark.parametrize("warmed", [0, 4])
async def test_upgrade_is_never_sent_twice(warmed: int) -> None:
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    async with run_fatal(4) as (worker, fatal):
        await warm(worker, warmed)
        assert await ask_to_die(worker, f"Connection: Upgrade\r\nUpgrade: websocket\r\n{key}") == 502
        assert sum(each.died for each in fatal) == 1
        assert count_retries(worker) == {}


async def test_request_whose_kept_connection_dies_with_its_replica_is_answered_by_another() -> None:
    """A process that is killed, by whatever: it costs no request that may be repeated, where two more work."""
    asked = asyncio.Event()

    async def hang(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(OK)
        await wire.read_head()
        asked.set()
        await asyncio.Event().wait()

    async with (
        ScriptedReplica(hang) as killed,
        ScriptedReplica(answer_each()) as one,
        ScriptedReplica(answer_each()) as two,
        InnerWorker([killed.url, one.url, two.url]) as worker,
    ):
        await warm(worker, 3)
        clients = [await worker.open() for _ in range(3)]
        for client in clients:
            client.send(make_request("GET"))
        await asyncio.wait_for(asked.wait(), 10)
        await killed.stop()
        for client in clients:
            assert (await client.read_answer())[0] == 200
            await client.close()

"""A share per client address: connections, exchanges at once, requests per second; nobody else is touched."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from haproxy_py import counters
from tests.proxy_process import describe_instance
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, WITHIN, ScriptedReplica, Wire, answer_each, eventually, get_field

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
UPGRADE = (
    b"GET /ws/x HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TRUSTED = ["127.0.0.1/32"]


def forwarded(client: str) -> bytes:
    return f"GET /x HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {client}\r\n\r\n".encode()


async def open_from(worker: InnerWorker, address: str) -> Wire:
    async with asyncio.timeout(WITHIN):
        return Wire(*await asyncio.open_connection("127.0.0.1", worker.port, local_addr=(address, 0)))


def refused(worker: InnerWorker) -> int:
    return worker.count_worker(counters.WORKER_CONNECTIONS_REFUSED)


async def test_connections_beyond_those_of_an_address_are_closed_and_another_address_is_served() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], limits={"client_connections": 2}) as worker,
        await worker.open() as first,
        await worker.open() as second,
    ):
        assert (await first.ask(GET))[0] == 200
        assert (await second.ask(GET))[0] == 200
        async with await worker.open() as third:
            assert await third.wait_end() in ("fin", "reset")
        assert refused(worker) == 1
        async with await open_from(worker, "127.0.0.2") as other:
            assert (await other.ask(GET))[0] == 200
        await first.close()
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 1)
        async with await worker.open() as again:
            assert (await again.ask(GET))[0] == 200


async def test_connections_of_a_trusted_proxy_are_not_bounded() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], limits={"client_connections": 1}, trusted_proxies=TRUSTED) as worker,
        await worker.open() as first,
        await worker.open() as second,
    ):
        assert (await first.ask(GET))[0] == 200
        assert (await second.ask(forwarded("10.0.0.1")))[0] == 200
        assert refused(worker) == 0


async def test_connections_beyond_the_bound_of_their_instance_are_answered_429() -> None:
    """The other instance has none, so all are accepted; a connection is refused when Host has named its instance."""
    async with ScriptedReplica(answer_each()) as replica:
        static = {"ha": True, "replicas": {"static": [replica.url]}}
        instances: list[dict[str, Any]] = [
            {"name": "test", "hosts": ["test"], "limits": {"client_connections": 1}, **static},
            {"name": "other", "hosts": ["other"], **static},
        ]
        async with InnerWorker(instances=instances) as worker, await worker.open() as first:
            assert (await first.ask(GET))[0] == 200
            async with await worker.open() as second:
                assert (await second.ask(GET.replace(b"test", b"other")))[0] == 200
                status, head, _ = await second.ask(GET)
                assert status == 429
                assert get_field(head, "Connection") == "close"


async def test_tunnel_counts_as_a_connection_and_not_as_an_exchange() -> None:
    async def switch(wire: Wire, number: int) -> None:
        head = await wire.reader.readuntil(b"\r\n\r\n")
        if b"Upgrade" not in head:
            wire.send(OK)
            await wire.reader.read()
            return
        wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        await wire.reader.read()

    limits = {"client_connections": 2, "client_exchanges": 1}
    async with ScriptedReplica(switch) as replica, InnerWorker([replica.url], limits=limits) as worker:
        async with await worker.open() as tunnel, await worker.open() as client:
            tunnel.send(UPGRADE)
            assert (await tunnel.read_head()).startswith(b"HTTP/1.1 101 ")
            assert (await client.ask(GET))[0] == 200
            async with await worker.open() as third:
                assert await third.wait_end() in ("fin", "reset")
        await eventually(lambda: not worker.context.shares.known)


async def test_exchanges_beyond_those_of_an_address_are_answered_429_and_another_address_is_served() -> None:
    go = asyncio.Event()

    async def script(wire: Wire, number: int) -> None:
        while True:
            head = await wire.reader.readuntil(b"\r\n\r\n")
            if b"/slow" in head:
                await go.wait()
            wire.send(OK)

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], limits={"client_exchanges": 1}) as worker,
        await worker.open() as first,
        await worker.open() as second,
    ):
        first.send(GET.replace(b"/x", b"/slow"))
        await eventually(lambda: worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 1)
        status, head, body = await second.ask(GET)
        assert status == 429
        assert get_field(head, "Retry-After") == "1"
        assert get_field(head, "Connection") is None
        assert b'"reason": "client_limit"' in body
        assert worker.list_replies() == {"client_limit": 1}
        async with await open_from(worker, "127.0.0.2") as other:
            assert (await other.ask(GET))[0] == 200
        go.set()
        assert (await first.read_answer())[0] == 200
        assert (await second.ask(GET))[0] == 200


async def test_browser_beyond_its_share_gets_a_page() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], limits={"client_rate": 1, "client_burst": 1}) as worker,
        await worker.open() as client,
    ):
        assert (await client.ask(GET))[0] == 200
        status, _, body = await client.ask(GET.replace(b"\r\n\r\n", b"\r\nAccept: text/html\r\n\r\n"))
        assert status == 429
        assert body.startswith(b"<!")
        assert b"client_limit" in body


@pytest.mark.parametrize("how", ["leaves", "resets", "refused", "cut", "no replica"])
async def test_exchange_that_ends_badly_gives_its_share_back(how: str) -> None:
    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        if how == "cut":
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            return
        await wire.reader.read()

    async with ScriptedReplica(script) as replica:
        urls = [] if how == "no replica" else [replica.url]
        async with InnerWorker(urls or ["http://127.0.0.1:9"], limits={"client_exchanges": 8}) as worker:
            async with await worker.open() as client:
                client.send(GET.replace(b"/x", b"/settings") if how == "refused" else GET)
                if how in ("leaves", "resets"):
                    await eventually(lambda: worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 1)
                    if how == "resets":
                        client.reset()
                elif how == "cut":
                    assert await client.wait_end() == "reset"
                else:
                    assert (await client.read_answer())[0] in (403, 502, 503)
            await eventually(lambda: not worker.context.shares.known)


async def test_requests_beyond_the_rate_of_an_address_are_answered_429_until_time_has_passed() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], limits={"client_rate": 1, "client_burst": 5}) as worker,
        await worker.open() as client,
        await open_from(worker, "127.0.0.2") as other,
    ):
        found = [(await client.ask(GET))[0] for _ in range(10)]
        assert found[:5] == [200] * 5
        assert 429 in found[5:]
        assert (await other.ask(GET))[0] == 200
        await asyncio.sleep(1.2)  # what one request needs
        assert (await client.ask(GET))[0] == 200


async def test_clients_of_a_trusted_proxy_are_counted_by_the_address_that_it_forwards() -> None:
    limits = {"client_rate": 1, "client_burst": 1}
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], limits=limits, trusted_proxies=TRUSTED) as worker,
        await worker.open() as proxy,
    ):
        assert (await proxy.ask(forwarded("198.51.100.1")))[0] == 200
        assert (await proxy.ask(forwarded("198.51.100.1")))[0] == 429
        assert (await proxy.ask(forwarded("198.51.100.2")))[0] == 200
        for _ in range(3):
            assert (await proxy.ask(GET))[0] == 200  # the proxy's own, its check


async def test_what_an_untrusted_client_forwards_does_not_count() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], limits={"client_rate": 1, "client_burst": 1}) as worker,
        await worker.open() as client,
    ):
        assert (await client.ask(forwarded("198.51.100.1")))[0] == 200
        assert (await client.ask(forwarded("198.51.100.2")))[0] == 429


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:0:0:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("198.51.100.1", "::ffff:198.51.100.1", True),
        ("::ffff:198.51.100.1", "::ffff:198.51.100.2", False),
        ("198.51.100.1", "198.51.100.2", False),
    ],
)
async def test_address_is_that_of_ipv4_or_the_64_of_ipv6(first: str, second: str, is_same: bool) -> None:
    limits = {"client_rate": 1, "client_burst": 1}
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], limits=limits, trusted_proxies=TRUSTED) as worker,
        await worker.open() as proxy,
    ):
        assert (await proxy.ask(forwarded(first)))[0] == 200
        assert (await proxy.ask(forwarded(second)))[0] == (429 if is_same else 200)


async def test_full_table_forgets_who_has_nothing_open_and_refuses_nobody_who_is_new() -> None:
    limits = {"client_rate": 1, "client_burst": 1, "client_exchanges": 1}
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], limits=limits, trusted_proxies=TRUSTED) as worker,
        await worker.open() as proxy,
    ):
        worker.context.shares.most = 8
        for number in range(100):
            assert (await proxy.ask(forwarded(f"198.51.100.{number}")))[0] == 200
            assert len(worker.context.shares.known) <= 8


async def test_full_table_of_clients_that_all_have_something_open_leaves_others_uncounted() -> None:
    async def script(wire: Wire, number: int) -> None:
        while True:
            if b"/slow" not in await wire.reader.readuntil(b"\r\n\r\n"):
                wire.send(OK)

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], limits={"client_exchanges": 1}, trusted_proxies=TRUSTED) as worker,
    ):
        worker.context.shares.most = 4
        slow = [await worker.open() for _ in range(4)]
        for number, each in enumerate(slow):
            each.send(forwarded(f"198.51.100.{number}").replace(b"/x", b"/slow"))
        await eventually(lambda: worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 4)
        async with await worker.open() as proxy:
            assert (await proxy.ask(forwarded("198.51.100.0")))[0] == 429
            for number in range(10, 20):
                assert (await proxy.ask(forwarded(f"198.51.100.{number}")))[0] == 200
        assert len(worker.context.shares.known) == 4
        for each in slow:
            await each.close()
        await eventually(lambda: not worker.context.shares.known)


async def test_nothing_is_counted_where_nothing_is_bounded() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        assert (await client.ask(GET))[0] == 200
        assert not worker.context.shares.known


async def test_bounds_that_are_switched_on_hold_for_connections_that_stand() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        assert (await client.ask(GET))[0] == 200
        limits = {"client_connections": 1, "client_rate": 1, "client_burst": 1}
        await worker.publish(describe_instance([replica.url], limits=limits))
        assert (await client.ask(GET))[0] == 200
        assert (await client.ask(GET))[0] == 429


async def test_trickling_bodies_of_one_address_keep_no_place_from_another() -> None:
    """The attack in short: more bodies that never end than there are places, and nobody else waits."""
    large = b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nx"
    small = b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nx"
    limits = {"exchanges": 16, "queue": 0, "client_exchanges": 8}
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], limits=limits) as worker,
        AsyncExitStack() as stack,
    ):
        for number in range(64):
            slow = await stack.enter_async_context(await worker.open())
            slow.send(small if number % 2 else large)
        await eventually(lambda: worker.list_replies() == {"client_limit": 56})
        async with await open_from(worker, "127.0.0.2") as other:
            for _ in range(20):
                assert (await other.ask(GET))[0] == 200
        assert worker.list_replies() == {"client_limit": 56}

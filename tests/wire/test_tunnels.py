"""WebSocket and whatever else a connection becomes after a 101."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from haproxy_py import counters
from tests.proxy_process import describe_instance
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, ScriptedReplica, Wire, answer_each, eventually, get_field

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)
TUNNELS = counters.REPLICA_ACTIVE_TUNNELS


def accept(key: str) -> bytes:
    return base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    + accept(KEY.decode())
    + b"\r\n\r\n"
)


def switching(then: Callable[[Wire], Awaitable[None]], behind: bytes = b"") -> Callable[[Wire, int], Awaitable[None]]:
    """A replica that agrees to the upgrade (with octets in the same segment), then does something."""

    async def script(wire: Wire, number: int) -> None:
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert get_field(head, "Sec-WebSocket-Key") == KEY.decode()
        wire.send(SWITCH + behind)
        await then(wire)

    return script


async def echo(wire: Wire) -> None:
    while data := await wire.reader.read(65536):
        wire.send(data)
        await wire.writer.drain()


async def hold(wire: Wire) -> None:
    await wire.reader.read()


async def upgrade(client: Wire) -> bytes:
    client.send(HANDSHAKE)
    head = await client.read_head()
    assert head.startswith(b"HTTP/1.1 101 ")
    return head


async def test_octets_go_both_ways_unchanged() -> None:
    async with (
        ScriptedReplica(switching(echo)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        head = await upgrade(client)
        assert get_field(head, "Sec-WebSocket-Accept") == accept(KEY.decode()).decode()
        assert (get_field(head, "Upgrade"), (get_field(head, "Connection") or "").lower()) == ("websocket", "upgrade")
        assert worker.count_replica(TUNNELS) == 1
        assert worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 0
        for size in (1, 125, 70_000, 1_000_000):
            data = os.urandom(size)
            client.send(data)
            assert await client.read(size) == data
        client.finish()
        assert await client.read_rest() == b""
        await eventually(lambda: worker.count_replica(TUNNELS) == 0)
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
        assert worker.count_answers(101) == 1
        assert worker.list_replies() == {}
        assert worker.count_replica(counters.REPLICA_TUNNELS_TOTAL) == 1


async def test_octets_in_the_same_segment_as_handshake_and_101_are_delivered() -> None:
    async with (
        ScriptedReplica(switching(echo, b"welcome")) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(HANDSHAKE + b"early frame")
        assert (await client.read_head()).startswith(b"HTTP/1.1 101")
        assert await client.read(7) == b"welcome"
        assert await client.read(11) == b"early frame"


async def test_nothing_behind_the_handshake_reaches_the_replica_before_its_101() -> None:
    seen = bytearray()
    agree = asyncio.Event()

    async def script(wire: Wire, number: int) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        waiting = asyncio.create_task(wire.reader.read(1))
        await agree.wait()
        assert not waiting.done()
        wire.send(SWITCH)
        seen.extend(await waiting)
        await hold(wire)

    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send(HANDSHAKE)
        client.send(b"x" * 500_000)  # more than is held: reading from the client pauses
        await eventually(lambda: replica.accepted)
        await asyncio.sleep(0.1)
        agree.set()
        await client.read_head()
        await eventually(lambda: seen)


async def test_upgrade_that_is_not_granted_is_an_ordinary_answer_and_closes() -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        client.send(HANDSHAKE + b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n")
        status, head, body = await client.read_answer()
        assert (status, body) == (200, b"ok")
        assert b"Connection: close\r\n" in head
        assert await client.read_rest() == b""
        assert worker.count_answers(200) == 1


@pytest.mark.parametrize(
    "answer",
    [
        SWITCH.replace(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"),
        SWITCH.replace(b"Upgrade: websocket\r\n", b""),
        SWITCH.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        SWITCH.replace(b"Connection: Upgrade\r\n", b""),
        SWITCH.replace(b"Sec-WebSocket-Accept", b"X-Nothing"),
    ],
)
async def test_wrong_101_is_502(answer: bytes) -> None:
    async with (
        ScriptedReplica(answer_each(answer)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        status, _, body = await client.ask(HANDSHAKE)
        assert status == 502
        assert b'"reason": "bad_upgrade"' in body
        assert await client.wait_end() == "fin"
        assert worker.list_replies() == {"bad_upgrade": 1}
        assert worker.count_replica(counters.REPLICA_TUNNELS_TOTAL) == 0


async def test_101_that_was_not_asked_for_is_502_and_what_was_sent_ahead_is_answered() -> None:
    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(SWITCH if number == 0 else OK)
        await wire.reader.read()

    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send(b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n" * 2)
        assert (await client.read_answer())[0] == 502
        assert (await client.read_answer())[0] == 200
        assert worker.list_replies() == {"bad_upgrade": 1}


async def test_client_that_finishes_first_still_gets_the_rest() -> None:
    async def answer_after_end(wire: Wire) -> None:
        data = await wire.reader.read()
        wire.send(b"you said " + data)

    async with (
        ScriptedReplica(switching(answer_after_end)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        client.send(b"hello")
        client.finish()
        assert await client.read_rest() == b"you said hello"


async def test_replica_that_finishes_first_still_gets_the_rest() -> None:
    got = asyncio.get_running_loop().create_future()

    async def finish_first(wire: Wire) -> None:
        wire.send(b"bye")
        wire.finish()
        got.set_result(await wire.reader.read())

    async with (
        ScriptedReplica(switching(finish_first)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        assert await client.read_rest() == b"bye"
        client.send(b"still here")
        client.finish()
        assert await asyncio.wait_for(got, 5) == b"still here"


async def test_half_closed_tunnel_ends_at_its_time() -> None:
    async def send_for_ever(wire: Wire) -> None:
        while not wire.writer.is_closing():
            wire.send(b"x")
            await wire.writer.drain()
            await asyncio.sleep(0.02)

    async with (
        ScriptedReplica(switching(send_for_ever)) as replica,
        InnerWorker([replica.url], timeouts={"tunnel_half_close": "400ms"}) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        client.finish()
        began = time.monotonic()
        await client.wait_end()
        assert 0.4 <= time.monotonic() - began < 1.5
        await eventually(lambda: worker.count_replica(TUNNELS) == 0)


async def test_idle_tunnel_ends_at_its_time_and_octets_of_either_side_extend_it() -> None:
    async def send_a_little(wire: Wire) -> None:
        for _ in range(4):
            await asyncio.sleep(0.15)
            wire.send(b"x")
        await wire.reader.read()

    async with (
        ScriptedReplica(switching(send_a_little)) as replica,
        InnerWorker([replica.url], timeouts={"tunnel_idle": "400ms"}) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        began = time.monotonic()
        assert await client.read_rest() == b"xxxx"
        assert 1.0 <= time.monotonic() - began < 2.0
        await eventually(lambda: worker.count_replica(TUNNELS) == 0)


async def test_reset_of_the_client_reaches_the_replica() -> None:
    how = asyncio.get_running_loop().create_future()

    async def watch(wire: Wire) -> None:
        how.set_result(await wire.wait_end())

    async with (
        ScriptedReplica(switching(watch)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        client.reset()
        assert await asyncio.wait_for(how, 5) == "reset"


async def test_reset_of_the_replica_reaches_the_client() -> None:
    async def reset(wire: Wire) -> None:
        await wire.read(1)
        wire.reset()

    async with (
        ScriptedReplica(switching(reset)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        client.send(b"x")
        assert await client.wait_end() == "reset"


@pytest.mark.parametrize("behind", [0, 200_000])
async def test_slow_side_of_a_tunnel_slows_the_other_down(behind: int) -> None:
    """`behind`: octets in the same segments as the 101, so that the client is behind when the tunnel begins."""
    sent = [0]

    async def send_much(wire: Wire) -> None:
        while sent[0] < 60_000_000 and not wire.writer.is_closing():
            wire.send(bytes(100_000))
            sent[0] += 100_000
            with contextlib.suppress(ConnectionError):
                await wire.writer.drain()

    async with (
        ScriptedReplica(switching(send_much, bytes(behind))) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open(receive_buffer=4096) as client,
    ):
        client.writer.transport.pause_reading()
        client.send(HANDSHAKE)
        await eventually(lambda: sent[0])
        last = -1
        while sent[0] != last:
            last = sent[0]
            await asyncio.sleep(0.3)
        assert last < 20_000_000  # what the kernel's buffers hold, and 64 KiB
        client.writer.transport.resume_reading()
        client.reset()


async def test_new_table_does_not_touch_tunnels() -> None:
    async with (
        ScriptedReplica(switching(echo)) as replica,
        ScriptedReplica(answer_each()) as other,
        InnerWorker([replica.url]) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        for replicas in ([other.url], [replica.url, other.url], [other.url]):
            await worker.publish(describe_instance(replicas))
            client.send(b"still there?")
            assert await client.read(12) == b"still there?"


async def test_drain_ends_tunnels_before_the_deadline() -> None:
    async with ScriptedReplica(switching(hold)) as replica, InnerWorker([replica.url]) as worker:
        clients = [await worker.open() for _ in range(20)]
        for client in clients:
            await upgrade(client)
        began = time.monotonic()
        await worker.drain(0.1, 1.5)
        ends: list[Any] = await asyncio.gather(*(client.wait_end() for client in clients))
        assert ends == ["fin"] * 20
        assert time.monotonic() - began < 1.6
        await worker.wait_ended()
        for client in clients:
            await client.close()


# --- a gate that closes ---


@pytest.mark.parametrize(
    "rules", [{"ha": True, "gate": {"deny": ["/ws"]}}, {"ha": True, "gate": {"admin_root": "/ws"}}]
)
async def test_tunnel_that_the_new_table_forbids_is_closed(rules: dict[str, Any]) -> None:
    async with (
        ScriptedReplica(switching(echo)) as replica,
        InnerWorker(instances=[describe_instance([replica.url], ha=False)]) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        await worker.publish(describe_instance([replica.url], **rules))
        assert await client.read_rest() == b""
        await eventually(lambda: worker.count_replica(TUNNELS) == 0)


async def test_tunnel_that_the_new_table_lets_pass_goes_on() -> None:
    async with (
        ScriptedReplica(switching(echo)) as replica,
        InnerWorker(instances=[describe_instance([replica.url], ha=False)]) as worker,
        await worker.open() as client,
    ):
        await upgrade(client)
        await worker.publish(describe_instance([replica.url], ha=True, gate={"deny": ["/other"]}))
        client.send(b"still there")
        assert await client.read(11) == b"still there"


async def test_upgrade_that_is_under_way_when_the_gate_closes_is_refused() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def agree_late(wire: Wire, number: int) -> None:
        await wire.read_head()
        asked.set()
        await go.wait()
        wire.send(SWITCH)
        await hold(wire)

    async with (
        ScriptedReplica(agree_late) as replica,
        InnerWorker(instances=[describe_instance([replica.url], ha=False)]) as worker,
        await worker.open() as client,
    ):
        client.send(HANDSHAKE)
        await asyncio.wait_for(asked.wait(), 10)
        await worker.publish(describe_instance([replica.url], ha=True, gate={"deny": ["/ws"]}))
        go.set()
        assert (await client.read_answer())[0] == 403

"""What has ended is freed at once, by its last reference: the cyclic collector may be minutes away."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, ScriptedReplica, Wire, eventually
from tests.wire.test_tunnels import HANDSHAKE, SWITCH

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
KINDS = {"ClientConnection", "ReplicaConnection", "Tunnel", "TunnelEnd", "Stream", "Dial"}


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count_connections() -> int:
    return sum(type(one).__name__ in KINDS for one in gc.get_objects())


async def serve(wire: Wire, number: int) -> None:
    while head := await wire.read_head():
        if b"websocket" in head:
            wire.send(SWITCH)
            await wire.reader.read()
            return
        if head.startswith(b"GET /cut "):
            return
        wire.send(OK)


@pytest.mark.parametrize("ended_by", ["fin", "reset"])
async def test_ended_tunnel_is_freed_without_the_collector(ended_by: str) -> None:
    async with ScriptedReplica(serve) as replica, InnerWorker([replica.url]) as worker:
        before = count_connections()
        for _ in range(10):
            async with await worker.open() as client:
                client.send(HANDSHAKE)
                await client.read_head()
                if ended_by == "fin":
                    client.finish()
                    await client.wait_end()
                else:
                    client.reset()
        await eventually(lambda: count_connections() == before)


async def test_connections_that_have_ended_are_freed_without_the_collector() -> None:
    async with ScriptedReplica(serve) as replica, InnerWorker([replica.url], limits={"idle_connections": 0}) as worker:
        before = count_connections()
        for _ in range(10):
            async with await worker.open() as client:
                client.send(GET)
                await client.read_answer()
                client.send(GET.replace(b"/x", b"/cut"))
                assert (await client.read_answer())[0] == 502
        await eventually(lambda: count_connections() == before)

"""How a tunnel begins and ends without losing octets, back-pressure or memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from haproxy_py import counters
from haproxy_py.datapath.routes import Routes
from haproxy_py.datapath.tunnel import Tunnel
from tests.proxy_process import describe_instance
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import WITHIN, ScriptedReplica, Wire, eventually
from tests.wire.test_tunnels import HANDSHAKE, SWITCH, hold, switching, upgrade


def shrink_send_buffer(stream: Any) -> None:
    """So that a few KiB wait in the proxy already, not only what the kernel does not hold."""
    with socket.socket(fileno=os.dup(stream.fd)) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def has_closed(stream: Any) -> bool:
    """Whether it is closed, or will be when what waits has left."""
    return stream.closing or stream.fd < 0


def get_tunnel(worker: InnerWorker) -> Any:
    [tunnel] = worker.context.clients
    assert isinstance(tunnel, Tunnel)
    return tunnel


async def test_what_a_client_sends_ahead_of_the_101_leaves_back_pressure_on() -> None:
    total = 8_000_000
    agree, take = asyncio.Event(), asyncio.Event()
    got = asyncio.get_running_loop().create_future()

    async def script(wire: Wire, number: int) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        transport: Any = wire.writer.transport
        transport.pause_reading()
        await agree.wait()
        wire.send(SWITCH)
        await take.wait()
        transport.resume_reading()
        got.set_result(len(await wire.reader.readexactly(total)))

    async with ScriptedReplica(script) as replica, InnerWorker([replica.url]) as worker, await worker.open() as client:
        client.send(HANDSHAKE)
        await eventually(lambda: worker.context.spare)
        [connection] = worker.context.spare
        shrink_send_buffer(connection.stream)
        [before] = worker.context.clients
        client.send(bytes(total))
        await eventually(lambda: not before.stream.reading)
        agree.set()
        await client.read_head()
        tunnel = get_tunnel(worker)
        # With nobody to hold it up, the client could send all of it now.
        await eventually(
            lambda: not tunnel.client.stream.reading or client.writer.transport.get_write_buffer_size() == 0
        )
        assert not tunnel.client.stream.reading
        assert tunnel.far.stream.unsent < 1_000_000
        take.set()
        assert await asyncio.wait_for(got, WITHIN) == total


@pytest.mark.parametrize("how", ["both finish", "drain"])
async def test_tunnel_that_ends_cleanly_delivers_what_waits_for_the_slower_side(how: str) -> None:
    total = 60_000  # below the 64 KiB at which reading from the replica would pause
    go = asyncio.Event()

    async def send_and_finish(wire: Wire) -> None:
        await go.wait()
        wire.send(bytes(total))
        if how == "both finish":
            wire.finish()
        await wire.reader.read()

    async with (
        ScriptedReplica(switching(send_and_finish)) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open(receive_buffer=4096) as client,
    ):
        await upgrade(client)
        tunnel = get_tunnel(worker)
        shrink_send_buffer(tunnel.client.stream)
        if how == "both finish":
            client.finish()
        ours: Any = client.writer.transport
        ours.pause_reading()
        go.set()
        await eventually(lambda: worker.count_replica(counters.REPLICA_RECEIVED_BYTES) >= total)
        assert tunnel.client.stream.unsent
        if how == "drain":
            tunnel.drain()
        await eventually(lambda: has_closed(tunnel.client.stream) and has_closed(tunnel.far.stream))
        await asyncio.sleep(0.05)  # whoever would cut it has had the time
        ours.resume_reading()
        assert len(await client.read_rest()) == total


async def test_tunnels_do_not_keep_old_tables_alive(tmp_path: Path) -> None:
    def count_routes() -> int:
        gc.collect()
        return sum(type(each) is Routes for each in gc.get_objects())

    async with (
        ScriptedReplica(switching(hold)) as replica,
        InnerWorker(
            [replica.url], log_file=tmp_path / "log"
        ) as worker,  # the log is what a tunnel keeps its request for
        contextlib.AsyncExitStack() as clients,
    ):
        gc.unfreeze()
        before = count_routes()
        for _ in range(5):
            client = await clients.enter_async_context(await worker.open())
            await upgrade(client)
            await worker.publish(describe_instance([replica.url]))
        gc.unfreeze()
        assert count_routes() <= before

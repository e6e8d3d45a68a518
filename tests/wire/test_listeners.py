"""Listeners that come and go while a worker runs: what stays, what ends, and that no queue is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from haproxy_py import channel, counters
from haproxy_py.certificates import Certificate
from haproxy_py.control.sockets import admit_all
from tests.wire.inner_worker import InnerWorker, read_lines
from tests.wire.scripted import OK, ScriptedReplica, Wire, answer_each, eventually, get_field, open_wire
from tests.wire.test_mistakes import no_files
from tests.wire.test_tls import issue, open_tls, trust
from tests.wire.test_tunnels import echo, switching, upgrade

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture
def second() -> Iterator[socket.socket]:
    """A listening socket for a second listener."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        sock.setblocking(False)
        yield sock


def describe(sock: socket.socket, number: int = 2, connections: int = 100) -> channel.Listener:
    host, port = sock.getsockname()
    return channel.Listener(number, "http", host, port, connections)


def get_port(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


async def test_listener_that_is_added_serves_beside_the_first(second: socket.socket) -> None:
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url]) as worker,
        await worker.open() as old,
    ):
        assert (await old.ask(GET))[0] == 200
        await worker.listen(worker.describe(), describe(second), sockets=[second])
        async with await open_wire(get_port(second)) as new:
            assert (await new.ask(GET))[0] == 200
        assert (await old.ask(GET))[0] == 200


async def test_listener_that_is_left_ends_its_connections_and_no_others(second: socket.socket) -> None:
    release = asyncio.Event()

    async def answer_slowly(wire: Wire, number: int) -> None:
        while True:
            head = await wire.reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /slow "):
                await release.wait()
            wire.send(OK)

    async with ScriptedReplica(answer_slowly) as replica, InnerWorker([replica.url]) as worker:
        await worker.listen(worker.describe(), describe(second), sockets=[second])
        async with (
            await worker.open() as staying,
            await open_wire(get_port(second)) as idle,
            await open_wire(get_port(second)) as busy,
        ):
            assert (await staying.ask(GET))[0] == 200
            assert (await idle.ask(GET))[0] == 200
            busy.send(GET.replace(b"/x", b"/slow"))
            await eventually(lambda: worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 1)
            port = get_port(second)
            await worker.listen(worker.describe())
            second.close()
            assert await idle.wait_end() == "fin"
            release.set()
            status, head, _ = await busy.read_answer()
            assert status == 200
            assert get_field(head, "Connection") == "close"
            assert await busy.wait_end() == "fin"
            status, head, _ = await staying.ask(GET)
            assert status == 200
            assert get_field(head, "Connection") is None
        with pytest.raises(ConnectionRefusedError):
            await open_wire(port)


async def test_idle_connections_of_a_listener_that_is_left_end_after_the_delay(second: socket.socket) -> None:
    """A request that is on its way when the listener is left must not meet a connection that is just being closed."""
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url]) as worker:
        await worker.listen(worker.describe(), describe(second), sockets=[second])
        async with await open_wire(get_port(second)) as used, await open_wire(get_port(second)) as idle:
            assert (await used.ask(GET))[0] == 200
            assert (await idle.ask(GET))[0] == 200
            began = time.monotonic()
            await worker.listen(worker.describe(), delay=1.5)
            await asyncio.sleep(0.7)
            status, head, _ = await used.ask(GET)
            assert (status, get_field(head, "Connection")) == (200, "close")
            assert await idle.wait_end() == "fin"
            assert time.monotonic() - began > 1.4


async def test_who_waits_in_the_queue_of_a_listener_that_is_left_is_served(second: socket.socket) -> None:
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url]) as worker:
        full = describe(second, connections=1)
        await worker.listen(worker.describe(), full, sockets=[second])
        async with await open_wire(get_port(second)) as first:
            assert (await first.ask(GET))[0] == 200
            waiting = [await open_wire(get_port(second)) for _ in range(20)]  # beyond the limit: the kernel's queue
            for client in waiting:
                client.send(GET)
            await worker.listen(worker.describe(), describe(second, connections=100))
            await worker.listen(worker.describe())
            second.close()
            for client in waiting:
                assert (await client.read_answer())[0] == 200
                await client.close()


async def test_tunnels_of_a_listener_that_is_left_live_until_the_deadline(second: socket.socket) -> None:
    async with ScriptedReplica(switching(echo)) as replica, InnerWorker([replica.url]) as worker:
        await worker.listen(worker.describe(), describe(second), sockets=[second])
        async with await open_wire(get_port(second)) as leaving, await worker.open() as staying:
            await upgrade(leaving)
            await upgrade(staying)
            began = time.monotonic()
            await worker.listen(worker.describe(), deadline=12.0)
            second.close()
            await asyncio.sleep(1.0)
            leaving.send(b"still there")
            assert await leaving.read(11) == b"still there"
            assert await leaving.wait_end(within=13) == "fin"
            assert 1.9 < time.monotonic() - began < 12.5
            staying.send(b"and I")
            assert await staying.read(5) == b"and I"


async def test_limit_that_is_changed_holds_at_once(second: socket.socket) -> None:
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url]) as worker:
        await worker.listen(worker.describe(), describe(second, connections=3), sockets=[second])
        clients = [await open_wire(get_port(second)) for _ in range(5)]
        for client in clients:
            client.send(GET)
        for client in clients[:3]:
            assert (await client.read_answer())[0] == 200
        assert worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 3
        await worker.listen(worker.describe(), describe(second, connections=5))
        for client in clients[3:]:
            assert (await client.read_answer())[0] == 200
        await worker.listen(worker.describe(), describe(second, connections=2))
        async with await open_wire(get_port(second)) as late:
            late.send(GET)
            for client in clients[:3]:
                await client.close()
            await asyncio.sleep(0.2)
            assert worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 2
            await clients[3].close()
            assert (await late.read_answer())[0] == 200
        await clients[4].close()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA) -> Certificate:
    return issue(authority)


async def test_socket_that_goes_over_to_tls_loses_nobody(
    second: socket.socket, authority: trustme.CA, certificate: Certificate
) -> None:
    """The listener is another one then, on the same socket; connections that stand are served to their end."""
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url]) as worker:
        await worker.listen(worker.describe(), describe(second), sockets=[second])
        async with await open_wire(get_port(second)) as plain:
            assert (await plain.ask(GET))[0] == 200
            secured = channel.Listener(3, "https", "127.0.0.1", get_port(second), 100, certificate)
            await worker.listen(worker.describe(), secured, sockets=[second], surviving=[2])
            assert await plain.wait_end() == "fin"
        for _ in range(20):
            async with await open_tls(get_port(second), trust(authority)) as client:
                status, _, _ = await client.ask(GET)
                assert status == 200
        await asyncio.sleep(0.5)  # longer than the socket would live if it had not survived
        async with await open_tls(get_port(second), trust(authority)) as client:
            assert (await client.ask(GET))[0] == 200


async def test_listener_and_certificate_come_in_although_connections_have_taken_all_file_descriptors(
    second: socket.socket,
) -> None:
    authority, renewed = trustme.CA(), trustme.CA()
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], certificate=issue(authority)) as worker,
        await open_tls(worker.port, trust(authority)) as client,
    ):
        assert (await client.ask(GET))[0] == 200
        with no_files():
            await worker.renew(issue(renewed))
            await worker.listen(worker.describe(), describe(second), sockets=[second])
            assert (await client.ask(GET))[0] == 200
        async with await open_tls(worker.port, trust(renewed)) as new, await open_wire(get_port(second)) as added:
            assert (await new.ask(GET))[0] == 200
            assert (await added.ask(GET))[0] == 200


async def test_drain_ends_what_a_listener_left_behind_too(second: socket.socket) -> None:
    async with ScriptedReplica(switching(echo)) as replica, InnerWorker([replica.url]) as worker:
        await worker.listen(worker.describe(), describe(second), sockets=[second])
        async with await open_wire(get_port(second)) as client:
            await upgrade(client)
            await worker.listen(worker.describe(), deadline=60.0)
            await worker.drain(0.0, 1.0)
            assert await client.wait_end() == "fin"
        await worker.wait_ended()


async def test_sockets_that_survive_a_drain_keep_their_queue() -> None:
    """Another process goes on accepting from them: this one leaves what stands in the queue alone."""
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url]) as worker:
        port = worker.port
        with worker.copy_socket() as copy:
            copy.setblocking(False)
            await worker.drain(0.0, 5.0, surviving=[1])
            await worker.wait_ended()
            async with await open_wire(port) as client:
                client.send(b"hello")
                accepted, _ = await asyncio.get_running_loop().sock_accept(copy)
                with accepted, contextlib.suppress(OSError):
                    assert await asyncio.get_running_loop().sock_recv(accepted, 10) == b"hello"


async def test_sockets_that_are_taken_over_during_a_drain_are_left_alone_from_then_on() -> None:
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url]) as worker:
        port = worker.port
        with worker.copy_socket() as copy:
            copy.setblocking(False)
            await worker.drain(30.0, 60.0)
            async with await open_wire(port) as served:
                status, head, _ = await served.ask(GET)
                assert (status, get_field(head, "Connection")) == (200, "close")
            await worker.drain(30.0, 60.0, surviving=[1])
            await worker.wait_ended()
            async with await open_wire(port):
                (await asyncio.get_running_loop().sock_accept(copy))[0].close()


async def test_filter_of_a_worker_that_has_stopped_can_be_taken_from_a_socket() -> None:
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url]) as worker:
        port = worker.port
        with worker.copy_socket() as copy:
            copy.setblocking(False)
            await worker.drain(0.0, 5.0)
            await worker.wait_ended()
            connecting = asyncio.create_task(open_wire(port))
            assert not (await asyncio.wait({connecting}, timeout=0.2))[0]  # the kernel drops its SYN
            admit_all(copy)
            await (await connecting).close()


async def test_access_log_can_be_switched_while_exchanges_run(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def answer_late(wire: Wire, number: int) -> None:
        while True:
            head = await wire.reader.readuntil(b"\r\n\r\n")
            if b"/late" in head:
                await release.wait()
            wire.send(OK)

    file = tmp_path / "log"
    async with (
        ScriptedReplica(answer_late) as replica,
        InnerWorker([replica.url], log_file=file) as worker,
        await worker.open() as client,
        await worker.open() as late,
    ):
        late.send(GET.replace(b"/x", b"/late"))
        await eventually(lambda: worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 1)
        await client.ask(GET)
        await worker.switch_log(False)
        assert [line["target"] for line in read_lines(file)] == ["/x"]
        await client.ask(GET.replace(b"/x", b"/unseen"))
        release.set()
        await late.read_answer()
        await worker.switch_log(True)
        await client.ask(GET.replace(b"/x", b"/seen"))
        await eventually(lambda: len(read_lines(file)) == 2)
        assert json.loads(file.read_text().splitlines()[-1])["target"] == "/seen"

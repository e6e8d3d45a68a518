"""The access log: one JSON line per exchange, whatever came in it and whoever reads it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import resource
import time
from pathlib import Path

import pytest

from haproxy_py import counters
from tests.proxy_process import ProxyProcess, describe_instance, find_free_ports
from tests.wire.inner_worker import InnerWorker, read_lines
from tests.wire.scripted import OK, ScriptedReplica, Wire, answer_each, eventually, open_wire

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
FIELDS = {
    "ts", "client", "peer", "method", "target", "host", "status", "reason", "term", "instance", "replica", "pod", "attempts",
    "reused", "bytes_in", "bytes_out", "t_queue", "t_connect", "t_first", "t_total", "request_id", "user_agent",
}  # fmt: skip


async def wait_lines(file: Path, count: int) -> list[dict[str, object]]:
    await eventually(lambda: file.read_bytes().count(b"\n") >= count)
    lines = read_lines(file)
    assert len(lines) == count
    return lines


async def test_a_line_says_everything_of_an_exchange(tmp_path: Path) -> None:
    file = tmp_path / "log"
    ids: list[bytes] = []

    async def answer(wire: Wire, number: int) -> None:
        while True:
            head = await wire.reader.readuntil(b"\r\n\r\n")
            ids.extend(line[14:] for line in head.split(b"\r\n") if line.lower().startswith(b"x-request-id: "))
            await wire.reader.readexactly(5)
            await asyncio.sleep(0.05)
            wire.send(OK)

    async with (
        ScriptedReplica(answer) as replica,
        InnerWorker([replica.url], log_file=file) as worker,
        await worker.open() as client,
    ):
        request = b"POST /a/b?secret=1 HTTP/1.1\r\nHost: test:80\r\nUser-Agent: ua/1\r\nContent-Length: 5\r\n\r\nhello"
        before = time.time()
        pod = replica.url.removeprefix("http://")
        _, head, _ = await client.ask(request)
        await client.ask(request)
        first, second = await wait_lines(file, 2)
    assert set(first) == FIELDS
    assert (first["method"], first["target"], first["host"]) == ("POST", "/a/b", "test:80")
    assert (first["status"], first["reason"], first["term"]) == (200, "", "--")
    assert (first["client"], first["instance"], first["user_agent"]) == ("127.0.0.1", "test", "ua/1")
    assert f"X-HA-Replica: {first['replica']}\r\n".encode() in head
    assert first["pod"] == pod
    assert (first["attempts"], first["reused"], second["reused"]) == (1, 0, 1)
    assert first["bytes_in"] == len(request)
    assert first["bytes_out"] == len(head) + 2
    assert isinstance(first["t_total"], float)
    assert isinstance(first["t_first"], float)
    assert 0.045 <= first["t_first"] <= first["t_total"] < 5  # a sleep ends at a turn of the loop, which may be early
    assert first["request_id"] == ids[0].decode()
    assert isinstance(first["ts"], float)
    assert before <= first["ts"] <= time.time()


@pytest.mark.parametrize(("trusted", "client"), [("127.0.0.0/8", "2001:db8::7"), ("10.0.0.0/8", "127.0.0.1")])
async def test_client_is_whom_a_trusted_proxy_forwards_and_peer_the_connection(
    tmp_path: Path, trusted: str, client: str
) -> None:
    file = tmp_path / "log"
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], log_file=file, trusted_proxies=[trusted]) as worker,
        await worker.open() as wire,
    ):
        await wire.ask(b"GET /x HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: [2001:db8::7]:80\r\n\r\n")
        await wire.ask(b"GET /flows HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 2001:db8::7\r\n\r\n")
        await wire.ask(GET)
        lines = await wait_lines(file, 3)
    assert [line["client"] for line in lines] == [client, client, "127.0.0.1"]
    assert {line["peer"] for line in lines} == {"127.0.0.1"}


async def test_a_host_that_no_instance_has_is_in_the_line(tmp_path: Path) -> None:
    file = tmp_path / "log"
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker(instances=[describe_instance([replica.url], hosts=["a.test"])], log_file=file) as worker,
        await worker.open() as client,
    ):
        await client.ask(b"GET /x?y HTTP/1.1\r\nHost: c.test:81\r\n\r\n")
        (line,) = await wait_lines(file, 1)
    assert (line["host"], line["target"], line["status"], line["reason"]) == ("c.test:81", "/x", 421, "unknown_host")


async def test_each_way_to_end_has_its_letters(tmp_path: Path) -> None:
    file = tmp_path / "log"

    async def behave(wire: Wire, number: int) -> None:
        while True:
            target = (await wire.reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
            if target == b"/cut":
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
                await asyncio.sleep(0.05)
                return
            if target == b"/leave":
                return
            if target == b"/bad":
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")
            elif target == b"/slow":
                await wire.reader.read()
            else:
                wire.send(OK)

    expected = [
        (b"GET /x", 200, "", "--"),
        (b"GET /flows", 403, "gate_denied", "PR"),
        (b"POST /leave", 502, "upstream_closed", "UH"),
        (b"GET /bad", 502, "bad_response", "PH"),
        (b"GET /slow", 504, "response_timeout", "uH"),
        (b"GET /cut", 200, "upstream_closed", "UD"),
    ]
    async with (
        ScriptedReplica(behave) as replica,
        InnerWorker(
            [replica.url], log_file=file, timeouts={"response_head": "200ms", "client_head": "200ms", "linger": "50ms"}
        ) as worker,
    ):
        for line, *_ in expected:
            async with await worker.open() as client:
                client.send(line + b" HTTP/1.1\r\nHost: test\r\n\r\n")
                await client.read_head()
                if line == b"GET /cut":
                    await client.wait_end()
        async with await worker.open() as client:  # in the middle of a head
            client.send(b"GET /x")
            await client.read_head()
        async with await worker.open() as client:  # leaves while it waits
            client.send(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
            await eventually(lambda: worker.count_replica(counters.REPLICA_ACTIVE_REQUESTS) == 1)
            client.reset()
            await worker.settle()
        expected += [(b" ", 408, "head_timeout", "cR"), (b"GET /slow", 499, "client_gone", "CH")]
        lines = await wait_lines(file, len(expected))
    found = [
        (f"{line['method']} {line['target']}".encode(), line["status"], line["reason"], line["term"]) for line in lines
    ]
    assert found == expected


async def test_a_tunnel_has_one_line_when_it_ends(tmp_path: Path) -> None:
    from tests.wire.test_tunnels import echo, switching, upgrade

    file = tmp_path / "log"
    async with ScriptedReplica(switching(echo)) as replica, InnerWorker([replica.url], log_file=file) as worker:
        async with await worker.open() as client:
            await upgrade(client)
            client.send(b"hello")
            assert await client.read(5) == b"hello"
            client.finish()
            await client.read_rest()
        (line,) = await wait_lines(file, 1)
    assert (line["status"], line["term"], line["target"]) == (101, "CT", "/ws")
    assert (line["bytes_in"], line["bytes_out"]) == (5, 5)


async def test_octets_of_a_client_are_escaped_and_cut_so_that_a_line_fits_a_piece(tmp_path: Path) -> None:
    file = tmp_path / "log"
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], log_file=file) as worker,
        await worker.open() as client,
    ):
        target = b'/"' * 2000
        agent = b'"\xff' * 2000
        request = b"GET " + target + b" HTTP/1.1\r\nHost: test\r\nUser-Agent: " + agent + b"\r\n\r\n"
        assert (await client.ask(request))[0] == 200
        (first,) = await wait_lines(file, 1)
    raw = file.read_bytes()
    assert all(32 <= octet < 127 or octet == 10 for octet in raw)
    assert max(len(line) for line in raw.splitlines()) < 4096
    assert str(first["target"]).startswith('/"/"')
    assert str(first["user_agent"]).startswith('"\xff"\xff')


async def test_reader_that_does_not_read_blocks_nothing_and_the_dropped_lines_are_counted() -> None:
    reading, writing = os.pipe()
    try:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 65536)
        async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url], log_fd=writing) as worker:
            count = 4000
            longest = 0.0
            async with await worker.open() as client:
                for _ in range(count // 40):
                    began = time.monotonic()
                    client.send(GET * 40)
                    for _ in range(40):
                        assert (await client.read_answer())[0] == 200
                    longest = max(longest, time.monotonic() - began)
            assert longest < 1.0
            await eventually(lambda: worker.count_worker(counters.WORKER_LOG_LINES_DROPPED) > 0)
            os.set_blocking(reading, False)
            text = bytearray()
            async with asyncio.timeout(5):
                while worker.count_worker(counters.WORKER_LOG_LINES_DROPPED) + text.count(b"\n") < count:
                    try:
                        text += os.read(reading, 65536)
                    except BlockingIOError:
                        await asyncio.sleep(0.01)
            assert all(json.loads(line)["status"] == 200 for line in text.splitlines())
            # Once it is read again, lines are written again.
            async with await worker.open() as client:
                await client.ask(GET.replace(b"/x", b"/again"))
            await eventually(lambda: b"/again" in _read(reading))
    finally:
        os.close(reading)
        os.close(writing)


async def test_reader_that_is_gone_costs_lines_only() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url], log_fd=writing) as worker:
            async with await worker.open() as client:
                for _ in range(5):
                    assert (await client.ask(GET))[0] == 200
            await eventually(lambda: worker.count_worker(counters.WORKER_LOG_LINES_DROPPED) == 5)
    finally:
        os.close(writing)


async def test_full_disk_costs_lines_only_and_the_line_that_was_cut_is_ended(tmp_path: Path) -> None:
    """A limit of the file's size is as good as a full disk: the last line before it is cut."""
    file = tmp_path / "log"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], log_file=file) as worker,
        await worker.open() as client,
    ):
        await client.ask(GET)
        await wait_lines(file, 1)
        size = file.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
        try:
            assert (await client.ask(GET))[0] == 200
            await eventually(lambda: worker.count_worker(counters.WORKER_LOG_LINES_DROPPED) == 1)
            assert (await client.ask(GET))[0] == 200
            await eventually(lambda: worker.count_worker(counters.WORKER_LOG_LINES_DROPPED) == 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (await client.ask(GET))[0] == 200
        await eventually(lambda: file.read_bytes().endswith(b"}\n") and file.stat().st_size > size + 200)
    whole, cut, again = file.read_bytes().splitlines()
    assert len(cut) == 100
    assert json.loads(whole)["status"] == json.loads(again)["status"] == 200


async def test_device_that_is_always_full_costs_lines_only() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url], log_fd=full) as worker:
            async with await worker.open() as client:
                for _ in range(3):
                    assert (await client.ask(GET))[0] == 200
            await eventually(lambda: worker.count_worker(counters.WORKER_LOG_LINES_DROPPED) == 3)
    finally:
        os.close(full)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""


async def test_ipv4_client_of_a_listener_for_both_families_has_its_ipv4_address(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def answer(wire: Wire, number: int) -> None:
        heads.append(await wire.reader.readuntil(b"\r\n\r\n"))
        wire.send(OK)

    (port,) = find_free_ports(1)
    async with ScriptedReplica(answer) as replica:
        extra = {"listen": [{"address": f"[::]:{port}"}]}
        proxy = ProxyProcess(tmp_path, [describe_instance([replica.url])], extra=extra)
        await asyncio.to_thread(proxy.__enter__)
        try:
            async with await open_wire(port) as client:
                assert (await client.ask(GET))[0] == 200
        finally:
            await asyncio.to_thread(proxy.__exit__, None, None, None)
    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in heads[0]

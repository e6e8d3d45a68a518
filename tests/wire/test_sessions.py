"""Clients of socket.io that keep no cookie: each request of a session comes to the replica that has it."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import mmap
import os
import signal
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from haproxy_py import session_table
from haproxy_py.control.segments import SessionMemory
from tests.chaos.test_takeover import Successor
from tests.proxy_process import ProxyProcess, describe_instance
from tests.wire.inner_worker import InnerWorker, find_workers
from tests.wire.scripted import WITHIN, ScriptedReplica, Wire, eventually, get_field, open_wire
from tests.wire.test_balance import cookie_of
from tests.wire.test_tunnels import HANDSHAKE, SWITCH

PATH = "/dashboard/socket.io/?EIO=4&transport=polling"
STAMP = 0xFFFFFF

FORMS: dict[str, Callable[[str], str]] = {
    "eio 4": lambda sid: f'0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000}}',
    "eio 3": lambda sid: f'97:0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":5000}}2:40',
    "eio 3 binary": lambda sid: f'\x00\x09\x07\xff0{{"sid":"{sid}","upgrades":[]}}\x00\x02\xff40',
    "jsonp": lambda sid: f'___eio[0]("0{{\\"sid\\":\\"{sid}\\",\\"upgrades\\":[\\"websocket\\"]}}");',
}


class Engine:
    """A replica as socket.io sees it: it begins sessions, and answers 400 where it has none."""

    count = itertools.count()

    def __init__(self, form: str = "eio 4") -> None:
        self.form = form
        self.sessions: set[str] = set()
        self.refused = 0

    async def __call__(self, wire: Wire, number: int) -> None:
        while True:
            head = (await wire.reader.readuntil(b"\r\n\r\n")).decode()
            await wire.reader.readexactly(int(get_field(head.encode(), "Content-Length") or 0))
            sid = find_sid(head)
            if sid is None:
                sid = self.begin()
                await self.answer_handshake(wire, FORMS[self.form](sid).encode("latin-1"))
            elif sid not in self.sessions:
                self.refused += 1
                wire.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")
            elif "websocket" in head:
                wire.send(SWITCH)
                return
            else:
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def begin(self) -> str:
        sid = f"A_-z{next(self.count):016}"
        self.sessions.add(sid)
        return sid

    async def answer_handshake(self, wire: Wire, body: bytes) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def find_sid(text: str) -> str | None:
    _, found, rest = text.partition("&sid=")
    return rest.split()[0].split("&")[0] if found else None


def ask_for(target: str, *lines: str, method: str = "GET", host: str = "test") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", "")).encode()


async def begin_session(client: Wire, *engines: Engine, target: str = PATH) -> str:
    """The id that one of the replicas gave out, read there: the forms of answers differ."""
    before = {sid for engine in engines for sid in engine.sessions}
    status, _, _ = await client.ask(ask_for(target))
    assert status == 200
    (sid,) = {sid for engine in engines for sid in engine.sessions} - before
    return sid


async def poll(client: Wire, sid: str, *lines: str, host: str = "test") -> int:
    status, _, _ = await client.ask(ask_for(f"{PATH}&sid={sid}", *lines, host=host))
    return status


@contextmanager
def memory() -> Iterator[tuple[SessionMemory, mmap.mmap]]:
    shared = SessionMemory()
    try:
        with mmap.mmap(shared.fd, session_table.TABLE_BYTES) as view:
            yield shared, view
    finally:
        shared.close()


def read_entries(view: mmap.mmap) -> list[tuple[int, int]]:
    return list(struct.iter_unpack("=QQ", view[session_table.ENTRIES_AT :]))


def list_used(view: mmap.mmap) -> dict[int, tuple[int, int]]:
    return {index: entry for index, entry in enumerate(read_entries(view)) if any(entry)}


def write_entry(view: mmap.mmap, index: int, check: int, value: int) -> None:
    struct.pack_into("=QQ", view, session_table.ENTRIES_AT + index * session_table.ENTRY_BYTES, check, value)


def age_entry(view: mmap.mmap, seconds: float) -> None:
    """Let the only entry have been used so long ago."""
    ((index, (check, value)),) = list_used(view).items()
    write_entry(view, index, check, value & ~STAMP | int(time.monotonic() - seconds) & STAMP)


@asynccontextmanager
async def processes(folder: Path, *engines: Engine) -> AsyncIterator[ProxyProcess]:
    """A proxy with two workers before these replicas."""
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(ScriptedReplica(engine)) for engine in engines]
        instance = describe_instance([replica.url for replica in replicas], health={"type": "off"})
        environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
        with ProxyProcess(folder, [instance], workers=2, environment=environment) as proxy:
            yield proxy


async def poll_by_many_connections(port: int, sids: Sequence[str]) -> set[int]:
    """The kernel gives each connection to one of the workers."""
    found = set()
    for sid in [*sids] * 20:
        async with await open_wire(port) as client:
            found.add(await poll(client, sid))
    return found


async def begin_sessions(port: int, *engines: Engine) -> list[str]:
    sids = []
    for _ in range(4):
        async with await open_wire(port) as client:
            sids.append(await begin_session(client, *engines))
    return sids


@pytest.mark.parametrize("affinity", ["dashboard", "all"])
@pytest.mark.parametrize("form", list(FORMS))
async def test_session_keeps_its_replica_without_a_cookie(form: str, affinity: str) -> None:
    one, two = Engine(form), Engine(form)
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url], balance={"affinity": affinity}) as worker,
        await worker.open() as client,
    ):
        sids = [await begin_session(client, one, two) for _ in range(4)]
        assert one.sessions
        assert two.sessions
        for sid in sids:
            assert [await poll(client, sid) for _ in range(3)] == [200] * 3  # taken in turn, two would fail


async def test_post_of_a_session_comes_to_its_replica() -> None:
    one, two = Engine(), Engine()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url]) as worker,
        await worker.open() as client,
    ):
        sid = await begin_session(client, one, two)
        for _ in range(4):
            request = ask_for(f"{PATH}&sid={sid}", "Content-Length: 2", method="POST") + b"40"
            assert (await client.ask(request))[0] == 200


async def test_upgrade_of_a_session_comes_to_its_replica() -> None:
    one, two = Engine(), Engine()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url]) as worker,
        await worker.open() as client,
    ):
        for _ in range(3):
            sid = await begin_session(client, one, two)
            target = b" /dashboard/socket.io/?EIO=4&transport=websocket&sid=%s " % sid.encode()
            method, _, rest = HANDSHAKE.split(b" ", 2)
            async with await worker.open() as other:
                other.send(method + target + rest)
                assert (await other.read_head()).startswith(b"HTTP/1.1 101 ")
                await other.wait_end()


async def test_session_comes_before_the_cookie_which_stays() -> None:
    one, two = Engine(), Engine()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url]) as worker,
        await worker.open() as client,
    ):
        sid = await begin_session(client, one, two)
        _, head, _ = await client.ask(ask_for(PATH))  # of the other replica
        line = cookie_of(head)
        assert line is not None
        cookie = "Cookie: " + line.split(b";")[0].decode()
        for _ in range(3):
            status, head, _ = await client.ask(ask_for(f"{PATH}&sid={sid}", cookie))
            assert (status, cookie_of(head)) == (200, None)


async def test_session_is_known_to_the_other_worker_too() -> None:
    one, two = Engine(), Engine()
    with memory() as (shared, _):
        async with (
            ScriptedReplica(one) as first,
            ScriptedReplica(two) as second,
            InnerWorker([first.url, second.url], sessions=shared) as worker,
            InnerWorker([first.url, second.url], sessions=shared) as other,
            await worker.open() as client,
            await other.open() as moved,
        ):
            sids = [await begin_session(client, one, two) for _ in range(4)]
            for sid in sids:
                assert [await poll(moved, sid) for _ in range(3)] == [200] * 3  # taken in turn, two would fail


async def test_session_keeps_its_replica_through_a_new_table() -> None:
    one, two, three = Engine(), Engine(), Engine()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        ScriptedReplica(three) as third,
        InnerWorker([first.url, second.url]) as worker,
        await worker.open() as client,
    ):
        sids = [await begin_session(client, one, two) for _ in range(4)]
        await worker.publish(describe_instance([third.url, second.url, first.url]))
        for sid in sids:
            assert [await poll(client, sid) for _ in range(3)] == [200] * 3  # taken in turn, two would fail


async def test_session_of_a_replica_that_left_is_chosen_for_anew() -> None:
    one, two = Engine(), Engine()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url]) as worker,
        await worker.open() as client,
    ):
        sids = [await begin_session(client, one, two) for _ in range(2)]
        await worker.publish(describe_instance([second.url]))
        assert sorted([await poll(client, sid) for sid in sids]) == [200, 400]
        assert (one.refused, two.refused) == (0, 1)  # it begins anew then
        assert await poll(client, await begin_session(client, one, two)) == 200


async def test_session_that_nobody_began_is_chosen_for_as_any_request() -> None:
    one, two = Engine(), Engine()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url]) as worker,
        await worker.open() as client,
    ):
        await begin_session(client, one, two)
        for sid in ("forged", "", "a" * 65, "%00", "A_-z0&sid=B", "\xe4"):
            assert await poll(client, sid.replace("\xe4", "%E4")) == 400
        assert abs(one.refused - two.refused) <= 1


async def test_session_of_one_instance_says_nothing_in_another() -> None:
    one, two = Engine(), Engine()
    async with ScriptedReplica(one) as first, ScriptedReplica(two) as second:
        urls = [first.url, second.url]
        instances = [describe_instance(urls, name=name, hosts=[f"{name}.test"]) for name in ("a", "b")]
        async with InnerWorker(instances=instances) as worker, await worker.open() as client:
            status, _, _ = await client.ask(ask_for(PATH, host="a.test"))
            assert status == 200
            (sid,) = one.sessions | two.sessions
            assert [await poll(client, sid, host="a.test") for _ in range(4)] == [200] * 4
            assert sorted([await poll(client, sid, host="b.test") for _ in range(4)]) == [200, 200, 400, 400]


class Split(Engine):
    """Sends the answer to a handshake in two parts, the second when it is told that the first has come."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = 0
        self.may_go_on = asyncio.Event()

    async def answer_handshake(self, wire: Wire, body: bytes) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body[: self.cut]))
        await self.may_go_on.wait()
        self.may_go_on.clear()
        wire.send(body[self.cut :])


async def test_session_is_found_wherever_the_network_cuts_the_answer() -> None:
    one, two = Split(), Split()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url]) as worker,
        await worker.open() as client,
    ):
        for cut in range(34):
            one.cut = two.cut = cut
            known = one.sessions | two.sessions
            client.send(ask_for(PATH))
            size = int(get_field(await client.read_head(), "Content-Length") or 0)
            await client.read(cut)
            (sid,) = (one.sessions | two.sessions) - known
            (one if sid in one.sessions else two).may_go_on.set()
            await client.read(size - cut)
            assert [await poll(client, sid) for _ in range(2)] == [200, 200], cut


class Fixed(Engine):
    """Answers what a test says, whatever is asked."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self.fixed = answer

    async def __call__(self, wire: Wire, number: int) -> None:
        while True:
            await wire.reader.readuntil(b"\r\n\r\n")
            wire.send(self.fixed)


def answer(body: bytes, status: str = "200 OK", *lines: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (
        status.encode(),
        len(body),
        b"".join(line + b"\r\n" for line in lines),
        body,
    )


GOOD = FORMS["eio 4"]("A" * 20).encode()


async def count_learnt(response: bytes, target: str = PATH, method: str = "GET", **settings: Any) -> int:
    with memory() as (shared, view):
        async with (
            ScriptedReplica(Fixed(response)) as replica,
            InnerWorker([replica.url], sessions=shared, **settings) as worker,
            await worker.open() as client,
        ):
            client.send(ask_for(target, method=method))
            head = await client.read_head()
            if method != "HEAD" and (length := get_field(head, "Content-Length")):
                await client.read(int(length))
            elif method != "HEAD":
                await client.read_until(b"0\r\n\r\n")
        return len(list_used(view))


@pytest.mark.parametrize(
    "response",
    [
        answer(GOOD),
        answer(b"x" * 400 + GOOD),
        answer(b'{"sid":}{"sid":"' + GOOD),
        answer(GOOD + b"x" * 200_000),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD),
    ],
)
async def test_session_is_learnt_from(response: bytes) -> None:
    assert await count_learnt(response) == 1


@pytest.mark.parametrize(
    "response",
    [
        answer(GOOD, "403 Forbidden"),
        answer(b"x" * 512 + GOOD),  # later than a handshake says it
        answer(b'0{"sid":"' + b"A" * 65 + b'"}'),
        answer(b'0{"sid":""}'),
        answer(b'0{"sid":"A B"}'),
        answer(b'0{"sid":"AAAA'),
        answer(b'0{"sid":12}'),
        answer(b'0{"sid\\":\\"AAAA\\"}'),
        answer(b""),
        answer(b"{"),
        answer(gzip.compress(GOOD), "200 OK", b"Content-Encoding: gzip"),  # Engine.IO compresses only longer answers
    ],
)
async def test_session_is_not_learnt_from(response: bytes) -> None:
    assert await count_learnt(response) == 0


@pytest.mark.parametrize(
    ("target", "method"),
    [
        ("/dashboard/socket.io/?EIO=4&transport=polling&sid=AAAA", "GET"),
        ("/dashboard/socket.io/?EIO=4&transport=websocket", "GET"),
        ("/dashboard/socket.io/?EIO=4", "GET"),
        ("/dashboard/socket.io/", "GET"),
        ("/dashboard/socket.io/?", "GET"),
        ("/other/?EIO=4&transport=polling", "GET"),
        (PATH, "OPTIONS"),
        (PATH, "HEAD"),
    ],
)
async def test_no_session_begins_with(target: str, method: str) -> None:
    response = answer(GOOD) if method != "HEAD" else answer(b"")
    assert await count_learnt(response, target, method) == 0


async def test_without_affinity_nothing_is_learnt() -> None:
    assert await count_learnt(answer(GOOD), balance={"affinity": "none"}) == 0


async def test_session_that_was_not_used_for_long_is_forgotten() -> None:
    one, two = Engine(), Engine()
    with memory() as (shared, view):
        async with (
            ScriptedReplica(one) as first,
            ScriptedReplica(two) as second,
            InnerWorker([first.url, second.url], sessions=shared) as worker,
            await worker.open() as client,
        ):
            sid = await begin_session(client, one, two)
            age_entry(view, session_table.EXPIRES + 2)
            assert sorted([await poll(client, sid) for _ in range(4)]) == [200, 200, 400, 400]


async def test_use_keeps_a_session_from_being_forgotten() -> None:
    one, two = Engine(), Engine()
    with memory() as (shared, view):
        async with (
            ScriptedReplica(one) as first,
            ScriptedReplica(two) as second,
            InnerWorker([first.url, second.url], sessions=shared) as worker,
            await worker.open() as client,
        ):
            sid = await begin_session(client, one, two)
            age_entry(view, session_table.EXPIRES - 10)
            assert await poll(client, sid) == 200
            ((_, value),) = list_used(view).values()
            assert (int(time.monotonic()) - value) & STAMP < WITHIN
            assert await poll(client, sid) == 200


async def test_new_session_takes_the_place_of_the_oldest_where_all_are_taken() -> None:
    one, two = Engine(), Engine()
    with memory() as (shared, view):
        now = int(time.monotonic())
        ages = [3, 2, 9, 1, 7, 4, 8, 0]
        for index in range(session_table.BUCKETS * session_table.WAYS):
            write_entry(view, index, index, 1 << 24 | (now - 10 * ages[index % session_table.WAYS]) & STAMP)
        before = read_entries(view)
        async with (
            ScriptedReplica(one) as first,
            ScriptedReplica(two) as second,
            InnerWorker([first.url, second.url], sessions=shared) as worker,
            await worker.open() as client,
        ):
            sid = await begin_session(client, one, two)
            changed = [index for index, entry in enumerate(read_entries(view)) if entry != before[index]]
            assert [ages[index % session_table.WAYS] for index in changed] == [9]
            assert [await poll(client, sid) for _ in range(4)] == [200] * 4


async def test_entry_that_is_half_written_is_not_believed() -> None:
    one, two = Engine(), Engine()
    with memory() as (shared, view):
        async with (
            ScriptedReplica(one) as first,
            ScriptedReplica(two) as second,
            InnerWorker([first.url, second.url], sessions=shared) as worker,
            await worker.open() as client,
        ):
            sids = [await begin_session(client, one, two) for _ in range(2)]
            (index, (check, value)), (_, (_, other)) = list_used(view).items()
            write_entry(view, index, check, other)  # the first half of one session, the second of another
            assert other >> 24 != value >> 24
            statuses = [await poll(client, sid) for sid in sids for _ in range(4)]
            assert statuses.count(400) == 2


async def test_session_in_use_cannot_be_claimed_by_another_replica() -> None:
    one = Engine()
    async with ScriptedReplica(one) as first, ScriptedReplica(Fixed(answer(GOOD))) as second:
        one.begin = lambda: "A" * 20  # type: ignore[method-assign]
        one.sessions.add("A" * 20)
        async with InnerWorker([first.url]) as worker, await worker.open() as client:
            await client.ask(ask_for(PATH))
            await worker.publish(describe_instance([first.url, second.url]))
            for _ in range(4):
                await client.ask(ask_for(PATH))
            assert [(await client.ask(ask_for(f"{PATH}&sid={'A' * 20}")))[2] for _ in range(4)] == [b"ok"] * 4


async def test_sessions_are_known_to_every_process_of_a_proxy(tmp_path: Path) -> None:
    one, two = Engine(), Engine()
    async with processes(tmp_path, one, two) as proxy:
        sids = await begin_sessions(proxy.port, one, two)
        assert await poll_by_many_connections(proxy.port, sids) == {200}


async def test_sessions_are_known_to_workers_that_a_reload_adds(tmp_path: Path) -> None:
    one, two = Engine(), Engine()
    async with processes(tmp_path, one, two) as proxy:
        sids = await begin_sessions(proxy.port, one, two)
        proxy.config["workers"] = 4
        proxy.write_config()
        proxy.signal(signal.SIGHUP)
        await eventually(lambda: proxy.log.count(" accepts connections") == 4)
        assert await poll_by_many_connections(proxy.port, sids) == {200}


async def test_sessions_are_known_to_the_process_that_takes_over(tmp_path: Path) -> None:
    one, two = Engine(), Engine()
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(processes(tmp_path, one, two))
        sids = await begin_sessions(proxy.port, one, two)
        former = proxy.process
        successor = Successor(proxy, 1)
        stack.callback(successor.kill)
        await asyncio.to_thread(successor.wait_until_it_has_taken_over)
        assert await asyncio.to_thread(former.wait, WITHIN) == 0
        assert await poll_by_many_connections(proxy.port, sids) == {200}


async def test_sessions_outlive_the_worker_that_saw_them_begin(tmp_path: Path) -> None:
    one, two = Engine(), Engine()
    async with processes(tmp_path, one, two) as proxy:
        sids = await begin_sessions(proxy.port, one, two)
        for victim in find_workers(proxy.pid):
            os.kill(victim, signal.SIGKILL)
        await eventually(lambda: proxy.log.count(" accepts connections") == 4)
        assert await poll_by_many_connections(proxy.port, sids) == {200}

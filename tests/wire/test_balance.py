"""Which replica gets an exchange, and what happens when it cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
from typing import Any

import pytest

from haproxy_py import counters
from haproxy_py.control.tables import choose_ids
from tests.proxy_process import describe_instance, find_free_ports
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, ScriptedReplica, Wire, answer_each, eventually, get_field

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello"


class Counting:
    """A replica that counts requests; holds its answers while `gate` is closed."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, wire: Wire, number: int) -> None:
        while True:
            head = await wire.reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST"):
                await wire.reader.readexactly(5)
            self.count += 1
            await self.gate.wait()
            wire.send(OK)


async def test_ten_thousand_requests_are_split_exactly_evenly() -> None:
    one, two = Counting(), Counting()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url]) as worker,
    ):

        async def ask_many() -> None:
            async with await worker.open() as client:
                for _ in range(25):
                    client.send(GET * 40)
                    for _ in range(40):
                        assert (await client.read_answer())[0] == 200

        await asyncio.gather(*(ask_many() for _ in range(10)))
        assert (one.count, two.count) == (5000, 5000)
        assert worker.count_answers(200, 0) == 5000
        assert worker.count_answers(200, 1) == 5000


async def test_three_replicas_are_taken_in_turn() -> None:
    scripts = [Counting() for _ in range(3)]
    async with (
        ScriptedReplica(scripts[0]) as a,
        ScriptedReplica(scripts[1]) as b,
        ScriptedReplica(scripts[2]) as c,
        InnerWorker([a.url, b.url, c.url]) as worker,
        await worker.open() as client,
    ):
        for _ in range(30):
            await client.ask(GET)
        assert [script.count for script in scripts] == [10, 10, 10]


async def test_the_host_field_chooses_the_instance_and_an_unknown_one_is_421() -> None:
    async with ScriptedReplica(answer_each()) as one, ScriptedReplica(answer_each()) as two:
        instances = [
            describe_instance([replica.url], name=name, hosts=[f"{name}.test"])
            for name, replica in (("a", one), ("b", two))
        ]
        async with InnerWorker(instances=instances) as worker, await worker.open() as client:
            for host in (b"a.test", b"B.TEST:8080", b"b.test"):
                assert (await client.ask(b"GET /x HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"))[0] == 200
            assert [worker.count_replica(counters.REPLICA_CONNECTIONS_OPENED, index) for index in (0, 1)] == [1, 1]
            status, _, body = await client.ask(b"GET /x HTTP/1.1\r\nHost: c.test\r\n\r\n")
            assert (status, b'"reason": "unknown_host"' in body) == (421, True)


@pytest.mark.parametrize(
    ("host", "accept", "shown"),
    [
        (b"c.test:80", b"*/*", b"serves the host c.test: check"),
        (b"[2001:db8::1]", b"*/*", b"serves the host [2001:db8::1]: check"),
        (b"&lt;'(a)=%3c", b"*/*", b"serves the host &lt;'(a)=%3c: check"),
        (b"&lt;'(a)=%3c", b"text/html", b"serves the host &#38;lt;&#39;(a)=%3c: check"),
    ],
)
async def test_an_unknown_host_is_named_and_the_connection_stays(host: bytes, accept: bytes, shown: bytes) -> None:
    async with ScriptedReplica(answer_each()) as one:
        instances = [describe_instance([one.url], name="a", hosts=["a.test"])]
        request = b"GET /x HTTP/1.1\r\nHost: " + host + b"\r\nAccept: " + accept + b"\r\n\r\n"
        async with InnerWorker(instances=instances) as worker, await worker.open() as client:
            for _ in range(2):
                status, _head, body = await client.ask(request)
                assert status == 421
                assert shown in body
            assert (await client.ask(b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n"))[0] == 200


async def test_a_host_in_another_spelling_is_the_same_instance() -> None:
    async with ScriptedReplica(answer_each()) as one, ScriptedReplica(answer_each()) as two:
        instances = [
            describe_instance([one.url], name="a", hosts=["a.test", "[2001:db8::1]"]),
            describe_instance([two.url], name="b", hosts=["b.test"]),
        ]
        hosts = (b"a.test.", b"A.Test.:80", b"[2001:DB8:0:0::1]", b"[2001:db8:0000::0.0.0.1]:8080")
        async with InnerWorker(instances=instances) as worker, await worker.open() as client:
            for host in hosts:
                assert (await client.ask(b"GET /x HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"))[0] == 200
            assert [worker.count_replica(counters.REPLICA_CONNECTIONS_OPENED, index) for index in (0, 1)] == [1, 0]


async def test_least_connections_avoids_the_busy_one() -> None:
    one, two = Counting(), Counting()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url], balance={"policy": "least-connections"}) as worker,
        await worker.open() as waiting,
        await worker.open() as client,
    ):
        one.gate.clear()
        two.gate.clear()
        waiting.send(GET)
        await eventually(lambda: one.count + two.count == 1)
        busy, free = (one, two) if one.count else (two, one)
        free.gate.set()
        for _ in range(20):
            assert (await client.ask(GET))[0] == 200
        assert (busy.count, free.count) == (1, 20)
        busy.gate.set()
        assert (await waiting.read_answer())[0] == 200


async def test_least_connections_spreads_evenly_when_all_are_idle() -> None:
    one, two = Counting(), Counting()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url], balance={"policy": "least-connections"}) as worker,
        await worker.open() as client,
    ):
        for _ in range(100):
            await client.ask(GET)
        assert (one.count, two.count) == (50, 50)


@pytest.mark.parametrize("replicas", [2, 4])
async def test_random_two_avoids_the_busy_one_and_reaches_all(replicas: int) -> None:
    scripts = [Counting() for _ in range(replicas)]
    servers = [ScriptedReplica(script) for script in scripts]
    for server in servers:
        await server.__aenter__()
    try:
        async with (
            InnerWorker([server.url for server in servers], balance={"policy": "random-two"}) as worker,
            await worker.open() as client,
        ):
            for _ in range(400):
                await client.ask(GET)
            assert all(script.count > 200 / replicas for script in scripts)
    finally:
        for server in servers:
            await server.__aexit__(None, None, None)


async def test_full_replica_is_passed_over_and_all_full_is_503() -> None:
    one, two = Counting(), Counting()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url], limits={"exchanges": 2, "queue": 0}) as worker,
    ):
        one.gate.clear()
        two.gate.clear()
        clients = [await worker.open() for _ in range(5)]
        for number, client in enumerate(clients[:4]):
            client.send(GET)
            await eventually(lambda: one.count + two.count == number + 1)  # noqa: B023
            if number == 0 and two.count:
                one, two = two, one  # the table is sorted by name
        assert (one.count, two.count) == (2, 2)
        status, head, body = await clients[4].ask(GET)
        assert status == 503
        assert b'"reason": "replicas_full"' in body
        assert b"Retry-After: 1" in head
        assert b"Connection: close" not in head
        one.gate.set()
        statuses = [(await clients[index].read_answer())[0] for index in (0, 2)]
        assert statuses == [200, 200]
        for _ in range(4):
            assert (await clients[4].ask(GET))[0] == 200
        assert (one.count, two.count) == (6, 2)
        two.gate.set()
        for index in (1, 3):
            assert (await clients[index].read_answer())[0] == 200
        assert worker.list_replies() == {"replicas_full": 1}
        for client in clients:
            await client.close()


@pytest.mark.parametrize("request_", [GET, POST])
async def test_replica_that_refuses_connections_costs_no_request(request_: bytes) -> None:
    down = find_free_ports(1)[0]
    script = Counting()
    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([f"http://127.0.0.1:{down}", replica.url]) as worker,
        await worker.open() as client,
    ):
        for _ in range(20):
            assert (await client.ask(request_))[0] == 200
        assert script.count == 20
        assert worker.list_replies() == {}


async def test_large_upload_moves_to_the_next_replica_too() -> None:
    down = find_free_ports(1)[0]
    got: list[int] = []

    async def gather(wire: Wire, number: int) -> None:
        await wire.read_head()
        got.append(len(await wire.read(300_000)))
        wire.send(OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        await wire.reader.read()

    async with ScriptedReplica(gather) as replica, InnerWorker([f"http://127.0.0.1:{down}", replica.url]) as worker:
        for _ in range(2):
            async with await worker.open() as client:
                request = b"POST /x HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n"
                assert (await client.ask(request + bytes(300_000)))[0] == 200
        assert got == [300_000, 300_000]


async def test_all_refusing_is_503_at_once_and_they_are_asked_again() -> None:
    ports = find_free_ports(2)
    async with InnerWorker([f"http://127.0.0.1:{port}" for port in ports]) as worker, await worker.open() as client:
        status, head, body = await client.ask(GET)
        assert status == 503
        assert b'"reason": "no_replica"' in body
        assert b"error=destination_unavailable" in head
        assert b"Retry-After: 1" in head
        assert b"Connection: close" not in head
        assert worker.count_replica(counters.REPLICA_CONNECTIONS_FAILED, 0) == 1
        assert worker.count_replica(counters.REPLICA_CONNECTIONS_FAILED, 1) == 1
        assert worker.list_replies() == {"no_replica": 1}
        assert (await client.ask(GET))[0] == 503
        assert worker.count_replica(counters.REPLICA_CONNECTIONS_FAILED, 0) == 2


async def test_attempts_are_bounded() -> None:
    ports = find_free_ports(5)
    async with (
        InnerWorker([f"http://127.0.0.1:{port}" for port in ports], limits={"connect_attempts": 3}) as worker,
        await worker.open() as client,
    ):
        assert (await client.ask(GET))[0] == 502
        assert sum(worker.count_replica(counters.REPLICA_CONNECTIONS_FAILED, slot) for slot in range(5)) == 3


async def test_blackholed_replica_is_left_after_one_attempt() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        async with (
            ScriptedReplica(answer_each()) as replica,
            InnerWorker(
                [f"http://127.0.0.1:{full.getsockname()[1]}", replica.url], timeouts={"connect": "200ms"}
            ) as worker,
            await worker.open() as client,
        ):
            for _ in range(4):
                assert (await client.ask(GET))[0] == 200
            assert worker.list_replies() == {}
        for filler in fillers:
            filler.close()


# --- affinity ---


def cookie_of(head: bytes) -> bytes | None:
    for line in head.split(b"\r\n"):
        if line.startswith(b"Set-Cookie: "):
            return line.removeprefix(b"Set-Cookie: ")
    return None


def socket_io(cookie: bytes | None = None, path: bytes = b"/dashboard/socket.io/?EIO=4&transport=polling") -> bytes:
    line = b"Cookie: a=b; %s; c=d\r\n" % cookie if cookie else b""
    return b"GET %s HTTP/1.1\r\nHost: test\r\n%s\r\n" % (path, line)


async def test_dashboard_cookie_is_set_on_socket_io_paths_only_and_keeps_the_replica() -> None:
    one, two = Counting(), Counting()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url]) as worker,
        await worker.open() as client,
    ):
        assert cookie_of((await client.ask(GET))[1]) is None
        line = cookie_of((await client.ask(socket_io()))[1])
        assert line is not None
        value, *attributes = line.split(b"; ")
        assert set(attributes) == {b"Path=/", b"HttpOnly", b"SameSite=Lax"}
        name, _, token = value.partition(b"=")
        assert name.startswith(b"ha_replica_")
        for url in (first.url, second.url):
            assert url.encode() not in token
            assert str(url.rsplit(":")[1]).encode() not in token
        before = (one.count, two.count)
        for _ in range(20):
            _, head, _ = await client.ask(socket_io(value))
            assert cookie_of(head) is None  # it has it
        assert sorted((one.count - before[0], two.count - before[1])) == [0, 20]
        for _ in range(20):  # the cookie does not bind other requests
            await client.ask(b"GET /x HTTP/1.1\r\nHost: test\r\nCookie: %s\r\n\r\n" % value)
        assert min(one.count - before[0], two.count - before[1]) == 10


async def test_new_clients_of_a_dashboard_are_spread_too() -> None:
    one, two = Counting(), Counting()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url]) as worker,
        await worker.open() as client,
    ):
        for _ in range(10):
            await client.ask(socket_io())
        assert (one.count, two.count) == (5, 5)


@pytest.mark.parametrize("value", [b"", b"0123456789abcdef", b"x" * 300])
async def test_cookie_that_names_no_replica_is_replaced(value: bytes) -> None:
    async with (
        ScriptedReplica(answer_each()) as first,
        ScriptedReplica(answer_each()) as second,
        InnerWorker([first.url, second.url]) as worker,
        await worker.open() as client,
    ):
        line = cookie_of((await client.ask(socket_io()))[1])
        assert line is not None
        name = line.partition(b"=")[0]
        assert cookie_of((await client.ask(socket_io(name + b"=" + value)))[1]) is not None


async def test_replica_that_cannot_be_reached_is_replaced_with_a_new_cookie() -> None:
    async with (
        ScriptedReplica(answer_each()) as first,
        ScriptedReplica(answer_each()) as second,
        InnerWorker([first.url, second.url]) as worker,
        await worker.open() as client,
    ):
        values = set()
        for _ in range(2):
            line = cookie_of((await client.ask(socket_io()))[1])
            assert line is not None
            values.add(line.split(b";")[0])
        assert len(values) == 2
        await first.stop()
        renewed = []
        for value in values:
            status, head, _ = await client.ask(socket_io(value))
            assert status == 200
            renewed.append(cookie_of(head))
        assert renewed.count(None) == 1
        line = next(line for line in renewed if line is not None)
        assert line.split(b";")[0] in values
        assert cookie_of((await client.ask(socket_io(line.split(b";")[0])))[1]) is None


async def test_replica_that_left_the_table_is_replaced_with_a_new_cookie() -> None:
    async with (
        ScriptedReplica(answer_each()) as first,
        ScriptedReplica(answer_each()) as second,
        InnerWorker([first.url]) as worker,
        await worker.open() as client,
    ):
        line = cookie_of((await client.ask(socket_io()))[1])
        assert line is not None
        value = line.split(b";")[0]
        await worker.publish(describe_instance([second.url]))
        renewed = cookie_of((await client.ask(socket_io(value)))[1])
        assert renewed is not None
        assert renewed.split(b";")[0] != value
        assert second.accepted == 1


async def test_affinity_all_binds_every_request() -> None:
    one, two = Counting(), Counting()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url], balance={"affinity": "all"}) as worker,
        await worker.open() as client,
    ):
        line = cookie_of((await client.ask(GET))[1])
        assert line is not None
        for _ in range(10):
            await client.ask(b"GET /x HTTP/1.1\r\nHost: test\r\nCookie: %s\r\n\r\n" % line.split(b";")[0])
        assert sorted((one.count, two.count)) == [0, 11]


async def test_affinity_none_binds_nothing() -> None:
    one, two = Counting(), Counting()
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url], balance={"affinity": "none"}) as worker,
        await worker.open() as client,
    ):
        for _ in range(10):
            assert cookie_of((await client.ask(socket_io()))[1]) is None
        assert (one.count, two.count) == (5, 5)


async def test_without_ha_mode_the_editor_keeps_to_one_replica_while_flows_spread() -> None:
    one, two = Counting(), Counting()
    handshake = (
        b"GET /comms HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with (
        ScriptedReplica(one) as first,
        ScriptedReplica(two) as second,
        InnerWorker([first.url, second.url], ha=False) as worker,
    ):
        async with await worker.open() as client:
            for target in (b"/", b"/flows", b"/settings", b"/nodes", b"/red/red.js", b"/Flows/", b"/comms"):
                assert (await client.ask(b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % target))[0] == 200
        for _ in range(3):
            async with await worker.open() as client:
                assert (await client.ask(handshake))[0] == 200
        assert sorted((one.count, two.count)) == [0, 10]
        async with await worker.open() as client:
            for _ in range(10):
                await client.ask(GET)
        assert sorted((one.count, two.count)) == [5, 15]


def find_alike() -> tuple[str, str]:
    """Two names of replicas whose short ids would be equal."""
    known: dict[str, str] = {}
    for number in itertools.count():
        name = f"replica-{number}"
        [short_id] = choose_ids([name]).values()
        if short_id in known:
            return known[short_id], name
        known[short_id] = name
    raise AssertionError


async def test_answers_carry_the_id_that_the_table_names_when_it_has_become_longer() -> None:
    async with (
        ScriptedReplica(answer_each()) as one,
        ScriptedReplica(answer_each()) as two,
        InnerWorker([one.url]) as worker,
        await worker.open() as client,
    ):
        names = find_alike()
        marks = {url.url.removeprefix("http://"): {"name": name} for url, name in zip((one, two), names, strict=True)}
        await worker.publish(describe_instance([one.url]), marks=marks)
        before = get_field((await client.ask(GET))[1], "X-HA-Replica")
        assert before == worker.table.instances[0].replicas[0].id
        await worker.publish(describe_instance([one.url, two.url]), marks=marks)
        seen = {get_field((await client.ask(GET))[1], "X-HA-Replica") for _ in range(4)}
        assert seen == {replica.id for replica in worker.table.instances[0].replicas}
        assert before not in seen


# --- what the affinity cookie says ---


async def ask_for_cookie(balance: dict[str, Any], *lines: bytes, trusted: bool = False) -> bytes:
    """The Set-Cookie of a dashboard's first request."""
    more = {"trusted_proxies": ["127.0.0.0/8"]} if trusted else {}
    request = socket_io().replace(b"\r\n\r\n", b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n")
    async with (
        ScriptedReplica(answer_each()) as one,
        InnerWorker([one.url], balance=balance, **more) as worker,
        await worker.open() as client,
    ):
        line = cookie_of((await client.ask(request))[1])
        assert line is not None
        return line


@pytest.mark.parametrize(
    ("lines", "trusted", "secure"),
    [
        ((b"X-Forwarded-Proto: https",), True, True),
        ((b"X-Forwarded-Proto: HTTPS, http",), True, True),
        ((b"X-Forwarded-Proto: wss",), True, True),
        ((b"X-Forwarded-Proto: http",), True, False),
        ((), True, False),
        ((b"X-Forwarded-Proto: https",), False, False),
    ],
)
async def test_cookie_is_secure_where_a_trusted_proxy_says_https(
    lines: tuple[bytes, ...], trusted: bool, secure: bool
) -> None:
    line = await ask_for_cookie({}, *lines, trusted=trusted)
    assert line.endswith(b"; Path=/; HttpOnly; SameSite=Lax" + (b"; Secure" if secure else b""))


async def test_cookie_is_as_configured() -> None:
    line = await ask_for_cookie({"cookie": {"name": "mine", "same_site": "none", "domain": "example.com"}})
    assert re.fullmatch(
        rb"mine=[0-9a-f]{16}; Path=/; HttpOnly; SameSite=None; Domain=example.com; Secure", line
    )  # browsers take no SameSite=None without Secure


async def test_two_proxies_on_one_host_name_keep_each_other_s_clients() -> None:
    """The same instance name, other replicas: a browser has one cookie for both, as it does not look at ports."""
    jar: dict[bytes, bytes] = {}
    async with contextlib.AsyncExitStack() as stack:
        workers = []
        for _ in range(2):
            replicas = [await stack.enter_async_context(ScriptedReplica(answer_each())) for _ in range(3)]
            workers.append(await stack.enter_async_context(InnerWorker([each.url for each in replicas])))
        clients = [await stack.enter_async_context(await worker.open()) for worker in workers]
        seen: list[set[bytes]] = [set(), set()]
        for turn in range(12):
            cookie = b"; ".join(b"=".join(pair) for pair in jar.items())
            _, head, _ = await clients[turn % 2].ask(socket_io(cookie or None))
            if (line := cookie_of(head)) is not None:
                name, _, value = line.partition(b";")[0].partition(b"=")
                jar[name] = value
            seen[turn % 2] |= {line for line in head.split(b"\r\n") if line.startswith(b"X-HA-Replica: ")}
        assert [len(ids) for ids in seen] == [1, 1]
        assert len(jar) == 1


@pytest.mark.parametrize("between", [b"; ", b"; a=b; ", b"\r\nCookie: "])
@pytest.mark.parametrize("other", [b"a" * 16, b"", b"a" * 200])
async def test_of_several_cookies_of_one_name_the_one_that_names_a_replica_counts(other: bytes, between: bytes) -> None:
    """A browser has two after `domain` was set, and sends the former one, which nobody renews, first."""
    async with contextlib.AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(ScriptedReplica(answer_each())) for _ in range(3)]
        settings = {"cookie": {"name": "mine"}}
        worker = await stack.enter_async_context(InnerWorker([each.url for each in replicas], balance=settings))
        client = await stack.enter_async_context(await worker.open())
        _, head, _ = await client.ask(socket_io(None))
        line = cookie_of(head)
        assert line is not None
        own = line.partition(b";")[0]
        for cookies in ((b"mine=" + other, own), (own, b"mine=" + other)):
            for _ in range(3):
                assert cookie_of((await client.ask(socket_io(between.join(cookies))))[1]) is None


async def test_tokens_of_others_are_kept_from_the_first_of_several_cookie_fields() -> None:
    async with (
        ScriptedReplica(answer_each()) as one,
        InnerWorker([one.url], balance={"cookie": {"name": "mine"}}) as worker,
        await worker.open() as client,
    ):
        line = cookie_of((await client.ask(socket_io(b"mine=" + b"a" * 16 + b"\r\nCookie: x=y")))[1])
        assert line is not None
        assert line.partition(b";")[0].endswith(b"." + b"a" * 16)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"a" * 16, [b"a" * 16]),
        (b".".join(bytes([digit]) * 16 for digit in b"abcdef"), [b"a" * 16, b"b" * 16, b"c" * 16]),
        (b"x" * 16 + b"." + b"0" * 15 + b".\x80." + b"A" * 16 + b"." + b"9" * 16, [b"9" * 16]),
        (b"." * 60, []),
        (b"a" * 16 + b"." * 200, []),
    ],
)
async def test_cookie_keeps_at_most_three_tokens_of_others(sent: bytes, kept: list[bytes]) -> None:
    async with (
        ScriptedReplica(answer_each()) as one,
        InnerWorker([one.url], balance={"cookie": {"name": "mine"}}) as worker,
        await worker.open() as client,
    ):
        line = cookie_of((await client.ask(socket_io(b"mine=" + sent)))[1])
        assert line is not None
        own, *others = line.partition(b";")[0].removeprefix(b"mine=").split(b".")
        assert re.fullmatch(rb"[0-9a-f]{16}", own)
        assert others == kept
        assert cookie_of((await client.ask(socket_io(line.partition(b";")[0])))[1]) is None

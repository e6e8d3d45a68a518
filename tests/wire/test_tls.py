"""TLS in front: the same proxy behind the handshake, and certificates that change under it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import time
from types import TracebackType
from typing import Self

import pytest
import trustme

from haproxy_py import counters
from haproxy_py.certificates import Certificate
from tests.wire.inner_worker import InnerWorker
from tests.wire.scripted import OK, WITHIN, ScriptedReplica, Wire, answer_each, eventually
from tests.wire.test_tunnels import HANDSHAKE, SWITCH

GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"
NOBODY = "http://127.0.0.1:9"  # is not asked
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def issue(authority: trustme.CA) -> Certificate:
    issued = authority.issue_cert("test")
    return Certificate(b"".join(blob.bytes() for blob in issued.cert_chain_pems) + issued.private_key_pem.bytes())


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA) -> Certificate:
    return issue(authority)


def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    return trust(authority)


async def open_tls(port: int, context: ssl.SSLContext, *, receive_buffer: int = 0) -> Wire:
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    async with asyncio.timeout(WITHIN):
        return Wire(*await asyncio.open_connection(sock=sock, ssl=context, server_hostname="test"))


class Records:
    """A client that decides itself which records it sends together, and that goes on when it has read close_notify."""

    def __init__(self, wire: Wire, context: ssl.SSLContext) -> None:
        self.wire = wire
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="test")
        self.ended = False  # by close_notify

    async def shake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send()
                self.incoming.write(await asyncio.wait_for(self.wire.reader.read(65536), WITHIN))
            else:
                return

    def write(self, data: bytes) -> None:
        """Sent with the next `send`."""
        self.tls.write(data)

    def send(self) -> None:
        self.wire.send(self.outgoing.read())

    async def read_until(self, end: bytes) -> bytes:
        """What comes up to `end`, or up to close_notify."""
        got = b""
        while not got.endswith(end) or not end:
            try:
                data = self.tls.read(65536)
            except ssl.SSLWantReadError:
                data = await asyncio.wait_for(self.wire.reader.read(65536), WITHIN)
                assert data, "the connection has ended without close_notify"
                self.incoming.write(data)
                continue
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                self.ended = True
                return got
            got += data
        return got


async def echo(wire: Wire, number: int) -> None:
    """Answer every request with what it sent."""
    while True:
        head = await wire.read_head()
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
        body = await wire.reader.readexactly(size)
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body)


async def test_requests_on_one_connection_and_what_the_replica_is_told(
    certificate: Certificate, context: ssl.SSLContext
) -> None:
    heads: list[bytes] = []

    async def script(wire: Wire, number: int) -> None:
        while True:
            heads.append(await wire.read_head())
            wire.send(OK)

    async with ScriptedReplica(script) as replica, InnerWorker([replica.url], certificate=certificate) as worker:
        async with await open_tls(worker.port, context) as client:
            for _ in range(3):
                assert (await client.ask(GET))[0] == 200
            session = client.writer.get_extra_info("ssl_object")
            assert session.version() == "TLSv1.3"
        assert b"X-Forwarded-Proto: https\r\n" in heads[0]
        assert f"X-Forwarded-Port: {worker.port}\r\n".encode() in heads[0]
        assert replica.accepted == 1


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 70_000, 3 * MIB])
async def test_bodies_of_any_size_come_back(certificate: Certificate, context: ssl.SSLContext, size: int) -> None:
    body = bytes(index * 7 % 251 for index in range(min(size, 5000))) * (size // 5000 + 1)
    async with (
        ScriptedReplica(echo) as replica,
        InnerWorker([replica.url], certificate=certificate) as worker,
        await open_tls(worker.port, context) as client,
    ):
        for _ in range(2):
            client.send(b"POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % size + body[:size])
            status, _, got = await client.read_answer()
            assert status == 200
            assert got == body[:size]


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_records_may_come_in_any_pieces(certificate: Certificate, context: ssl.SSLContext, step: int) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="test")
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], certificate=certificate) as worker,
        await worker.open() as client,
    ):
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        async def exchange() -> None:
            data = outgoing.read()
            for start in range(0, len(data), step):
                client.send(data[start : start + step])
                await asyncio.sleep(0)
            incoming.write(await asyncio.wait_for(client.reader.read(65536), WITHIN))

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await exchange()
        tls.write(GET)
        answer = b""
        while not answer.endswith(b"ok"):
            try:
                answer += tls.read(65536)
            except ssl.SSLWantReadError:
                await exchange()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_own_answers_arrive_before_the_connection_ends(certificate: Certificate, context: ssl.SSLContext) -> None:
    async with InnerWorker([NOBODY], certificate=certificate, timeouts={"linger": "200ms"}) as worker:
        async with await open_tls(worker.port, context) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await client.read_answer())[0] == 403
            client.send(b"BROKEN\r\n\r\n")
            assert (await client.read_answer())[0] == 400
            assert await client.read_rest() == b""  # close_notify: the client knows that nothing is missing
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)


async def test_early_answer_lingers_while_records_of_the_body_are_there(
    certificate: Certificate, context: ssl.SSLContext
) -> None:
    async with (
        InnerWorker([NOBODY], certificate=certificate, timeouts={"linger": "1s"}) as worker,
        await worker.open() as wire,
    ):
        client = Records(wire, context)
        await client.shake()
        client.write(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(10):
            client.write(bytes(1000))
        client.send()
        assert (await client.read_until(b"")).startswith(b"HTTP/1.1 403 ")
        assert client.ended
        for _ in range(10):  # CON-9: it may go on sending, and must not be reset
            client.write(bytes(1000))
            client.send()
            await asyncio.sleep(0.01)
        assert worker.context.clients
        wire.finish()
        assert await wire.read_rest() == b""


async def test_tunnel_goes_on_the_other_way_over_tls_when_the_replica_has_ended(
    certificate: Certificate, context: ssl.SSLContext
) -> None:
    """WSK-10, also for records that are there already."""
    size = 12 * MIB
    ends, takes = asyncio.Event(), asyncio.Event()
    got = 0

    async def script(wire: Wire, number: int) -> None:
        nonlocal got
        await wire.read_head()
        wire.send(SWITCH)
        wire.writer.transport.pause_reading()
        await ends.wait()
        wire.finish()
        await takes.wait()
        wire.writer.transport.resume_reading()
        while data := await wire.reader.read(65536):
            got += len(data)

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], certificate=certificate) as worker,
        await worker.open() as wire,
    ):
        client = Records(wire, context)
        await client.shake()
        client.write(HANDSHAKE)
        client.send()
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        [tunnel] = worker.context.clients
        client.write(bytes(size))
        client.send()
        await eventually(lambda: not tunnel.client.stream.reading)
        ends.set()
        await client.read_until(b"")
        takes.set()
        await eventually(lambda: got == size)
        wire.finish()


class KeyUpdater:
    """OpenSSL's own client, which asks for new keys. An async context manager; it has shaken hands inside."""

    def __init__(self, port: int, *options: str) -> None:
        self._arguments = ("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options)
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        assert shutil.which("openssl"), "the openssl command is missing. On Debian: apt-get install openssl"
        source, self._keys = os.pipe()
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments,
            stdin=source,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        os.close(source)
        await self.wait_for(b"Verify return code")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.communicate()
        os.close(self._keys)

    def ask(self) -> None:
        """One KeyUpdate that wants one in return."""
        os.write(self._keys, b"K\n")

    async def wait_for(self, text: bytes) -> None:
        """Until it says so."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WITHIN):
            while line := await self._process.stdout.readline():
                if text in line:
                    return
        raise AssertionError("the connection has ended")


async def test_answers_to_new_keys_do_not_pile_up(certificate: Certificate) -> None:
    """RFC 8446 section 4.6.3; there is nothing else that they could be sent with."""
    async with InnerWorker([NOBODY], certificate=certificate) as worker, KeyUpdater(worker.port, "-msg") as client:
        for asked in range(4):
            client.ask()
            await client.wait_for(b">>> TLS 1.3, Handshake [length 0005], KeyUpdate")
            if asked > 0:  # OpenSSL answers when it is asked for more
                await client.wait_for(b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate")


async def test_client_that_wants_nothing_but_new_keys_is_cut_off(certificate: Certificate) -> None:
    async with (
        InnerWorker([NOBODY], certificate=certificate, timeouts={"client_head": "60s"}) as worker,
        KeyUpdater(worker.port) as client,
    ):
        for _ in range(1000):
            client.ask()
            time.sleep(0.001)  # noqa: ASYNC251 - the worker, which lives in this process, finds all of them at once
        await eventually(lambda: not worker.context.clients)


async def test_tunnel_over_tls(certificate: Certificate, context: ssl.SSLContext) -> None:
    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(SWITCH + b"hello")
        while data := await wire.reader.read(65536):
            wire.send(data)
        wire.send(b"bye")
        wire.finish()
        await wire.reader.read()

    async with ScriptedReplica(script) as replica, InnerWorker([replica.url], certificate=certificate) as worker:
        async with await open_tls(worker.port, context) as client:
            client.send(HANDSHAKE)
            assert (await client.read_head()).startswith(b"HTTP/1.1 101 ")
            assert await client.read(5) == b"hello"
            for size in (1, 126, 65536, 200_000):
                client.send(bytes(size))
                assert await client.read(size) == bytes(size)
        await worker.settle()


async def test_slow_client_does_not_fill_the_worker(certificate: Certificate, context: ssl.SSLContext) -> None:
    async def script(wire: Wire, number: int) -> None:
        await wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n" + bytes(20_000_000))
        await wire.reader.read()

    async with (
        ScriptedReplica(script) as replica,
        InnerWorker([replica.url], certificate=certificate) as worker,
        await open_tls(worker.port, context, receive_buffer=4096) as client,
    ):
        client.writer.transport.pause_reading()
        client.send(GET)
        [connection] = worker.context.clients
        await eventually(lambda: connection.stream.unsent > 65536)
        await asyncio.sleep(0.3)
        assert connection.stream.unsent < 65536 + 280_000
        client.writer.transport.resume_reading()
        _, _, body = await client.read_answer()
        assert len(body) == 20_000_000


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", bytes(500), b"\x16\x03\x01\x40\x00" + bytes(17000)]
)
async def test_noise_instead_of_a_handshake_ends_only_its_own_connection(
    certificate: Certificate, context: ssl.SSLContext, noise: bytes
) -> None:
    async with ScriptedReplica(answer_each()) as replica, InnerWorker([replica.url], certificate=certificate) as worker:
        async with await open_tls(worker.port, context) as good, await worker.open() as bad:
            bad.send(noise)
            await bad.wait_end(within=2)
            assert (await good.ask(GET))[0] == 200
        assert worker.list_replies() == {}


async def test_client_that_does_not_shake_hands_is_closed_in_time(certificate: Certificate) -> None:
    async with (
        InnerWorker([NOBODY], certificate=certificate, timeouts={"client_head": "300ms"}) as worker,
        await worker.open() as silent,
    ):
        await silent.wait_end(within=2)


def list_failures(worker: InnerWorker) -> dict[str, int]:
    """How many handshakes failed, by reason."""
    counts = {
        reason: worker.count_worker(counters.WORKER_TLS_FAILURES + index)
        for index, reason in enumerate(counters.TLS_FAILURES)
    }
    return {reason: count for reason, count in counts.items() if count}


@pytest.mark.parametrize("cut", [0, 1, 3])
@pytest.mark.parametrize(
    "head", [GET, b"PROPFIND /x HTTP/1.1\r\nHost: test\r\n\r\n", b"POST / HTTP/1.1\r\n" + b"a" * 30_000]
)
async def test_plain_http_is_answered_400_in_the_clear_and_told(
    certificate: Certificate, head: bytes, cut: int
) -> None:
    async with InnerWorker([NOBODY], certificate=certificate) as worker, await worker.open() as client:
        client.send(head[:cut])
        await asyncio.sleep(0.02 if cut else 0)  # so that it comes in two pieces; either way the answer is the same
        client.send(head[cut:])
        status, fields, body = await client.read_answer()
        assert status == 400
        assert b"Connection: close" in fields
        assert b"https://" in body
        assert await client.wait_end() == "fin"
        client.finish()
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
        assert list_failures(worker) == {"plain_http": 1}
        assert worker.list_replies() == {}
        assert [notice.text for notice in worker.notices if "speak plain HTTP to this port" in notice.text]


async def test_client_that_speaks_plain_http_and_stays_is_closed_in_time(certificate: Certificate) -> None:
    async with (
        InnerWorker([NOBODY], certificate=certificate, timeouts={"client_head": "300ms"}) as worker,
        await worker.open() as client,
    ):
        client.send(GET)
        await client.wait_end()
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
        assert list_failures(worker) == {"plain_http": 1}


async def test_what_a_client_sends_on_that_speaks_plain_http_is_bounded(certificate: Certificate) -> None:
    async with InnerWorker([NOBODY], certificate=certificate) as worker, await worker.open() as client:
        client.send(GET)
        await client.read_answer()
        for _ in range(10):
            client.send(b"a" * 16384)
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
        assert list_failures(worker) == {"plain_http": 1}


async def test_failures_are_counted_each_and_logged_once_in_a_while(certificate: Certificate) -> None:
    async with InnerWorker([NOBODY], certificate=certificate) as worker:
        for _ in range(20):
            async with await worker.open() as client:
                client.send(GET)
                await client.wait_end()
        assert list_failures(worker) == {"plain_http": 20}
        assert len(worker.notices) == 1


async def test_client_that_does_not_trust_the_certificate_is_told(certificate: Certificate) -> None:
    async with InnerWorker([NOBODY], certificate=certificate) as worker, await worker.open() as wire:
        client = Records(wire, ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            await client.shake()
        client.send()  # the alert
        await eventually(lambda: list_failures(worker))
        assert list_failures(worker) == {"certificate_refused": 1}
        assert any("do not trust the certificate" in notice.text for notice in worker.notices)


async def test_client_that_leaves_or_stops_in_its_handshake_is_counted(certificate: Certificate) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01"  # the beginning of one
    async with InnerWorker([NOBODY], certificate=certificate, timeouts={"client_head": "300ms"}) as worker:
        async with await worker.open() as stays:
            stays.send(hello)
            await stays.wait_end()
        await eventually(lambda: list_failures(worker) == {"timeout": 1})
        async with await worker.open() as leaves:
            leaves.send(hello)
            leaves.finish()
            await leaves.wait_end()
        await eventually(lambda: list_failures(worker) == {"timeout": 1, "closed": 1})
        async with await worker.open() as noisy:
            noisy.send(bytes(500))
            await noisy.wait_end()
        await eventually(lambda: list_failures(worker) == {"timeout": 1, "closed": 1, "other": 1})
        assert worker.notices == []


async def test_connection_without_an_octet_is_no_failure(certificate: Certificate) -> None:
    """As load balancers check whether a port is open."""
    async with InnerWorker([NOBODY], certificate=certificate) as worker:
        async with await worker.open():
            await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 1)
        await eventually(lambda: worker.count_worker(counters.WORKER_CLIENT_CONNECTIONS) == 0)
        assert list_failures(worker) == {}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_old_versions_are_refused(
    certificate: Certificate, context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with InnerWorker([NOBODY], certificate=certificate) as worker:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await open_tls(worker.port, context)
        assert list_failures(worker) == {"protocol": 1}


async def test_http_1_1_is_chosen_by_alpn(certificate: Certificate, context: ssl.SSLContext) -> None:
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with (
        InnerWorker([NOBODY], certificate=certificate) as worker,
        await open_tls(worker.port, context) as client,
    ):
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


async def test_new_certificate_for_new_connections_while_old_ones_live_on(
    certificate: Certificate, context: ssl.SSLContext
) -> None:
    renewed = trustme.CA()
    async with (
        ScriptedReplica(answer_each()) as replica,
        InnerWorker([replica.url], certificate=certificate) as worker,
        await open_tls(worker.port, context) as old,
    ):
        assert (await old.ask(GET))[0] == 200
        await worker.renew(issue(renewed))
        await asyncio.sleep(0.05)
        async with await open_tls(worker.port, trust(renewed)) as new:
            assert (await new.ask(GET))[0] == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            await open_tls(worker.port, context)
        assert (await old.ask(GET))[0] == 200


async def test_client_that_vanishes_during_the_handshake_leaves_nothing(certificate: Certificate) -> None:
    async with InnerWorker([NOBODY], certificate=certificate) as worker:
        for how in ("fin", "reset"):
            client = await worker.open()
            client.send(b"\x16\x03\x01\x02\x00")
            await eventually(lambda: worker.context.clients)
            if how == "reset":
                client.reset()
            await client.close()
            await eventually(lambda: not worker.context.clients)

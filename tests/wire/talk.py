"""Talking to the proxy octet by octet: send a request in one piece or in two, and see everything that came of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
from dataclasses import dataclass
from typing import Any, cast

from tests.wire.replica import PAUSE, Request, ScriptedReplica, dechunk

TIMEOUT = 20.0
TAG_TEXT = b"tag=NNNNNNN"
"""Stands in a request for the tag that tells the replica's records apart; replaced by one of the same size."""

PROBE = b"GET /probe?" + TAG_TEXT + b" HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"
"""Sent behind a message: is answered, and ends the connection, exactly if the connection stayed."""

_tags = itertools.count(1)


def new_tag() -> int:
    return next(_tags)


def put_tag(data: bytes, tag: int) -> bytes:
    return data.replace(TAG_TEXT, b"tag=%07d" % tag)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as the client got it."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def lines(self) -> list[bytes]:
        return self.head.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]

    def values(self, name: bytes) -> list[bytes]:
        parts = (line.partition(b": ") for line in self.lines)
        return [value for field, _, value in parts if field.lower() == name.lower()]

    @property
    def reason(self) -> str:
        """The reason word of an answer of the proxy's own; empty for a replica's."""
        for value in self.values(b"Proxy-Status"):
            found = re.fullmatch(rb'haproxy_py; error=\w+; details="(\w+)"', value)
            if found:
                return found[1].decode()
        return ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of sending something and, behind it, the probe."""

    answers: list[Answer]  # without the probe's
    received: list[Request]  # by the replica, complete; without the probe
    stayed: bool  # the connection was still used for the probe
    rest: bytes  # what the client got behind the last answer and was none
    reset: bool

    @property
    def answer(self) -> Answer:
        """The final answer, where there is one."""
        (answer,) = [each for each in self.answers if each.status >= 200]
        return answer

    @property
    def request(self) -> Request:
        (request,) = self.received
        return request

    @property
    def verdict(self) -> tuple[int, str]:
        return self.answer.status, self.answer.reason

    def normal(self) -> tuple[Any, ...]:
        """Everything that may not depend on how the network cut the message."""
        return (
            [(normalise(answer.head), _body(answer)) for answer in self.answers],
            [(normalise(request.head), request.body) for request in self.received],
            self.stayed,
            self.rest,
        )


def normalise(head: bytes) -> bytes:
    head = re.sub(rb"(?m)^Date: (Mon|Tue|Wed|Thu|Fri|Sat|Sun), [^\r]*", b"Date: D", head)
    head = re.sub(rb"(?m)^X-Request-Id: [0-9a-f]{32}\r", b"X-Request-Id: I\r", head)
    head = re.sub(rb"/split/\d+", b"/split/N", head)
    return re.sub(rb"tag=\d{7}", b"tag=T", head)


def _body(answer: Answer) -> bytes:
    body = answer.body
    if b"\r\nX-Dechunk: yes\r\n" in answer.head and b"\r\nTransfer-Encoding: chunked\r\n" in answer.head:
        body = dechunk(body)  # the pieces of an answer that was chunked by the proxy are those of the network
    return re.sub(rb"[0-9a-f]{32}", b"I", body) if b"Proxy-Status: haproxy_py" in answer.head else body


def read_answers(data: bytes, methods: list[bytes]) -> tuple[list[Answer], bytes]:
    """The answers in what a client got until the end of its connection, and what is behind them."""
    answers: list[Answer] = []
    queue = list(methods)
    while data.startswith(b"HTTP/1.1 ") and b"\r\n\r\n" in data:
        end = data.index(b"\r\n\r\n") + 4
        head, data = data[:end], data[end:]
        status = int(head[9:12])
        method = (queue.pop(0) if queue else b"GET") if status >= 200 or status == 101 else b""
        body = b""
        if status >= 200 and method != b"HEAD" and status not in (204, 304):
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head)
            if re.search(rb"(?i)\r\ntransfer-encoding: chunked\r\n", head):
                size = _chunked_size(data)
            else:
                size = int(length[1]) if length else len(data)
            body, data = data[:size], data[size:]
        answers.append(Answer(head, body))
        if status == 101:
            break
    return answers, data


def _chunked_size(data: bytes) -> int:
    at = 0
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end].partition(b";")[0], 16)
        at = end + 2
        if size == 0:
            end = data.find(b"\r\n\r\n", at - 2)
            return end + 4 if end >= 0 else len(data)
        at += size + 2
    return len(data)


def methods_of(message: bytes) -> list[bytes]:
    """The methods of the requests in a message, found by what a request line looks like."""
    return re.findall(rb"(?m)^(?:\r\n)?([A-Z-]+) [^ \r\n]+ HTTP/1\.\d\r$", message)


class Wire:
    """A proxy and its scripted replica."""

    def __init__(self, port: int, replica: ScriptedReplica) -> None:
        self.port = port
        self.replica = replica

    def send(self, message: bytes, *, probe: bytes = PROBE, finish: bool = False) -> Outcome:
        """Sends a message and, behind it, the probe; returns when the proxy has closed. `finish` sends FIN at once."""
        tag = new_tag()
        data = put_tag(message + probe, tag)
        octets: list[bytes] = []
        reset = False
        with socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                client.sendall(data)
                if finish:
                    client.shutdown(socket.SHUT_WR)
                while piece := client.recv(65536):
                    octets.append(piece)
            except ConnectionError:
                reset = True
        return self.outcome(tag, b"".join(octets), methods_of(message), reset)

    def outcome(self, tag: int, octets: bytes, methods: list[bytes], reset: bool) -> Outcome:
        requests = self.replica.requests.pop(tag, [])
        received = [each for each in requests if not each.line.startswith(b"GET /probe?")]
        answers, rest = read_answers(octets, methods)
        stayed = len(received) < len(requests)
        if stayed and answers:
            answers.pop()
        return Outcome(answers, received, stayed, rest, reset)

    async def send_cut(self, message: bytes, cut: int) -> Outcome:
        """The same from a coroutine, with a pause behind the first `cut` octets."""
        tag = new_tag()
        data = put_tag(message + PROBE, tag)
        loop = asyncio.get_running_loop()
        client = _Client(data, cut, loop)
        await loop.create_connection(lambda: client, "127.0.0.1", self.port)
        try:
            async with asyncio.timeout(TIMEOUT):
                await client.ended
        except TimeoutError:
            raise AssertionError(f"cut at {cut}, the proxy did not close: {data!r} got {client.octets!r}") from None
        return self.outcome(tag, b"".join(client.octets), methods_of(message), client.reset)


class _Client(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, data: bytes, cut: int, loop: asyncio.AbstractEventLoop) -> None:
        self._data = data
        self._cut = cut
        self._loop = loop
        self.ended: asyncio.Future[None] = loop.create_future()
        self.octets: list[bytes] = []
        self.reset = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._cut == 0:
            self.transport.write(self._data)
            return
        self.transport.write(self._data[: self._cut])
        self._loop.call_later(PAUSE, self._send_rest)

    def _send_rest(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self._data[self._cut :])

    def data_received(self, data: bytes) -> None:
        self.octets.append(data)

    def connection_lost(self, problem: Exception | None) -> None:
        self.reset = problem is not None
        if not self.ended.done():
            self.ended.set_result(None)

"""The clients of a load, in a process of their own so that they are as fast as they can be: see `tests.load`.

`python load_clients.py PORT HOST CLIENTS PAUSE RATE` sends until its standard input ends, then lets what is under way
finish. What became of the requests goes to standard output in marshalled lists of (method, began, took, status, replica,
detail). One thread and one epoll set; no package is imported.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import heapq
import json
import marshal
import os
import re
import select
import socket
import sys
import time
from collections.abc import Mapping
from enum import Enum

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD")
WITH_BODY = ("POST", "PUT")
BODY = b'{"temperature": 21.5}'

GIVE_UP = 20.0
"""Seconds from the begin of a request to `timed out`."""

LOOK_EVERY = 0.5
"""Seconds between two looks for such requests."""

AFTER_FAILURE = 0.01
"""Seconds that a client rests at least after it got no answer: a closed port would be asked ten thousand times a second."""

CATCH_UP = 0.1
"""Seconds of a rate that are made up for after a stall."""

SEND_EVERY = 0.02
"""Seconds between two lists of results."""

PIPE_SIZE = 1 << 20

_START = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) [\t -~]*\Z")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*\Z")
_DETAILS = re.compile(rb"; *details=\"([a-z_]+)\"")
_LENGTH = re.compile(rb"[0-9]{1,9}\Z")

Outcome = tuple[str, float, float, int, str, str]


class WrongAnswerError(Exception):
    """What came is not an answer to what was asked."""


class State(Enum):
    """What a client waits for."""

    RESTING = 1  # its turn; may have a connection
    CONNECTING = 2
    ASKING = 3  # the whole request was sent; the answer is not complete


class Answer:
    """A complete answer."""

    __slots__ = ("body", "fields", "status")

    def __init__(self, status: int, fields: Mapping[bytes, bytes], body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body

    @property
    def closes(self) -> bool:
        return self.fields.get(b"connection", b"").lower() == b"close"


def read_answer(data: bytes, method: str) -> Answer | None:
    """The answer that `data` is; None while it is not complete. Raises WrongAnswerError, also if anything follows."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    start, *lines = data[:end].split(b"\r\n")
    matched = _START.match(start)
    if matched is None:
        raise WrongAnswerError(f"no status line: {start[:80]!r}")
    status = int(matched[1])
    fields: dict[bytes, bytes] = {}
    for line in lines:
        field = _FIELD.match(line)
        if field is None:
            raise WrongAnswerError(f"no field: {line[:80]!r}")
        name = field[1].lower()
        if name in (b"content-length", b"transfer-encoding") and name in fields:
            raise WrongAnswerError(f"{name.decode()} twice")
        fields[name] = field[2]
    length = fields.get(b"content-length", b"")
    if b"transfer-encoding" in fields or not _LENGTH.match(length):
        raise WrongAnswerError(f"no length: {start!r} {fields}")
    size = 0 if method == "HEAD" or status in (204, 304) else int(length)
    found = len(data) - end - 4
    if found < size:
        return None
    if found > size:
        raise WrongAnswerError(f"{found - size} octets after the answer")
    return Answer(status, fields, data[end + 4 :])


def judge_answer(answer: Answer, method: str, number: int) -> tuple[str, str]:
    """The replica that gave it, and for all but 200 the proxy's reason. Raises WrongAnswerError if it answers another."""
    replica = answer.fields.get(b"x-replica", b"").decode("latin-1")
    found = {}
    if answer.body and answer.fields.get(b"content-type", b"").startswith(b"application/json"):
        try:
            found = json.loads(answer.body)
        except ValueError:
            raise WrongAnswerError(f"no JSON: {answer.body[:80]!r}") from None
    if answer.status != 200:
        told = _DETAILS.search(answer.fields.get(b"proxy-status", b""))  # an answer to HEAD has no body to say it
        return replica, str(found.get("reason", told[1].decode() if told else ""))
    query = found.get("query")
    if query is not None and query.get("n") != str(number):
        raise WrongAnswerError(f"the answer to another request: {query} instead of {number}")
    if found.get("method", method) != method:
        raise WrongAnswerError(f"the answer to {found['method']} instead of {method}")
    if query is not None and found.get("body", "") != (BODY.decode() if method in WITH_BODY else ""):
        raise WrongAnswerError(f"another body: {found.get('body')!r}")
    return str(found.get("replica", replica)), ""


class Client:
    """Sends one request after the other: on one connection as long as it may, or each on a new one."""

    def __init__(self, number: int) -> None:
        self.keeps = number % 4 != 3
        self.turn = number
        self.state = State.RESTING
        self.sock: socket.socket | None = None
        self.method = ""
        self.number = 0
        self.request = b""
        self.data = b""
        self.began = 0.0


class Clients:
    """All clients of a load."""

    def __init__(self, port: int, host: str, count: int, pause: float, rate: float) -> None:
        self._address = ("127.0.0.1", port)
        self._host = host
        self._pause = pause
        self._interval = 1 / rate if rate else 0.0
        self._epoll = select.epoll()
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        self._ending = False
        self._by_fd: dict[int, Client] = {}
        self._all = [Client(number) for number in range(count)]
        now = time.monotonic()
        self._resting = [(now, number) for number in range(count)]  # a heap: when, who
        self._index = {id(client): number for number, client in enumerate(self._all)}
        self._busy = 0
        self._due = now  # of the next request, with a rate
        self._look_at = now + LOOK_EVERY
        self._outcomes: list[Outcome] = []
        self._send_at = now + SEND_EVERY
        self._sent = 0

    def run(self) -> None:
        """Until standard input ends and what was under way then has finished."""
        while self._busy or not self._ending:
            now = time.monotonic()
            self._begin_due(now)
            for fd, events in self._epoll.poll(self._choose_wait(now)):
                if fd == sys.stdin.fileno():
                    self._epoll.unregister(fd)
                    self._ending = True
                elif client := self._by_fd.get(fd):
                    self._advance(client, events)
            now = time.monotonic()
            if now >= self._look_at:
                self._look_at = now + LOOK_EVERY
                self._give_up(now)
            if now >= self._send_at:
                self._send_at = now + SEND_EVERY
                self._tell()
        self._tell()
        for client in self._all:
            self._hang_up(client)

    def _choose_wait(self, now: float) -> float:
        """Seconds until something is due by the clock."""
        wait = SEND_EVERY
        if self._resting and not self._ending:
            wait = min(wait, max(self._resting[0][0], self._due if self._interval else 0.0) - now)
        return max(0.0, wait)

    def _begin_due(self, now: float) -> None:
        """Start whoever has rested, as far as the rate allows."""
        self._due = max(self._due, now - CATCH_UP)
        while not self._ending and self._resting and self._resting[0][0] <= now:
            if self._interval:
                if self._due > now:
                    return
                self._due += self._interval
            self._begin(self._all[heapq.heappop(self._resting)[1]])

    def _begin(self, client: Client) -> None:
        self._busy += 1
        self._sent += 1
        client.number = self._sent
        client.method = METHODS[client.turn % len(METHODS)]
        client.turn += 1
        client.request = self._write_request(client)
        client.data = b""
        client.began = time.monotonic()
        if client.sock is not None:
            self._ask(client, client.sock)
            return
        client.state = State.CONNECTING
        client.sock = sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._by_fd[sock.fileno()] = client
        self._epoll.register(sock.fileno(), select.EPOLLOUT)
        number = sock.connect_ex(self._address)
        if number not in (0, errno.EINPROGRESS):
            self._fail(client, OSError(number, os.strerror(number)))

    def _write_request(self, client: Client) -> bytes:
        lines = [f"{client.method} /api/hello?n={client.number} HTTP/1.1", f"Host: {self._host}"]
        if not client.keeps:
            lines.append("Connection: close")
        if client.method not in WITH_BODY:
            return "\r\n".join([*lines, "", ""]).encode()
        lines += ["Content-Type: application/json", f"Content-Length: {len(BODY)}"]
        return "\r\n".join([*lines, "", ""]).encode() + BODY

    def _ask(self, client: Client, sock: socket.socket) -> None:
        client.state = State.ASKING
        try:
            sent = sock.send(client.request)
        except OSError as error:
            self._fail(client, error)
            return
        if sent != len(client.request):
            self._fail(client, WrongAnswerError("the socket takes no whole request"))

    def _advance(self, client: Client, events: int) -> None:
        """Something has happened on the client's connection."""
        sock = client.sock
        assert sock is not None
        if client.state is State.CONNECTING:
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                self._fail(client, OSError(number, os.strerror(number)))
                return
            self._epoll.modify(sock.fileno(), select.EPOLLIN)
            self._ask(client, sock)
            return
        try:
            data = sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(client, error)
            return
        if client.state is State.RESTING:
            self._hang_up(client)  # an idle connection was closed: nothing is lost
            if data:
                self._outcomes.append(("", time.monotonic(), 0.0, 0, "", f"nobody had asked for {data[:80]!r}"))
            return
        if not data:
            what = "an answer that was cut" if client.data else "no answer"
            self._fail(client, WrongAnswerError(f"the connection was closed with {what}"))
            return
        client.data += data
        try:
            answer = read_answer(client.data, client.method)
            if answer is not None:
                self._finish(client, answer.status, *judge_answer(answer, client.method, client.number))
                if answer.closes or not client.keeps:
                    self._hang_up(client)
        except WrongAnswerError as error:
            self._fail(client, error)

    def _fail(self, client: Client, error: Exception) -> None:
        self._hang_up(client)
        if client.state is not State.RESTING:
            self._finish(client, 0, "", repr(error))

    def _finish(self, client: Client, status: int, replica: str, detail: str) -> None:
        """The request is over."""
        now = time.monotonic()
        self._outcomes.append((client.method, client.began, now - client.began, status, replica, detail))
        self._busy -= 1
        client.state = State.RESTING
        rest = self._pause if status else max(self._pause, AFTER_FAILURE)
        heapq.heappush(self._resting, (now + rest, self._index[id(client)]))

    def _hang_up(self, client: Client) -> None:
        if client.sock is not None:
            del self._by_fd[client.sock.fileno()]
            client.sock.close()
            client.sock = None

    def _give_up(self, now: float) -> None:
        for client in self._all:
            if client.state is not State.RESTING and now - client.began > GIVE_UP:
                self._fail(client, TimeoutError("timed out"))

    def _tell(self) -> None:
        """Hand over what became of the requests since the last time."""
        if self._outcomes:
            data = marshal.dumps(self._outcomes)
            self._outcomes = []
            while data:
                data = data[os.write(sys.stdout.fileno(), data) :]


def main() -> None:
    """Run the load that the arguments say."""
    port, host, count, pause, rate = sys.argv[1:]
    fcntl.fcntl(sys.stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    clients = Clients(int(port), host, int(count), float(pause), float(rate))
    gc.freeze()
    clients.run()


if __name__ == "__main__":
    main()

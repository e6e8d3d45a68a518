"""What control and a worker say to each other, and how it travels.

The channel is a stream socket pair between a parent and the child it spawned, so both ends are the same program: messages
are pickled objects behind a four-byte length. Nothing else can write to it.

Listening sockets travel on a second socket pair, because what reads the first cannot take file descriptors. They are sent
before the message that speaks of them, so they are there when it is read.
"""

from __future__ import annotations

import errno
import pickle
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from haproxy_py.certificates import Certificate
from haproxy_py.table import Table

_LENGTH = struct.Struct("!I")

MAX_SOCKETS = 253
"""That the kernel passes with one message (SCM_MAX_FD)."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket that a worker accepts from, and how."""

    number: int  # names it; another listener never gets the same
    scheme: str  # "http" | "https": what X-Forwarded-Proto says
    host: str
    port: int
    connections: int  # open at once on this listener in this worker; accepting pauses above it
    certificate: Certificate | None = None  # of a listener that ends TLS


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to a worker."""

    worker: int
    table: Table
    via: str  # own name in Via: recognises requests that went in a circle


@dataclass(frozen=True, slots=True)
class Publish:
    """A new table, in force for every request that begins after it arrived."""

    table: Table


@dataclass(frozen=True, slots=True)
class Listen:
    """How to accept from now on: on these listeners and no others.

    The sockets of those that are new to the worker have been sent, in this order. A listener that is not in the list is
    left: its connections end as in a drain that accepts nobody. Certificates and limits hold for new connections.
    """

    listeners: tuple[Listener, ...]
    access_log: bool  # one JSON line per exchange on standard output
    delay: float  # of the drain of what is left
    deadline: float
    surviving: frozenset[int] = (
        frozenset()
    )  # left, but others go on accepting from the sockets: leave their queues alone


@dataclass(frozen=True, slots=True)
class Drain:
    """Finish: answers say `Connection: close` from now on, idle connections end after `delay`, everything after `deadline`.

    Both in seconds from now. The worker exits with status 0 when the last exchange has ended.
    """

    delay: float
    deadline: float
    accepting: bool = True  # until `delay` is over; else nobody new is accepted from now on
    surviving: frozenset[int] = (
        frozenset()
    )  # listeners whose sockets others go on accepting from: leave their queues alone


@dataclass(frozen=True, slots=True)
class Stop:
    """Abort everything and exit with status 0 now."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it has everything but listeners."""

    worker: int
    pid: int


@dataclass(frozen=True, slots=True)
class Applied:
    """From a worker: this version of the table is in force."""

    version: int


@dataclass(frozen=True, slots=True)
class Notice:
    """From a worker: a line for the operator's log."""

    level: str  # "debug" | "info" | "warning" | "error"
    text: str


Message = Start | Publish | Listen | Drain | Stop | Ready | Applied | Notice


def encode(message: Message) -> bytes:
    """A message as bytes for the channel."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def send_sockets(way: socket.socket, fds: Sequence[int]) -> None:
    """Hand over copies of up to `MAX_SOCKETS` sockets. Never waits; raises OSError if the other side takes none."""
    if fds:
        socket.send_fds(way, [b"s"], fds, socket.MSG_DONTWAIT)


def receive_sockets(way: socket.socket, count: int) -> list[int]:
    """As many as a message speaks of, sent in one piece before it. Raises OSError."""
    if not count:
        return []
    _, fds, flags, _ = socket.recv_fds(way, 1, MAX_SOCKETS, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
    if len(fds) != count or flags & socket.MSG_CTRUNC:
        for fd in fds:
            socket.close(fd)
        raise OSError(errno.EMFILE, f"{len(fds)} of {count} sockets have come: no file descriptor is left")
    return fds


class Decoder:
    """Turns the bytes of one direction of the channel back into messages, however they were cut."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Take bytes as they came; give the messages that are complete."""
        self._held += data
        messages = []
        while len(self._held) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._held)
            end = _LENGTH.size + size
            if len(self._held) < end:
                break
            messages.append(pickle.loads(memoryview(self._held)[_LENGTH.size : end]))
            del self._held[:end]
        return messages

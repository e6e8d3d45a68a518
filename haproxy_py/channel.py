"""What control and a worker say to each other, and how it travels.

The channel is a stream socket pair between a parent and the child it spawned, so both ends are the same program: messages
are pickled objects behind a four-byte length. Nothing else can write to it.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import Any

from haproxy_py.certificates import Certificate
from haproxy_py.table import Table

_LENGTH = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound and listening socket that a worker inherits."""

    fd: int
    scheme: str  # "http" | "https": what X-Forwarded-Proto says
    host: str
    port: int
    connections: int  # open at once on this listener in this worker; accepting pauses above it
    certificate: Certificate | None = None  # of a listener that ends TLS


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to a worker."""

    worker: int
    listeners: tuple[Listener, ...]
    table: Table
    via: str  # own name in Via: recognises requests that went in a circle
    deadline: float  # seconds that the worker goes on without control, to finish what runs
    access_log: bool  # one JSON line per exchange on standard output
    debug: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    """A new table, in force for every request that begins after it arrived."""

    table: Table


@dataclass(frozen=True, slots=True)
class Renew:
    """A new certificate for every connection that is accepted from now on."""

    listener: int  # index in `Start.listeners`
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Drain:
    """Finish: answers say `Connection: close` from now on, accepting ends after `delay`, everything after `deadline`.

    Both in seconds from now. The worker exits with status 0 when the last exchange has ended.
    """

    delay: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Abort everything and exit with status 0 now."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it is accepting connections."""

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


Message = Start | Publish | Renew | Drain | Stop | Ready | Applied | Notice


def encode(message: Message) -> bytes:
    """A message as bytes for the channel."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


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

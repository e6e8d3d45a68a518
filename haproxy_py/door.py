"""How a worker accepts on one listener, and how it stops: for good, or for the listeners that are left."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from collections.abc import Collection, Iterable
from typing import Any, Protocol

from haproxy_py import channel, counters
from haproxy_py.certificates import make_context
from haproxy_py.datapath.client import ClientConnection
from haproxy_py.datapath.context import Entrance
from haproxy_py.datapath.deadlines import TICK
from haproxy_py.datapath.listener import Listener

IDLE_CLOSED_PER_SECOND = 5000
"""Idle client connections that a drain closes: their clients reconnect elsewhere, and not all in one moment."""

TUNNEL_WINDOW = 10.0
"""Seconds before a deadline over which the ends of tunnels are spread (DRN-9): the proxy's, a listener's or a replica's."""

TUNNELS_SPARE = 0.5
"""Seconds before that deadline at which the last tunnel is told to close."""

LAST_ACCEPTS = 0.3
"""Seconds in which those that have begun to connect are still accepted, while control closes its sockets."""

LOOK_AROUND = 0.5
"""Seconds between two looks at all connections for those that came in by a listener that is left."""

ROOM_AGAIN = 0.95
"""Share of the connection limit down to which accepting does not go on, so that it does not flap at the limit."""

_SO_ATTACH_FILTER = 26  # linux/asm-generic/socket.h

_NO_NEW_CLIENT = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the flags of the TCP header
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # a SYN alone, the first segment of a connection,
        (0x06, 0, 0, 0),  # is dropped;
        (0x06, 0, 0, 0xFFFFFFFF),  # everything else passes
    )
)
"""A filter for a listening socket (linux/filter.h, `struct sock_filter`)."""


class Office(Protocol):
    """What a door needs of its worker."""

    context: Any

    def say(self, message: channel.Message) -> None:
        """Tell control."""

    def complain(self, text: str) -> bool:
        """Warn of a state that lasts. Whether it was said now."""

    def count(self, cell: int) -> None:
        """Add one to a cell of the worker's own block."""


_HANDSHAKE_ADVICE = {
    "plain_http": "clients speak plain HTTP to this port, and get 400. Their address must begin with https://, or the ingress in "
    "front must be told to speak TLS",
    "protocol": "clients have no TLS version or cipher in common with this proxy, which speaks TLS 1.2 and 1.3 with forward "
    "secrecy",
    "certificate_refused": "clients do not trust the certificate. Is it for the name that they ask for, and is its whole chain "
    "in the file?",
}
"""For the log, of the failures that somebody can do something about; all are counted."""


class Door:
    """One listener: accepts while there is room, and pauses without losing the kernel's queue."""

    def __init__(self, worker: Office, listener: channel.Listener, fd: int) -> None:
        """`fd` is the door's own from now on."""
        self.number = listener.number
        self._worker = worker
        self._refuses = False
        self._shut = False
        self._rests = False  # since an attempt to accept failed
        self._failed = 0  # its error number, until it is told
        self._name = f"{listener.host}:{listener.port}"
        self._is_as: channel.Listener | None = None
        self.entrance = Entrance(listener.scheme, listener.host, listener.port, 1, 0, self._look, self._fail)
        self.entrance.handshake_failed = self._fail_handshake
        self._listener = Listener(worker.context, self.entrance, fd)
        self.adjust(listener)

    def adjust(self, listener: channel.Listener) -> None:
        """Accept like this from now on. Connections that stand keep what they began with."""
        before, self._is_as = self._is_as, listener
        if listener.certificate is not None and (before is None or before.certificate != listener.certificate):
            self.entrance.tls = make_context(listener.certificate)
        if before is None or before.connections != listener.connections:
            self.entrance.limit = max(1, listener.connections)
            self.entrance.room_again = int(self.entrance.limit * ROOM_AGAIN)
            self._look()

    def _fail_handshake(self, reason: int) -> None:
        """Count it, and say of what somebody can do something about that it happens."""
        self._worker.count(counters.WORKER_TLS_FAILURES + reason)
        advice = _HANDSHAKE_ADVICE.get(counters.TLS_FAILURES[reason])
        if advice:
            self._worker.complain(f"{self._name}: TLS handshakes fail: {advice}")

    def refuse(self) -> None:
        """Let no further client begin to connect, and go on accepting those that have begun.

        Closing a listening socket resets the connections in its queue, and its clients have sent requests on them. So
        for the last moments the kernel drops whoever comes new: the port is closed when that client tries again.
        """
        if self._refuses or self._shut:
            return
        self._refuses = True
        with contextlib.suppress(OSError):  # a kernel without socket filters: some clients are reset
            program = array.array("B", _NO_NEW_CLIENT)  # lives until the kernel has copied it
            address, size = program.buffer_info()
            with socket.socket(fileno=os.dup(self._listener.fd)) as own:
                own.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", size // 8, address))

    def shut(self) -> None:
        """Accept no more."""
        self._shut = True
        self._listener.close()

    def go_on(self) -> None:
        """Accept again after an attempt that failed, and say why it did; with every tick."""
        if self._rests:
            self._rests = False
            if not self._shut and self.entrance.open < self.entrance.limit:
                self._listener.open()
        if not self._failed:
            return
        try:
            if self._worker.complain(
                f"{self._name}: no connection can be accepted: {os.strerror(self._failed)}. New ones wait until some "
                "end. Raise the limit of open files (ulimit -n) or of memory if this is normal load."
            ):
                self._worker.count(counters.WORKER_ACCEPT_PAUSES)
            self._failed = 0
        except MemoryError:
            return  # a later tick says it

    def _look(self) -> None:
        """Accept or pause: the number of open connections has come to the limit, or there is room again."""
        if self._shut:
            return
        if self.entrance.open < self.entrance.limit:
            self._listener.open()
            return
        self._listener.pause()
        self._worker.count(counters.WORKER_ACCEPT_PAUSES)
        self._worker.say(
            channel.Notice(
                "warning",
                f"{self._name}: {self.entrance.open} client connections are open, the most that are allowed; new "
                "ones wait until some end. Raise listen[].connections or the limit of open files if this is "
                "normal load.",
            )
        )

    def _fail(self, number: int) -> None:
        """No file descriptor or no memory is left. The next tick goes on; nothing here may need any."""
        self._listener.pause()
        self._rests = True
        self._failed = number


class Farewell:
    """The end of some doors, or of all, and of what came in by them (DRN-7 to DRN-10).

    Answers say that the connection ends. After a delay those that serve no request are closed: by then clients that use
    theirs have been told, and no request crosses the end of its connection. Tunnels end last, spread over `TUNNEL_WINDOW`
    before the deadline; then what is left is aborted.
    """

    def __init__(
        self,
        context: Any,
        doors: Iterable[Door],
        now: float,
        delay: float,
        deadline: float,
        accepting: bool,
        surviving: frozenset[int],
    ) -> None:
        """`now` is the clock's time. `accepting`: until the delay is over; else nobody new is accepted from now on.

        `surviving`: doors whose sockets others go on accepting from.
        """
        self._context = context
        self._doors = list(doors)
        self._entrances: set[Entrance] | None = {door.entrance for door in self._doors}  # None: all that ever were
        self._surviving = surviving
        self._accept_ends = now + delay if accepting else now
        self._idle_ends = now + delay
        self._ends = now + deadline
        self._every = LOOK_AROUND
        self._next = now

    def leave_sockets(self, surviving: frozenset[int], now: float) -> None:
        """Others accept from these sockets from now on; nobody is accepted here any more."""
        self._surviving = surviving
        self._accept_ends = min(self._accept_ends, now)

    def of_everything(self) -> Farewell:
        """Say farewell to every connection, however it came in."""
        self._entrances = None
        self._every = TICK
        return self

    def step(self, now: float) -> bool:
        """Do what is due. Whether nothing is left."""
        for door in self._doors:
            door.go_on()
        if now < self._accept_ends:
            return False
        for door in self._doors:
            if door.number in self._surviving or now >= self._accept_ends + LAST_ACCEPTS:
                door.shut()
            else:
                door.refuse()
        if now >= self._accept_ends + LAST_ACCEPTS:
            self._doors.clear()
        if now < self._next:
            return False
        self._next = now + self._every - TICK / 2
        clients = self._list_clients()
        if now >= self._ends:
            for client in clients:
                client.abort()
            return True
        if now >= self._idle_ends:
            self._close_idle(clients)
            tunnels = [client for client in clients if not isinstance(client, ClientConnection)]
            end_tunnels(tunnels, now, self._ends, self._every)
        return not self._doors and not self._list_clients()

    def _list_clients(self) -> list[Any]:
        """What still runs: connections and tunnels."""
        if self._entrances is None:
            return list(self._context.clients)
        return [client for client in self._context.clients if client.entrance in self._entrances]

    def _close_idle(self, clients: Iterable[Any]) -> None:
        most = int(IDLE_CLOSED_PER_SECOND * self._every)
        for client in clients:
            if isinstance(client, ClientConnection):
                most -= client.drain()
                if most <= 0:
                    return


def end_tunnels(tunnels: Collection[Any], now: float, ends: float, every: float) -> None:
    """Close the share that is due of tunnels that must be closed by a moment (DRN-9): as late as an even spread allows.

    Called every so many seconds.
    """
    left = ends - now
    if not tunnels or left > TUNNEL_WINDOW:
        return
    lasting = [tunnel for tunnel in tunnels if not tunnel.ended_by]
    steps_left = max(1, int((left - TUNNELS_SPARE) / every))
    for tunnel in lasting[: len(lasting) // steps_left]:
        tunnel.drain()

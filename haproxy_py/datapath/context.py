"""What all connections of a worker share: clock, counters, routes, and memory that is used within one callback."""

import os
import time
from typing import Optional

import cython
from cython.cimports.haproxy_py.datapath.access_log import AccessLog
from cython.cimports.haproxy_py.datapath.allocator import keep_freed_memory
from cython.cimports.haproxy_py.datapath.count import Counters
from cython.cimports.haproxy_py.datapath.deadlines import Clock
from cython.cimports.haproxy_py.datapath.evidence import Evidence
from cython.cimports.haproxy_py.datapath.heads import Head
from cython.cimports.haproxy_py.datapath.limits import MAX_SHARES
from cython.cimports.haproxy_py.datapath.poller import Poller
from cython.cimports.haproxy_py.datapath.routes import Routes
from cython.cimports.haproxy_py.datapath.sessions import Sessions
from cython.cimports.haproxy_py.datapath.shares import Shares
from cython.cimports.haproxy_py.datapath.writer import Writer

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


def _write_date(second: int) -> bytes:
    """An IMF-fixdate (RFC 9110 section 5.6.7), whatever the locale. `email.utils` can do it too, for a mebibyte."""
    year, month, day, hour, minute, seconds, weekday = time.gmtime(second)[:7]
    return b"%s, %02d %s %04d %02d:%02d:%02d GMT" % (
        _DAYS[weekday],
        day,
        _MONTHS[month - 1],
        year,
        hour,
        minute,
        seconds,
    )


@cython.final
@cython.cclass
class Entrance:
    """The listener that a client came in by, as replicas are told of it."""

    def __init__(self, scheme: str, host: str, port: int, limit: int, room_again: int, crossed: object, failed: object):
        """`crossed()` is called when the number of open connections comes to `limit`, or down to `room_again`;
        `failed(error number)` when the kernel gives no connection."""
        self.limit = limit
        self.room_again = room_again
        self.crossed = crossed
        self.failed = failed
        self.scheme = scheme
        self.port = port
        self.authority = f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode()
        self.forwarding = f"X-Forwarded-Proto: {scheme}\r\nX-Forwarded-Port: {port}\r\n".encode()

    @cython.cfunc
    def enter(self):
        """A client connection is being accepted."""
        self.open += 1
        if self.open == self.limit:
            self.crossed()

    @cython.cfunc
    def leave(self):
        """A client connection has ended."""
        self.open -= 1
        if self.open == self.room_again:
            self.crossed()

    @cython.cfunc
    def cannot_accept(self, error: cython.int):
        self.failed(error)


@cython.final
@cython.cclass
class Context:
    """One per worker."""

    def __init__(
        self,
        loop: object,
        clock: Clock,
        counters: Counters,
        sessions: Sessions,
        via: str,
        log: Optional[AccessLog],
        ran_out: object,
    ):
        keep_freed_memory()
        self.loop = loop
        self.poller = Poller(loop, clock)
        self.clock = clock
        clock.on_tick = self.look_at_queues
        self.counters = counters
        self.counts = counters.block(0)
        self.sessions = sessions
        self.log = log
        self.ran_out = ran_out
        self.clients = set()
        self.dials = set()
        self.spare = set()
        self.evidence = Evidence()
        self.shares = Shares(MAX_SHARES)
        self.writer = Writer()
        self.request = Head()
        self.response = Head()
        self.via = via.encode("ascii")
        self.seed[0] = int.from_bytes(os.urandom(8), "little")
        self.seed[1] = int.from_bytes(os.urandom(8), "little") | 1
        self.refresh_date()

    def publish(self, table: object) -> None:
        """Put a new table into force for every request that begins from now on, and for tunnels that its gate closes."""
        before: Routes = self.routes
        self.routes = Routes(table, before, self.loop, self.clock, self.counters)
        if before is not None and before.gates != self.routes.gates:
            for client in list(self.clients):
                client.obey_gate()

    def look_at_queues(self) -> None:
        """With every tick: a replica that was out may be tried now, and nothing else would say so to those who wait."""
        routes: Routes = self.routes
        self.shares.forget_full(self.clock.now)
        if routes is not None:
            routes.wake_queues()

    def refresh_date(self) -> None:
        """The Date that own answers carry (RFC 9110 section 6.6.1); called with every tick, so it is a tick old at most."""
        second: cython.longlong = int(time.time())
        if second != self.date_second:
            self.date_second = second
            self.date_line = b"Date: %s\r\n" % _write_date(second)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def random(self) -> cython.ulonglong:
        """The next number of xorshift128+: for request ids and the random policy, not for secrets."""
        first: cython.ulonglong = self.seed[0]
        second: cython.ulonglong = self.seed[1]
        self.seed[0] = second
        first ^= first << 23
        self.seed[1] = first ^ second ^ (first >> 17) ^ (second >> 26)
        return self.seed[1] + second

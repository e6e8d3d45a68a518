"""Connecting to a replica, for an exchange that found no idle connection.

If a replica cannot be reached nothing was sent, so whatever the request is, the next replica gets it (RTY-1): up to the
instance's number of attempts and time in all. An exchange may be over before its connection stands (its client left);
the connection is then kept for the next one.
"""

import socket

import cython
from cython.cimports.haproxy_py.datapath.context import Context
from cython.cimports.haproxy_py.datapath.count import observe
from cython.cimports.haproxy_py.datapath.deadlines import monotonic
from cython.cimports.haproxy_py.datapath.exchange import Exchange, give_back
from cython.cimports.haproxy_py.datapath.pool import Replica
from cython.cimports.haproxy_py.datapath.reason import CONNECT_FAILED, CONNECT_TIMEOUT, INTERNAL
from cython.cimports.haproxy_py.datapath.replica import ReplicaConnection
from cython.cimports.haproxy_py.datapath.routes import Instance
from cython.cimports.haproxy_py.datapath.sockets import (
    AF_INET,
    AF_INET6,
    htons,
    inet_pton,
    sockaddr,
    sockaddr_in,
    sockaddr_in6,
    sockaddr_storage,
    socklen_t,
)
from cython.cimports.haproxy_py.datapath.stream import Stream
from cython.cimports.libc.errno import EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM
from cython.cimports.libc.math import ceil
from cython.cimports.libc.string import memset

from haproxy_py import counters as layout

_FAILED = cython.declare(cython.int, layout.REPLICA_CONNECTIONS_FAILED)
_DURATION = cython.declare(cython.int, layout.REPLICA_CONNECT_DURATION)


@cython.cfunc
@cython.exceptval(0, check=False)
def read_address(host: str, port: cython.int, address: cython.pointer(sockaddr_storage)) -> socklen_t:
    """Fill in the address of a literal IP; gives its size. Raises ValueError if `host` is none."""
    four: cython.pointer(sockaddr_in) = cython.cast(cython.pointer(sockaddr_in), address)
    six: cython.pointer(sockaddr_in6) = cython.cast(cython.pointer(sockaddr_in6), address)
    literal: bytes
    zone: str
    memset(address, 0, cython.sizeof(sockaddr_storage))
    literal = host.encode("ascii")
    if inet_pton(AF_INET, literal, cython.address(four.sin_addr)) == 1:
        address.ss_family = AF_INET
        four.sin_port = htons(port)
        return cython.sizeof(sockaddr_in)
    host, _, zone = host.partition("%")
    literal = host.encode("ascii")
    if inet_pton(AF_INET6, literal, cython.address(six.sin6_addr)) == 1:
        address.ss_family = AF_INET6
        six.sin6_port = htons(port)
        if zone:
            six.sin6_scope_id = socket.if_nametoindex(zone)
        return cython.sizeof(sockaddr_in6)
    raise ValueError(f"{host} is no IP address")


@cython.final
@cython.cclass
class Dial(StreamUser):
    """Attempts to connect, one after the other, until the exchange has its connection or gets none.

    The exchange has a place at the replica that is being connected to. If it ends before the attempt does, the place is
    the attempt's, which gives it back.
    """

    def __init__(self, context: Context, exchange: Exchange, instance: Instance, replica: Replica):
        self.context = context
        self.exchange = exchange
        self.instance = instance
        self.replica = replica
        self.tried = []
        self.began = monotonic()

    def begin(self) -> None:
        """The exchange is told by `dialled` or `dial_failed`, never from within this call unless it raises."""
        self.context.dials.add(self)
        try:
            self.attempt(self.instance.connect)
        except BaseException:
            self.settle(INTERNAL)
            raise

    def cancel(self) -> None:
        """Give up; the exchange is answered 500."""
        self.settle(INTERNAL)

    @cython.cfunc
    @cython.exceptval(check=False)
    def choose_seconds(self) -> cython.double:
        """How long a further attempt may take; 0: the time of all attempts is over."""
        instance: Instance = self.instance
        seconds: cython.double
        left: cython.double = self.began + instance.connect_total - monotonic()
        if instance.connect_total <= 0 or left >= instance.connect:
            return instance.connect
        if left <= 0:
            return 0
        seconds = ceil(left * 4) / 4  # deadlines are queued by duration, so there must be few durations
        return seconds if seconds < instance.connect else instance.connect

    @cython.cfunc
    def attempt(self, seconds: cython.double):
        """Connect to `replica`, within so many seconds."""
        self.attempt_began = monotonic()
        self.own_fault = False
        self.context.clock.queue(seconds).start(self)
        self.addresses = [self.replica.host]
        self.connect_next()

    @cython.cfunc
    def connect_next(self):
        """Try the next address of the replica; its name is looked up first."""
        address: sockaddr_storage
        size: socklen_t
        stream: Stream
        if not self.addresses:
            self.attempt_failed(CONNECT_FAILED)
            return
        host: str = self.addresses.pop(0)
        try:
            size = read_address(host, self.replica.port, cython.address(address))
        except (ValueError, OSError):
            self.lookup = self.context.loop.create_task(look_up(self.context.loop, host))
            self.lookup.add_done_callback(self.looked_up)
            return
        stream = Stream()
        stream.poller = self.context.poller
        stream.user = self
        self.stream = stream
        stream.connect(cython.cast(cython.pointer(sockaddr), cython.address(address)), size)

    def looked_up(self, lookup: object) -> None:
        """The name of the replica has been looked up, or cannot be."""
        if self.over or self.lookup is not lookup:
            return
        self.lookup = None
        problem: object = None if lookup.cancelled() else lookup.exception()
        if lookup.cancelled():
            self.settle(INTERNAL)
        elif problem is None:
            self.addresses = lookup.result()
            self.connect_next()
        elif isinstance(problem, OSError):
            self.attempt_failed(CONNECT_FAILED)
        else:
            self.settle(INTERNAL)
            raise problem

    # --- what the stream tells ---

    @cython.cfunc
    def connected(self, stream: Stream):
        seconds: cython.double = monotonic() - self.attempt_began
        exchange: Exchange = self.exchange
        connection: ReplicaConnection
        replica: Replica = self.replica
        connection = ReplicaConnection(self.context, replica, stream, self.instance.buffer)
        self.stream = None
        self.over = True
        self.stop_deadline()
        self.context.dials.discard(self)
        observe(replica.counts + _DURATION, seconds)
        if exchange.awaits(self):
            exchange.dialled(connection, seconds)
        else:
            give_back(replica)
            connection.park(self.instance)

    @cython.cfunc
    def lost(self, problem: cython.int):
        self.stream = None
        # No file, memory or port is left here: nothing is known of the replica.
        self.own_fault = (
            problem == EMFILE
            or problem == ENFILE
            or problem == ENOBUFS
            or problem == ENOMEM
            or problem == EADDRNOTAVAIL
        )
        if self.own_fault:
            self.context.ran_out(problem)
        self.connect_next()

    @cython.cfunc
    def expired(self):
        self.attempt_failed(CONNECT_TIMEOUT)

    @cython.cfunc
    def attempt_failed(self, reason: cython.int):
        """RTY-1: the next replica, as nothing was sent."""
        exchange: Exchange = self.exchange
        seconds: cython.double
        self.replica.counts[_FAILED] += 1
        if not self.own_fault:
            self.replica.eject(self.context.clock.now)
        self.stop_attempt()
        if not exchange.awaits(self):
            self.settle(reason)
            return
        self.tried.append(self.replica)
        seconds = self.choose_seconds()
        self.replica = exchange.change_replica(self.tried, reason) if seconds > 0 else None
        if self.replica is None:
            self.settle(reason)
        else:
            self.attempt(seconds)

    @cython.cfunc
    def stop_attempt(self) -> cython.void:
        stream: Stream = self.stream
        self.stop_deadline()
        if self.lookup is not None:
            self.lookup.cancel()
            self.lookup = None
        if stream is not None:
            self.stream = None
            stream.user = None
            stream.abort()

    @cython.cfunc
    def settle(self, reason: cython.int):
        """It is over without a connection."""
        exchange: Exchange = self.exchange
        if self.over:
            return
        self.over = True
        self.stop_attempt()
        self.context.dials.discard(self)
        if exchange.awaits(self):
            try:
                exchange.dial_failed(reason)
            except Exception as problem:  # it is the client's connection that cannot go on
                self.context.poller.report(exchange.stream, problem)
        elif self.replica is not None:
            give_back(self.replica)


async def look_up(loop: object, host: str) -> list:
    """The addresses of a name. Raises OSError."""
    found: list = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [entry[4][0] for entry in found]

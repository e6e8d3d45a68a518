"""A listening socket: every connection that the kernel holds for it becomes a `ClientConnection`.

Options that all its connections have (no delay of small segments) are set once, here: a connection inherits them.
"""

import os

import cython
from cython.cimports.cpython.bytes import PyBytes_FromString
from cython.cimports.haproxy_py.datapath.client import ClientConnection
from cython.cimports.haproxy_py.datapath.context import Context, Entrance
from cython.cimports.haproxy_py.datapath.limits import ACCEPTS_PER_VISIT
from cython.cimports.haproxy_py.datapath.poller import Watched
from cython.cimports.haproxy_py.datapath.routes import Routes
from cython.cimports.haproxy_py.datapath.shares import Share
from cython.cimports.haproxy_py.datapath.sockets import (
    AF_INET,
    AF_INET6,
    EPOLLIN,
    IN6_IS_ADDR_V4MAPPED,
    INET6_ADDRSTRLEN,
    IPPROTO_TCP,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    TCP_NODELAY,
    accept4,
    in6_addr,
    inet_ntop,
    setsockopt,
    sockaddr,
    sockaddr_in,
    sockaddr_in6,
    sockaddr_storage,
    socklen_t,
)
from cython.cimports.haproxy_py.datapath.stream import Stream
from cython.cimports.haproxy_py.datapath.tls import TlsStream
from cython.cimports.libc.errno import EAGAIN, ECONNABORTED, EINTR, ENOMEM, EPROTO, errno
from cython.cimports.posix.unistd import close

from haproxy_py import counters as layout

_REFUSED = cython.declare(cython.int, layout.WORKER_CONNECTIONS_REFUSED)


@cython.final
@cython.cclass
class Listener(Watched):
    """Accepts on one socket while it is `open`, and leaves the kernel's queue alone while it is not."""

    def __init__(self, context: Context, entrance: Entrance, fd: int):
        """`fd` is the listener's own from now on."""
        on: cython.int = 1
        self.context = context
        self.entrance = entrance
        self.poller = context.poller
        self.fd = fd
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, cython.address(on), cython.sizeof(on))

    def open(self) -> None:
        """Accept from now on. Raises OSError."""
        error: cython.int
        if self.accepting or self.fd < 0:
            return
        error = self.poller.watch(self, EPOLLIN)
        if error:
            raise OSError(error, os.strerror(error))
        self.accepting = True

    def pause(self) -> None:
        """Accept nothing until `open`; who connects meanwhile waits in the kernel's queue."""
        if self.accepting:
            self.accepting = False
            self.poller.unwatch(self)

    def close(self) -> None:
        """Accept never again. What stands in the queue is reset."""
        self.pause()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @cython.cfunc
    def ready(self, events: cython.uint):
        address: sockaddr_storage
        size: socklen_t
        fd: cython.int
        _accepted: cython.int
        text: cython.char[INET6_ADDRSTRLEN]
        six: cython.pointer(in6_addr)
        for _accepted in range(ACCEPTS_PER_VISIT):
            if not self.accepting:
                return
            size = cython.sizeof(address)
            fd = accept4(
                self.fd,
                cython.cast(cython.pointer(sockaddr), cython.address(address)),
                cython.address(size),
                SOCK_NONBLOCK | SOCK_CLOEXEC,
            )
            if fd < 0:
                if errno == EINTR or errno == ECONNABORTED or errno == EPROTO:
                    continue
                if errno != EAGAIN:
                    self.entrance.cannot_accept(errno)
                return
            text[0] = 0
            if address.ss_family == AF_INET:
                inet_ntop(
                    AF_INET,
                    cython.address(cython.cast(cython.pointer(sockaddr_in), cython.address(address)).sin_addr),
                    text,
                    INET6_ADDRSTRLEN,
                )
            elif address.ss_family == AF_INET6:
                six = cython.address(cython.cast(cython.pointer(sockaddr_in6), cython.address(address)).sin6_addr)
                if IN6_IS_ADDR_V4MAPPED(six):  # an IPv4 client of a listener for both families
                    inet_ntop(AF_INET, cython.cast(cython.p_char, six) + 12, text, INET6_ADDRSTRLEN)
                else:
                    inet_ntop(AF_INET6, six, text, INET6_ADDRSTRLEN)
            try:
                self.welcome(fd, text)
            except MemoryError:
                self.entrance.cannot_accept(ENOMEM)
                return

    @cython.cfunc
    def welcome(self, fd: cython.int, address: cython.p_char) -> cython.void:
        """A client is here. If that fails its connection is closed."""
        stream: Stream
        routes: Routes = self.context.routes
        share: Share = None
        try:
            peer: bytes = PyBytes_FromString(address)
            if routes.counts_connections:
                share = self.context.shares.find(peer, 0)
                if (
                    share is not None
                    and 0 < routes.client_connections <= share.uses
                    and peer.decode("ascii") not in routes.trusted
                ):
                    self.context.counts[_REFUSED] += 1
                    close(fd)
                    return
            if self.entrance.tls is None:
                stream = Stream()
            else:
                stream = TlsStream(self.entrance.tls, self.entrance.handshake_failed)
        except BaseException:
            close(fd)
            raise
        stream.fd = fd
        stream.poller = self.poller
        try:
            ClientConnection(self.context, self.entrance, stream, peer, share)  # the stream holds it
            stream.begin()
        except BaseException:
            stream.abort()
            raise

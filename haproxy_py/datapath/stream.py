"""A connected socket: octets in, octets out, and back-pressure both ways.

- What is sent goes to the kernel at once; only what it does not take is copied and waits (`unsent`). Above the limit the user
  is told to hold back, at a quarter of it to go on.
- What is received lies in memory that all streams of a worker share, for the time of one call. Whoever needs it longer copies.
- Of a large body most octets can be diverted: they go from socket to socket through a pipe, within the kernel, and are never
  copied (splice(2)). The kernel's own bounds apply to them; what the other side does not take stays in the pipe.
- An error of sending is not the end of receiving: a replica may have answered before it closed. `lost` comes once, when
  nothing more can be read, and never from within a call of the user's.
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.deadlines import Timed
from cython.cimports.haproxy_py.datapath.limits import DIVERT_FROM, FIRST_SIZE, PIPE_SIZE, READ_SIZE
from cython.cimports.haproxy_py.datapath.poller import Watched
from cython.cimports.haproxy_py.datapath.sockets import (
    EPOLLERR,
    EPOLLET,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    IPPROTO_TCP,
    MSG_NOSIGNAL,
    MSG_PEEK,
    SHUT_WR,
    SO_ERROR,
    SO_LINGER,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    SPLICE_F_MOVE,
    SPLICE_F_NONBLOCK,
    TCP_NODELAY,
    getsockopt,
    iovec,
    linger,
    msghdr,
    recv,
    send,
    sendmsg,
    setsockopt,
    shutdown,
    sockaddr,
    socket,
    socklen_t,
    splice,
)
from cython.cimports.haproxy_py.datapath.sockets import connect as c_connect
from cython.cimports.libc.errno import EAGAIN, ECONNRESET, EINPROGRESS, EINTR, ENOBUFS, ENOMEM, errno
from cython.cimports.libc.stdlib import free, malloc
from cython.cimports.libc.string import memcpy, memmove, memset
from cython.cimports.posix.unistd import close

_EVENTS = cython.declare(cython.uint, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)
_NEVER = cython.declare(cython.Py_ssize_t, 1 << 62)  # no limit yet


@cython.cclass
class StreamUser(Timed):
    """Whoever owns a stream. Each call is one thing that happened on it."""

    @cython.cfunc
    def connected(self, stream: Stream):
        """The connection stands."""
        raise AssertionError

    @cython.cfunc
    def received(self, data: cython.p_const_char, size: cython.Py_ssize_t):
        """Octets have come; they are gone when this returns."""
        raise AssertionError

    @cython.cfunc
    def ended(self):
        """The other side has sent FIN: nothing more will come. It may still be sent to."""
        raise AssertionError

    @cython.cfunc
    def lost(self, problem: cython.int):
        """The stream is closed, for an error or (0) as asked."""
        raise AssertionError

    @cython.cfunc
    def blocks(self, blocks: cython.bint):
        """The other side takes less than it is sent, or again enough."""
        raise AssertionError

    @cython.cfunc
    def passed(self, size: cython.Py_ssize_t):
        """So many octets have gone to where they were diverted to."""
        raise AssertionError


@cython.cclass
class Stream(Watched):
    """One connection over plain TCP."""

    def __cinit__(self):
        self.high = _NEVER

    def __dealloc__(self):
        free(self.waiting)
        if self.piped > 0:
            close(self.pipe.sink)
            close(self.pipe.source)

    @property
    def reading(self) -> bool:
        """Whether octets that come are read."""
        return not self.paused

    @property
    def limits(self) -> tuple:
        """Octets waiting at which the user goes on, and above which it holds back."""
        return (self.high // 4, self.high)

    @cython.cfunc
    @cython.exceptval(check=False)
    def set_limit(self, high: cython.Py_ssize_t) -> cython.void:
        self.high = high

    @cython.cfunc
    @cython.exceptval(check=False)
    def waits(self) -> cython.Py_ssize_t:
        """Octets that wait for the other side to take them."""
        return self.unsent + self.piped

    # --- connecting ---

    @cython.cfunc
    def connect(self, address: cython.pointer(sockaddr), size: socklen_t) -> cython.void:
        """Begin to connect; `connected` or `lost` follows, and never from within this call."""
        on: cython.int = 1
        self.connecting = True
        self.fd = socket(address.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if self.fd < 0:
            self.problem = errno
            self.poller.bury(self)
            return
        setsockopt(self.fd, IPPROTO_TCP, TCP_NODELAY, cython.address(on), cython.sizeof(on))
        if c_connect(self.fd, address, size) < 0 and errno != EINPROGRESS:
            self.fail(errno)
        else:
            self.begin()

    @cython.cfunc
    def begin(self) -> cython.void:
        """Tell the user from now on what happens."""
        error: cython.int = self.poller.watch(self, _EVENTS)
        if error:
            self.fail(error)

    @cython.cfunc
    def has_connected(self, events: cython.uint):
        self.connecting = False
        if events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP):  # refused, or accepted and closed at once
            self.fail(self.take_error())
            return
        user: StreamUser = self.user
        user.connected(self)

    # --- what the poller calls ---

    @cython.cfunc
    def ready(self, events: cython.uint):
        if self.connecting:
            self.has_connected(events)
            if self.fd < 0 or not events & EPOLLIN:
                return
        if events & EPOLLOUT and self.waits() > 0:
            self.flush()
            if self.fd < 0:
                return
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.readable = True
            if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
                self.ending = True
                if events & EPOLLERR and (self.finished or (self.paused and not self.patient)):
                    self.fail(self.take_error())
                    return
            self.read()

    @cython.cfunc
    def go_on(self):
        self.read()

    @cython.cfunc
    def gone(self):
        user: StreamUser = self.user
        self.user = None
        if user is not None:
            user.lost(self.problem)

    @cython.cfunc
    def drop(self) -> cython.void:
        self.abort()

    # --- receiving ---

    @cython.cfunc
    def read(self):
        """One piece of what has come."""
        size: cython.Py_ssize_t
        most: cython.Py_ssize_t
        user: StreamUser
        if self.paused or self.finished or not self.readable:
            return
        if self.sink is not None:
            self.pass_on()
            return
        most = READ_SIZE if self.bulk else FIRST_SIZE
        size = recv(self.fd, self.poller.space, most, 0)
        if size > 0:
            # A short piece was all there is, unless an end stands behind it, which is told only once.
            self.readable = size == most or self.ending
            self.deliver(size)
            if self.readable and self.fd >= 0 and not self.paused:
                self.poller.visit_again(self)
        elif size == 0:
            self.readable = False
            self.finished = True
            user = self.user
            user.ended()
        elif errno == EAGAIN or errno == EINTR:
            self.readable = errno == EINTR
            if self.readable:
                self.poller.visit_again(self)
        else:
            self.fail(errno)
            self.gone()  # at once: whatever else is ready must not take this connection for a good one (RTY-2)

    @cython.cfunc
    @cython.exceptval(check=False)
    def has_more(self) -> cython.bint:
        """Whether something stands behind what was received: octets, the end or an error."""
        octet: cython.char
        if not self.readable:
            return False
        return recv(self.fd, cython.address(octet), 1, MSG_PEEK) >= 0 or errno != EAGAIN

    # --- octets that nobody here needs to see ---

    @cython.cfunc
    @cython.exceptval(check=False)
    def is_plain(self) -> cython.bint:
        """Whether the octets on the socket are those of the user."""
        return True

    @cython.cfunc
    def divert(self, sink: Stream, size: cython.longlong) -> cython.bint:
        """Let the next octets that are received go to `sink` within the kernel. The user is told by `passed`.

        False if that is not worth while, or not possible; then they are received as ever, in large pieces.
        """
        if size < DIVERT_FROM or not self.is_plain() or not sink.is_plain():
            self.bulk = True
            return False
        self.sink = sink
        self.to_pass = size
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    def undivert(self) -> cython.void:
        """Receive from now on whatever comes: a head may be next."""
        self.sink = None
        self.bulk = False

    @cython.cfunc
    def pass_on(self):
        """Move what has come to the sink."""
        sink: Stream = self.sink
        user: StreamUser = self.user
        size: cython.Py_ssize_t
        if sink.fd < 0 or sink.waits() > 0 or sink.closing or not sink.poller.take_pipe(cython.address(sink.pipe)):
            self.sink = None  # it goes on as ever, for once
            self.read()
            return
        size = splice(
            self.fd,
            cython.NULL,
            sink.pipe.sink,
            cython.NULL,
            self.to_pass if self.to_pass < PIPE_SIZE else PIPE_SIZE,
            SPLICE_F_MOVE | SPLICE_F_NONBLOCK,
        )
        if size <= 0:
            sink.poller.give_pipe(cython.address(sink.pipe), True)
            if size < 0 and errno == EAGAIN:
                self.readable = False
            else:
                self.sink = None  # the end, or an error: reading says which
                self.read()
            return
        sink.piped = size
        self.to_pass -= size
        if self.to_pass == 0:
            self.sink = None
        sink.empty_pipe()
        if sink.piped > 0 and not sink.blocked and sink.fd >= 0:
            sink.block()
        user.passed(size)
        if self.fd >= 0 and not self.paused:
            self.poller.visit_again(self)

    @cython.cfunc
    def empty_pipe(self):
        """Send what the pipe holds, as much as is taken now."""
        sent: cython.Py_ssize_t = splice(
            self.pipe.source, cython.NULL, self.fd, cython.NULL, self.piped, SPLICE_F_MOVE | SPLICE_F_NONBLOCK
        )
        if sent < 0:
            if errno != EAGAIN and errno != EINTR and errno != ENOBUFS and errno != ENOMEM:
                self.write_failed(errno)
            return
        self.piped -= sent
        if self.piped == 0:
            self.poller.give_pipe(cython.address(self.pipe), True)

    @cython.cfunc
    def block(self):
        """Tell the user that the other side takes too little."""
        user: StreamUser = self.user
        self.blocked = True
        if user is not None:
            user.blocks(True)

    @cython.cfunc
    def deliver(self, size: cython.Py_ssize_t):
        """Tell the user of what was read."""
        user: StreamUser = self.user  # held here: what it does may make this stream forget it
        user.received(self.poller.space, size)

    @cython.cfunc
    @cython.exceptval(check=False)
    def pause(self) -> cython.void:
        """Read nothing until `resume`."""
        self.paused = True

    @cython.cfunc
    def resume(self) -> cython.void:
        if self.closing or self.fd < 0:
            return
        self.paused = False
        if self.readable:
            self.poller.visit_again(self)

    # --- sending ---

    @cython.cfunc
    def send(self, data: cython.p_const_char, size: cython.Py_ssize_t) -> cython.void:
        """Send octets, or keep them until they can be sent. Nothing happens on a stream that is ending."""
        sent: cython.Py_ssize_t
        if self.fd < 0 or self.closing or size == 0:
            return
        if self.waits() > 0:
            self.keep(data, size)
            return
        sent = send(self.fd, data, size, MSG_NOSIGNAL)
        if sent == size:
            return
        if sent < 0:
            if errno != EAGAIN and errno != EINTR and errno != ENOBUFS and errno != ENOMEM:
                self.write_failed(errno)
                return
            sent = 0
        self.keep(data + sent, size - sent)

    @cython.cfunc
    def send_bytes(self, data: bytes) -> cython.void:
        self.send(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    @cython.cfunc
    def send_pieces(
        self,
        first: cython.p_const_char,
        first_size: cython.Py_ssize_t,
        second: cython.p_const_char,
        second_size: cython.Py_ssize_t,
        line: cython.bint,
    ) -> cython.void:
        """Send two pieces, and CR LF behind them if they make a `line`, in one call: they can leave in one packet."""
        parts: iovec[3]
        end: cython.p_const_char = b"\r\n"
        parts[0].iov_base = cython.cast(cython.p_void, first)
        parts[0].iov_len = first_size
        parts[1].iov_base = cython.cast(cython.p_void, second)
        parts[1].iov_len = second_size
        parts[2].iov_base = cython.cast(cython.p_void, end)
        parts[2].iov_len = 2
        self.put(parts, 3 if line else 2)

    @cython.cfunc
    def put(self, parts: cython.pointer(iovec), count: cython.int) -> cython.void:
        """Send pieces in one call."""
        sent: cython.Py_ssize_t = 0
        index: cython.int
        size: cython.Py_ssize_t
        if self.fd < 0 or self.closing:
            return
        if self.waits() == 0:
            sent = _send_parts(self.fd, parts, count)
            if sent < 0:
                if errno != EAGAIN and errno != EINTR and errno != ENOBUFS and errno != ENOMEM:
                    self.write_failed(errno)
                    return
                sent = 0
        for index in range(count):
            size = parts[index].iov_len
            if sent >= size:
                sent -= size
            else:
                self.keep(cython.cast(cython.p_char, parts[index].iov_base) + sent, size - sent)
                sent = 0

    @cython.cfunc
    def keep(self, data: cython.p_const_char, size: cython.Py_ssize_t) -> cython.void:
        """Copy what the kernel did not take."""
        needed: cython.Py_ssize_t = self.unsent + size
        memory: cython.p_char
        if self.start + needed > self.room:
            if needed <= self.room:
                memmove(self.waiting, self.waiting + self.start, self.unsent)
            else:
                memory = cython.cast(cython.p_char, malloc(needed + (needed >> 1)))
                if memory == cython.NULL:
                    self.fail(ENOMEM)  # later octets must not follow a hole
                    return
                if self.unsent > 0:
                    memcpy(memory, self.waiting + self.start, self.unsent)
                free(self.waiting)
                self.waiting = memory
                self.room = needed + (needed >> 1)
            self.start = 0
        memcpy(self.waiting + self.start + self.unsent, data, size)
        self.unsent = needed
        if self.unsent > self.high and not self.blocked:
            self.block()

    @cython.cfunc
    def flush(self):
        """Send what waits, as much as is taken now."""
        user: StreamUser
        sent: cython.Py_ssize_t
        if self.piped > 0:
            self.empty_pipe()
            if self.piped > 0 or self.fd < 0:
                return
        if self.unsent > 0:
            sent = send(self.fd, self.waiting + self.start, self.unsent, MSG_NOSIGNAL)
            if sent < 0:
                if errno != EAGAIN and errno != EINTR and errno != ENOBUFS and errno != ENOMEM:
                    self.write_failed(errno)
                return
            self.start += sent
            self.unsent -= sent
        if self.unsent == 0:
            self.forget_waiting()
            if self.closing:
                self.poller.bury(self)
                return
            if self.finishing:
                shutdown(self.fd, SHUT_WR)
        if self.blocked and self.unsent <= self.high // 4:
            self.blocked = False
            user = self.user
            if user is not None:
                user.blocks(False)

    @cython.cfunc
    @cython.exceptval(check=False)
    def forget_waiting(self) -> cython.void:
        free(self.waiting)
        self.waiting = cython.NULL
        self.room = 0
        self.start = 0
        self.unsent = 0
        if self.piped > 0:
            self.piped = 0
            self.poller.give_pipe(cython.address(self.pipe), False)

    # --- ending ---

    @cython.cfunc
    def finish(self) -> cython.void:
        """Send FIN behind what waits; receiving goes on."""
        if self.fd < 0 or self.finishing:
            return
        self.finishing = True
        if self.waits() == 0:
            shutdown(self.fd, SHUT_WR)

    @cython.cfunc
    def close(self) -> cython.void:
        """Send what waits, then close. Nothing more is received."""
        if self.fd < 0 or self.closing:
            return
        if self.waits() > 0:
            self.closing = True
            self.paused = True
        else:
            self.poller.bury(self)

    @cython.cfunc
    def abort(self) -> cython.void:
        """Close now. What waits is dropped."""
        if self.fd >= 0:
            self.forget_waiting()
            self.sink = None
            self.poller.bury(self)

    @cython.cfunc
    def reset(self) -> cython.void:
        """Close now with a reset: what the other side has got so far is not all there was."""
        now: linger
        if self.fd >= 0:
            now.l_onoff = 1
            now.l_linger = 0
            setsockopt(self.fd, SOL_SOCKET, SO_LINGER, cython.address(now), cython.sizeof(now))
        self.abort()

    @cython.cfunc
    def fail(self, problem: cython.int) -> cython.void:
        self.problem = problem
        self.abort()

    @cython.cfunc
    def write_failed(self, problem: cython.int) -> cython.void:
        """Nothing can be sent any more; what came before the other side was gone is still read."""
        self.forget_waiting()
        if self.closing or self.finished or not self.patient:
            self.fail(problem)
            return
        self.readable = True
        self.ending = True
        if not self.paused:
            self.poller.visit_again(self)

    @cython.cfunc
    @cython.exceptval(check=False)
    def take_error(self) -> cython.int:
        error: cython.int = 0
        size: socklen_t = cython.sizeof(error)
        getsockopt(self.fd, SOL_SOCKET, SO_ERROR, cython.address(error), cython.address(size))
        return error if error else ECONNRESET


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _send_parts(fd: cython.int, parts: cython.pointer(iovec), count: cython.int) -> cython.Py_ssize_t:
    message: msghdr
    memset(cython.address(message), 0, cython.sizeof(message))
    message.msg_iov = parts
    message.msg_iovlen = count
    return sendmsg(fd, cython.address(message), MSG_NOSIGNAL)

"""The access log: one JSON line per exchange, gathered in memory and written in whole lines.

Writing never makes traffic wait. Lines go out with the tick, or when enough have gathered, and only while whoever reads the
log keeps up; beyond a bound they are dropped and counted. Several workers write to the same pipe: a piece is at most
PIPE_BUF octets of whole lines, which the kernel does not mix with another writer's. What came from a client is escaped, so
no raw octet reaches a terminal, and cut, so no line is longer than a piece.
"""

import errno
import os
import select
import stat
import time

import cython
from cython.cimports.haproxy_py.datapath.writer import Writer
from cython.cimports.libc.string import strlen

_MAX_TEXT = cython.declare(cython.int, 480)  # octets of one value from a client; six of its octets may take one
_FLUSH_AT = cython.declare(cython.int, 65536)  # octets gathered
_KEEP_AT_MOST = cython.declare(cython.int, 262144)  # octets kept for a reader that does not keep up; less than a writer holds
_PIECE = 4096  # PIPE_BUF


@cython.final
@cython.cclass
class AccessLog:
    """Writes to an inherited file descriptor, usually standard output."""

    def __init__(self, fd: int):
        self.fd = fd
        self.lines = Writer()

    @cython.cfunc
    @cython.exceptval(check=False)
    def put_text(self, name: cython.p_const_char, text: cython.p_const_char, size: cython.Py_ssize_t) -> cython.void:
        """`"name":"text",` with everything but visible ASCII escaped."""
        octet: cython.uchar
        index: cython.Py_ssize_t
        digit: cython.int
        lines: Writer = self.lines
        lines.put_byte(34)
        lines.put(name, strlen(name))
        lines.put(b'":"', 3)
        if size > _MAX_TEXT:
            size = _MAX_TEXT
        for index in range(size):
            octet = cython.cast(cython.uchar, text[index])
            if 32 <= octet < 127 and octet != 34 and octet != 92:
                lines.put_byte(octet)
            else:
                lines.put(b"\\u00", 4)
                digit = octet >> 4
                lines.put_byte(48 + digit if digit < 10 else 87 + digit)
                digit = octet & 15
                lines.put_byte(48 + digit if digit < 10 else 87 + digit)
        lines.put(b'",', 2)

    @cython.cfunc
    def put_label(self, name: cython.p_const_char, text: str) -> cython.void:
        """A value that is ours: the name of an instance, a replica or a reason."""
        encoded: bytes = text.encode()
        self.put_text(name, encoded, len(encoded))

    @cython.cfunc
    @cython.exceptval(check=False)
    def put_count(self, name: cython.p_const_char, value: cython.longlong) -> cython.void:
        self.lines.put_byte(34)
        self.lines.put(name, strlen(name))
        self.lines.put(b'":', 2)
        self.lines.put_number(value if value > 0 else 0)
        self.lines.put_byte(44)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.cdivision(True)  # the divisors are constants
    def put_seconds(self, name: cython.p_const_char, value: cython.double) -> cython.void:
        """Seconds with microseconds."""
        micros: cython.longlong = cython.cast(cython.longlong, value * 1e6) if value > 0 else 0
        divisor: cython.int = 100000
        self.lines.put_byte(34)
        self.lines.put(name, strlen(name))
        self.lines.put(b'":', 2)
        self.lines.put_number(micros // 1000000)
        self.lines.put_byte(46)
        while divisor > 0:
            self.lines.put_byte(48 + (micros // divisor) % 10)
            divisor //= 10
        self.lines.put_byte(44)

    @cython.cfunc
    @cython.exceptval(check=False)
    def begin_line(self) -> cython.void:
        self.lines.put_byte(123)

    @cython.cfunc
    def end_line(self) -> cython.void:
        """End a line with its time stamp."""
        now: cython.double = time.time()
        self.put_seconds(b"ts", now)
        self.lines.used -= 1  # the comma
        self.lines.put(b"}\n", 2)
        if self.lines.used >= _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Write what the reader takes now; keep the rest up to a bound."""
        if self.lines.used == 0:
            return
        pending: bytes = self.lines.take()
        rest: bytes = self.write_pieces(pending)
        if len(rest) > _KEEP_AT_MOST:
            kept: bytes = rest[:_KEEP_AT_MOST]
            kept = kept[: kept.rfind(b"\n") + 1]
            self.dropped += rest.count(b"\n") - kept.count(b"\n")
            rest = kept
        self.lines.clear()
        self.lines.put_bytes(rest)

    def write_pieces(self, pending: bytes) -> bytes:
        """Write whole lines without waiting; gives what could not be written."""
        try:
            if stat.S_ISREG(os.fstat(self.fd).st_mode):
                written = os.write(self.fd, pending)
                return pending[written:]
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            start: int = 0
            while start < len(pending):
                end: int = len(pending)
                if end - start > _PIECE:
                    end = pending.rfind(b"\n", start, start + _PIECE) + 1
                    if end <= start:
                        end = start + _PIECE
                ready = poll.poll(0)
                if not ready or not ready[0][1] & select.POLLOUT:
                    return pending[start:]
                start += os.write(self.fd, pending[start:end])
        except OSError as problem:
            if problem.errno in (errno.EAGAIN, errno.EINTR):
                return pending[start:]
            self.dropped += pending.count(b"\n")  # nobody reads it any more: nothing to keep it for
        return b""

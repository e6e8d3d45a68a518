"""The access log: one JSON line per exchange, gathered in memory and written in whole lines.

Writing never makes traffic wait. Lines go out with the tick, or when enough have gathered, and only while whoever reads
the log keeps up; beyond a bound they are dropped and counted. Several workers write to the same pipe: a piece is at
most PIPE_BUF octets of whole lines, which the kernel does not mix with another writer's. What came from a client is
escaped, so no raw octet reaches a terminal, and cut, so no line is longer than a piece.
"""

import os
import select
import stat
import time

import cython
from cython.cimports.haproxy_py.datapath.writer import Writer
from cython.cimports.libc.string import strlen

_MAX_TEXT = cython.declare(cython.int, 1000)  # octets of a line for one value: two such fit a piece with the rest
_MAX_LABEL = cython.declare(cython.int, 256)  # of a name that is ours
_FLUSH_AT = cython.declare(cython.int, 65536)  # octets gathered
_KEEP_AT_MOST = cython.declare(cython.int, 196608)  # octets kept for a reader that does not keep up
_PIECE = 4096  # PIPE_BUF


def _open_without_waiting(fd: int) -> int:
    """A descriptor of the same pipe or terminal that never waits; `fd` itself is left as it is, for others share it."""
    mode: int = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        try:
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            pass  # another user's, or nobody reads it
    return fd


@cython.final
@cython.cclass
class AccessLog:
    """Writes to an inherited file descriptor, usually standard output."""

    def __init__(self, fd: int):
        self.inherited = fd
        self.fd = _open_without_waiting(fd)
        self.lines = Writer()
        self.flush_at = _FLUSH_AT
        self.in_pieces = not stat.S_ISREG(os.fstat(fd).st_mode)
        if self.fd == fd and self.in_pieces:  # a socket, mostly: asked before every piece
            self.poll = select.poll()
            self.poll.register(fd, select.POLLOUT)

    def close(self) -> None:
        """Nothing is written any more; the inherited descriptor stays open."""
        if self.fd != self.inherited:
            os.close(self.fd)
            self.fd = self.inherited

    @cython.cfunc
    @cython.exceptval(check=False)
    def put_text(self, name: cython.p_const_char, text: cython.p_const_char, size: cython.Py_ssize_t) -> cython.void:
        """`"name":"text",` with everything but visible ASCII escaped, cut after so much of it."""
        self.put_cut(name, text, size, _MAX_TEXT)

    @cython.cfunc
    @cython.exceptval(check=False)
    def put_cut(
        self, name: cython.p_const_char, text: cython.p_const_char, size: cython.Py_ssize_t, room: cython.int
    ) -> cython.void:
        octet: cython.uchar
        index: cython.Py_ssize_t
        digit: cython.int
        lines: Writer = self.lines
        lines.put_byte(34)
        lines.put(name, strlen(name))
        lines.put(b'":"', 3)
        for index in range(size):
            octet = cython.cast(cython.uchar, text[index])
            if 32 <= octet < 127 and octet != 34 and octet != 92:
                room -= 1
                if room < 0:
                    break
                lines.put_byte(octet)
            else:
                room -= 6
                if room < 0:
                    break
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
        self.put_cut(name, encoded, len(encoded), _MAX_LABEL)

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
        if self.lines.used >= self.flush_at:
            self.flush()

    def flush(self) -> None:
        """Write what the reader takes now; keep the rest up to a bound."""
        if self.lines.used == 0:
            return
        rest: bytes = self.write_lines(self.lines.take())
        if len(rest) > _KEEP_AT_MOST:
            kept: bytes = rest[: rest.rfind(b"\n", 0, _KEEP_AT_MOST) + 1]
            self.dropped += rest.count(b"\n") - kept.count(b"\n")
            rest = kept
        self.lines.clear()
        self.lines.put_bytes(rest)
        self.flush_at = len(rest) + _FLUSH_AT  # a reader that does not read is not asked for every line

    def write_lines(self, pending: bytes) -> bytes:
        """Write without waiting; gives what could not be written."""
        start: int = 0
        end: int
        try:
            while start < len(pending):
                end = len(pending)
                if self.in_pieces and end - start > _PIECE:
                    end = pending.rfind(b"\n", start, start + _PIECE) + 1 or start + _PIECE
                if self.poll is not None and not self.poll.poll(0):
                    return pending[start:]
                if self.torn:
                    os.write(self.fd, b"\n")
                    self.torn = False
                start += os.write(self.fd, pending[start:end])
        except BlockingIOError:
            return pending[start:]
        except OSError:  # nobody reads it any more, or the disk is full: nothing to keep the lines for
            if start > 0:
                self.torn = pending[start - 1] != 10
            self.dropped += pending.count(b"\n", start)
        return b""

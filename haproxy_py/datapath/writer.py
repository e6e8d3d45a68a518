"""A piece of memory in which a head is put together before it leaves in one write.

Each worker has one, used within one callback and never across two. A write past its end is not made but remembered:
`check` then raises, so a head is either whole or not sent at all.
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.limits import WRITER_SIZE
from cython.cimports.libc.string import memcpy


@cython.final
@cython.cclass
class Writer:
    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def clear(self) -> cython.void:
        self.used = 0
        self.overflowed = False

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def put(self, source: cython.p_const_char, size: cython.Py_ssize_t) -> cython.void:
        if size < 0 or size > WRITER_SIZE - self.used:
            self.overflowed = True
            return
        memcpy(cython.address(self.space[0]) + self.used, source, size)
        self.used += size

    @cython.cfunc
    @cython.exceptval(check=False)
    def put_bytes(self, source: bytes) -> cython.void:
        self.put(PyBytes_AS_STRING(source), PyBytes_GET_SIZE(source))

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def put_byte(self, value: cython.char) -> cython.void:
        self.put(cython.address(value), 1)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    @cython.cdivision(True)  # the divisor is a constant
    def put_number(self, value: cython.longlong) -> cython.void:
        """Decimal digits of a number that is not negative."""
        digits: cython.char[20]
        at: cython.int = 20
        while True:
            at -= 1
            digits[at] = 48 + value % 10
            value //= 10
            if value == 0 or at == 0:
                break
        self.put(cython.address(digits[0]) + at, 20 - at)

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def check(self) -> cython.int:
        """Whether all that was written stands in `space`, `used` octets. Raises OverflowError."""
        if self.overflowed:
            raise OverflowError("a head grew past the writer: the limits of the configuration should prevent that")
        return 0

    @cython.cfunc
    def take(self) -> bytes:
        """What was written, as an object of its own. Raises OverflowError."""
        self.check()
        return PyBytes_FromStringAndSize(cython.address(self.space[0]), self.used)


_HEX = cython.declare(cython.p_const_char, b"0123456789abcdef")


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_hex(into: cython.p_char, value: cython.ulonglong) -> cython.void:
    """Sixteen lower-case hexadecimal digits."""
    at: cython.int
    for at in range(16):
        into[15 - at] = _HEX[value & 15]
        value >>= 4

"""Counting: plain additions to cells of shared memory. Where each cell lies stands in `haproxy_py.counters`."""

import cython
from cython.cimports.cpython.buffer import PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

from haproxy_py import counters as layout

_BUCKETS = cython.declare(cython.double[32])
_BUCKET_COUNT = cython.declare(cython.int, len(layout.DURATION_BUCKETS))
_REQUESTS = cython.declare(cython.int, layout.REPLICA_REQUESTS)
_CODES_SEEN = cython.declare(cython.int, layout.REPLICA_CODES_SEEN)
_METHODS = cython.declare(cython.int, len(layout.METHODS))


@cython.cfunc
def _fill_buckets() -> cython.void:
    index: cython.int
    for index in range(_BUCKET_COUNT):
        _BUCKETS[index] = layout.DURATION_BUCKETS[index]


_fill_buckets()


@cython.final
@cython.cclass
class Counters:
    """A worker's own segment. `memory` is a writable buffer of `counters.SEGMENT_BYTES`."""

    def __cinit__(self, memory: object):
        view: Py_buffer
        if len(memory) < layout.SEGMENT_BYTES:
            raise ValueError(f"the counters need {layout.SEGMENT_BYTES} bytes, this memory has {len(memory)}")
        PyObject_GetBuffer(memory, cython.address(view), PyBUF_WRITABLE)
        self.cells = cython.cast(cython.pointer(cell), view.buf)
        self.size = view.len // layout.CELL
        PyBuffer_Release(cython.address(view))
        self.memory = memory  # a mapping does not move, and it lives as long as this object does

    @cython.cfunc
    def block(self, first: cython.Py_ssize_t) -> cython.pointer(cell):
        """The cells of a block from its first on."""
        if not 0 <= first < self.size:
            raise IndexError("a block of counters lies outside the segment")
        return self.cells + first


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def observe(histogram: cython.pointer(cell), seconds: cython.double) -> cython.void:
    """Count a duration: one bucket, and the sum in nanoseconds."""
    index: cython.int = 0
    while index < _BUCKET_COUNT and seconds > _BUCKETS[index]:
        index += 1
    histogram[index] += 1
    if seconds > 0:
        histogram[_BUCKET_COUNT + 1] += cython.cast(cell, seconds * 1e9)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def count_answer(replica: cython.pointer(cell), status: cython.int, method: cython.int) -> cython.void:
    """Count an answer of a replica by status and method; both have been checked to be in range."""
    code: cython.int = status - 100
    if code < 0 or code > 899:
        return
    replica[_CODES_SEEN + (code >> 6)] |= cython.cast(cell, 1) << (code & 63)
    replica[_REQUESTS + code * _METHODS + method] += 1

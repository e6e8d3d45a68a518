"""Evidence: which failed exchanges say something about their replica (RTY-11).

A client chooses what it asks, so it can choose what fails: a path whose handler resets, one that is never answered, an upgrade
that nobody serves. Were those held against the replica, any client could put replicas out of service. So a failure counts
only if requests with the same method and path are answered: the last three thousand or so such pairs that had a complete
response are remembered, and each answer makes three failures credible, so that a path that is broken since says no more.

An upgrade that fails never counts: Node closes the connection of one that nobody serves, without a word. That a replica
cannot be connected to always counts, because no request was involved.
"""

import os

import cython
from cython.cimports.haproxy_py.datapath.count import cell
from cython.cimports.libc.string import memcpy, memset

_KEY = cython.declare(cython.uint, 0xFFFFFFFC)
_MIX = cython.declare(cython.ulonglong, 0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd


@cython.final
@cython.cclass
class Evidence:
    """One per worker: 16 KiB, whatever clients ask. Two pairs in one place displace each other, which loses evidence only."""

    def __init__(self):
        self.seed = int.from_bytes(os.urandom(8), "little")  # nobody can look for pairs with one key
        memset(self.answered, 0, cython.sizeof(self.answered))

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def key_of(
        self, instance: cython.pointer(cell), method: cython.int, path: cython.p_const_char, size: cython.Py_ssize_t
    ) -> cython.uint:
        """A number for the requests with this method and path of the instance that has these counters."""
        key: cython.ulonglong = self.seed ^ cython.cast(cython.size_t, instance) ^ cython.cast(cython.ulonglong, method)
        word: cython.ulonglong
        while size >= 8:
            memcpy(cython.address(word), path, 8)
            key = (key ^ word) * _MIX
            key ^= key >> 29
            path += 8
            size -= 8
        word = cython.cast(cython.ulonglong, size) << 56
        if size > 0:
            memcpy(cython.address(word), path, size)  # seven octets at most: the number of them stays
        key = (key ^ word) * _MIX
        return cython.cast(cython.uint, key >> 32) & _KEY

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def remember_answer(self, key: cython.uint) -> cython.void:
        """Such a request had a complete response."""
        self.answered[key >> 20] = key | 3

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def believe_failure(self, key: cython.uint) -> cython.bint:
        """Whether the failure of such a request counts against its replica; one less does from now on."""
        known: cython.uint = self.answered[key >> 20]
        if known & _KEY != key or known & 3 == 0:
            return False
        self.answered[key >> 20] = known - 1
        return True

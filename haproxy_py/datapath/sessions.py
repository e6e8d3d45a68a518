"""Sessions: which replica has a socket.io session, so that its requests come there, whether the client keeps cookies or not.

- A session begins with a GET below a `socket.io/` path that asks for `transport=polling` and names no `sid`. The answer tells
  its id: `0{"sid":"...` in Engine.IO 4, with a length in front (`97:0{`) in Engine.IO 3, with backslashes before the quotes
  where JSONP wraps it. Only the first octets of such an answer are looked at, as they pass. What is compressed is not
  understood: Engine.IO compresses from 1,024 octets on, and a handshake has a hundred.
- Every later request of the session names it in its query, the upgrade to WebSocket, too.
- The ids lie in one table of fixed size that all workers share (`haproxy_py.session_table`), because the next request may come
  to another worker, and to one that began after the handshake. It holds no id, but a hash of instance and id under a secret
  key: an id that was not seen is not found, nor is one of another instance.
- A new session takes the place in its bucket that was not used for longest. Whoever begins thousands displaces what is old,
  and nothing grows.
- Workers take no lock. What two of them write at once, or what is read half written, has a key that nobody looks for: a
  session that is not found is chosen for as if it had no id. The time of use is a word of its own, so a session in use
  never looks half written.
- The first handshake counts: another replica's answer with the same id changes nothing while the session is in use.
"""

import hashlib

import cython
from cython.cimports.cpython.buffer import PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.limits import MAX_SID
from cython.cimports.haproxy_py.datapath.pool import Replica
from cython.cimports.haproxy_py.datapath.routes import Instance
from cython.cimports.libc.string import memchr, memcmp, memcpy

from haproxy_py import session_table as layout

_ENTRIES_AT = cython.declare(cython.Py_ssize_t, layout.ENTRIES_AT)
_WAYS = cython.declare(cython.int, layout.WAYS)
_LAST_BUCKET = cython.declare(cython.ulonglong, layout.BUCKETS - 1)
_EXPIRES = cython.declare(cython.ulonglong, layout.EXPIRES)
_REFRESH = cython.declare(cython.ulonglong, layout.REFRESH)
_STAMP = cython.declare(cython.ulonglong, 0xFFFFFF)
_AHEAD = cython.declare(cython.ulonglong, 0xFFFFFF - 3600)  # an age from here on is that of a clock a little behind
_EMPTY = cython.declare(cython.ulonglong, 0xFFFFFFFF)  # older than any
_IN_SID = cython.declare(cython.uchar[256])


@cython.cfunc
def _fill_classes() -> cython.void:
    code: cython.int
    for code in range(256):
        _IN_SID[code] = 0
    for code in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        _IN_SID[code] = 1


_fill_classes()


@cython.final
@cython.cclass
class Sessions:
    """The table, as a worker sees it. `memory` is a writable buffer of `session_table.TABLE_BYTES`."""

    def __cinit__(self, memory: object):
        view: Py_buffer
        if len(memory) < layout.TABLE_BYTES:
            raise ValueError(f"sessions need {layout.TABLE_BYTES} bytes, this memory has {len(memory)}")
        PyObject_GetBuffer(memory, cython.address(view), PyBUF_WRITABLE)
        start: cython.p_char = cython.cast(cython.p_char, view.buf)
        self.secret = start[: layout.SECRET_BYTES]
        self.entries = cython.cast(cython.pointer(Entry), start + _ENTRIES_AT)
        PyBuffer_Release(cython.address(view))
        self.memory = memory  # a mapping does not move, and it lives as long as this object does

    @cython.cfunc
    @cython.exceptval(check=False)
    def _bucket_of(self, key: cython.ulonglong) -> cython.pointer(Entry):
        return self.entries + (key & _LAST_BUCKET) * _WAYS

    @cython.cfunc
    def _key_of(self, instance: Instance, sid: bytes) -> cython.ulonglong:
        key: cython.ulonglong
        text: bytes = b"%s\0%s" % (instance.name.encode(), sid)
        digest: bytes = hashlib.blake2b(text, digest_size=8, key=self.secret).digest()
        memcpy(cython.address(key), PyBytes_AS_STRING(digest), 8)
        return key

    @cython.cfunc
    def remember(self, instance: Instance, sid: bytes, replica: Replica, now: cython.double):
        """A session has begun at a replica."""
        key: cython.ulonglong = self._key_of(instance, sid)
        stamp: cython.ulonglong = _stamp_of(now)
        bucket: cython.pointer(Entry) = self._bucket_of(key)
        place: cython.pointer(Entry) = bucket
        oldest: cython.ulonglong = 0
        age: cython.ulonglong
        mark: cython.ulonglong
        way: cython.int
        for way in range(_WAYS):
            mark = bucket[way].value >> 24
            age = _age_of(bucket[way].value, stamp)
            if bucket[way].check ^ mark == key and age <= _EXPIRES and mark != replica.mark:
                return
            if bucket[way].check ^ mark == key:
                place = cython.address(bucket[way])
                break
            if age > oldest:
                oldest = age
                place = cython.address(bucket[way])
        place.check = key ^ replica.mark
        place.value = replica.mark << 24 | stamp

    @cython.cfunc
    def find(self, instance: Instance, sid: bytes, now: cython.double) -> Replica:
        """The replica that has a session; None if nothing is known of it, or the replica may be given no work."""
        key: cython.ulonglong = self._key_of(instance, sid)
        stamp: cython.ulonglong = _stamp_of(now)
        bucket: cython.pointer(Entry) = self._bucket_of(key)
        value: cython.ulonglong
        age: cython.ulonglong
        way: cython.int
        for way in range(_WAYS):
            value = bucket[way].value
            if bucket[way].check ^ (value >> 24) == key:
                age = _age_of(value, stamp)
                if age > _EXPIRES:
                    return None
                if age >= _REFRESH:
                    bucket[way].value = value & ~_STAMP | stamp
                return instance.by_mark.get(value >> 24)
        return None


@cython.cfunc
@cython.exceptval(check=False)
def _stamp_of(now: cython.double) -> cython.ulonglong:
    """The second of a monotonic time, as entries hold it."""
    return cython.cast(cython.ulonglong, now) & _STAMP


@cython.cfunc
@cython.exceptval(check=False)
def _age_of(value: cython.ulonglong, stamp: cython.ulonglong) -> cython.ulonglong:
    """Seconds since an entry was used. The seconds go round after half a year; workers' clocks are a tick apart."""
    age: cython.ulonglong
    if value == 0:
        return _EMPTY
    age = (stamp - value) & _STAMP
    return 0 if age > _AHEAD else age


@cython.cfunc
@cython.exceptval(check=False)
def _measure_sid(at: cython.p_const_char, stop: cython.p_const_char) -> cython.Py_ssize_t:
    """The number of octets from `at` on that can be an id's; 0 if they are more than one has."""
    end: cython.p_const_char = at
    while end < stop and _IN_SID[cython.cast(cython.uchar, end[0])]:
        end += 1
    return end - at if end - at <= MAX_SID else 0


@cython.cfunc
def read_parameter(query: cython.p_const_char, size: cython.Py_ssize_t, name: bytes) -> bytes:
    """The value of the first parameter of this name in a query; empty if it could be no id, None if there is none."""
    at: cython.p_const_char = query
    stop: cython.p_const_char = query + size
    end: cython.p_const_char
    name_size: cython.Py_ssize_t = PyBytes_GET_SIZE(name)
    value_size: cython.Py_ssize_t
    while at < stop:
        end = cython.cast(cython.p_const_char, memchr(at, 38, stop - at))
        if end == cython.NULL:
            end = stop
        if end - at > name_size and at[name_size] == 61 and memcmp(at, PyBytes_AS_STRING(name), name_size) == 0:
            at += name_size + 1
            value_size = _measure_sid(at, end)
            return at[:value_size] if at + value_size == end else b""
        at = end + 1
    return None


@cython.cfunc
def read_sid(opening: bytes) -> bytes:
    """The id that the beginning of an answer to a handshake tells; None if it does not, or not yet."""
    at: cython.p_const_char = PyBytes_AS_STRING(opening)
    stop: cython.p_const_char = at + PyBytes_GET_SIZE(opening)
    begin: cython.p_const_char
    size: cython.Py_ssize_t
    slash: cython.Py_ssize_t
    while at < stop:
        begin = cython.cast(cython.p_const_char, memchr(at, 123, stop - at))  # {
        if begin == cython.NULL:
            return None
        at = begin + 1
        slash = 1 if at < stop and at[0] == 92 else 0  # in JSONP it stands in a string
        if stop - at < 7 + 3 * slash or memcmp(at, b'\\"sid\\":\\"' if slash else b'"sid":"', 7 + 3 * slash) != 0:
            continue
        begin = at + 7 + 3 * slash
        size = _measure_sid(begin, stop)
        if size > 0 and begin + size < stop and begin[size] == (92 if slash else 34):
            return begin[:size]
    return None

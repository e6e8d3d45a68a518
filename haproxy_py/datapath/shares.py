"""Shares: what each client address has open and how fast it asks, so that one client does not take what is there for all.

- An address is an IPv4 address, or the /64 of an IPv6 one: whoever has one has them all. IPv4 written as IPv6 is IPv4.
- Connections are counted in slot 0, because they come before their instance is known; exchanges and requests per instance.
- The table is bounded. What has nothing open and its whole burst is forgotten; if the table is full, so is whoever has nothing
  open for longest. If all have something open, who comes new is not counted: an attacker with many addresses must not be able to
  have others refused, and what all have together is bounded elsewhere.
- A rate is a time (GCRA): each request moves the moment at which the whole burst can be had again by the time that one request
  is worth; one that would move it beyond the burst is refused, and moves nothing.
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING
from cython.cimports.haproxy_py.datapath.sockets import AF_INET, AF_INET6, inet_pton
from cython.cimports.libc.string import memcmp

_FORGOTTEN_PER_TICK = cython.declare(cython.int, 1024)
_MAPPED = cython.declare(bytes, bytes(10) + b"\xff\xff")  # RFC 4291 section 2.5.5.2


@cython.cfunc
def _key_of(address: bytes, slot: cython.int) -> bytes:
    """What stands for the address; None if it is none."""
    octets: cython.uchar[16]
    if inet_pton(AF_INET, PyBytes_AS_STRING(address), cython.address(octets)) == 1:
        return b"%d.%b" % (slot, octets[:4])
    if inet_pton(AF_INET6, PyBytes_AS_STRING(address), cython.address(octets)) != 1:
        return None
    if memcmp(cython.address(octets), PyBytes_AS_STRING(_MAPPED), 12) == 0:
        return b"%d.%b" % (slot, octets[12:16])
    return b"%d.%b" % (slot, octets[:8])


@cython.final
@cython.cclass
class Share:
    """One client address."""

    def __cinit__(self, key: bytes):
        self.key = key


@cython.final
@cython.cclass
class Shares:
    """One per worker."""

    def __init__(self, most: cython.Py_ssize_t):
        self.known = {}
        self.most = most

    @cython.cfunc
    def find(self, address: bytes, slot: cython.int) -> Share:
        """None: it is not counted."""
        key: bytes = _key_of(address, slot)
        share: Share
        if key is None:
            return None
        share = self.known.get(key)
        if share is not None:
            return share
        if len(self.known) >= self.most:
            if self.oldest is None:
                return None
            self._forget(self.oldest)
        share = Share(key)
        self.known[key] = share
        self._append(share)
        return share

    @cython.cfunc
    @cython.exceptval(check=False)
    def use(self, share: Share) -> cython.void:
        """One more is open. `find` has just given the share."""
        if share.uses == 0:
            self._unlink(share)
        share.uses += 1

    @cython.cfunc
    def leave(self, share: Share, now: cython.double) -> cython.void:
        """One has ended."""
        share.uses -= 1
        if share.uses == 0:
            self._append(share)
            if share.full_at <= now:
                self._forget(share)

    @cython.cfunc
    @cython.exceptval(check=False)
    def may_ask(self, share: Share, interval: cython.double, debt: cython.double, now: cython.double) -> cython.bint:
        """Take one request, which is worth `interval` seconds, of a burst worth `debt`."""
        full_at: cython.double = share.full_at if share.full_at > now else now
        if full_at > now + debt:  # it was counted by other settings
            full_at = now + debt
        if full_at + interval > now + debt + interval / 1000:
            return False
        share.full_at = full_at + interval
        return True

    @cython.cfunc
    def forget_full(self, now: cython.double) -> cython.void:
        """With every tick: forget whose burst is whole again."""
        _forgotten: cython.int
        for _forgotten in range(_FORGOTTEN_PER_TICK):
            if self.oldest is None or self.oldest.full_at > now:
                return
            self._forget(self.oldest)

    @cython.cfunc
    @cython.exceptval(check=False)
    def _append(self, share: Share) -> cython.void:
        share.older = self.newest
        if self.newest is None:
            self.oldest = share
        else:
            self.newest.newer = share
        self.newest = share

    @cython.cfunc
    @cython.exceptval(check=False)
    def _unlink(self, share: Share) -> cython.void:
        if share.older is None:
            self.oldest = share.newer
        else:
            share.older.newer = share.newer
        if share.newer is None:
            self.newest = share.older
        else:
            share.newer.older = share.older
        share.older = None
        share.newer = None

    @cython.cfunc
    def _forget(self, share: Share) -> cython.void:
        self._unlink(share)
        del self.known[share.key]

"""The queue of an instance: requests that wait for a place, because every replica that may be used has as many as it may.

- First in, first out: whoever comes while somebody waits goes to the end, even if a place is free at that moment. Only a
  request whose replica could not be reached waits at the front: it came before all that wait.
- A place becomes free when an exchange ends, an attempt to connect fails, a replica is added or works again, and when time has
  passed for one that was out. Places are given away in a turn of the loop of their own, never from within the end of another
  exchange, whose answer may lie half written in the memory that all share.
- A queue outlives tables, as replicas do. It is bounded by `limits.queue`, each wait by `timeouts.queue`.
"""

import cython
from cython.cimports.haproxy_py.datapath.count import cell
from cython.cimports.haproxy_py.datapath.limits import SERVED_PER_TURN
from cython.cimports.haproxy_py.datapath.stream import StreamUser

from haproxy_py import counters as layout

_QUEUED = cython.declare(cython.int, layout.INSTANCE_QUEUED)


@cython.cclass
class Waiting(StreamUser):
    """Whoever may have to wait in a queue."""

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def take_place(self) -> cython.bint:
        """It is the first: leave the queue for a place. False if there is none."""
        raise AssertionError("whoever waits must say what it does with a place")


@cython.final
@cython.cclass
class Queue:
    """One per instance and worker."""

    def __init__(self, loop: object):
        self.loop = loop

    @cython.cfunc
    def follow(self, instance: object, counts: cython.pointer(cell)) -> cython.void:
        """From now on places are those of this `Instance`; None: it has left the table."""
        self.instance = instance
        self.counts = counts

    @cython.cfunc
    @cython.exceptval(check=False)
    def append(self, waiting: Waiting) -> cython.void:
        """Wait behind all others."""
        waiting.waits_in = self
        waiting.ahead = self.last
        if self.last is None:
            self.first = waiting
        else:
            self.last.behind = waiting
        self.last = waiting
        self.size += 1
        self.counts[_QUEUED] += 1

    @cython.cfunc
    @cython.exceptval(check=False)
    def put_first(self, waiting: Waiting) -> cython.void:
        """Wait before all others."""
        waiting.waits_in = self
        waiting.behind = self.first
        if self.first is None:
            self.last = waiting
        else:
            self.first.ahead = waiting
        self.first = waiting
        self.size += 1
        self.counts[_QUEUED] += 1

    @cython.cfunc
    @cython.exceptval(check=False)
    def remove(self, waiting: Waiting) -> cython.void:
        """It waits no more."""
        if waiting.ahead is None:
            self.first = waiting.behind
        else:
            waiting.ahead.behind = waiting.behind
        if waiting.behind is None:
            self.last = waiting.ahead
        else:
            waiting.behind.ahead = waiting.ahead
        waiting.ahead = None
        waiting.behind = None
        waiting.waits_in = None
        self.size -= 1
        self.counts[_QUEUED] -= 1

    @cython.cfunc
    @cython.exceptval(check=False)
    def wake(self) -> cython.void:
        """A place may be free: look soon, if anybody waits."""
        if self.first is None or self.woken:
            return
        try:
            self.loop.call_soon(self.serve)
        except MemoryError:
            return  # the next tick wakes it again
        self.woken = True

    def serve(self) -> None:
        """Give the places that are free to the first in the queue."""
        first: Waiting
        served: cython.int = 0
        self.woken = False
        while self.first is not None:
            if served == SERVED_PER_TURN:  # others get their turn
                self.wake()
                return
            first = self.first
            if not first.take_place():
                return
            served += 1

"""Replicas as a worker sees them, and the idle connections it keeps to each.

A pool is last-in first-out, so that few connections stay hot and the rest expire (KAL-4). An idle connection leaves it at its
deadline, on any octet, EOF or error (KAL-6), when the pool is full (the oldest goes), or when its replica leaves the table.
"""

import cython
from cython.cimports.haproxy_py.datapath.count import Counters
from cython.cimports.haproxy_py.datapath.queue import Queue
from cython.cimports.haproxy_py.datapath.stream import StreamUser

from haproxy_py import counters as layout

_EJECTED = cython.declare(cython.int, layout.REPLICA_EJECTED)
_EJECTIONS = cython.declare(cython.int, layout.REPLICA_EJECTIONS)
_NEVER = cython.declare(cython.double, -1e9)  # seconds: long ago
_MOST_DOUBLINGS = cython.declare(cython.int, 30)
_LEAST_PART = cython.declare(cython.double, 0.01)  # of its weight: some work must come, or nothing would be known of it
_IDLE_CONNECTIONS = cython.declare(cython.int, layout.REPLICA_IDLE_CONNECTIONS)


@cython.cclass
class Pooled(StreamUser):
    """A connection that can be kept for the next exchange."""

    @cython.cfunc
    def discard(self):
        """Close it; it has left the pool already."""
        raise AssertionError("a pooled connection must say how it is closed")


@cython.final
@cython.cclass
class Replica:
    """One replica of an instance. Lives on through new tables as long as they name it."""

    def __init__(self, entry: object, queue: Queue, counters: Counters):
        self.name = entry.name
        self.host = entry.host
        self.port = entry.port
        self.token = entry.token.encode("ascii")
        self.mark = int(entry.token[:10], 16)
        self.counts = counters.block(layout.replica_at(entry.slot))
        self.queue = queue
        self.stamp = b""
        self.idle = []
        self.tunnels = set()
        self.gone = False
        self.draining = False
        self.healthy = True
        self.weight = 1
        self.lost_at = _NEVER

    def set_weight(self, weight: cython.int) -> None:
        """How much of the work it gets, compared with the others."""
        self.weight = weight

    def bound_credit(self, most: cython.double) -> None:
        """So much or so little at most: what was saved up beside heavier replicas would count for many turns beside others."""
        which: cython.int
        for which in range(2):
            if self.credit[which] > most:
                self.credit[which] = most
            elif self.credit[which] < -most:
                self.credit[which] = -most

    def set_stamp(self, short_id: str, form: str) -> None:
        """What answers say of the replica they came from: its `id`, its `name`, or nothing (`off`).

        The id may change: it is as long as tells it apart from the others.
        """
        self.id = short_id
        shown: str = {"id": short_id, "name": self.name, "off": ""}[form]
        self.stamp = f"X-HA-Replica: {shown}\r\n".encode("ascii") if shown else b""

    def set_ejection(self, first: cython.double, longest: cython.double) -> None:
        """Seconds: how long it is out the first time, and at most."""
        self.first_out = first
        self.longest_out = longest

    def set_draining(self, draining: cython.bint, drained: cython.bint, ends: cython.double) -> None:
        """Whether it drains, by an operator's word or not, and when that ends. Its idle connections go at once (DRN-2)."""
        self.draining = draining
        self.drained = drained
        self.drain_ends = ends
        if draining:
            self.close_idle()

    def set_healthy(self, healthy: cython.bint, now: cython.double) -> None:
        """What its checks say. Without health it keeps no idle connections.

        One that is healthy again is tried at once (RTY-11), and its share grows from now on.
        """
        if healthy and not self.healthy:
            self.out_until = 0
            self.trial = NO_TRIAL
            self.back_since = now
        self.healthy = healthy
        if not healthy:
            self.close_idle()

    def retire(self) -> None:
        """The table no longer names this replica: what runs may finish (DRN-3), nothing is kept for later."""
        self.failures = 0
        self.counts[_EJECTED] = 0
        self.gone = True
        self.close_idle()

    # --- ejection (RTY-11) ---

    @cython.cfunc
    @cython.exceptval(check=False)
    def eject(self, now: cython.double) -> cython.void:
        """Pass it over for a while, and twice as long every further time in a row, up to a bound."""
        if self.gone:
            return  # nobody would choose it, and its gauge would keep its counters from ever being another's
        if self.out_until > now and self.trial == NO_TRIAL:
            return  # that it failed others at the same time is no news
        self.trial = NO_TRIAL
        self.failures += 1
        self.troubles = 0
        self.out_until = now + self.choose_time_out()
        self.counts[_EJECTED] = 1
        self.counts[_EJECTIONS] += 1

    @cython.cfunc
    @cython.exceptval(check=False)
    def try_once(self, now: cython.double, seconds: cython.double) -> cython.void:
        """One exchange goes there to see; the others wait for what comes of it, but not longer than that.

        Where the one before it is still without an answer the wait is as long as if it had failed.
        """
        if self.trial == ASKED:
            self.failures += 1
            if self.choose_time_out() > seconds:
                seconds = self.choose_time_out()
        self.out_until = now + seconds
        self.trial = ASKED

    @cython.cfunc
    @cython.exceptval(check=False)
    def choose_time_out(self) -> cython.double:
        """Seconds that it is out after so many failures."""
        doublings: cython.int = self.failures - 1 if self.failures <= _MOST_DOUBLINGS else _MOST_DOUBLINGS
        seconds: cython.double = self.first_out * (1 << doublings)
        return seconds if seconds < self.longest_out else self.longest_out

    @cython.cfunc
    @cython.exceptval(check=False)
    def begins(self) -> cython.void:
        """The head of an answer has come: it is no proof, for the rest may never come."""
        if self.trial == ASKED:
            self.trial = ANSWERING

    @cython.cfunc
    @cython.exceptval(check=False)
    def take_back(self, now: cython.double) -> cython.void:
        """It was ejected, and works: an answer was complete, or a tunnel stands."""
        queue: Queue = self.queue
        self.failures = 0
        self.trial = NO_TRIAL
        self.out_until = 0
        self.back_since = now
        self.counts[_EJECTED] = 0
        queue.wake()

    @cython.cfunc
    @cython.exceptval(check=False)
    def share(self, now: cython.double, slow_start: cython.double) -> cython.double:
        """Its weight, as much of it as it may have by now (`slow_start`: seconds until it has all of it)."""
        part: cython.double
        if self.back_since == 0:
            return self.weight
        if now - self.back_since >= slow_start:
            self.back_since = 0
            return self.weight
        part = (now - self.back_since) / slow_start
        return self.weight * (part if part > _LEAST_PART else _LEAST_PART)

    @cython.cfunc
    def take_idle(self, younger_than: cython.double) -> Pooled:
        """The connection used last, if it went idle after that moment; else None."""
        connection: Pooled
        if not self.idle:
            return None
        connection = self.idle[-1]
        if connection.idle_since < younger_than:
            return None
        self.idle.pop()
        self.counts[_IDLE_CONNECTIONS] -= 1
        connection.stop_deadline()
        return connection

    @cython.cfunc
    def put_idle(self, connection: Pooled, limit: cython.int, now: cython.double) -> cython.void:
        """Keep a connection, whose deadline runs already."""
        oldest: Pooled
        connection.idle_since = now
        self.idle.append(connection)
        self.counts[_IDLE_CONNECTIONS] += 1
        if len(self.idle) > limit:
            oldest = self.idle[0]
            self.remove_idle(oldest)
            oldest.discard()

    @cython.cfunc
    def remove_idle(self, connection: Pooled) -> cython.void:
        """Take one connection out: it expired, or its other side moved."""
        self.idle.remove(connection)
        self.counts[_IDLE_CONNECTIONS] -= 1
        connection.stop_deadline()

    @cython.cfunc
    def close_idle(self):
        connection: Pooled
        while self.idle:
            connection = self.idle[-1]
            self.remove_idle(connection)
            connection.discard()

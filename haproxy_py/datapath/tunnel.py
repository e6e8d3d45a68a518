"""A tunnel: what a connection is after a 101. Octets go both ways as they come; frames are not looked at (WSK-7).

- Reading from one side pauses while the other takes less than it gets (WSK-13).
- A FIN is passed on behind what came before it; the other direction may go on for a while, then both close (WSK-10).
- A reset on one side aborts the other (WSK-11). A tunnel without an octet in either direction ends at the idle timeout.
- Nothing but its two sides, that timeout, the end of a drain, the proxy's or its replica's, and a gate that no longer lets its
  path pass ends a tunnel: no other change of the table does (DRN-14).
"""

from typing import Optional

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.context import Context, Entrance
from cython.cimports.haproxy_py.datapath.deadlines import Timed
from cython.cimports.haproxy_py.datapath.pool import Replica
from cython.cimports.haproxy_py.datapath.queue import Queue
from cython.cimports.haproxy_py.datapath.routes import Instance
from cython.cimports.haproxy_py.datapath.stream import Stream, StreamUser

from haproxy_py import counters as layout

_ACTIVE = cython.declare(cython.int, layout.REPLICA_ACTIVE_TUNNELS)
_TOTAL = cython.declare(cython.int, layout.REPLICA_TUNNELS_TOTAL)
_RECEIVED = cython.declare(cython.int, layout.REPLICA_RECEIVED_BYTES)
_SENT = cython.declare(cython.int, layout.REPLICA_SENT_BYTES)
_CLIENT_CONNECTIONS = cython.declare(cython.int, layout.WORKER_CLIENT_CONNECTIONS)


@cython.cfunc
@cython.exceptval(-2, check=True)
def find_denial(instance: Instance, path: bytes, method: bytes) -> cython.int:
    """The rule by which the newest table denies an upgrade that this instance once let pass, or -1.

    An instance that has left denies nothing, nor does a strict gate as long as it does not know what the flows declare.
    """
    queue: Queue = instance.queue
    newest: Instance = queue.instance
    verdict: cython.int
    if newest is None or not newest.ha:
        return -1
    verdict = newest.gate.judge(PyBytes_AS_STRING(path), PyBytes_GET_SIZE(path), method)
    if verdict < 0 and newest.gate.strict and newest.gate.knows_routes:
        verdict = newest.gate.judge_declared(PyBytes_AS_STRING(path), PyBytes_GET_SIZE(path), method, True)
    return verdict


@cython.final
@cython.cclass
class Tunnel(Timed):
    """Two ends. Made when the replica's 101 has been sent on; lives until both streams are gone."""

    def __init__(
        self,
        context: Context,
        entrance: Entrance,
        instance: Instance,
        replica: Replica,
        client: Stream,
        far: Stream,
        line: object,
        path: bytes,
        method: bytes,
    ):
        """`path` and `method` as the gate judged them."""
        self.context = context
        self.entrance = entrance
        self.instance = instance
        self.replica = replica
        self.line = line
        self.path = path
        self.method = method
        self.ended_by = ""
        self.client = TunnelEnd(self, client, "CT", False)
        self.far = TunnelEnd(self, far, "UT", True)
        self.client.other = self.far
        self.far.other = self.client
        replica.counts[_ACTIVE] += 1
        replica.counts[_TOTAL] += 1
        context.clients.add(self)
        replica.tunnels.add(self)
        client.user = self.client
        far.user = self.far
        instance.tunnel_idle.start(self)

    @cython.cfunc
    @cython.exceptval(check=False)
    def moved(self) -> cython.void:
        if not self.client.finished and not self.far.finished:
            self.instance.tunnel_idle.start(self)

    @cython.cfunc
    def expired(self):
        self.end("cT")

    @cython.cfunc
    def end(self, ended_by: str):
        """Close both sides now."""
        self.ended(None, ended_by, 0)

    @cython.cfunc
    def ended(self, which: Optional[TunnelEnd], ended_by: str, problem: cython.int):
        """One side is gone (`which`), or both are to go: the other goes too, at once after an error."""
        end: TunnelEnd
        if not self.ended_by:
            self.ended_by = ended_by
        for end in (self.client, self.far):
            if end is which or end.is_lost:
                continue
            if problem:
                end.stream.reset()
            elif end.stream.closing:
                if which is None:  # the second deadline; else what waits still leaves
                    end.stream.abort()
            else:
                end.stream.close()
        if which is not None and self.client.is_lost and self.far.is_lost:
            self.stop_deadline()
            self.context.clients.discard(self)
            self.replica.tunnels.discard(self)
            self.replica.counts[_ACTIVE] -= 1
            self.context.counts[_CLIENT_CONNECTIONS] -= 1
            if self.share is not None:
                self.context.shares.leave(self.share, self.context.clock.now)
                self.share = None
            self.entrance.leave()
            if self.line is not None:
                self.line(self.replica, self.ended_by, self.client.octets, self.far.octets)
                self.line = None
            # Nothing refers to it in a circle any more, so it is freed at once and not by the cyclic collector.
            self.client.other = None
            self.far.other = None
            self.client.tunnel = None
            self.far.tunnel = None
        else:
            self.instance.tunnel_half_close.start(self)  # until what still waits has left

    def obey_gate(self) -> None:
        """The gate has changed: what it would refuse now ends."""
        if not self.ended_by and find_denial(self.instance, self.path, self.method) >= 0:
            self.end("PT")

    def drain(self) -> None:
        """The proxy or its replica drains, and this tunnel's time has come (DRN-9)."""
        if not self.ended_by:
            self.end("KT")

    def abort(self) -> None:
        """End without another word: the drain's deadline has passed."""
        self.ended_by = self.ended_by or "KT"
        self.client.stream.abort()
        self.far.stream.abort()


@cython.final
@cython.cclass
class TunnelEnd(StreamUser):
    """One side."""

    def __init__(self, tunnel: Tunnel, stream: Stream, letters: str, is_replica: cython.bint):
        self.tunnel = tunnel
        self.stream = stream
        self.letters = letters
        self.is_replica = is_replica

    @cython.cfunc
    def received(self, data: cython.p_const_char, size: cython.Py_ssize_t):
        tunnel: Tunnel = self.tunnel
        self.octets += size
        tunnel.replica.counts[_RECEIVED if self.is_replica else _SENT] += size
        self.other.stream.send(data, size)
        tunnel.moved()

    @cython.cfunc
    def blocks(self, blocks: cython.bint):
        if blocks:
            self.other.stream.pause()
        else:
            self.other.stream.resume()

    @cython.cfunc
    def ended(self):
        tunnel: Tunnel = self.tunnel
        self.finished = True
        if not tunnel.ended_by:
            tunnel.ended_by = self.letters
        if self.other.finished:
            tunnel.end(self.letters)
            return
        self.other.stream.finish()
        tunnel.instance.tunnel_half_close.start(tunnel)

    @cython.cfunc
    def lost(self, problem: cython.int):
        tunnel: Tunnel = self.tunnel
        self.is_lost = True
        self.finished = True
        tunnel.ended(self, self.letters, problem)

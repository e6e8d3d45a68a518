"""A tunnel: what a connection is after a 101. Octets go both ways as they come; frames are not looked at (WSK-7).

- Reading from one side pauses while the other takes less than it gets (WSK-13).
- A FIN is passed on behind what came before it; the other direction may go on for a while, then both close (WSK-10).
- A reset on one side aborts the other (WSK-11). A tunnel without an octet in either direction ends at the idle timeout.
- Nothing but its two sides, that timeout and the end of a drain ends a tunnel: no change of the table does (DRN-14).
"""

import socket
import struct
from typing import Optional

import cython
from cython.cimports.cpython.bytes import PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.context import Context, Entrance
from cython.cimports.haproxy_py.datapath.deadlines import Timed
from cython.cimports.haproxy_py.datapath.pool import Replica
from cython.cimports.haproxy_py.datapath.routes import Instance

from haproxy_py import counters as layout

_ACTIVE = cython.declare(cython.int, layout.REPLICA_ACTIVE_TUNNELS)
_TOTAL = cython.declare(cython.int, layout.REPLICA_TUNNELS_TOTAL)
_RECEIVED = cython.declare(cython.int, layout.REPLICA_RECEIVED_BYTES)
_SENT = cython.declare(cython.int, layout.REPLICA_SENT_BYTES)
_CLIENT_CONNECTIONS = cython.declare(cython.int, layout.WORKER_CLIENT_CONNECTIONS)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER that turns a close into a reset


@cython.cfunc
def cut_off(transport: object):
    """End a connection with a reset."""
    channel: object = transport.get_extra_info("socket")
    if channel is not None and not transport.is_closing():
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


@cython.final
@cython.cclass
class Tunnel(Timed):
    """Two ends. Made when the replica's 101 has been sent on; lives until both transports are gone."""

    def __init__(
        self,
        context: Context,
        entrance: Entrance,
        instance: Instance,
        replica: Replica,
        client: object,
        far: object,
        line: object,
    ):
        self.context = context
        self.entrance = entrance
        self.instance = instance
        self.replica = replica
        self.line = line
        self.ended_by = ""
        self.client = TunnelEnd(self, client, "CT", False)
        self.far = TunnelEnd(self, far, "UT", True)
        self.client.other = self.far
        self.far.other = self.client
        replica.counts[_ACTIVE] += 1
        replica.counts[_TOTAL] += 1
        context.clients.add(self)
        client.set_protocol(self.client)
        far.set_protocol(self.far)
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
        self.ended(None, ended_by, None)

    @cython.cfunc
    def ended(self, which: Optional[TunnelEnd], ended_by: str, problem: object):
        """One side is gone (`which`), or both are to go: the other goes too, at once after an error."""
        end: TunnelEnd
        if not self.ended_by:
            self.ended_by = ended_by
        for end in (self.client, self.far):
            if end is which or end.lost:
                continue
            if problem is not None:
                cut_off(end.transport)
            elif end.transport.is_closing():
                if which is None:  # the second deadline; else what is buffered still leaves
                    end.transport.abort()
            else:
                end.transport.close()
        if which is not None and self.client.lost and self.far.lost:
            self.stop_deadline()
            self.context.clients.discard(self)
            self.replica.counts[_ACTIVE] -= 1
            self.context.counts[_CLIENT_CONNECTIONS] -= 1
            self.entrance.leave()
            if self.line is not None:
                self.line(self.replica, self.ended_by, self.client.received, self.far.received)
                self.line = None
        else:
            self.instance.tunnel_half_close.start(self)  # until what is still buffered has left

    def drain(self) -> None:
        """The proxy stops, and this tunnel's time has come (DRN-9)."""
        if not self.ended_by:
            self.end("KT")

    def abort(self) -> None:
        """End without another word: the drain's deadline has passed."""
        self.ended_by = self.ended_by or "KT"
        self.client.transport.abort()
        self.far.transport.abort()


@cython.final
@cython.cclass
class TunnelEnd:
    """The asyncio protocol of one side."""

    def __init__(self, tunnel: Tunnel, transport: object, letters: str, is_replica: cython.bint):
        self.tunnel = tunnel
        self.transport = transport
        self.write = transport.write
        self.letters = letters
        self.is_replica = is_replica

    def connection_made(self, transport: object) -> None:
        """Never called: the transport was made for another protocol."""

    def data_received(self, data: bytes) -> None:
        size: cython.Py_ssize_t = PyBytes_GET_SIZE(data)
        self.received += size
        self.tunnel.replica.counts[_RECEIVED if self.is_replica else _SENT] += size
        self.other.write(data)
        self.tunnel.moved()

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.other.finished:
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        tunnel: Tunnel = self.tunnel
        self.finished = True
        if not tunnel.ended_by:
            tunnel.ended_by = self.letters
        if self.other.finished or not self.other.transport.can_write_eof():
            tunnel.end(self.letters)
            return False
        self.other.transport.write_eof()
        tunnel.instance.tunnel_half_close.start(tunnel)
        return True

    def connection_lost(self, problem: object) -> None:
        self.lost = True
        self.finished = True
        self.tunnel.ended(self, self.letters, problem)

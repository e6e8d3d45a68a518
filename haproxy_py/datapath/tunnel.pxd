from haproxy_py.datapath.context cimport Context, Entrance
from haproxy_py.datapath.deadlines cimport Timed
from haproxy_py.datapath.pool cimport Replica
from haproxy_py.datapath.routes cimport Instance
from haproxy_py.datapath.shares cimport Share
from haproxy_py.datapath.stream cimport Stream, StreamUser

cdef class Tunnel(Timed):
    cdef readonly Context context
    cdef readonly Entrance entrance
    cdef readonly Instance instance
    cdef readonly Replica replica
    cdef Share share  # of the connections of the client's address; None: it is not counted
    cdef readonly TunnelEnd client
    cdef readonly TunnelEnd far
    cdef readonly str ended_by  # who ended it first: two letters of the access log; empty while it lives
    cdef bytes path  # that the gate judged
    cdef bytes method
    cdef object line  # what the access log still needs: called with (replica, ended_by, octets in, octets out)

    cdef void moved(self) noexcept
    cdef end(self, str ended_by)
    cdef ended(self, TunnelEnd which, str ended_by, int problem)

cdef int find_denial(Instance instance, bytes path, bytes method) except? -2

cdef class TunnelEnd(StreamUser):
    cdef Tunnel tunnel
    cdef TunnelEnd other
    cdef readonly Stream stream
    cdef str letters  # what the log says if this end ends first
    cdef long long octets  # that came from its side
    cdef bint finished  # its side has sent FIN
    cdef bint is_lost
    cdef readonly bint is_replica

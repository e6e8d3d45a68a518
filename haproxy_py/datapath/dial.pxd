from haproxy_py.datapath.context cimport Context
from haproxy_py.datapath.exchange cimport Exchange
from haproxy_py.datapath.pool cimport Replica
from haproxy_py.datapath.routes cimport Instance
from haproxy_py.datapath.sockets cimport sockaddr_storage, socklen_t
from haproxy_py.datapath.stream cimport Stream, StreamUser

cdef class Dial(StreamUser):
    cdef Context context
    cdef Exchange exchange
    cdef Instance instance
    cdef readonly Replica replica  # that is being connected to
    cdef list tried  # of Replica: that could not be reached
    cdef double began  # monotonic seconds
    cdef double attempt_began
    cdef bint own_fault  # the attempt failed for want of something here
    cdef Stream stream
    cdef object lookup  # the task that looks up the replica's name
    cdef list addresses  # still to be tried, of the replica's name
    cdef bint over

    cdef double choose_seconds(self) noexcept
    cdef attempt(self, double seconds)
    cdef connect_next(self)
    cdef attempt_failed(self, int reason)
    cdef settle(self, int reason)
    cdef void stop_attempt(self)

cdef socklen_t read_address(str host, int port, sockaddr_storage* address) except 0

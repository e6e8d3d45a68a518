from haproxy_py.datapath.access_log cimport AccessLog
from haproxy_py.datapath.count cimport Counters, cell
from haproxy_py.datapath.deadlines cimport Clock
from haproxy_py.datapath.heads cimport Head
from haproxy_py.datapath.routes cimport Routes
from haproxy_py.datapath.writer cimport Writer

cdef class Entrance:
    cdef readonly str scheme
    cdef readonly int port
    cdef bytes authority  # what stands in for a Host that an HTTP/1.0 request lacks
    cdef readonly int open  # client connections that came in here
    cdef public object changed  # called when `open` has changed, so that accepting can pause and go on
    cdef bytes forwarding  # X-Forwarded-Proto and X-Forwarded-Port of a client that no proxy speaks for

    cpdef enter(self)
    cpdef leave(self)

cdef class Context:
    cdef readonly object loop
    cdef readonly Clock clock
    cdef readonly Counters counters
    cdef readonly Routes routes
    cdef readonly AccessLog log  # None: off
    cdef public bint draining
    cdef readonly set clients  # of ClientConnection and of Tunnel: what is open now
    cdef readonly set dials  # of tasks that connect to replicas
    cdef readonly set spare  # of connections to replicas that no pool holds
    # memory that is used within one callback
    cdef Writer writer
    cdef Head request
    cdef Head response
    # facts for heads
    cdef bytes via
    cdef bytes date_line
    cdef long long date_second
    # of this process
    cdef cell* counts
    cdef unsigned long long seed[2]

    cdef unsigned long long random(self) noexcept nogil

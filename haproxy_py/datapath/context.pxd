from haproxy_py.datapath.access_log cimport AccessLog
from haproxy_py.datapath.count cimport Counters, cell
from haproxy_py.datapath.deadlines cimport Clock
from haproxy_py.datapath.evidence cimport Evidence
from haproxy_py.datapath.heads cimport Head
from haproxy_py.datapath.poller cimport Poller
from haproxy_py.datapath.routes cimport Routes
from haproxy_py.datapath.sessions cimport Sessions
from haproxy_py.datapath.shares cimport Shares
from haproxy_py.datapath.writer cimport Writer

cdef class Entrance:
    cdef readonly str scheme
    cdef readonly int port
    cdef bytes authority  # what stands in for a Host that an HTTP/1.0 request lacks
    cdef readonly int open  # client connections that came in here
    cdef public int limit  # of `open`: accepting pauses there
    cdef public int room_again  # and goes on here
    cdef public bint leaving  # the listener is being closed: its connections end as in a drain
    cdef object crossed  # called when `open` has come to one of the two
    cdef object failed  # called with an error number when a connection could not be accepted
    cdef public object handshake_failed  # called with the index of a reason in counters.TLS_FAILURES
    cdef public object tls  # the ssl.SSLContext of connections from now on; None: plain
    cdef bytes forwarding  # X-Forwarded-Proto and X-Forwarded-Port of a client that no proxy speaks for

    cdef enter(self)
    cdef leave(self)
    cdef cannot_accept(self, int error)

cdef class Context:
    cdef readonly object loop
    cdef readonly Poller poller
    cdef readonly Clock clock
    cdef readonly Counters counters
    cdef readonly Routes routes
    cdef Sessions sessions
    cdef object ran_out  # called with an error number when no connection to a replica could be opened for want of something here
    cdef public AccessLog log  # None: off; may change between two events
    cdef public bint draining
    cdef readonly set clients  # of ClientConnection and of Tunnel: what is open now
    cdef readonly set dials  # of Dial: what is under way to replicas
    cdef readonly set spare  # of connections to replicas that no pool holds
    # memory that is used within one callback
    cdef Writer writer
    cdef Head request
    cdef Head response
    cdef Evidence evidence
    cdef readonly Shares shares  # of client addresses
    cdef readonly Py_ssize_t gathered  # octets of requests that are gathered now
    # facts for heads
    cdef bytes via
    cdef bytes date_line
    cdef long long date_second
    # of this process
    cdef cell* counts
    cdef unsigned long long seed[2]

    cdef unsigned long long random(self) noexcept nogil

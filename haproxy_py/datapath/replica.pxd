from haproxy_py.datapath.context cimport Context
from haproxy_py.datapath.framing cimport Body
from haproxy_py.datapath.heads cimport Head
from haproxy_py.datapath.pool cimport Pooled, Replica
from haproxy_py.datapath.queue cimport Waiting
from haproxy_py.datapath.routes cimport Instance
from haproxy_py.datapath.stream cimport Stream

# What a connection to a replica is doing.
cdef enum Phase:
    FRESH  # just connected, in no exchange yet
    UNUSED  # in the pool; every octet that comes is stray
    AWAITING  # in an exchange: no head of a final answer yet
    ANSWERING  # its body is coming
    GONE  # closed, or handed over to a tunnel

cdef class ReplicaUser(Waiting):
    cdef answer_begins(self, ReplicaConnection connection, Head head, const char* piece, Py_ssize_t size)
    cdef answer_interim(self, ReplicaConnection connection, Head head)
    cdef answer_goes_on(self, ReplicaConnection connection, const char* piece, Py_ssize_t size)
    cdef divert_answer(self, ReplicaConnection connection)
    cdef answer_passed(self, ReplicaConnection connection, Py_ssize_t size)
    cdef answer_complete(self, ReplicaConnection connection)
    cdef answer_switches(self, ReplicaConnection connection, Head head, const char* rest, Py_ssize_t size)
    cdef exchange_failed(self, ReplicaConnection connection, int reason)
    cdef replica_blocks(self, bint blocks)

cdef class ReplicaConnection(Pooled):
    # settings
    cdef Context context
    cdef readonly Replica replica
    # per connection
    cdef readonly Stream stream
    cdef Body body
    cdef Phase phase
    cdef bint reused
    cdef Py_ssize_t waiting_size  # of the write buffer when it was last looked at
    cdef bint blocked  # the replica takes the request slower than it comes
    cdef bint reading_paused  # the client takes the answer slower than it comes
    # per exchange
    cdef ReplicaUser user
    cdef Instance instance
    cdef bint to_head_request
    cdef bint decoded
    cdef bint request_complete
    cdef bint heard  # any octet of an answer has arrived
    cdef bint persistent  # the answer lets the connection stay
    cdef int interim  # answers 1xx
    cdef bint doubtful  # something about an answer says not to use the connection again
    cdef int keep_seconds  # from Keep-Alive: timeout; -1 without a hint
    cdef bytes held  # the beginning of a head

    cdef void begin(self, ReplicaUser user, Instance instance, bint to_head_request, bint decoded) noexcept
    cdef void send(self, const char* first, Py_ssize_t first_size, const char* second, Py_ssize_t second_size)
    cdef void request_passed(self, Py_ssize_t size)
    cdef void request_is_complete(self) noexcept
    cdef body_moved(self, bint reusable)
    cdef void choose_deadline(self) noexcept
    cdef void set_paused(self, bint paused)
    cdef take_heads(self, const char* data, Py_ssize_t size)
    cdef finish(self, bint reusable)
    cdef fail(self, int reason)
    cdef detach(self)
    cdef hand_over(self)
    cdef void park(self, Instance instance)
    cdef bint is_taking(self) noexcept
    cdef void read_keep_alive(self, Head head) noexcept

from haproxy_py.datapath.exchange cimport Exchange
from haproxy_py.datapath.heads cimport Head
from haproxy_py.datapath.passage cimport Passage
from haproxy_py.datapath.pool cimport Replica
from haproxy_py.datapath.replica cimport ReplicaConnection
from haproxy_py.datapath.routes cimport Instance, Routes

cdef class ClientConnection(Exchange):
    # per connection
    cdef bytes held  # what has come and cannot be used yet: part of a head, or later requests
    cdef bint reading_paused
    cdef bint turn_pending  # what is held waits for the next turn of the loop
    cdef bint half_closed  # the client has sent FIN
    cdef int exchanges  # ended on this connection
    cdef Py_ssize_t waiting_size  # of the write buffer when it was last looked at
    cdef double taken_at  # monotonic seconds: when the client was last seen to take something
    cdef Py_ssize_t discarded  # octets, while lingering
    cdef bytes known_host  # as the last request spelled it, with the instance and the routes it led to
    cdef Instance known_instance
    cdef Routes known_routes

    cdef take_input(self, const char* data, Py_ssize_t size)
    cdef Py_ssize_t take_head(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t take_body(self, const char* data, Py_ssize_t size) except -1
    cdef int _verdict(self, Head head, Passage* passage) except? -1000
    cdef int find_instance(self, Passage* passage)
    cdef int judge(self, Head head, Passage* passage, Py_ssize_t head_size) except? -1000
    cdef Replica find_wanted(self, Head head, Passage* passage, bint* sticky)
    cdef int choose_replica(self, Head head, Passage* passage) except? -1000
    cdef bytes find_authority(self)
    cdef body_moved(self)
    cdef void divert_rest(self)
    cdef void find_request_id(self, Head head, object trusted) noexcept
    cdef void describe(self, Head head, Passage* passage)
    cdef send_request(self, Head head, const char* piece, Py_ssize_t size)
    cdef void update_reading(self)
    cdef void choose_deadline(self)
    cdef void start_body_deadline(self)
    cdef void watch_taking(self)
    cdef bint is_taking(self)
    cdef bint is_replayable(self, Head head, Py_ssize_t size) noexcept
    cdef void dial_replica(self, list pending, Py_ssize_t size)
    cdef void count_retry(self, int reason) noexcept
    cdef Replica choose_other(self, list tried)
    cdef void go_to(self, Replica replica)
    cdef void hold(self, const char* data, Py_ssize_t size)
    cdef void close(self)
    cdef void finish_lingering(self)

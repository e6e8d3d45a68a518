from haproxy_py.datapath.request cimport Request

cdef class ClientConnection(Request):
    # per connection
    cdef bytes held  # what has come and cannot be used yet: part of a head, or later requests
    cdef bint reading_paused
    cdef double paused_at  # monotonic seconds
    cdef bint turn_pending  # what is held waits for the next turn of the loop
    cdef bint half_closed  # the client has sent FIN
    cdef int exchanges  # ended on this connection
    cdef Py_ssize_t waiting_size  # of the write buffer when it was last looked at
    cdef double taken_at  # monotonic seconds: when the client was last seen to take something
    cdef Py_ssize_t discarded  # octets, while lingering

    cdef take_input(self, const char* data, Py_ssize_t size)
    cdef Py_ssize_t take_head(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t take_body(self, const char* data, Py_ssize_t size) except -1
    cdef body_moved(self)
    cdef void count_body(self, Py_ssize_t size) noexcept
    cdef bint body_is_late(self) noexcept
    cdef gathered_more(self)
    cdef void start_body_deadline(self)
    cdef void watch_taking(self)
    cdef bint is_taking(self)
    cdef void hold(self, const char* data, Py_ssize_t size)
    cdef void close(self)
    cdef void finish_lingering(self)

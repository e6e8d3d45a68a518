from haproxy_py.datapath.exchange cimport Exchange
from haproxy_py.datapath.heads cimport Head
from haproxy_py.datapath.passage cimport Passage
from haproxy_py.datapath.pool cimport Replica
from haproxy_py.datapath.replica cimport ReplicaConnection
from haproxy_py.datapath.routes cimport Instance

cdef class Request(Exchange):
    # per connection
    cdef bytes known_host  # as the last request spelled it, with the instance it led to
    cdef Instance known_instance
    cdef int known_version  # of the routes that said so

    cdef int _verdict(self, Head head, Passage* passage) except? -1000
    cdef int _judge_declared(self, Head head, Passage* passage) except? -1000
    cdef int find_instance(self, Passage* passage)
    cdef int take_share(self, bytes client, bint speaks_for_another) except? -1000
    cdef int judge(self, Head head, Passage* passage, Py_ssize_t head_size) except? -1000
    cdef Replica find_wanted(self, Head head, Passage* passage, bint* sticky)
    cdef Replica find_session(self, Head head, Passage* passage)
    cdef int choose_replica(self, Head head, Passage* passage) except? -1000
    cdef int find_place(self, Replica wanted) except? -1000
    cdef bint may_gather(self, Head head) noexcept
    cdef gather(self, const char* piece, Py_ssize_t size)
    cdef send_gathered(self)
    cdef bytes find_authority(self)
    cdef void divert_rest(self)
    cdef void find_request_id(self, Head head, object trusted) noexcept
    cdef void describe(self, Head head, Passage* passage, bytes client)
    cdef send_request(self, Head head, const char* piece, Py_ssize_t size)
    cdef bint is_replayable(self, Head head, Py_ssize_t size) noexcept
    cdef void dial_replica(self, list pending, Py_ssize_t size)
    cdef void wait_for_place(self, list pending, Py_ssize_t size, bint first)
    cdef send_pending(self)
    cdef send_on(self, ReplicaConnection connection)
    cdef bint may_wait(self)
    cdef go_elsewhere(self)
    cdef void count_retry(self, int reason) noexcept
    cdef Replica choose_other(self, list tried)
    cdef bint may_serve(self, Replica replica)
    cdef void go_to(self, Replica replica)

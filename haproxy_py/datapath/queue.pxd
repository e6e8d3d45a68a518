from haproxy_py.datapath.count cimport cell
from haproxy_py.datapath.stream cimport StreamUser

cdef class Waiting(StreamUser):
    cdef Queue waits_in  # None: it does not wait
    cdef Waiting ahead
    cdef Waiting behind

    cdef bint take_place(self) except -1

cdef class Queue:
    cdef object loop
    cdef object instance  # the Instance of the newest routes; None: it has left the table
    cdef Waiting first
    cdef Waiting last
    cdef int size
    cdef bint woken  # `serve` is about to be called
    cdef cell* counts  # of the instance

    cdef void follow(self, object instance, cell* counts)
    cdef void append(self, Waiting waiting) noexcept
    cdef void put_first(self, Waiting waiting) noexcept
    cdef void remove(self, Waiting waiting) noexcept
    cdef void wake(self) noexcept

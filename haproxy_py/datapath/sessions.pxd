from haproxy_py.datapath.pool cimport Replica
from haproxy_py.datapath.routes cimport Instance

# An entry of the table: `haproxy_py.session_table` says what it means.
cdef struct Entry:
    unsigned long long check
    unsigned long long value

cdef class Sessions:
    cdef object memory  # keeps the mapping alive
    cdef bytes secret
    cdef Entry* entries

    cdef Entry* _bucket_of(self, unsigned long long key) noexcept
    cdef unsigned long long _key_of(self, Instance instance, bytes sid)
    cdef remember(self, Instance instance, bytes sid, Replica replica, double now)
    cdef Replica find(self, Instance instance, bytes sid, double now)

cdef bytes read_parameter(const char* query, Py_ssize_t size, bytes name)
cdef bytes read_sid(bytes opening)

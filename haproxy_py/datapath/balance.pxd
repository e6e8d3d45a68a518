from haproxy_py.datapath.pool cimport Replica
from haproxy_py.datapath.routes cimport Instance

cdef Replica choose(Instance instance, Replica wanted, list tried, bint sticky, bint takes_turn, unsigned long long chance,
                    double now)
cdef bint is_full(Instance instance, list tried, double now) noexcept
cdef bint all_are_out(Instance instance, double now) noexcept
cdef bint leaves_another(Instance instance, Replica first, Replica second) noexcept
cdef bint may_eject(Instance instance, double now) noexcept
cdef bint is_for_dashboard(const char* path, Py_ssize_t size) noexcept nogil
cdef bytes read_affinity(Instance instance, const char* value, Py_ssize_t size)
cdef Replica by_affinity(Instance instance, bytes value)
cdef bytes write_affinity(Instance instance, Replica replica, bytes value)

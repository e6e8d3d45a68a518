from haproxy_py.datapath.context cimport Context, Entrance
from haproxy_py.datapath.poller cimport Watched
from haproxy_py.datapath.stream cimport Stream

cdef class Listener(Watched):
    cdef Context context
    cdef Entrance entrance
    cdef readonly bint accepting

    cdef void welcome(self, int fd, char* address)

from haproxy_py.datapath.context cimport Context
from haproxy_py.datapath.framing cimport Body
from haproxy_py.datapath.heads cimport Head

# What a request's head says for its way to a replica.
cdef struct Passage:
    const char* path  # of the target in origin-form, with the query; what is forwarded
    Py_ssize_t path_size
    Py_ssize_t judged_size  # of the path up to the query; what the gate judges
    bint rewritten  # the request line is not forwarded as it came
    bint needs_slash  # absolute-form without a path: `/` goes in front
    const char* host  # the Host that is forwarded
    Py_ssize_t host_size
    Py_ssize_t name_size  # of the host without its port
    bint host_replaced  # by the target's authority, or because there was none
    bint upgrades  # to WebSocket
    long long length  # Content-Length to write anew, or -1
    bint chunked
    long long max_forwards  # to write anew, or -1

cdef int read_passage(Head head, Body body, Context context, bytes authority, Passage* passage) except? -1000
cdef Py_ssize_t measure_host(const char* host, Py_ssize_t size) noexcept nogil

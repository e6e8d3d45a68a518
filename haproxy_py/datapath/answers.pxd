from haproxy_py.datapath.context cimport Context

cdef class Template:
    cdef bytes fields  # status line and fields up to the length
    cdef bytes before  # of the body, up to the request id
    cdef bytes after

cdef bytes make_answer(Context context, int reason, str instance, int status, bint html, bint closing, bint to_head_request,
                       bytes request_id)
cdef int status_of(int reason) noexcept
cdef bint may_persist(int reason) noexcept
cdef str name_of(int reason)

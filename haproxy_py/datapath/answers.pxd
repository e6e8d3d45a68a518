from haproxy_py.datapath.context cimport Context

cdef class Template:
    cdef bytes fields  # status line and fields up to the length
    cdef bytes first  # of the body, up to the host that the message names; None: it names none
    cdef bytes before  # of the body, up to the request id
    cdef bytes after

cdef write_answer(Context context, int reason, int rule, str instance, int status, bint html, bint closing,
                  bint to_head_request, const char* request_id, int request_id_size, bytes host)
cdef int status_of(int reason) noexcept
cdef bint may_persist(int reason) noexcept
cdef str name_of(int reason)

from haproxy_py.datapath.writer cimport Writer

cdef class AccessLog:
    cdef int fd
    cdef int inherited  # what `fd` was opened from
    cdef bint in_pieces  # for a pipe: of whole lines
    cdef object poll  # asked before every piece, where writing might wait; else None
    cdef Py_ssize_t flush_at
    cdef bint torn  # the last line that was written lacks its end
    cdef Writer lines  # whole lines, not yet written
    cdef readonly unsigned long long dropped

    cdef void put_text(self, const char* name, const char* text, Py_ssize_t size) noexcept
    cdef void put_cut(self, const char* name, const char* text, Py_ssize_t size, int room) noexcept
    cdef void put_label(self, const char* name, str text)
    cdef void put_count(self, const char* name, long long value) noexcept
    cdef void put_seconds(self, const char* name, double value) noexcept
    cdef void begin_line(self) noexcept
    cdef void end_line(self)

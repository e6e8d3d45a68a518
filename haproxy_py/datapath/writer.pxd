from haproxy_py.datapath.limits cimport WRITER_SIZE

cdef class Writer:
    cdef char space[WRITER_SIZE]
    cdef Py_ssize_t used
    cdef bint overflowed

    cdef void clear(self) noexcept nogil
    cdef void put(self, const char* source, Py_ssize_t size) noexcept nogil
    cdef void put_bytes(self, bytes source) noexcept
    cdef void put_byte(self, char value) noexcept nogil
    cdef void put_number(self, long long value) noexcept nogil
    cdef int check(self) except -1
    cdef bytes take(self)

cdef void write_hex(char* into, unsigned long long value) noexcept nogil

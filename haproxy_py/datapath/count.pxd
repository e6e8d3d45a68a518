ctypedef unsigned long long cell

cdef class Counters:
    cdef object memory  # keeps the mapping alive
    cdef cell* cells
    cdef Py_ssize_t size  # in cells

    cdef cell* block(self, Py_ssize_t first)

cdef void observe(cell* histogram, double seconds) noexcept nogil
cdef void count_answer(cell* replica, int status, int method) noexcept nogil

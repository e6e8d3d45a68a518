from haproxy_py.datapath.count cimport cell

cdef class Evidence:
    cdef unsigned long long seed
    cdef unsigned int answered[4096]  # by the twelve high bits of their keys; the two low bits: failures still believed

    cdef unsigned int key_of(self, cell* instance, int method, const char* path, Py_ssize_t size) noexcept nogil
    cdef void remember_answer(self, unsigned int key) noexcept nogil
    cdef bint believe_failure(self, unsigned int key) noexcept nogil

cdef class Share:
    cdef bytes key
    cdef readonly int uses  # connections, or exchanges, that are open now
    cdef double full_at  # seconds of the clock: from then on the whole burst is to be had again
    cdef Share older  # among those without a use
    cdef Share newer

cdef class Shares:
    cdef readonly dict known
    cdef public Py_ssize_t most  # entries
    cdef Share oldest  # of those without a use
    cdef Share newest

    cdef Share find(self, bytes address, int slot)
    cdef void use(self, Share share) noexcept
    cdef void leave(self, Share share, double now)
    cdef bint may_ask(self, Share share, double interval, double debt, double now) noexcept
    cdef void forget_full(self, double now)
    cdef void _append(self, Share share) noexcept
    cdef void _unlink(self, Share share) noexcept
    cdef void _forget(self, Share share)

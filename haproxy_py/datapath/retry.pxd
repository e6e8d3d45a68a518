cdef enum:
    BUDGET_SECONDS = 10

cdef class RetryBudget:
    # settings
    cdef int percent  # of the exchanges
    cdef int least
    # of this worker
    cdef int exchanges[BUDGET_SECONDS]  # per second, in a ring
    cdef int retries[BUDGET_SECONDS]
    cdef long long second  # that is being counted

    cdef void count_exchange(self, double now) noexcept
    cdef bint take(self, double now) noexcept
    cdef void advance(self, double now) noexcept

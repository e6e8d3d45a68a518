cdef class Timed:
    cdef DeadlineQueue queue  # None: no deadline runs
    cdef Timed earlier
    cdef Timed later
    cdef double deadline  # seconds of the monotonic clock

    cdef void stop_deadline(self) noexcept
    cdef expired(self)

cdef class DeadlineQueue:
    cdef readonly double duration
    cdef Clock clock
    cdef Timed oldest
    cdef Timed newest

    cdef void start(self, Timed timed) noexcept

cdef class Clock:
    cdef readonly double now  # as of the last tick or turn
    cdef double stood_still  # seconds that the worker has stood still so far
    cdef double ticked  # when the last tick was
    cdef bint late  # it came late
    cdef dict queues
    cdef public object on_tick

    cdef void refresh(self) noexcept
    cdef double awake(self) noexcept nogil
    cdef void make_up(self, double now)
    cdef bint is_due(self) noexcept
    cpdef DeadlineQueue queue(self, double duration)
    cpdef tick(self)

cdef double monotonic() noexcept nogil

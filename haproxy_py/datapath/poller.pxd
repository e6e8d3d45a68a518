from haproxy_py.datapath.deadlines cimport Clock
from haproxy_py.datapath.limits cimport EVENTS_PER_ROUND, IDLE_PIPES
from haproxy_py.datapath.sockets cimport epoll_event

# Octets on their way from one socket to another, in the kernel.
cdef struct Pipe:
    int sink  # end that takes octets
    int source  # end that gives them

cdef class Watched:
    cdef Poller poller
    cdef readonly int fd  # -1 once it is closed
    cdef bint watched  # the poller holds a reference
    cdef bint queued  # stands in the poller's `again`

    cdef ready(self, unsigned int events)
    cdef go_on(self)
    cdef gone(self)
    cdef void drop(self)

cdef class Poller:
    cdef readonly object loop
    cdef Clock clock
    cdef int fd
    cdef char* space  # what one visit reads into: of use within the visit only
    cdef epoll_event events[EVENTS_PER_ROUND]
    cdef Pipe pipes[IDLE_PIPES]  # empty ones
    cdef int idle_pipes
    cdef list again  # of Watched: there is more to do than one visit does
    cdef list closed  # of Watched: their owners learn of it at the end of the round
    cdef int watching  # sockets in the set
    cdef bint turning  # `turn` runs
    cdef bint scheduled  # `turn` will run without an event
    cdef object turn_soon
    cdef public bint lacks_memory  # a connection was cut for want of it; to be taken back by whoever says so

    cdef int watch(self, Watched watched, unsigned int events) noexcept
    cdef void unwatch(self, Watched watched) noexcept
    cdef void visit_again(self, Watched watched)
    cdef void bury(self, Watched watched)
    cdef bint take_pipe(self, Pipe* pipe) noexcept
    cdef void give_pipe(self, Pipe* pipe, bint is_empty) noexcept
    cdef void schedule(self)
    cdef void visit_round(self, int count)
    cdef void finish_round(self)
    cdef void report(self, Watched watched, object problem)

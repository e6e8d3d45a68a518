from haproxy_py.datapath.count cimport cell
from haproxy_py.datapath.queue cimport Queue
from haproxy_py.datapath.stream cimport StreamUser

# What is known of a replica that was ejected.
cdef enum Trial:
    NO_TRIAL  # nothing has been sent there since
    ASKED  # one exchange has been sent to see: no answer yet
    ANSWERING  # the head of its answer has come

cdef class Pooled(StreamUser):
    cdef double idle_since  # monotonic seconds, as of the tick before

    cdef discard(self)

cdef class Replica:
    cdef readonly str name
    cdef readonly str id
    cdef readonly str host
    cdef readonly int port
    cdef readonly bytes token  # what the affinity cookie holds
    cdef readonly unsigned long long mark  # the first 40 bits of the token, by which `sessions` remembers it
    cdef bytes stamp  # the X-HA-Replica line of its answers; empty where the header is off
    cdef readonly bint draining
    cdef readonly bint drained  # draining by an operator's word: never given new work
    cdef readonly bint healthy  # its checks succeed, or it is not checked
    cdef readonly double drain_ends  # monotonic seconds by which its tunnels are closed; 0: it has never drained
    cdef readonly bint gone  # no longer in the table: finishes what it has
    cdef readonly int active  # exchanges
    cdef readonly int failures  # times in a row that it could not be reached or was ejected
    cdef int troubles  # exchanges in a row that it failed
    cdef double lost_at  # monotonic seconds: when it ended a connection last
    cdef readonly double out_until  # monotonic seconds: it is passed over until then
    cdef Trial trial
    cdef double first_out  # seconds: how long it is out the first time
    cdef double longest_out
    cdef double back_since  # monotonic seconds: its share grows since then; 0: it has all of it
    cdef int weight
    cdef double credit[2]  # of its turns, as `balance` counts where weights differ: for all, and for clients that will come back
    cdef readonly set tunnels  # of Tunnel: what is open now
    cdef Queue queue  # of its instance
    cdef list idle  # of Pooled: the one used last is at the end
    cdef cell* counts

    cdef void eject(self, double now) noexcept
    cdef void try_once(self, double now, double seconds) noexcept
    cdef void begins(self) noexcept
    cdef void take_back(self, double now) noexcept
    cdef double share(self, double now, double slow_start) noexcept
    cdef double choose_time_out(self) noexcept
    cdef Pooled take_idle(self, double younger_than)
    cdef void put_idle(self, Pooled connection, int limit, double now)
    cdef void remove_idle(self, Pooled connection)
    cdef close_idle(self)

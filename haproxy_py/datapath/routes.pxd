from haproxy_py.datapath.count cimport cell
from haproxy_py.datapath.deadlines cimport DeadlineQueue
from haproxy_py.datapath.gate cimport Gate
from haproxy_py.datapath.pool cimport Replica
from haproxy_py.datapath.queue cimport Queue
from haproxy_py.datapath.retry cimport RetryBudget

cdef enum:
    ROUND_ROBIN
    LEAST_CONNECTIONS
    RANDOM_TWO

cdef enum:
    AFFINITY_NONE
    AFFINITY_DASHBOARD
    AFFINITY_ALL

cdef class Instance:
    # settings
    cdef readonly str name
    cdef readonly bint ha
    cdef readonly bint discovered
    cdef int policy
    cdef int affinity
    cdef bytes cookie
    cdef bytes cookie_attributes  # all but Secure
    cdef bint serves_half_closed  # a client that has sent FIN gets its response all the same
    cdef bint cookie_is_secure  # whatever the client speaks
    cdef Gate gate
    cdef object trusted  # Networks, or None where no proxy is trusted
    cdef list members  # all its replicas
    cdef list replicas  # those that may be given work (DRN-1)
    cdef dict by_token  # the same by the affinity cookie's value
    cdef dict by_mark  # and by what `sessions` remembers
    cdef cell* counts
    # limits
    cdef Py_ssize_t max_line
    cdef Py_ssize_t max_head
    cdef int max_lines
    cdef Py_ssize_t max_response_head
    cdef int max_response_lines
    cdef long long max_body
    cdef Py_ssize_t gather  # of a body that is read whole before a place is taken; 0: none
    cdef double body_rate  # octets per second that a request's body must come with; 0: any
    cdef Py_ssize_t buffer
    cdef int max_exchanges
    cdef int max_queue
    cdef int max_idle
    cdef int max_attempts
    cdef bint limits_clients  # some of the following
    cdef int client_connections  # of one address; 0: any number
    cdef int client_exchanges
    cdef double client_interval  # seconds that a request of one address is worth; 0: any number of them
    cdef double client_debt  # seconds that a burst is worth
    cdef int slot  # of the counters: its number
    cdef bint resends  # what may be repeated is sent once more when its connection dies
    cdef int max_troubles  # failed exchanges in a row for which a replica is ejected; 0: any number
    # timeouts
    cdef DeadlineQueue client_head
    cdef DeadlineQueue client_idle
    cdef DeadlineQueue client_body
    cdef DeadlineQueue client_write
    cdef DeadlineQueue response_head
    cdef DeadlineQueue response_body
    cdef DeadlineQueue upstream_idle
    cdef DeadlineQueue tunnel_idle
    cdef DeadlineQueue tunnel_half_close
    cdef DeadlineQueue linger
    cdef DeadlineQueue queue_timeout
    cdef double request_total
    cdef double connect
    cdef double connect_total
    cdef double slow_start
    cdef bint weighted  # not all replicas have the same weight
    # of this worker
    cdef Queue queue
    cdef RetryBudget retries
    cdef unsigned int turn  # of round robin
    cdef double warm_until  # monotonic seconds: until then the share of some replica may still grow
    cdef unsigned int sticky_turn  # the same for clients that will come back

cdef class Routes:
    cdef readonly int version
    cdef readonly list instances
    cdef dict gates  # what the gate of each instance was made of, by name
    cdef dict by_host
    cdef Instance any_host  # None: a request for an unknown host is refused
    cdef cell* no_instance  # counters of exchanges refused before their instance was known
    # until the instance of a request is known: the largest of any instance
    cdef Py_ssize_t max_line
    cdef Py_ssize_t max_head
    cdef int max_lines
    cdef Py_ssize_t buffer
    cdef bint counts_connections  # of each client address, because an instance bounds them
    cdef int client_connections  # 0: any number
    cdef object trusted  # Networks of every instance
    cdef DeadlineQueue client_head
    cdef DeadlineQueue client_write
    cdef DeadlineQueue linger

    cdef Instance find(self, bytes host)
    cdef void wake_queues(self)

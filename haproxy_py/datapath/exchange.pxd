from haproxy_py.datapath.context cimport Context, Entrance
from haproxy_py.datapath.framing cimport Body
from haproxy_py.datapath.heads cimport Head
from haproxy_py.datapath.limits cimport MAX_REQUEST_ID
from haproxy_py.datapath.pool cimport Replica
from haproxy_py.datapath.replica cimport ReplicaConnection, ReplicaUser
from haproxy_py.datapath.routes cimport Instance
from haproxy_py.datapath.shares cimport Share
from haproxy_py.datapath.stream cimport Stream
from haproxy_py.datapath.tunnel cimport Tunnel

# Where a client's connection stands.
cdef enum Stage:
    IDLE  # between exchanges: nothing of the next request has come
    HEAD  # a part of a head has come
    BODY  # in an exchange, and its request body is still coming
    WAITING  # in an exchange, its request is complete
    LINGERING  # answered for the last time: what still comes is thrown away
    CLOSING  # what is still buffered leaves, then the connection closes
    ENDED  # closed, or handed over to a tunnel

cdef class Exchange(ReplicaUser):
    # settings
    cdef readonly Context context
    cdef readonly Entrance entrance
    # per connection
    cdef readonly Stream stream
    cdef bytes peer  # IP address of the client
    cdef Share connection_share  # of the client's address; None: it is not counted
    cdef Body body  # of the request
    cdef readonly Stage stage
    cdef bint blocked  # the client takes the answer slower than it comes
    # per exchange: the request
    cdef Instance instance
    cdef Share share  # whose use this exchange is; None: of none
    cdef bytes unknown_host  # without its port; counts only where the reason is UNKNOWN_HOST
    cdef int version
    cdef int method  # index in counters.METHODS
    cdef bint to_head_request
    cdef bint is_html  # own answers are for a browser
    cdef int denied_by  # index in counters.GATE_RULES, where the gate has denied it
    cdef bint upgrading
    cdef bint closing  # the connection ends with this exchange
    cdef char request_id[MAX_REQUEST_ID]
    cdef int request_id_size  # 0: it has none yet
    cdef bytes key  # Sec-WebSocket-Key of an upgrade
    cdef bytes judged_path  # of an upgrade: what the gate judged
    cdef bytes judged_method
    cdef double body_due  # monotonic seconds: when its body, as far as it has come, will have come too slowly
    cdef double started  # monotonic seconds; before the first exchange, when the connection was accepted
    # per exchange: the way to a replica
    cdef Replica replica  # one of whose active exchanges this is; None: none
    cdef ReplicaConnection upstream  # None while connecting
    cdef bytearray gathered  # the request, while it comes and has no place yet; None: it has one, or waits for one
    cdef list pending  # of the request, to be sent when connected
    cdef Py_ssize_t pending_size
    cdef Replica wanted  # while it is gathered or waits in the queue: where it should go if it can
    cdef double queued_at  # monotonic seconds: since when it waits in the queue
    cdef double queue_seconds  # that it has waited there before
    cdef object dial  # the Dial that connects
    cdef bint sticky  # by the affinity cookie
    cdef bint sets_cookie
    cdef bytes affinity  # value of the affinity cookie that the client sent
    cdef bytes opening  # of the answer to a socket.io handshake, in which its session is looked for; None: nowhere
    cdef bint secure  # the client speaks https, as far as a trusted proxy says; known where it is sticky
    # per exchange: the answer
    cdef int status  # 0: no head of a final answer has been sent
    cdef bint rechunks  # the answer ends with its connection, the client's goes on: it is sent chunked
    cdef double connect_seconds  # that connecting took; 0 on a pooled connection
    cdef double first_octet
    cdef long long octets_in  # octets of the request
    cdef long long octets_out  # octets of the answer
    cdef int attempts
    cdef bint reused
    cdef unsigned int evidence_key  # of its method and path
    cdef Replica written_to  # whose connection died with the request, which was to be sent a second time then
    cdef bint may_be_fatal  # that replica may have died, and of it
    cdef double written_at  # monotonic seconds: when it was sent on a new connection
    cdef bint asking  # being connected to that replica, to see whether it lives
    cdef bytes kept  # the request as it was sent, while it may be sent again; None: it may not
    # for the access log; None where it is off
    cdef tuple described

    cdef void start_exchange(self)
    cdef void take_replica(self, Replica replica)
    cdef void release_replica(self)
    cdef void release_share(self)
    cdef void leave_replica(self)
    cdef void leave_queue(self) noexcept
    cdef void drop_gathered(self) noexcept
    cdef str _where_left(self)
    cdef void attach(self, ReplicaConnection connection)
    cdef send_written(self)
    cdef look_for_session(self, const char* piece, Py_ssize_t size)
    cdef refuse(self, int reason, int status)
    cdef void log(self, int status, int reason, str term)
    cdef void client_left(self)
    cdef bint is_winding_down(self) noexcept
    cdef void draw_request_id(self) noexcept
    cdef bytes _cookie_line(self)
    cdef void _count_reply(self, int reason)
    cdef bint _is_accepted(self, Head head)
    cdef void reset(self)
    cdef object describe_tunnel(self)
    # what the requesting half decides
    cdef exchange_ended(self)
    cdef go_on(self)
    cdef linger(self)
    cdef bint closing_for_good(self)
    cdef void choose_deadline(self)
    cdef void update_reading(self)
    cdef tunnel_begins(self, Tunnel tunnel)
    # what connecting comes to
    cdef bint awaits(self, object dial)
    cdef Replica change_replica(self, list tried, int reason)
    cdef dialled(self, ReplicaConnection connection, double seconds)
    cdef dial_failed(self, int reason)
    cdef bint try_again(self, ReplicaConnection connection)
    cdef void count_trouble(self)
    cdef void take_back(self, Replica replica)

cdef void give_back(Replica replica)

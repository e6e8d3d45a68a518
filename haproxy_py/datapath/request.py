"""What becomes of a request whose head was read: its instance, the gate's verdict, its replica, and the way there.

- A replica is chosen once per exchange; if there is no place at any, the request waits for one (`queue`). A second choice is made
  where nothing was sent (RTY-1), or where the request may be repeated and its connection died without an octet of an answer
  (RTY-3, RTY-4); it takes a place before those that wait, because its request came before theirs.
- A request may be what ends the process that reads it. So it is written at most twice, to at most two processes, and never to the
  last replica that works; an upgrade, like every request that may not be repeated, is written once:
  - If a new connection died, its replica is connected to once more. Does it refuse, the process has ended, most likely of this
    request, which then goes nowhere else. Does it accept, another replica gets the request (RTY-4).
  - If a kept connection died, it was most likely closed for being idle, or its process was killed (RTY-3). Another replica gets
    the request if there is one more besides; else it goes to the same replica, and nowhere else if that refuses.
  - A new connection to a replica that had just ended others may have been in the queue of a process that was ending already:
    another replica gets the request if there is one more besides; else it is as for any new connection.
- A place is taken when it is used: a small body that has not come with its head is gathered first, so that who sends slowly holds
  memory and no place. Not behind `Expect: 100-continue`, whose client waits for the replica's word, nor beyond what a worker may
  gather for all its requests; a chunked body that turns out larger goes on as it comes.
- What the data path asks of a request that it has not the octets of any more is kept: for the access log (`describe`), and to
  send it again (`kept`).
"""

import socket

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.balance import (
    all_are_out,
    by_affinity,
    choose,
    is_for_dashboard,
    is_full,
    leaves_another,
    read_affinity,
)
from cython.cimports.haproxy_py.datapath.context import Context
from cython.cimports.haproxy_py.datapath.count import observe
from cython.cimports.haproxy_py.datapath.deadlines import monotonic
from cython.cimports.haproxy_py.datapath.exchange import (
    BODY,
    Exchange,
)
from cython.cimports.haproxy_py.datapath.framing import BY_LENGTH, CHUNKED, Body
from cython.cimports.haproxy_py.datapath.heads import (
    COOKIE,
    EXPECT,
    USER_AGENT,
    X_REQUEST_ID,
    FieldLine,
    Head,
)
from cython.cimports.haproxy_py.datapath.limits import (
    GATHERED,
    MAX_REQUEST_ID,
    REPLAYABLE,
    SMALL_BODY,
)
from cython.cimports.haproxy_py.datapath.passage import Passage
from cython.cimports.haproxy_py.datapath.pool import Replica
from cython.cimports.haproxy_py.datapath.queue import Queue
from cython.cimports.haproxy_py.datapath.reason import (
    BODY_TOO_LARGE,
    CLIENT_LIMIT,
    CONNECT_FAILED,
    CONNECT_TIMEOUT,
    DISCOVERY_PENDING,
    GATE_DENIED,
    HEAD_TOO_LARGE,
    NO_REPLICA,
    REPLICAS_FULL,
    RETRY_BUDGET,
    TOO_MANY_FIELDS,
    UNKNOWN_HOST,
    UPSTREAM_CLOSED,
    URI_TOO_LONG,
)
from cython.cimports.haproxy_py.datapath.replica import ReplicaConnection
from cython.cimports.haproxy_py.datapath.routes import AFFINITY_ALL, AFFINITY_NONE, Instance, Routes
from cython.cimports.haproxy_py.datapath.sessions import read_parameter
from cython.cimports.haproxy_py.datapath.shares import Share, Shares
from cython.cimports.haproxy_py.datapath.writer import Writer
from cython.cimports.libc.string import memcmp, memcpy

from haproxy_py import counters as layout
from haproxy_py.datapath.dial import Dial

_METHODS = cython.declare(tuple, tuple(method.encode("ascii") for method in layout.METHODS))
_OTHER_METHOD = cython.declare(cython.int, layout.METHODS.index("other"))
_GATE_DENIED = cython.declare(cython.int, layout.INSTANCE_GATE_DENIED)
_QUEUE_DURATION = cython.declare(cython.int, layout.INSTANCE_QUEUE_DURATION)
_REUSED = cython.declare(cython.int, layout.REPLICA_CONNECTIONS_REUSED)
_RETRIES = cython.declare(cython.int, layout.WORKER_RETRIES)
_RETRY_FAILED = cython.declare(cython.int, layout.RETRIES.index("connect_failed"))
_RETRY_TIMEOUT = cython.declare(cython.int, layout.RETRIES.index("connect_timeout"))
_RETRY_REUSED = cython.declare(cython.int, layout.RETRIES.index("reused_closed"))
_RETRY_NEW = cython.declare(cython.int, layout.RETRIES.index("new_closed"))
_RETRY_BUDGET = cython.declare(cython.int, layout.RETRIES.index("over_budget"))
_YOUNG = cython.declare(cython.double, 1.0)  # KAL-5: seconds idle; younger ones serve any request
_ENDING = cython.declare(
    cython.double, 1.0
)  # seconds for which a process that has ended connections may be ending itself
_ANY_AGE = cython.declare(cython.double, -1.0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _is_request_id(at: cython.p_const_char, size: cython.int) -> cython.bint:
    """FWD-13: what may be taken over from a trusted proxy."""
    index: cython.int
    octet: cython.uchar
    if not 1 <= size <= MAX_REQUEST_ID:
        return False
    for index in range(size):
        octet = at[index]
        if not (
            48 <= octet <= 57 or 65 <= octet <= 90 or 97 <= octet <= 122 or octet == 46 or octet == 95 or octet == 45
        ):
            return False
    return True


@cython.cclass
class Request(Exchange):
    """The requesting half of a client's connection, without the reading."""

    # --- which instance, and whether it may pass ---

    @cython.cfunc
    def find_instance(self, passage: cython.pointer(Passage)) -> cython.int:
        """The instance of the request's host. 0, or -(UNKNOWN_HOST + 1)."""
        routes: Routes = self.context.routes
        known: bytes = self.known_host
        if (
            known is not None
            and self.known_version == routes.version
            and PyBytes_GET_SIZE(known) == passage.name_size
            and memcmp(PyBytes_AS_STRING(known), passage.host, passage.name_size) == 0
        ):
            self.instance = self.known_instance
            return 0
        known = passage.host[: passage.name_size]
        self.instance = routes.find(known.lower())
        if self.instance is None:
            self.unknown_host = known
            return -(UNKNOWN_HOST + 1)
        self.known_host = known
        self.known_version = routes.version
        self.known_instance = self.instance
        return 0

    @cython.cfunc
    @cython.exceptval(-1000, check=True)
    def judge(self, head: Head, passage: cython.pointer(Passage), head_size: cython.Py_ssize_t) -> cython.int:
        """The instance's own limits, and its gate. 0, or -(reason + 1)."""
        instance: Instance = self.instance
        verdict: cython.int
        if head.line_size > instance.max_line:
            return -(URI_TOO_LONG + 1)
        if head_size - head.skipped > instance.max_head:
            return -(HEAD_TOO_LARGE + 1)
        if head.count > instance.max_lines:
            return -(TOO_MANY_FIELDS + 1)
        if instance.max_body > 0 and self.body.total > instance.max_body:
            return -(BODY_TOO_LARGE + 1)
        if instance.ha:
            verdict = self._verdict(head, passage)
            if verdict >= 0:
                instance.counts[_GATE_DENIED + verdict] += 1
                self.denied_by = verdict
                return -(GATE_DENIED + 1)
            if instance.gate.strict:
                return self._judge_declared(head, passage)
        return 0

    @cython.cfunc
    @cython.exceptval(-1000, check=True)
    def _judge_declared(self, head: Head, passage: cython.pointer(Passage)) -> cython.int:
        """The strict gate: whether what is not denied is declared. 0, or -(reason + 1)."""
        instance: Instance = self.instance
        method: bytes = (
            head.method[: head.method_size] if head.method_label == _OTHER_METHOD else _METHODS[head.method_label]
        )
        verdict: cython.int
        if not instance.gate.knows_routes:
            return -(DISCOVERY_PENDING + 1)
        if passage.needs_slash:
            verdict = instance.gate.judge_declared(b"/", 1, method, passage.upgrades)
        else:
            verdict = instance.gate.judge_declared(passage.path, passage.judged_size, method, passage.upgrades)
        if verdict >= 0:
            instance.counts[_GATE_DENIED + verdict] += 1
            self.denied_by = verdict
            return -(GATE_DENIED + 1)
        return 0

    @cython.cfunc
    @cython.exceptval(-1000, check=True)
    def _verdict(self, head: Head, passage: cython.pointer(Passage)) -> cython.int:
        method: bytes = (
            head.method[: head.method_size] if head.method_label == _OTHER_METHOD else _METHODS[head.method_label]
        )
        if passage.needs_slash:
            return self.instance.gate.judge(b"/", 1, method)
        return self.instance.gate.judge(passage.path, passage.judged_size, method)

    # --- whether its client may have one more ---

    @cython.cfunc
    @cython.exceptval(-1000, check=True)
    def take_share(self, client: bytes, speaks_for_another: cython.bint) -> cython.int:
        """Count the exchange for the address of its client, which may differ from the peer's. 0, or -(CLIENT_LIMIT + 1).

        A trusted proxy has any number of connections, and of requests of its own.
        """
        instance: Instance = self.instance
        shares: Shares = self.context.shares
        share: Share
        if not speaks_for_another and (
            0 < instance.client_connections
            and self.connection_share is not None
            and instance.client_connections < self.connection_share.uses
        ):
            self.closing = True
            return -(CLIENT_LIMIT + 1)
        if instance.client_exchanges == 0 and instance.client_interval == 0:
            return 0
        share = shares.find(client, instance.slot)
        if share is None:
            return 0
        if 0 < instance.client_exchanges <= share.uses:
            return -(CLIENT_LIMIT + 1)
        if instance.client_interval > 0 and not shares.may_ask(
            share, instance.client_interval, instance.client_debt, self.context.clock.now
        ):
            return -(CLIENT_LIMIT + 1)
        shares.use(share)
        self.share = share
        return 0

    # --- which replica ---

    @cython.cfunc
    def find_wanted(self, head: Head, passage: cython.pointer(Passage), sticky: cython.pointer(cython.bint)) -> Replica:
        """The replica that this request should go to if it can: by its session, by its cookie, or the one that serves the
        editor."""
        instance: Instance = self.instance
        index: cython.int
        line: cython.pointer(FieldLine)
        wanted: Replica = None
        session: Replica = None
        speaks_socket_io: cython.bint = instance.affinity != AFFINITY_NONE and is_for_dashboard(
            passage.path, passage.judged_size
        )
        if speaks_socket_io or instance.affinity == AFFINITY_ALL:
            sticky[0] = True
            if speaks_socket_io:  # its id says where a session is; a cookie, where the browser began one last
                session = self.find_session(head, passage)
            if head.seen[COOKIE]:
                for index in range(head.first[COOKIE], head.count):
                    line = cython.address(head.lines[index])
                    if line.kind == COOKIE and wanted is None:
                        found: bytes = read_affinity(instance, line.value, line.value_size)
                        if found is not None:
                            self.affinity = found
                            wanted = by_affinity(instance, found)
            return wanted if session is None else session
        # Without HA mode the editor is open; all its traffic keeps to one replica, or it would show a mixture.
        if not instance.ha and len(instance.replicas) > 1 and self._verdict(head, passage) >= 0:
            return instance.replicas[0]
        return None

    @cython.cfunc
    def find_session(self, head: Head, passage: cython.pointer(Passage)) -> Replica:
        """The replica that has the socket.io session that is named. If none is named, one may begin with the answer."""
        query: cython.p_const_char = passage.path + passage.judged_size
        size: cython.Py_ssize_t = passage.path_size - passage.judged_size
        sid: bytes
        if size < 2:
            return None
        sid = read_parameter(query + 1, size - 1, b"sid")
        if sid:
            return self.context.sessions.find(self.instance, sid, self.context.clock.now)
        if sid is None and head.method_label == 0 and read_parameter(query + 1, size - 1, b"transport") == b"polling":
            self.opening = b""
        return None

    @cython.cfunc
    @cython.exceptval(-1000, check=True)
    def choose_replica(self, head: Head, passage: cython.pointer(Passage)) -> cython.int:
        """Take a replica for the exchange, or none if it has to wait for a place or is gathered. 0, or -(reason + 1)."""
        instance: Instance = self.instance
        sticky: cython.bint = False
        wanted: Replica = self.find_wanted(head, passage, cython.address(sticky))
        self.sticky = sticky
        if not self.body.complete and instance.replicas and self.may_gather(head):
            self.wanted = wanted
            self.gathered = bytearray()
            return 0
        return self.find_place(wanted)

    @cython.cfunc
    @cython.exceptval(-1000, check=True)
    def find_place(self, wanted: Replica) -> cython.int:
        """Take a replica, or none if the request has to wait for a place. 0, or -(reason + 1)."""
        instance: Instance = self.instance
        queue: Queue = instance.queue
        replica: Replica = None
        if queue.first is None:  # nobody overtakes those that wait
            replica = choose(instance, wanted, None, self.sticky, True, self.context.random(), self.context.clock.now)
        if replica is not None:
            self.sets_cookie = self.sticky and replica is not wanted
            self.take_replica(replica)
            return 0
        if not instance.discovered:
            return -(DISCOVERY_PENDING + 1)
        if not instance.replicas:
            return -(NO_REPLICA + 1)
        if queue.size >= instance.max_queue:
            return -(REPLICAS_FULL + 1)
        self.wanted = wanted
        return 0

    @cython.cfunc
    def choose_other(self, tried: list) -> Replica:
        """A second choice, of what the table names now: it may have changed since the first.

        Never the replica that the request was written to, and none after which no other would be left.
        """
        queue: Queue = self.instance.queue
        instance: Instance = queue.instance
        now: cython.double = self.context.clock.now
        replica: Replica
        if instance is None:  # it has left
            return None
        self.instance = instance
        if self.written_to is not None:
            tried = [*tried, self.written_to]
        replica = choose(instance, None, tried, self.sticky, False, self.context.random(), now)
        if replica is not None and self.may_be_fatal and not leaves_another(instance, self.written_to, replica):
            return None
        return replica

    @cython.cfunc
    def may_serve(self, replica: Replica) -> cython.bint:
        """Whether a replica that had the exchange before may still be given work (DRN-1)."""
        queue: Queue = self.instance.queue
        instance: Instance = queue.instance
        return instance is not None and instance.by_token.get(replica.token) is replica

    @cython.cfunc
    def go_to(self, replica: Replica) -> cython.void:
        """Take another replica than the first choice."""
        self.attempts += 1
        self.sets_cookie = self.sticky
        self.take_replica(replica)

    # --- what the replica is told of it ---

    @cython.cfunc
    @cython.exceptval(check=False)
    def find_request_id(self, head: Head, trusted: object) -> cython.void:
        """The client's own, if a trusted proxy sent one that is valid; else a new one (FWD-13)."""
        line: cython.pointer(FieldLine)
        if trusted is not None and head.seen[X_REQUEST_ID] == 1:
            line = cython.address(head.lines[head.first[X_REQUEST_ID]])
            if _is_request_id(line.value, line.value_size):
                memcpy(self.request_id, line.value, line.value_size)
                self.request_id_size = line.value_size
                return
        self.draw_request_id()

    @cython.cfunc
    def find_authority(self) -> bytes:
        """Address and port that the client connected to (REQ-15)."""
        borrowed: object = socket.socket(fileno=self.stream.fd)
        try:
            name: tuple = borrowed.getsockname()
        finally:
            borrowed.detach()  # it stays the stream's
        host: str = name[0].partition("%")[0]  # an IPv6 zone means nothing elsewhere
        return (f"[{host}]:{name[1]}" if ":" in host else f"{host}:{name[1]}").encode("ascii")

    @cython.cfunc
    def describe(self, head: Head, passage: cython.pointer(Passage), client: bytes) -> cython.void:
        """Keep for the access log what is gone when the line is written. No query: it may hold secrets.

        `client` is whom a trusted proxy forwards, or None.
        """
        agent: bytes = b""
        target: bytes
        if head.seen[USER_AGENT]:
            agent = head.lines[head.first[USER_AGENT]].value[: head.lines[head.first[USER_AGENT]].value_size]
        if passage != cython.NULL:
            target = b"/" if passage.needs_slash else passage.path[: passage.judged_size]
            host: bytes = passage.host[: passage.host_size]
        else:
            target = head.target[: head.target_size].partition(b"?")[0]
            host = b""
        self.described = (head.method[: head.method_size], target, host, agent, client)

    # --- sending it ---

    @cython.cfunc
    def send_request(self, head: Head, piece: cython.p_const_char, size: cython.Py_ssize_t):
        """Send the head that the writer holds, and a piece of the body, on a pooled connection; or connect first."""
        context: Context = self.context
        writer: Writer = context.writer
        connection: ReplicaConnection
        replayable: cython.bint = self.is_replayable(head, size)
        if replayable or size <= SMALL_BODY:
            writer.put(piece, size)
            size = 0
        writer.check()
        if replayable:
            self.kept = writer.take()
        if self.gathered is not None:
            if replayable:
                self.gather(PyBytes_AS_STRING(self.kept), PyBytes_GET_SIZE(self.kept))
            else:
                self.gather(writer.space, writer.used)
                self.gather(piece, size)
            self.choose_deadline()
            return
        if self.replica is None:
            self.wait_for_place([writer.take() if self.kept is None else self.kept, piece[:size]], size, False)
            return
        self.instance.retries.count_exchange(context.clock.now)
        self.attempts = 1
        # KAL-5: what must not be sent twice goes out only on a connection that was used a moment ago.
        connection = self.replica.take_idle(_ANY_AGE if replayable else context.clock.now - _YOUNG)
        if connection is not None:
            self.replica.counts[_REUSED] += 1
            self.reused = True
            self.attach(connection)
            connection.send(writer.space, writer.used, piece, size)
            if self.body.complete:
                connection.request_is_complete()
        else:
            self.dial_replica([writer.take() if self.kept is None else self.kept, piece[:size]], size)
        self.choose_deadline()
        if self.stage == BODY:
            self.divert_rest()
            self.update_reading()

    @cython.cfunc
    @cython.exceptval(check=False)
    def is_replayable(self, head: Head, size: cython.Py_ssize_t) -> cython.bint:
        """RTY-9: whether the request may be sent twice, with a body that is small enough to be kept."""
        label: cython.int = head.method_label
        if self.upgrading or not self.instance.resends:
            return False
        if not (label == 0 or label == 1 or 3 <= label <= 4 or label == 6):  # GET, HEAD, PUT, DELETE, OPTIONS
            return False
        if self.body.complete:
            return size <= REPLAYABLE
        return self.body.kind == BY_LENGTH and self.body.total <= REPLAYABLE

    @cython.cfunc
    def divert_rest(self) -> cython.void:
        """Let the rest of a body go past this process if it has a length, once there is a connection for it.

        Not while it must be kept.
        """
        upstream: ReplicaConnection = self.upstream
        size: cython.longlong = 0
        if upstream is not None:
            if self.body.kind == BY_LENGTH and self.kept is None:
                size = self.body.remaining
            self.stream.divert(upstream.stream, size)

    # --- gathering it ---

    @cython.cfunc
    @cython.exceptval(check=False)
    def may_gather(self, head: Head) -> cython.bint:
        """Whether the request is to take a place only when its body has come."""
        body: Body = self.body
        if head.seen[EXPECT] or self.context.gathered >= GATHERED:
            return False
        return (body.kind == BY_LENGTH and body.total <= self.instance.gather) or (
            body.kind == CHUNKED and self.octets_in < self.instance.gather
        )

    @cython.cfunc
    def gather(self, piece: cython.p_const_char, size: cython.Py_ssize_t):
        self.gathered += piece[:size]
        self.context.gathered += size

    @cython.cfunc
    def send_gathered(self):
        """The request has come, or is not gathered any longer: take a place, or wait for one, or refuse it."""
        queue: Queue = self.instance.queue
        instance: Instance = queue.instance
        wanted: Replica = self.wanted
        whole: bytes = bytes(self.gathered)
        reason: cython.int
        self.drop_gathered()
        self.wanted = None
        if self.kept is not None:
            self.kept = whole
        if instance is None:  # it has left the table
            self.refuse(NO_REPLICA, 0)
            return
        self.instance = instance  # the newest
        if wanted is not None:  # only if it may still be given work
            wanted = instance.by_token.get(wanted.token)
        reason = self.find_place(wanted)
        if reason < 0:
            self.refuse(-reason - 1, 0)
        elif self.replica is None:
            self.wait_for_place([whole], PyBytes_GET_SIZE(whole), False)
        else:
            self.attempts = 1
            self.pending = [whole]
            self.pending_size = PyBytes_GET_SIZE(whole)
            self.send_pending()

    # --- waiting for a place ---

    @cython.cfunc
    def wait_for_place(self, pending: list, size: cython.Py_ssize_t, first: cython.bint) -> cython.void:
        """Wait in the queue of the instance, at its front or its end; then send `pending`, as `dial_replica` does.

        Of the request's body nothing more is read until then.
        """
        queue: Queue = self.instance.queue
        self.stop_deadline()
        self.pending = pending
        self.pending_size = size
        self.queued_at = monotonic()
        if first:
            queue.put_first(self)
        else:
            queue.append(self)
        self.choose_deadline()
        self.update_reading()

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def take_place(self) -> cython.bint:
        context: Context = self.context
        queue: Queue = self.waits_in
        instance: Instance = queue.instance
        wanted: Replica = self.wanted
        replica: Replica = None
        if instance is not None and instance.replicas:
            if wanted is not None:  # only if it may still be given work
                wanted = instance.by_token.get(wanted.token)
            replica = choose(instance, wanted, None, self.sticky, True, context.random(), context.clock.now)
            if replica is None:
                return False
        self.leave_queue()
        try:
            if replica is None:  # all have left meanwhile
                self.refuse(NO_REPLICA, 0)
                self.go_on()
            else:
                observe(instance.counts + _QUEUE_DURATION, self.queue_seconds)
                self.instance = instance  # the newest
                self.attempts += 1
                self.sets_cookie = self.sticky and replica is not wanted
                self.take_replica(replica)
                self.send_pending()
        except Exception as problem:  # the others in the queue have no part in it
            context.poller.report(self.stream, problem)
        return True

    @cython.cfunc
    def send_pending(self):
        """There is a place: send what has come of the request, as `send_request` does."""
        context: Context = self.context
        connection: ReplicaConnection = None
        if self.attempts == 1:
            self.instance.retries.count_exchange(context.clock.now)
            connection = self.replica.take_idle(_ANY_AGE if self.kept is not None else context.clock.now - _YOUNG)
        if connection is None:
            self.dial_replica(self.pending, self.pending_size)
            self.choose_deadline()
            self.update_reading()
        else:
            self.replica.counts[_REUSED] += 1
            self.reused = True
            self.send_on(connection)

    @cython.cfunc
    def send_on(self, connection: ReplicaConnection):
        """Send what waits of the request on this connection."""
        piece: bytes
        pending: list = self.pending
        self.pending = None
        self.pending_size = 0
        self.attach(connection)
        for piece in pending:
            connection.send(PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece), cython.NULL, 0)
        if self.body.complete:
            connection.request_is_complete()
        else:
            self.divert_rest()
        self.choose_deadline()
        self.update_reading()

    # --- connecting, as a `Dial` sees it ---

    @cython.cfunc
    def dial_replica(self, pending: list, size: cython.Py_ssize_t) -> cython.void:
        """Connect to the replica; then send `pending`, of which `size` octets count as waiting."""
        dial: object = Dial(self.context, self, self.instance, self.replica)
        self.pending = pending
        self.pending_size = size
        self.dial = dial
        dial.begin()

    @cython.cfunc
    def awaits(self, dial: object) -> cython.bint:
        """Whether the exchange that it connects for still goes on."""
        return self.dial is dial

    @cython.cfunc
    def change_replica(self, tried: list, reason: cython.int) -> Replica:
        """Connecting to a replica failed and nothing was sent: the next one, or None (RTY-1)."""
        replica: Replica
        returns: cython.bint = self.written_to is self.replica
        self.release_replica()
        if returns or self.attempts >= self.instance.max_attempts:
            return None
        replica = self.choose_other(tried)
        if replica is None:
            return None
        self.count_retry(_RETRY_TIMEOUT if reason == CONNECT_TIMEOUT else _RETRY_FAILED)
        self.go_to(replica)
        return replica

    @cython.cfunc
    def dialled(self, connection: ReplicaConnection, seconds: cython.double):
        """The connection stands."""
        self.dial = None
        self.connect_seconds = seconds
        if self.asking:
            connection.discard()  # not kept: it has proved nothing but that somebody listens
            self.go_elsewhere()
            return
        self.written_at = monotonic()
        self.send_on(connection)

    @cython.cfunc
    def dial_failed(self, reason: cython.int):
        """No replica could be connected to. One that is only full is waited for."""
        self.dial = None
        self.release_replica()
        if self.asking:
            self.asking = False
            self.refuse(UPSTREAM_CLOSED, 0)
            self.go_on()
            return
        if (reason == CONNECT_FAILED or reason == CONNECT_TIMEOUT) and self.may_wait():
            self.wait_for_place(self.pending, self.pending_size, True)
            return
        if reason == CONNECT_FAILED and all_are_out(self.instance, self.context.clock.now):
            reason = NO_REPLICA  # one that is only out gets whatever nobody else can take; so it, too, has refused
        self.refuse(reason, 0)
        self.go_on()

    @cython.cfunc
    def may_wait(self) -> cython.bint:
        """Whether there is a full replica to wait for, and room in the queue."""
        queue: Queue = self.instance.queue
        instance: Instance = queue.instance
        return (
            instance is not None
            and self.written_to is None
            and self.attempts < instance.max_attempts
            and queue.size < instance.max_queue
            and is_full(instance, None, self.context.clock.now)
        )

    # --- sending a second time ---

    @cython.cfunc
    def try_again(self, connection: ReplicaConnection) -> cython.bint:
        """The connection died before any octet of an answer: send the request once more, on a new connection, or ask first
        whether its replica lives. False: it may not be sent again.
        """
        kept: bytes = self.kept
        replica: Replica
        self.kept = None  # once
        if kept is None:
            return False
        self.written_to = self.replica
        was_ending: cython.bint = self.replica.lost_at <= self.written_at < self.replica.lost_at + _ENDING
        self.may_be_fatal = self.reused or was_ending
        replica = self.choose_other([])
        if replica is None and was_ending and not self.reused:
            self.may_be_fatal = False
            replica = self.choose_other([])
        if replica is None:
            if not self.reused or not self.may_serve(self.replica):
                return False
            replica = self.replica
        if not self.instance.retries.take(self.context.clock.now):
            self.count_retry(_RETRY_BUDGET)
            self.refuse(RETRY_BUDGET, 0)
            self.go_on()
            return True
        if self.may_be_fatal:
            self.count_retry(_RETRY_REUSED if self.reused else _RETRY_NEW)
            self.reused = False
            self.release_replica()
            self.go_to(replica)
        else:
            self.asking = True
        self.dial_replica([kept], PyBytes_GET_SIZE(kept))
        self.choose_deadline()
        if self.stage == BODY:
            self.update_reading()
        return True

    @cython.cfunc
    def go_elsewhere(self):
        """The replica lives, whose new connection died: another gets the request."""
        replica: Replica = self.choose_other([])
        self.asking = False
        self.release_replica()
        if replica is None:
            self.refuse(UPSTREAM_CLOSED, 0)
            self.go_on()
            return
        self.count_retry(_RETRY_NEW)
        self.go_to(replica)
        self.dial_replica(self.pending, self.pending_size)

    @cython.cfunc
    @cython.exceptval(check=False)
    def count_retry(self, reason: cython.int) -> cython.void:
        self.context.counts[_RETRIES + reason] += 1

"""A connection from a client: requests come in here and go on to a replica.

The way of a request: its octets arrive in `received`; `take_head` has them parsed, judged and given a replica, and
sends the head on (`request`); `take_body` sends on the body as it comes. Everything about the answer is in `exchange`.

- One exchange at a time; what a client sends ahead is held up to a bound, then reading pauses (CON-10). It is used only
  when the exchange before has ended and the client takes its answers.
- A message that breaks a rule is answered once and nothing behind it is read as a request any more (FRM-24): the rest
  is thrown away until the client has had the time to read the answer (CON-9).
- A client that sends FIN while its response is awaited has left (CON-11), as for Node itself: HTTP clients that give up close,
  and hardly any half-closes a connection and reads on. `half_close: serve` is for such. What it had sent ahead of a response
  that the proxy gives at once is answered.
"""

from typing import Optional

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.context import Context, Entrance
from cython.cimports.haproxy_py.datapath.deadlines import Clock, monotonic
from cython.cimports.haproxy_py.datapath.exchange import (
    BODY,
    CLOSING,
    ENDED,
    HEAD,
    IDLE,
    LINGERING,
    WAITING,
)
from cython.cimports.haproxy_py.datapath.forward import find_client, scheme_of_client, write_request
from cython.cimports.haproxy_py.datapath.framing import Body, frame_request
from cython.cimports.haproxy_py.datapath.heads import (
    ACCEPT,
    HOST,
    OPTION_CLOSE,
    SEC_WEBSOCKET_KEY,
    FieldLine,
    Head,
    equals,
)
from cython.cimports.haproxy_py.datapath.limits import (
    GATHERED,
    LINGER_BYTES,
    MAX_REQUESTS_PER_TURN,
)
from cython.cimports.haproxy_py.datapath.passage import Passage, read_passage
from cython.cimports.haproxy_py.datapath.reason import (
    BODY_TIMEOUT,
    CLIENT_STALLED,
    HEAD_TIMEOUT,
    METHOD_NOT_SUPPORTED,
    NONE,
    QUEUE_TIMEOUT,
    UNKNOWN_HOST,
)
from cython.cimports.haproxy_py.datapath.replica import ReplicaConnection
from cython.cimports.haproxy_py.datapath.request import Request
from cython.cimports.haproxy_py.datapath.routes import Instance, Routes
from cython.cimports.haproxy_py.datapath.shares import Share
from cython.cimports.haproxy_py.datapath.stream import Stream
from cython.cimports.haproxy_py.datapath.tunnel import Tunnel
from cython.cimports.libc.math import ceil

from haproxy_py import counters as layout

_CONNECTIONS = cython.declare(cython.int, layout.WORKER_CLIENT_CONNECTIONS)
_CONNECTIONS_TOTAL = cython.declare(cython.int, layout.WORKER_CLIENT_CONNECTIONS_TOTAL)
_FRESH = cython.declare(cython.double, 1.0)  # seconds from accepting: its first request is on the way
_STEP = cython.declare(cython.double, 0.25)  # seconds
_STEPS = cython.declare(cython.double, 120.0)  # deadlines of a body that are told apart below the longest one


@cython.cfunc
@cython.exceptval(check=False)
def _takes_html(head: Head) -> cython.bint:
    """Whether an Accept line names text/html."""
    at: cython.int
    index: cython.int
    line: cython.pointer(FieldLine)
    for index in range(head.first[ACCEPT], head.count):
        line = cython.address(head.lines[index])
        if line.kind != ACCEPT:
            continue
        for at in range(line.value_size - 8):
            if line.value[at] | 32 == 116 and equals(line.value + at, 9, b"text/html", 9):
                return True
    return False


@cython.final
@cython.cclass
class ClientConnection(Request):
    """One connection from a client, and the exchange that is under way on it."""

    def __init__(self, context: Context, entrance: Entrance, stream: Stream, peer: bytes, share: Optional[Share]):
        """`peer` is the client's IP address, `share` that of its connections, or None."""
        self.context = context
        self.entrance = entrance
        self.body = Body()
        self.stream = stream
        self.peer = peer
        stream.set_limit(context.routes.buffer)
        context.clients.add(self)
        stream.user = self  # from here on `lost` takes back what follows
        context.counts[_CONNECTIONS] += 1
        context.counts[_CONNECTIONS_TOTAL] += 1
        if share is not None:
            context.shares.use(share)
            self.connection_share = share
        entrance.enter()
        self.started = monotonic()
        self.choose_deadline()

    # --- what the stream tells ---

    @cython.cfunc
    def received(self, data: cython.p_const_char, size: cython.Py_ssize_t):
        whole: bytes
        if self.stage == LINGERING:
            self.discarded += size
            if self.discarded > LINGER_BYTES:
                self.finish_lingering()
            return
        if self.held is not None:
            whole = self.held + data[:size]
            self.held = None
            data = PyBytes_AS_STRING(whole)
            size = PyBytes_GET_SIZE(whole)
        if self.turn_pending:
            self.hold(data, size)
        else:
            self.take_input(data, size)

    @cython.cfunc
    def ended(self):
        self.half_closed = True
        if self.stage == IDLE and self.held is not None:
            return
        if self.stage == WAITING and self.waits_in is None and self.instance.serves_half_closed:
            return
        # FRM-11: a request that is not complete never will be. One that waits in the queue has not gone anywhere yet, and
        # must not take a place from those who are still there.
        if self.stage == HEAD or self.stage == BODY or self.stage == WAITING:
            self.client_left()
            self.stage = CLOSING
            self.stream.abort()
        else:
            self.stream.close()

    @cython.cfunc
    def lost(self, problem: cython.int):
        context: Context = self.context
        if self.stage == HEAD or self.stage == BODY or self.stage == WAITING:
            self.client_left()
        self.stage = ENDED
        self.held = None
        self.stop_deadline()
        context.clients.discard(self)
        context.counts[_CONNECTIONS] -= 1
        self.release_share()
        if self.connection_share is not None:
            context.shares.leave(self.connection_share, context.clock.now)
            self.connection_share = None
        self.entrance.leave()

    @cython.cfunc
    def blocks(self, blocks: cython.bint):
        upstream: ReplicaConnection = self.upstream
        self.blocked = blocks
        if blocks:
            self.watch_taking()
        if upstream is not None:
            upstream.set_paused(blocks)
        self.choose_deadline()
        if not blocks:
            self.go_on()

    # --- the way of a request ---

    @cython.cfunc
    def take_input(self, data: cython.p_const_char, size: cython.Py_ssize_t):
        """Use what has come as far as the stage allows; hold the rest."""
        turns: cython.int = 0
        used: cython.Py_ssize_t
        while size > 0:
            turns += 1
            if turns > MAX_REQUESTS_PER_TURN and self.stage == IDLE:  # other connections wait too
                self.turn_pending = True
                self.hold(data, size)
                self.context.loop.call_soon(self.take_turn)
                return
            if self.stage == BODY:
                used = self.take_body(data, size)
            elif (self.stage == IDLE and not self.blocked) or self.stage == HEAD:
                used = self.take_head(data, size)
            elif self.stage == WAITING or self.stage == IDLE:
                self.hold(data, size)
                return
            else:
                return  # the connection is ending: nothing is read as a request any more
            data += used
            size -= used
        if not self.half_closed:
            return
        if self.stage == BODY:  # FRM-11: sent ahead, and it will never be complete
            self.client_left()
            self.close()
        elif self.stage == IDLE or self.stage == HEAD:
            self.close()

    def take_turn(self) -> None:
        """Go on with requests that came in a long row."""
        self.turn_pending = False
        self.go_on()

    @cython.cfunc
    def hold(self, data: cython.p_const_char, size: cython.Py_ssize_t) -> cython.void:
        self.held = data[:size]
        self.update_reading()

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def take_head(self, data: cython.p_const_char, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Read the head of a request and send it on, with what has come of its body. Gives how much was used."""
        context: Context = self.context
        routes: Routes = context.routes
        head: Head = context.request
        body: Body = self.body
        passage: Passage
        reason: cython.int
        end: cython.Py_ssize_t
        authority: bytes = None
        trusted: object = None
        client: bytes = None  # whom a trusted proxy forwards
        rest: bytes
        used: cython.Py_ssize_t = head.parse_request(data, size, routes.max_line, routes.max_head, routes.max_lines)
        if used == 0:
            self.held = data[:size]
            if self.stage == IDLE:
                self.stage = HEAD
                if self.exchanges > 0:
                    self.choose_deadline()
            return size
        self.start_exchange()
        self.to_head_request = False
        self.is_html = False
        if used < 0:
            self.version = 1
            self.refuse(-used - 1, 0)
            return size
        self.stage = BODY  # until the body is known to be complete
        self.version = head.version
        self.method = head.method_label
        self.to_head_request = head.method_label == 1
        if head.seen[ACCEPT]:
            self.is_html = _takes_html(head)
        body.begin(0, 0)
        body.complete = False  # nothing is known of it yet: a refusal closes the connection
        reason = head.read_connection_options()
        self.closing = head.options & OPTION_CLOSE or head.version == 0  # CON-4 to CON-6
        if reason == 0:
            reason = frame_request(head, body)
        if reason == 0:
            if head.version == 0 and head.seen[HOST] == 0:
                authority = self.find_authority()
            reason = read_passage(head, body, context, authority, cython.address(passage))
        if reason == 0:
            reason = self.find_instance(cython.address(passage))
        if reason == 0:
            trusted = self.instance.trusted
            if trusted is not None:
                if self.peer.decode("ascii") in trusted:
                    client = find_client(head, self.peer, trusted)
                else:
                    trusted = None
        if context.log is not None:
            known: cython.bint = reason == 0 or reason == -(UNKNOWN_HOST + 1)  # where the target leads
            self.describe(head, cython.address(passage) if known else cython.NULL, client)
        if reason < 0:
            if -reason - 1 == METHOD_NOT_SUPPORTED and head.method_size == 7:
                # A CONNECT is refused with 501 for good (REQ-19), a TRACE with 405 (REQ-20), for the same reason.
                self.closing = True
                self.refuse(METHOD_NOT_SUPPORTED, 501)
            else:
                self.refuse(-reason - 1, 0)
            return used if self.stage == IDLE else size
        body.limit = self.instance.max_body
        end = used if body.complete else body.take(data, used, size)
        self.octets_in = end if end >= 0 else size
        if body.complete:
            self.stage = WAITING
        else:
            self.body_due = context.clock.awake() + self.instance.client_body.duration
        if self.instance.limits_clients and (client is None or client != self.peer):
            reason = self.take_share(self.peer if client is None else client, client is not None)
        if reason == 0:
            reason = self.judge(head, cython.address(passage), used)
        if reason == 0:
            reason = self.choose_replica(head, cython.address(passage))
        if reason < 0:
            self.refuse(-reason - 1, 0)
            return end if end >= 0 else size
        if end < 0:  # after the verdict on the head, as if the body had come later
            self.refuse(-end - 2, 0)
            return size
        self.find_request_id(head, trusted)
        if self.sticky:
            self.secure = (
                self.instance.cookie_is_secure
                or (self.entrance.scheme if client is None else scheme_of_client(head, self.entrance)) == "https"
            )
        self.evidence_key = context.evidence.key_of(
            self.instance.counts, self.method, passage.path, passage.judged_size
        )
        if passage.upgrades:
            self.upgrading = True
            self.key = head.lines[head.first[SEC_WEBSOCKET_KEY]].value[:24]
            self.judged_path = b"/" if passage.needs_slash else passage.path[: passage.judged_size]
            self.judged_method = head.method[: head.method_size]
            self.closing = True  # EXP-12: what came behind an upgrade is never read as a request
        write_request(
            context,
            head,
            cython.address(passage),
            data,
            self.entrance,
            self.peer,
            self.request_id,
            self.request_id_size,
            client,
        )
        if body.spans is not None:
            rest = body.rewritten()
            self.send_request(head, PyBytes_AS_STRING(rest), PyBytes_GET_SIZE(rest))
        else:
            self.send_request(head, data + used, end - used)
        return end

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def take_body(self, data: cython.p_const_char, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Send on what `data` holds of the request's body. Gives how much that is."""
        end: cython.Py_ssize_t = self.body.take(data, 0, size)
        piece: cython.p_const_char = data
        piece_size: cython.Py_ssize_t = end
        rewritten: bytes
        upstream: ReplicaConnection
        if end < 0:
            if self.status == 0:
                self.refuse(-end - 2, 0)
            else:
                self.client_left()
                self.stage = CLOSING
                self.reset()
            return size
        self.count_body(end)
        if self.body.spans is not None:
            rewritten = self.body.rewritten()
            piece = PyBytes_AS_STRING(rewritten)
            piece_size = PyBytes_GET_SIZE(rewritten)
        if self.gathered is not None:
            self.gather(piece, piece_size)
            self.gathered_more()
            return end
        if self.kept is not None:
            self.kept += piece[:piece_size]
        upstream = self.upstream
        if upstream is not None:
            upstream.send(piece, piece_size, cython.NULL, 0)
        elif self.pending is not None:
            self.pending.append(piece[:piece_size])
            self.pending_size += piece_size
        self.body_moved()
        return end

    @cython.cfunc
    @cython.exceptval(check=False)
    def count_body(self, size: cython.Py_ssize_t) -> cython.void:
        """So many octets of the request's body have come. They put off its due time, however many to `client_body` from now:
        what came fast gives no right to a long trickle."""
        instance: Instance = self.instance
        longest: cython.double = self.context.clock.awake() + instance.client_body.duration
        self.octets_in += size
        if instance.body_rate > 0 and self.body_due + size / instance.body_rate < longest:
            self.body_due += size / instance.body_rate
        else:
            self.body_due = longest

    @cython.cfunc
    @cython.exceptval(check=False)
    def body_is_late(self) -> cython.bint:
        """Whether the body comes too slowly, or has taken too long; deadlines restart with every octet."""
        instance: Instance = self.instance
        clock: Clock = self.context.clock
        if instance.request_total > 0 and clock.now - self.started > instance.request_total:
            return True
        return instance.client_body.duration > 0 and self.body_due < clock.awake()

    @cython.cfunc
    def gathered_more(self):
        """A piece of the request's body has come, and the request has no place yet."""
        context: Context = self.context
        instance: Instance = self.instance
        if self.body.complete:
            self.stage = WAITING
            self.send_gathered()
        elif self.body_is_late():
            self.expired()
        elif self.octets_in > instance.gather or context.gathered > GATHERED:
            self.send_gathered()
        else:
            self.choose_deadline()

    @cython.cfunc
    def passed(self, size: cython.Py_ssize_t):
        upstream: ReplicaConnection = self.upstream
        self.count_body(size)
        self.body.passed(size)
        if upstream is not None:
            upstream.request_passed(size)
        self.body_moved()

    @cython.cfunc
    def body_moved(self):
        """A piece of the request's body went on to the replica, or waits for it."""
        upstream: ReplicaConnection = self.upstream
        if self.body.complete:
            self.stage = WAITING
            if upstream is not None:
                upstream.request_is_complete()
        elif self.body_is_late():
            self.expired()
            return
        else:
            self.divert_rest()
        self.choose_deadline()
        self.update_reading()

    # --- the end of an exchange ---

    @cython.cfunc
    def exchange_ended(self):
        self.release_share()
        self.stream.undivert()
        self.kept = None
        self.upstream = None
        self.pending = None
        if self.stage == ENDED or self.stage == CLOSING:
            return
        self.exchanges += 1
        if self.stage == BODY:  # CON-13: the answer was complete before the request was
            self.linger()
            return
        if self.closing or (self.is_winding_down() and self.held is None):
            self.close()
            return
        self.stage = IDLE
        self.choose_deadline()

    @cython.cfunc
    def go_on(self):
        """Use what was sent ahead, or close if nothing more can come: after exchanges that ended out of `take_input`."""
        data: bytes = self.held
        if self.stage != IDLE or self.turn_pending:
            return
        if data is not None:
            self.held = None
            try:
                self.take_input(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            except Exception as problem:  # whoever called this, often a replica's connection, has no part in it
                self.context.poller.report(self.stream, problem)
            self.update_reading()
        elif self.half_closed:
            self.close()

    @cython.cfunc
    def linger(self):
        """Half-close, and throw away what still comes until the client has read the answer (CON-9)."""
        self.stage = LINGERING
        self.held = None
        self.discarded = 0
        self.watch_taking()
        self.update_reading()
        if self.half_closed:
            self.close()
            return
        self.stream.finish()
        self.choose_deadline()

    @cython.cfunc
    def finish_lingering(self) -> cython.void:
        self.stage = CLOSING
        self.stop_deadline()
        if self.stream.waits() > 0:
            self.reset()  # FRM-11: the answer is cut
        else:
            self.stream.abort()

    @cython.cfunc
    def close(self) -> cython.void:
        """Let what is buffered leave, then close."""
        self.stage = CLOSING
        self.held = None
        self.watch_taking()
        self.stream.close()
        self.choose_deadline()

    @cython.cfunc
    def closing_for_good(self) -> cython.bint:
        return self.half_closed

    @cython.cfunc
    def tunnel_begins(self, tunnel: Tunnel):
        """The stream is the tunnel's now; what the client had sent ahead goes first (WSK-9)."""
        self.known_host = None
        tunnel.share = self.connection_share  # a tunnel is a connection as before
        self.connection_share = None
        self.known_instance = None  # a tunnel may outlive many tables
        if self.reading_paused:
            self.stream.resume()
        if self.held is not None:
            tunnel.far.stream.send_bytes(self.held)  # behind `resume`: it may pause reading again
            self.held = None

    def obey_gate(self) -> None:
        """The gate has changed. What runs was let pass and ends by its timeouts; an upgrade is judged again at its 101."""

    def drain(self) -> bool:
        """The proxy stops: close if no request is being served (CON-17). Whether it closes now."""
        if self.stage != IDLE or self.held is not None:
            return False
        if self.exchanges == 0 and monotonic() - self.started < _FRESH:
            return False  # its first request is most likely on its way
        self.close()
        return True

    def abort(self) -> None:
        """End without another word: the drain's deadline has passed."""
        if self.stage == BODY or self.stage == WAITING:
            if self.described is not None:
                self.log(
                    self.status,
                    NONE,
                    "KQ" if self.waits_in is not None else "KD" if self.status or self.stage == BODY else "KH",
                )
            self.leave_replica()
            self.stage = CLOSING
        self.reset()

    # --- deadlines and back-pressure ---

    @cython.cfunc
    def choose_deadline(self) -> cython.void:
        """The one place that says which deadline runs on this side."""
        instance: Instance = self.instance
        routes: Routes = self.context.routes
        if self.stage == IDLE and not self.blocked:
            if self.exchanges == 0 or instance is None:
                routes.client_head.start(self)
            else:
                instance.client_idle.start(self)
        elif self.stage == HEAD:
            (routes.client_head if instance is None else instance.client_head).start(self)
        elif self.stage == LINGERING:
            (routes.linger if instance is None else instance.linger).start(self)
        elif self.stage == ENDED:
            self.stop_deadline()
        elif self.waits_in is not None:
            if self.queue is not instance.queue_timeout:  # it runs from the begin of the wait
                instance.queue_timeout.start(self)
        elif self.blocked or self.stage == CLOSING:
            (routes.client_write if instance is None else instance.client_write).start(self)
        elif self.stage == BODY and not self.reading_paused:
            self.start_body_deadline()
        else:
            self.stop_deadline()  # the replica's turn

    @cython.cfunc
    def start_body_deadline(self) -> cython.void:
        """For the next octets of the request's body: a trickle must extend a request neither beyond its total nor below its
        rate."""
        instance: Instance = self.instance
        clock: Clock = self.context.clock
        longest: cython.double = instance.client_body.duration
        left: cython.double
        step: cython.double
        if longest <= 0:
            if instance.request_total <= 0:
                self.stop_deadline()
                return
            longest = instance.request_total
            left = self.started + longest - clock.now
        else:
            left = self.body_due - clock.awake()
            if instance.request_total > 0 and self.started + instance.request_total - clock.now < left:
                left = self.started + instance.request_total - clock.now
        # Deadlines are queued by duration, so there must be few durations.
        step = longest / _STEPS if longest > _STEP * _STEPS else _STEP
        if left > longest - step:
            clock.queue(longest).start(self)
        else:
            clock.queue(ceil(left / step) * step if left > 0 else step).start(self)

    @cython.cfunc
    def watch_taking(self) -> cython.void:
        """From now on the client must take something of what waits for it, now and then."""
        self.waiting_size = self.stream.waits()
        self.taken_at = self.context.clock.now

    @cython.cfunc
    def is_taking(self) -> cython.bint:
        """Whether answers wait for the client, and it has taken something of them within `client_write`."""
        size: cython.Py_ssize_t = self.stream.waits()
        routes: Routes = self.context.routes
        limit: cython.double = (
            routes.client_write.duration if self.instance is None else self.instance.client_write.duration
        )
        if size == 0:
            return False
        if size != self.waiting_size:
            self.waiting_size = size
            self.taken_at = self.context.clock.now
            return True
        return limit <= 0 or self.context.clock.now - self.taken_at < limit

    @cython.cfunc
    def expired(self):
        if self.stage == IDLE and not self.blocked:  # CON-18: silently
            self.close()
        elif self.stage == HEAD:
            self.start_exchange()
            self.version = 1
            self.to_head_request = False
            self.is_html = False
            self.refuse(HEAD_TIMEOUT, 0)
        elif self.waits_in is not None:
            self.refuse(QUEUE_TIMEOUT, 0)
            self.go_on()
        elif (self.blocked or self.stage == LINGERING or self.stage == CLOSING) and self.is_taking():
            self.choose_deadline()
        elif self.stage == LINGERING:
            self.finish_lingering()
        elif self.blocked and self.stage != CLOSING:
            self._count_reply(CLIENT_STALLED)
            if self.described is not None and (self.stage == BODY or self.stage == WAITING):
                self.log(499, CLIENT_STALLED, "cD")
            self.leave_replica()
            self.stage = CLOSING
            self.reset()
        elif self.stage == BODY and self.status == 0:
            self.refuse(BODY_TIMEOUT, 0)
        else:
            if self.stage == BODY:  # too late to say so
                self._count_reply(BODY_TIMEOUT)
                if self.described is not None:
                    self.log(self.status, BODY_TIMEOUT, "cD")
                self.leave_replica()
            self.stage = CLOSING
            self.reset()

    @cython.cfunc
    def replica_blocks(self, blocks: cython.bint):
        self.update_reading()
        self.choose_deadline()

    @cython.cfunc
    def update_reading(self) -> cython.void:
        """Pause or go on reading: the client must not send faster than what it sends can be used."""
        paused: cython.bint = False
        limit: cython.Py_ssize_t = self.context.routes.buffer
        if self.stage == BODY:
            if self.upstream is not None:
                paused = self.upstream.blocked
            else:
                paused = self.pending_size > limit or self.waits_in is not None
        elif self.stage == WAITING or self.stage == IDLE:
            paused = self.held is not None and PyBytes_GET_SIZE(self.held) > limit
        if paused == self.reading_paused or self.stage == ENDED:
            return
        self.reading_paused = paused
        if paused:
            self.paused_at = self.context.clock.awake()
            self.stream.pause()
        else:
            self.body_due += self.context.clock.awake() - self.paused_at  # what was not read came not too slowly
            if not self.half_closed:
                self.stream.resume()
        self.choose_deadline()

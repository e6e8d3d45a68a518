"""A connection to a replica: answers come in here, and idle connections wait here for the next exchange.

The connection knows the form of an answer (its head, its framing) and nothing of clients; whoever uses it is told what came.
It is given back to the pool when both halves of an exchange are complete and nothing about it was in doubt (CON-16), and in
every other case it is closed.
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.context import Context
from cython.cimports.haproxy_py.datapath.deadlines import monotonic
from cython.cimports.haproxy_py.datapath.framing import CHUNKED, UNTIL_CLOSE, Body, frame_response
from cython.cimports.haproxy_py.datapath.heads import (
    CONTENT_LENGTH,
    KEEP_ALIVE,
    OPTION_CLOSE,
    TRANSFER_ENCODING,
    FieldLine,
    Head,
)
from cython.cimports.haproxy_py.datapath.limits import MAX_INTERIM
from cython.cimports.haproxy_py.datapath.pool import Pooled, Replica
from cython.cimports.haproxy_py.datapath.queue import Waiting
from cython.cimports.haproxy_py.datapath.reason import BAD_RESPONSE, RESPONSE_TIMEOUT, UPSTREAM_CLOSED
from cython.cimports.haproxy_py.datapath.routes import Instance
from cython.cimports.haproxy_py.datapath.stream import Stream
from cython.cimports.posix.strings import strncasecmp

from haproxy_py import counters as layout

_STALE = cython.declare(cython.int, layout.REPLICA_CONNECTIONS_STALE)
_OPENED = cython.declare(cython.int, layout.REPLICA_CONNECTIONS_OPENED)
_RECEIVED = cython.declare(cython.int, layout.REPLICA_RECEIVED_BYTES)
_SENT = cython.declare(cython.int, layout.REPLICA_SENT_BYTES)
_KEEP_AT_MOST = cython.declare(cython.int, 60)  # KAL-2: seconds


@cython.cclass
class ReplicaUser(Waiting):
    """Whoever has an exchange on a connection to a replica. Each call is one thing that happened on it."""

    @cython.cfunc
    def answer_begins(
        self, connection: ReplicaConnection, head: Head, piece: cython.p_const_char, size: cython.Py_ssize_t
    ):
        """The head of the final answer, and the first piece of its body."""
        raise AssertionError

    @cython.cfunc
    def answer_interim(self, connection: ReplicaConnection, head: Head):
        """A 1xx other than 101."""
        raise AssertionError

    @cython.cfunc
    def answer_goes_on(self, connection: ReplicaConnection, piece: cython.p_const_char, size: cython.Py_ssize_t):
        """More of the body."""
        raise AssertionError

    @cython.cfunc
    def divert_answer(self, connection: ReplicaConnection):
        """More of the body is still to come: it may go past this process if it has a length."""
        raise AssertionError

    @cython.cfunc
    def answer_passed(self, connection: ReplicaConnection, size: cython.Py_ssize_t):
        """So many octets of the body went past."""
        raise AssertionError

    @cython.cfunc
    def answer_complete(self, connection: ReplicaConnection):
        """The answer has ended well; the connection is no longer the user's."""
        raise AssertionError

    @cython.cfunc
    def answer_switches(
        self, connection: ReplicaConnection, head: Head, rest: cython.p_const_char, size: cython.Py_ssize_t
    ):
        """A 101, and what came behind it."""
        raise AssertionError

    @cython.cfunc
    def exchange_failed(self, connection: ReplicaConnection, reason: cython.int):
        """The exchange cannot go on; the connection is closed and no longer the user's."""
        raise AssertionError

    @cython.cfunc
    def replica_blocks(self, blocks: cython.bint):
        """The replica takes no more of the request for now, or does again."""
        raise AssertionError


@cython.final
@cython.cclass
class ReplicaConnection(Pooled):
    """One connection to one replica, and the answer that is coming on it."""

    def __init__(self, context: Context, replica: Replica, stream: Stream, buffer: cython.Py_ssize_t):
        """On a connection that stands. `buffer`: octets waiting for the replica above which its user holds back."""
        self.context = context
        self.replica = replica
        self.body = Body()
        self.stream = stream
        context.spare.add(self)
        stream.user = self
        stream.patient = True
        stream.set_limit(buffer)
        replica.counts[_OPENED] += 1

    # --- what the stream tells ---

    @cython.cfunc
    def received(self, data: cython.p_const_char, size: cython.Py_ssize_t):
        end: cython.Py_ssize_t
        rewritten: bytes
        user: ReplicaUser = self.user  # held here: what it does may make this connection forget it
        self.replica.counts[_RECEIVED] += size
        if self.phase == ANSWERING:
            end = self.body.take(data, 0, size)
            if end < 0:
                self.fail(BAD_RESPONSE)
                return
            if self.body.spans is not None:
                rewritten = self.body.rewritten()
                user.answer_goes_on(self, PyBytes_AS_STRING(rewritten), PyBytes_GET_SIZE(rewritten))
            else:
                user.answer_goes_on(self, data, end)
            self.body_moved(end == size)
        elif self.phase == AWAITING:
            self.heard = True
            if self.held is None:
                self.take_heads(data, size)
            else:
                rewritten = self.held + data[:size]
                self.take_heads(PyBytes_AS_STRING(rewritten), PyBytes_GET_SIZE(rewritten))
        elif self.phase == UNUSED:  # CON-14: nobody asked
            self.replica.counts[_STALE] += 1
            self.replica.remove_idle(self)
            self.discard()
        elif self.phase == FRESH:
            self.discard()

    @cython.cfunc
    def passed(self, size: cython.Py_ssize_t):
        user: ReplicaUser = self.user
        if self.phase == ANSWERING:
            self.replica.counts[_RECEIVED] += size
            self.body.passed(size)
            user.answer_passed(self, size)
            self.body_moved(True)

    @cython.cfunc
    def body_moved(self, reusable: cython.bint):
        """A piece of the answer's body went on; `reusable`: nothing was read behind it."""
        user: ReplicaUser = self.user
        if self.phase != ANSWERING:
            return  # the client went away while it was written to
        if self.body.complete:
            self.finish(reusable and not self.stream.has_more())
            return
        self.choose_deadline()
        user.divert_answer(self)

    @cython.cfunc
    def ended(self):
        if self.phase == ANSWERING and self.body.kind == UNTIL_CLOSE:
            self.body.complete = True
            self.finish(False)
        elif self.phase == UNUSED:  # at once: `lost` comes only after whatever else is ready (RTY-2)
            self.replica.lost_at = monotonic()
            self.replica.counts[_STALE] += 1
            self.replica.remove_idle(self)
            self.discard()
        elif self.phase == FRESH:
            self.discard()
        elif self.phase == AWAITING or self.phase == ANSWERING:
            self.fail(UPSTREAM_CLOSED)

    @cython.cfunc
    def lost(self, problem: cython.int):
        before: Phase = self.phase
        self.phase = GONE
        self.context.spare.discard(self)
        if before == UNUSED:
            self.replica.lost_at = monotonic()
            self.replica.counts[_STALE] += 1
            self.replica.remove_idle(self)
        elif before == AWAITING or before == ANSWERING:
            self.fail(UPSTREAM_CLOSED)

    @cython.cfunc
    def blocks(self, blocks: cython.bint):
        user: ReplicaUser = self.user
        self.blocked = blocks
        if blocks:
            self.waiting_size = self.stream.waits()
        if user is not None:
            user.replica_blocks(blocks)
            self.choose_deadline()

    # --- what its user calls ---

    @cython.cfunc
    @cython.exceptval(check=False)
    def begin(
        self, user: ReplicaUser, instance: Instance, to_head_request: cython.bint, decoded: cython.bint
    ) -> cython.void:
        """An exchange begins; its request is sent next. `decoded`: the user cannot take chunks, only their data."""
        self.decoded = decoded
        self.user = user
        self.instance = instance
        self.to_head_request = to_head_request
        self.phase = AWAITING
        self.stream.undivert()
        self.request_complete = False
        self.heard = False
        self.interim = 0
        self.doubtful = False
        self.held = None

    @cython.cfunc
    def send(
        self,
        first: cython.p_const_char,
        first_size: cython.Py_ssize_t,
        second: cython.p_const_char,
        second_size: cython.Py_ssize_t,
    ) -> cython.void:
        """Send two pieces of the request, or one if the second has no octets."""
        self.replica.counts[_SENT] += first_size + second_size
        if second_size == 0:
            self.stream.send(first, first_size)
        else:
            self.stream.send_pieces(first, first_size, second, second_size, False)
        if self.blocked:
            self.choose_deadline()

    @cython.cfunc
    def request_passed(self, size: cython.Py_ssize_t) -> cython.void:
        """So many octets of the request were diverted to this connection."""
        self.replica.counts[_SENT] += size
        if self.blocked:
            self.choose_deadline()

    @cython.cfunc
    @cython.exceptval(check=False)
    def request_is_complete(self) -> cython.void:
        self.request_complete = True
        self.choose_deadline()

    @cython.cfunc
    def set_paused(self, paused: cython.bint) -> cython.void:
        """Stop or go on reading the answer: the client is slower than the replica."""
        if paused == self.reading_paused or self.phase == GONE:
            return
        self.reading_paused = paused
        if paused:
            self.stream.pause()
        else:
            self.stream.resume()
        self.choose_deadline()

    @cython.cfunc
    def detach(self):
        """The user leaves in the middle of an exchange: nothing more is reported, the connection is cut."""
        self.user = None
        self.phase = GONE
        self.stop_deadline()
        self.stream.abort()

    def abort(self) -> None:
        """End without another word: the worker ends."""
        self.fail(UPSTREAM_CLOSED)

    @cython.cfunc
    def hand_over(self):
        """The connection becomes one end of a tunnel."""
        self.user = None
        self.phase = GONE
        self.stop_deadline()
        self.context.spare.discard(self)
        if self.reading_paused:
            self.reading_paused = False
            self.stream.resume()

    @cython.cfunc
    def park(self, instance: Instance) -> cython.void:
        """Nobody waits for this fresh connection any more: keep it for the next exchange."""
        if self.phase != FRESH:
            return
        if self.replica.gone or self.replica.draining or not self.replica.healthy or self.context.draining:
            self.discard()
            return
        self.phase = UNUSED
        instance.upstream_idle.start(self)
        self.replica.put_idle(self, instance.max_idle, self.context.clock.now)

    # --- its own business ---

    @cython.cfunc
    @cython.exceptval(check=False)
    def choose_deadline(self) -> cython.void:
        """The one place that says which deadline runs on this side."""
        if self.phase == AWAITING:
            if self.request_complete:
                self.instance.response_head.start(self)
            elif self.blocked:
                self.instance.response_body.start(self)
            else:
                self.stop_deadline()  # the client's turn
        elif self.phase == ANSWERING and not self.reading_paused:
            self.instance.response_body.start(self)
        else:
            self.stop_deadline()

    @cython.cfunc
    def expired(self):
        if self.phase == UNUSED:  # KAL-2, KAL-3
            self.replica.remove_idle(self)
            self.discard()
        elif self.blocked and self.is_taking():
            self.choose_deadline()
        else:
            self.fail(RESPONSE_TIMEOUT)

    @cython.cfunc
    @cython.exceptval(check=False)
    def is_taking(self) -> cython.bint:
        """Whether the replica has taken something of the request since this was asked last."""
        size: cython.Py_ssize_t = self.stream.waits()
        before: cython.Py_ssize_t = self.waiting_size
        self.waiting_size = size
        return size != before

    @cython.cfunc
    def discard(self):
        self.phase = GONE
        if self.stream.waits() > 0:  # a replica that stopped reading would keep it open
            self.stream.abort()
        else:
            self.stream.close()

    @cython.cfunc
    def take_heads(self, data: cython.p_const_char, size: cython.Py_ssize_t):
        """Read answers' heads from `data` until the final one, or until it is used up."""
        head: Head = self.context.response
        instance: Instance = self.instance
        user: ReplicaUser = self.user  # held here, as in `received`
        rewritten: bytes
        used: cython.Py_ssize_t
        end: cython.Py_ssize_t
        while True:
            if size == 0:
                self.held = None
                return
            used = head.parse_response(data, size, instance.max_response_head, instance.max_response_lines)
            if used == 0:
                self.held = data[:size]
                return
            if used < 0:
                self.fail(-used - 1)
                return
            if head.read_connection_options() < 0:
                self.fail(BAD_RESPONSE)  # CON-2
                return
            if head.status == 101:
                self.held = None
                user.answer_switches(self, head, data + used, size - used)
                return
            if head.status >= 200:
                break
            self.interim += 1
            if head.seen[TRANSFER_ENCODING]:  # FRM-14: it frames nothing here, and says that something is wrong there
                self.doubtful = True
            if self.interim > MAX_INTERIM or frame_response(head, self.body, True) < 0:  # EXP-1
                self.fail(BAD_RESPONSE)
                return
            user.answer_interim(self, head)
            if self.phase != AWAITING:
                return
            self.choose_deadline()
            data += used
            size -= used
        self.held = None
        if frame_response(head, self.body, self.to_head_request) < 0:
            self.fail(BAD_RESPONSE)
            return
        # CON-4, FRM-2, FRM-14: what keeps the connection from being used again.
        self.persistent = (
            head.version == 1
            and not self.doubtful
            and not head.options & OPTION_CLOSE
            and self.body.kind != UNTIL_CLOSE
            and not (head.seen[TRANSFER_ENCODING] and head.seen[CONTENT_LENGTH])
            and not (head.seen[TRANSFER_ENCODING] and self.body.kind != CHUNKED and head.status == 204)
        )
        self.read_keep_alive(head)
        self.body.decoding = self.decoded
        end = self.body.take(data, used, size)
        if end < 0:
            self.fail(BAD_RESPONSE)
            return
        self.phase = ANSWERING
        if self.body.spans is not None:
            rewritten = self.body.rewritten()
            user.answer_begins(self, head, PyBytes_AS_STRING(rewritten), PyBytes_GET_SIZE(rewritten))
        else:
            user.answer_begins(self, head, data + used, end - used)
        self.body_moved(end == size)

    @cython.cfunc
    def finish(self, reusable: cython.bint):
        """The answer is complete: back to the pool if nothing speaks against it (CON-16), and tell the user."""
        user: ReplicaUser = self.user
        seconds: cython.int = self.keep_seconds
        self.user = None
        if self.reading_paused:
            self.set_paused(False)
        self.stop_deadline()
        if (
            reusable
            and self.persistent
            and self.request_complete
            and not self.blocked
            and seconds != 0
            and not self.replica.gone
            and not self.replica.draining
            and self.replica.healthy
            and not self.context.draining
        ):
            self.phase = UNUSED
            if seconds < 0:
                self.instance.upstream_idle.start(self)
            else:
                self.context.clock.queue(seconds).start(self)
            self.replica.put_idle(self, self.instance.max_idle, self.context.clock.now)
        else:
            self.discard()
        user.answer_complete(self)

    @cython.cfunc
    def fail(self, reason: cython.int):
        """The exchange is over before its answer is."""
        user: ReplicaUser = self.user
        self.user = None
        self.stop_deadline()
        self.phase = GONE
        self.stream.abort()
        if user is not None:
            user.exchange_failed(self, reason)
        if reason == UPSTREAM_CLOSED:  # told afterwards: of what others of its connections came to
            self.replica.lost_at = monotonic()

    @cython.cfunc
    @cython.exceptval(check=False)
    def read_keep_alive(self, head: Head) -> cython.void:
        """KAL-1, KAL-2: for how many seconds the connection may stay in the pool; -1 without a hint, 0 not at all."""
        line: cython.pointer(FieldLine)
        at: cython.int
        seconds: cython.int = 0
        digits: cython.int = 0
        self.keep_seconds = -1
        if head.seen[KEEP_ALIVE] != 1:
            return
        line = cython.address(head.lines[head.first[KEEP_ALIVE]])
        for at in range(line.value_size - 8):
            if strncasecmp(line.value + at, b"timeout=", 8) == 0:
                at += 8
                while at < line.value_size and 48 <= line.value[at] <= 57:
                    digits += 1
                    if digits > 5:
                        return
                    seconds = seconds * 10 + (line.value[at] - 48)
                    at += 1
                if digits:
                    seconds = seconds - 1 if seconds > 1 else 0
                    self.keep_seconds = seconds if seconds < _KEEP_AT_MOST else _KEEP_AT_MOST
                return

"""An exchange: one request and its answer, from the moment its head was read until both are complete.

This file is the way of the answer: from the replica, or from the proxy itself, to the client. The way of the request is
in `client`, which builds on this.

- An answer goes on as it comes. Its kind of framing stays, but for two cases: one that ends with its connection is sent
  chunked to an HTTP/1.1 client (FRM-13), and a chunked one is sent decoded to an HTTP/1.0 client (FRM-20).
- While the client takes less than comes, reading from the replica pauses.
- If an exchange fails before the head of its answer was sent, the proxy answers itself; after that, the client's
  connection is reset, so that no cut answer looks complete (FRM-11).
"""

import base64
import hashlib

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.access_log import AccessLog
from cython.cimports.haproxy_py.datapath.answers import may_persist, name_of, status_of, write_answer
from cython.cimports.haproxy_py.datapath.balance import may_eject, write_affinity
from cython.cimports.haproxy_py.datapath.context import Context
from cython.cimports.haproxy_py.datapath.count import cell, count_answer, observe
from cython.cimports.haproxy_py.datapath.deadlines import monotonic
from cython.cimports.haproxy_py.datapath.forward import write_response, write_switch
from cython.cimports.haproxy_py.datapath.framing import BY_LENGTH, CHUNKED, NO_BODY, UNTIL_CLOSE
from cython.cimports.haproxy_py.datapath.heads import (
    OPTION_UPGRADE,
    SEC_WEBSOCKET_ACCEPT,
    TRANSFER_ENCODING,
    UPGRADE,
    Head,
)
from cython.cimports.haproxy_py.datapath.limits import SESSION_OPENING, SMALL_BODY
from cython.cimports.haproxy_py.datapath.pool import Replica
from cython.cimports.haproxy_py.datapath.queue import Queue
from cython.cimports.haproxy_py.datapath.reason import (
    BAD_UPGRADE,
    CLIENT_GONE,
    GATE_DENIED,
    NONE,
    RESPONSE_TIMEOUT,
    UPSTREAM_CLOSED,
)
from cython.cimports.haproxy_py.datapath.replica import ReplicaConnection, ReplicaUser
from cython.cimports.haproxy_py.datapath.routes import Instance
from cython.cimports.haproxy_py.datapath.sessions import read_sid
from cython.cimports.haproxy_py.datapath.tunnel import Tunnel, find_denial
from cython.cimports.haproxy_py.datapath.writer import Writer, write_hex

from haproxy_py import counters as layout

_ACTIVE = cython.declare(cython.int, layout.REPLICA_ACTIVE_REQUESTS)
_DURATION = cython.declare(cython.int, layout.REPLICA_DURATION)
_REPLIES = cython.declare(cython.int, layout.INSTANCE_PROXY_REPLIES)
_TERMS = {
    "head_timeout": "cR", "body_timeout": "cD", "bad_chunk": "PD", "body_too_large": "PD", "connect_failed": "UC",
    "connect_timeout": "uC", "upstream_closed": "UH", "response_timeout": "uH", "bad_response": "PH",
    "response_head_too_large": "PH", "bad_upgrade": "PH", "discovery_pending": "PQ", "no_replica": "PQ",
    "replicas_full": "PQ", "queue_timeout": "sQ", "internal": "IH", "client_stalled": "cD",
}  # fmt: skip
"""Who ended an exchange and in which phase, where the proxy answered itself; `PR` for every other reason."""
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


@cython.cfunc
def give_back(replica: Replica) -> cython.void:
    """One exchange less on a replica."""
    queue: Queue = replica.queue
    replica.active -= 1
    replica.counts[_ACTIVE] -= 1
    if queue.first is not None:
        queue.wake()


@cython.cclass
class Exchange(ReplicaUser):
    """The answering half of a client's connection."""

    # --- the way to a replica ---

    @cython.cfunc
    def start_exchange(self) -> cython.void:
        """Forget the exchange before."""
        self.started = monotonic()
        self.instance = None
        self.request_id_size = 0
        self.status = 0
        self.rechunks = False
        self.sticky = False
        self.sets_cookie = False
        self.affinity = None
        self.opening = None
        self.upgrading = False
        self.connect_seconds = 0
        self.queue_seconds = 0
        self.first_octet = 0
        self.octets_in = 0
        self.octets_out = 0
        self.attempts = 0
        self.reused = False
        self.written_to = None
        self.may_be_fatal = False
        self.asking = False
        self.kept = None
        self.described = None

    @cython.cfunc
    def take_replica(self, replica: Replica) -> cython.void:
        """The exchange goes there. If it was out and may be tried again, this is the trial.

        One that is used although it is out gets none: that it fails again at once does not make it worse.
        """
        self.replica = replica
        replica.active += 1
        replica.counts[_ACTIVE] += 1
        if replica.failures > 0 and replica.out_until <= self.context.clock.now:
            replica.try_once(self.context.clock.now, self.instance.connect)

    @cython.cfunc
    def release_replica(self) -> cython.void:
        if self.replica is not None:
            give_back(self.replica)
            self.replica = None

    @cython.cfunc
    def release_share(self) -> cython.void:
        """One exchange less of the client's address."""
        if self.share is not None:
            self.context.shares.leave(self.share, self.context.clock.now)
            self.share = None

    @cython.cfunc
    def leave_replica(self) -> cython.void:
        """The exchange ends without its answer: cut the connection to the replica, or stop waiting for one."""
        self.release_share()
        self.stream.undivert()
        if self.gathered is not None:
            self.drop_gathered()
        if self.waits_in is not None:
            self.leave_queue()
        if self.upstream is not None:
            self.upstream.detach()
            self.upstream = None
        self.pending = None
        if self.dial is not None:
            # The attempt goes on and keeps the connection for others. The place at the replica is its own until then, or
            # clients that come and go could have any number of connections under way.
            self.dial = None
            self.replica = None
        else:
            self.release_replica()

    @cython.cfunc
    @cython.exceptval(check=False)
    def leave_queue(self) -> cython.void:
        """Wait for a place no more, whatever comes of it."""
        queue: Queue = self.waits_in
        queue.remove(self)
        self.queue_seconds += monotonic() - self.queued_at
        self.wanted = None

    @cython.cfunc
    @cython.exceptval(check=False)
    def drop_gathered(self) -> cython.void:
        """The request is gathered no more, whatever becomes of it."""
        self.context.gathered -= len(self.gathered)
        self.gathered = None

    @cython.cfunc
    def attach(self, connection: ReplicaConnection) -> cython.void:
        """This connection carries the exchange from now on."""
        self.upstream = connection
        connection.begin(self, self.instance, self.to_head_request, self.version == 0)

    # --- what the connection to the replica tells ---

    @cython.cfunc
    def answer_begins(
        self, connection: ReplicaConnection, head: Head, piece: cython.p_const_char, size: cython.Py_ssize_t
    ):
        context: Context = self.context
        writer: Writer = context.writer
        kind: cython.int = connection.body.kind
        self.status = head.status
        self.kept = None
        self.replica.begins()
        self.first_octet = monotonic()
        if self.stage == BODY or self.is_winding_down():  # CON-13, EXP-7, DRN-7
            self.closing = True
        self.rechunks = kind == UNTIL_CLOSE and self.version > 0
        write_response(
            context,
            head,
            self.replica,
            self.version > 0 and (kind == CHUNKED or self.rechunks),
            self.version > 0 and kind == NO_BODY and head.seen[TRANSFER_ENCODING] > 0 and head.status != 204,
            self.closing,
            self._cookie_line() if self.sets_cookie else None,
        )
        if self.rechunks and size > 0:
            writer.put_bytes(b"%x\r\n" % size)
        self.octets_out += writer.used + size
        if self.opening is not None:
            self.look_for_session(piece, size)
        if size <= SMALL_BODY:
            writer.put(piece, size)
            if self.rechunks and size > 0:
                writer.put(b"\r\n", 2)
            self.send_written()
        else:
            writer.check()
            self.stream.send_pieces(writer.space, writer.used, piece, size, self.rechunks)

    @cython.cfunc
    def answer_interim(self, connection: ReplicaConnection, head: Head):
        if self.version == 0:  # EXP-2
            return
        write_response(self.context, head, self.replica, False, False, False, None)
        self.send_written()
        if head.status == 100 and self.stage == BODY:  # the client has waited for that; its turn begins now
            self.body_due = self.context.clock.awake() + self.instance.client_body.duration
            self.choose_deadline()

    @cython.cfunc
    def answer_goes_on(self, connection: ReplicaConnection, piece: cython.p_const_char, size: cython.Py_ssize_t):
        line: bytes
        if size == 0:
            return
        self.octets_out += size
        if self.opening is not None:
            self.look_for_session(piece, size)
        if self.rechunks:
            line = b"%x\r\n" % size
            self.stream.send_pieces(PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line), piece, size, True)
        else:
            self.stream.send(piece, size)

    @cython.cfunc
    def look_for_session(self, piece: cython.p_const_char, size: cython.Py_ssize_t):
        """The answer to a socket.io handshake passes: remember where its session is, before the client can use it."""
        known: cython.Py_ssize_t = PyBytes_GET_SIZE(self.opening)
        sid: bytes = None
        if self.status == 200:
            self.opening += piece[: min(size, SESSION_OPENING - known)]
            sid = read_sid(self.opening)
        if sid is not None:
            self.context.sessions.remember(self.instance, sid, self.replica, self.context.clock.now)
        if sid is not None or self.status != 200 or known + size >= SESSION_OPENING:
            self.opening = None

    @cython.cfunc
    def divert_answer(self, connection: ReplicaConnection):
        connection.stream.divert(self.stream, connection.body.remaining if connection.body.kind == BY_LENGTH else 0)

    @cython.cfunc
    def answer_passed(self, connection: ReplicaConnection, size: cython.Py_ssize_t):
        self.octets_out += size

    @cython.cfunc
    def send_written(self):
        """Send what the writer holds."""
        writer: Writer = self.context.writer
        writer.check()
        self.stream.send(writer.space, writer.used)

    @cython.cfunc
    def answer_complete(self, connection: ReplicaConnection):
        now: cython.double = monotonic()
        replica: Replica = self.replica
        self.upstream = None
        if self.rechunks:
            self.stream.send(b"0\r\n\r\n", 5)
        count_answer(replica.counts, self.status, self.method)
        observe(replica.counts + _DURATION, now - self.started)
        if self.described is not None:
            self.log(self.status, NONE, "--")
        self.context.evidence.remember_answer(self.evidence_key)
        replica.troubles = 0
        if replica.failures > 0:
            self.take_back(replica)
        self.release_replica()
        self.exchange_ended()
        self.go_on()

    @cython.cfunc
    def answer_switches(
        self, connection: ReplicaConnection, head: Head, rest: cython.p_const_char, size: cython.Py_ssize_t
    ):
        context: Context = self.context
        replica: Replica = self.replica
        if not self.upgrading or self.closing_for_good() or not self._is_accepted(head):
            connection.detach()
            self.upstream = None
            self.refuse(BAD_UPGRADE, 0)
            self.go_on()
            return
        denied_by: cython.int = find_denial(self.instance, self.judged_path, self.judged_method)
        if denied_by >= 0:  # since the request came
            self.denied_by = denied_by
            connection.detach()
            self.upstream = None
            self.refuse(GATE_DENIED, 0)
            self.go_on()
            return
        write_switch(context, head, replica)
        self.send_written()
        self.stream.send(rest, size)
        count_answer(replica.counts, 101, self.method)
        replica.troubles = 0
        if replica.failures > 0:
            self.take_back(replica)
        connection.hand_over()
        line: object = self.describe_tunnel()
        self.upstream = None
        self.release_replica()
        self.release_share()
        self.stop_deadline()
        self.stage = ENDED
        context.clients.discard(self)
        tunnel: Tunnel = Tunnel(
            context,
            self.entrance,
            self.instance,
            replica,
            self.stream,
            connection.stream,
            line,
            self.judged_path,
            self.judged_method,
        )
        self.tunnel_begins(tunnel)
        if self.blocked:  # the stream has said so to its former user, and will not say it again
            tunnel.client.blocks(True)
        if connection.blocked:
            tunnel.far.blocks(True)

    @cython.cfunc
    def _is_accepted(self, head: Head) -> cython.bint:
        """EXP-13, WSK-4: the 101 names the protocol that was offered, with the right answer to the key."""
        index: cython.int
        expected: bytes
        if not head.options & OPTION_UPGRADE or not head.has_token(UPGRADE, b"websocket", 9):
            return False
        if head.seen[SEC_WEBSOCKET_ACCEPT] != 1:
            return False
        index = head.first[SEC_WEBSOCKET_ACCEPT]
        expected = base64.b64encode(hashlib.sha1(self.key + _WEBSOCKET_GUID).digest())
        return head.lines[index].value[: head.lines[index].value_size] == expected

    @cython.cfunc
    def exchange_failed(self, connection: ReplicaConnection, reason: cython.int):
        self.upstream = None
        # That a kept connection ends as it is used says nothing against the replica: it was idle (KAL-6). If the replica has
        # died, connecting to it says so next.
        if not self.reused or reason != UPSTREAM_CLOSED or connection.heard:
            self.count_trouble()
        if self.status == 0:
            try:
                if reason != UPSTREAM_CLOSED or connection.heard or not self.try_again(connection):
                    self.refuse(reason, 0)
                    self.go_on()
            except Exception as problem:  # the connection that called this has ended, and the client's has no deadline
                self.context.poller.report(self.stream, problem)
            return
        self._count_reply(reason)
        if self.described is not None:
            self.log(self.status, reason, "uD" if reason == RESPONSE_TIMEOUT else "UD")
        self.release_replica()
        self.release_share()
        self.stage = CLOSING
        self.reset()

    @cython.cfunc
    def take_back(self, replica: Replica) -> cython.void:
        """A replica that was ejected has given a complete answer, or a tunnel."""
        now: cython.double = self.context.clock.now
        instance: Instance = replica.queue.instance  # the newest
        replica.take_back(now)
        if instance is not None:
            instance.warm_until = now + instance.slow_start

    @cython.cfunc
    def count_trouble(self) -> cython.void:
        """The replica failed the exchange: it is ejected when that happens again and again (RTY-11), if it is to blame.

        One that was out and is tried again is out again at once. What a client can bring about by what it asks does not
        count (`evidence`).
        """
        if self.upgrading or not self.context.evidence.believe_failure(self.evidence_key):
            return
        replica: Replica = self.replica
        instance: Instance = self.instance
        now: cython.double = self.context.clock.now
        replica.troubles += 1
        if replica.failures > 0 or (0 < instance.max_troubles <= replica.troubles and may_eject(instance, now)):
            replica.eject(now)

    # --- the proxy's own answers ---

    @cython.cfunc
    def refuse(self, reason: cython.int, status: cython.int):
        """Answer in the replica's place; the exchange ends with it. `status` is 0 but where a reason has two."""
        persists: cython.bint = (
            may_persist(reason)
            and self.body.complete
            and self.version > 0
            and not self.closing
            and not self.is_winding_down()
            and (self.stage == WAITING or self.stage == BODY)
        )
        if status == 0:
            status = status_of(reason)
        if self.request_id_size == 0:
            self.draw_request_id()
        write_answer(
            self.context,
            reason,
            self.denied_by if reason == GATE_DENIED else 0,
            self.instance.name if self.instance is not None else "",
            status,
            self.is_html,
            not persists,
            self.to_head_request,
            self.request_id,
            self.request_id_size,
            self.unknown_host,
        )
        self.status = status
        self.octets_out += self.context.writer.used
        self._count_reply(reason)
        if self.context.log is not None:
            self.log(status, reason, _TERMS.get(name_of(reason), "PR"))
        self.leave_replica()
        self.send_written()
        if self.stage == ENDED:
            return
        if persists:
            self.stage = WAITING
            self.exchange_ended()
        else:
            self.linger()

    @cython.cfunc
    @cython.exceptval(check=False)
    def is_winding_down(self) -> cython.bint:
        """Whether the connection is to end with what runs on it: the proxy drains, or its listener is being closed."""
        return self.context.draining or self.entrance.leaving

    @cython.cfunc
    @cython.exceptval(check=False)
    def draw_request_id(self) -> cython.void:
        """32 hexadecimal digits that nobody else has."""
        write_hex(self.request_id, self.context.random())
        write_hex(cython.address(self.request_id[16]), self.context.random())
        self.request_id_size = 32

    @cython.cfunc
    def _cookie_line(self) -> bytes:
        """The affinity cookie: it holds an opaque name of the replica and is of no use to scripts."""
        return b"Set-Cookie: %s=%s%s%s\r\n" % (
            self.instance.cookie,
            write_affinity(self.instance, self.replica, self.affinity),
            self.instance.cookie_attributes,
            b"; Secure" if self.secure else b"",
        )

    @cython.cfunc
    def _count_reply(self, reason: cython.int) -> cython.void:
        counts: cython.pointer(cell) = (
            self.instance.counts if self.instance is not None else self.context.routes.no_instance
        )
        counts[_REPLIES + reason] += 1

    @cython.cfunc
    def client_left(self) -> cython.void:
        """The client went away in the middle of an exchange: 499, and never a failure of the replica (CON-12)."""
        if self.stage == HEAD:
            self.start_exchange()
        self._count_reply(CLIENT_GONE)
        if self.context.log is not None:
            self.log(499, CLIENT_GONE, self._where_left())
        self.leave_replica()

    @cython.cfunc
    def _where_left(self) -> str:
        """The phase in which the client went away."""
        if self.stage == HEAD:
            return "CR"
        if self.waits_in is not None:
            return "CQ"
        return "CD" if self.status or self.stage == BODY else "CH"

    @cython.cfunc
    def reset(self) -> cython.void:
        """End the client's connection so that nobody takes what it got for complete."""
        self.stream.reset()

    # --- the access log ---

    @cython.cfunc
    def log(self, status: cython.int, reason: cython.int, term: str) -> cython.void:
        """One line (section 16 of the HTTP reference). Query strings are not in it, nor any credentials."""
        log: AccessLog = self.context.log
        now: cython.double
        method: bytes
        target: bytes
        host: bytes
        agent: bytes
        client: bytes = None
        if log is None:  # switched off since the exchange began
            return
        now = monotonic()
        method = target = host = agent = b""
        if self.described is not None:
            method, target, host, agent, client = self.described
        if client is None:
            client = self.peer
        log.begin_line()
        log.put_text(b"client", client, PyBytes_GET_SIZE(client))
        log.put_text(b"peer", self.peer, PyBytes_GET_SIZE(self.peer))
        log.put_text(b"method", method, PyBytes_GET_SIZE(method))
        log.put_text(b"target", target, PyBytes_GET_SIZE(target))
        log.put_text(b"host", host, PyBytes_GET_SIZE(host))
        log.put_count(b"status", status)
        log.put_label(b"reason", name_of(reason) if reason != NONE else "")
        log.put_label(b"term", term)
        log.put_label(b"instance", self.instance.name if self.instance is not None else "")
        log.put_label(b"replica", self.replica.id if self.replica is not None else "")
        log.put_label(b"pod", self.replica.name if self.replica is not None else "")
        log.put_count(b"attempts", self.attempts)
        log.put_count(b"reused", self.reused)
        log.put_count(b"bytes_in", self.octets_in)
        log.put_count(b"bytes_out", self.octets_out)
        log.put_seconds(b"t_queue", self.queue_seconds + (now - self.queued_at if self.waits_in is not None else 0))
        log.put_seconds(b"t_connect", self.connect_seconds)
        log.put_seconds(b"t_first", self.first_octet - self.started if self.first_octet else 0)
        log.put_seconds(b"t_total", now - self.started if self.started else 0)
        if self.request_id_size > 0:
            log.put_text(b"request_id", self.request_id, self.request_id_size)
        log.put_text(b"user_agent", agent, PyBytes_GET_SIZE(agent))
        log.end_line()

    @cython.cfunc
    def describe_tunnel(self) -> object:
        """What a tunnel calls when it has ended, to have its line written; None where the log is off."""
        if self.described is None:
            return None
        return self._log_tunnel

    def _log_tunnel(self, replica: Replica, ended_by: str, received: int, sent: int) -> None:
        self.replica = replica
        self.octets_in = received
        self.octets_out = sent
        self.log(101, NONE, ended_by)
        self.replica = None

    # --- what the requesting half decides ---

    @cython.cfunc
    def exchange_ended(self):
        """Both halves are over, or the proxy has answered and the connection may stay."""
        raise AssertionError

    @cython.cfunc
    def go_on(self):
        raise AssertionError

    @cython.cfunc
    def linger(self):
        raise AssertionError

    @cython.cfunc
    def closing_for_good(self) -> cython.bint:
        raise AssertionError

    @cython.cfunc
    def choose_deadline(self) -> cython.void:
        raise AssertionError

    @cython.cfunc
    def update_reading(self) -> cython.void:
        raise AssertionError

    @cython.cfunc
    def tunnel_begins(self, tunnel: Tunnel):
        raise AssertionError

    # --- what connecting comes to ---

    @cython.cfunc
    def awaits(self, dial: object) -> cython.bint:
        raise AssertionError

    @cython.cfunc
    def change_replica(self, tried: list, reason: cython.int) -> Replica:
        raise AssertionError

    @cython.cfunc
    def dialled(self, connection: ReplicaConnection, seconds: cython.double):
        raise AssertionError

    @cython.cfunc
    def dial_failed(self, reason: cython.int):
        raise AssertionError

    @cython.cfunc
    def try_again(self, connection: ReplicaConnection) -> cython.bint:
        raise AssertionError

"""A connection over TLS: the octets of a stream, decrypted and encrypted on the way.

OpenSSL works on memory here, not on the socket, so that back-pressure, timeouts and endings are those of every stream.

- Until the handshake is over the user hears nothing; its deadline for the first request bounds the handshake, too.
- One record at a time goes to the user, so a user that wants no more leaves the rest encrypted.
- A handshake that fails is told by its reason, once. Who speaks HTTP instead is answered in HTTP, in the clear: no record of TLS
  begins with a letter. Then nothing of it is read, until it has gone or its deadline is over.
- The end of the connection is told by close_notify, then FIN (RFC 8446 section 6.1).
"""

import ssl

import cython
from cython.cimports.cpython.buffer import PyBUF_READ
from cython.cimports.cpython.bytearray import PyByteArray_AS_STRING
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.cpython.memoryview import PyMemoryView_FromMemory
from cython.cimports.haproxy_py.datapath.limits import LINGER_BYTES
from cython.cimports.haproxy_py.datapath.sockets import iovec
from cython.cimports.haproxy_py.datapath.stream import Stream, StreamUser
from cython.cimports.libc.errno import EPROTO

from haproxy_py.counters import TLS_FAILURES

_RECORD = cython.declare(cython.int, 16384)  # RFC 8446 section 5.1: octets of data in one record

_PLAIN_HTTP = cython.declare(cython.int, TLS_FAILURES.index("plain_http"))
_PROTOCOL = cython.declare(cython.int, TLS_FAILURES.index("protocol"))
_CERTIFICATE_REFUSED = cython.declare(cython.int, TLS_FAILURES.index("certificate_refused"))
_CLOSED = cython.declare(cython.int, TLS_FAILURES.index("closed"))
_TIMEOUT = cython.declare(cython.int, TLS_FAILURES.index("timeout"))
_OTHER = cython.declare(cython.int, TLS_FAILURES.index("other"))

_SPEAK_TLS = cython.declare(
    bytes,
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 74\r\n"
    b"Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    b"This port speaks HTTPS, the request was plain HTTP. Use https:// instead.\n",
)

# What one record decrypts to; of use within one visit only.
_plain = cython.declare(bytearray, bytearray(_RECORD))


def _name_failure(reason: str) -> int:
    """The index in TLS_FAILURES of what OpenSSL calls it."""
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return _CERTIFICATE_REFUSED
    if "PROTOCOL" in reason or "NO_SHARED" in reason or "VERSION_TOO" in reason or "FALLBACK" in reason:
        return _PROTOCOL
    return _OTHER


@cython.final
@cython.cclass
class TlsStream(Stream):
    """The server's side of one TLS connection."""

    def __init__(self, context: object, failed: object):
        """`context` is the ssl.SSLContext with the certificate; `failed(index of counters.TLS_FAILURES)` hears of a failure."""
        self.failed = failed
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.shaking = True

    @cython.cfunc
    @cython.exceptval(check=False)
    def is_plain(self) -> cython.bint:
        return False

    # --- receiving ---

    @cython.cfunc
    def read(self):
        if self.undecrypted and not self.paused and not self.finished:
            self.decrypt()
            if self.fd < 0:
                return
        Stream.read(self)

    @cython.cfunc
    def deliver(self, size: cython.Py_ssize_t):
        first: cython.int = self.poller.space[0]
        if not self.begun:
            self.begun = True
            if 65 <= first <= 90:  # A to Z
                self.refuse_plain()
        if self.refused:
            self.discarded += size
            if self.discarded > LINGER_BYTES:  # as of other early answers (CON-9)
                self.fail(EPROTO)
            return
        self.incoming.write(PyMemoryView_FromMemory(self.poller.space, size, PyBUF_READ))
        if self.shaking:
            self.shake()
        if not self.shaking and self.fd >= 0:
            self.decrypt()

    @cython.cfunc
    def decrypt(self):
        """Pass on what has come; send what OpenSSL answers by itself, such as new keys to new keys."""
        answers: cython.Py_ssize_t
        self.take_records()
        answers = self.outgoing.pending
        if answers == 0 or self.fd < 0:
            return
        if answers > _RECORD:  # hundreds of them: it costs much and serves nothing
            self.fail(EPROTO)
        elif self.waits() == 0:  # else with what is sent next, so that little waits for a client that takes nothing
            self.send_records()

    @cython.cfunc
    def shake(self):
        """One step of the handshake."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.send_records()
        except ssl.SSLError as error:
            self.tell(_name_failure(error.reason or ""))
            self.send_records()  # the alert that says why
            self.fail(EPROTO)
        else:
            self.shaking = False
            self.failed = None
            self.send_records()

    @cython.cfunc
    def refuse_plain(self):
        self.refused = True
        self.tell(_PLAIN_HTTP)
        Stream.send(self, PyBytes_AS_STRING(_SPEAK_TLS), PyBytes_GET_SIZE(_SPEAK_TLS))
        Stream.finish(self)

    @cython.cfunc
    def tell(self, reason: cython.int) -> cython.void:
        """The handshake has failed."""
        failed: object = self.failed
        self.failed = None
        if failed is not None:
            failed(reason)

    @cython.cfunc
    def take_records(self):
        """Pass on the records that are complete, as long as the user wants them."""
        user: StreamUser
        size: cython.Py_ssize_t
        self.undecrypted = True
        while self.fd >= 0 and not self.paused and not self.finished:
            try:
                size = self.tls.read(_RECORD, _plain)
            except ssl.SSLWantReadError:  # the rest of a record is still to come
                self.undecrypted = False
                return
            except ssl.SSLZeroReturnError:  # close_notify
                size = 0
            except ssl.SSLError:
                self.send_records()
                self.fail(EPROTO)
                return
            user = self.user
            if size == 0:
                self.finished = True
                self.undecrypted = False
                user.ended()
                return
            user.received(PyByteArray_AS_STRING(_plain), size)
            if not self.incoming.pending:  # whole records were read, so OpenSSL holds nothing either
                self.undecrypted = False
                return

    @cython.cfunc
    def resume(self) -> cython.void:
        if self.undecrypted:
            self.readable = True
        Stream.resume(self)

    # --- sending ---

    @cython.cfunc
    def send(self, data: cython.p_const_char, size: cython.Py_ssize_t) -> cython.void:
        if self.fd < 0 or self.closing or size == 0:
            return
        self.encrypt(data, size)
        self.send_records()

    @cython.cfunc
    def put(self, parts: cython.pointer(iovec), count: cython.int) -> cython.void:
        index: cython.int
        if self.fd < 0 or self.closing:
            return
        for index in range(count):
            self.encrypt(cython.cast(cython.p_char, parts[index].iov_base), parts[index].iov_len)
        self.send_records()

    @cython.cfunc
    def encrypt(self, data: cython.p_const_char, size: cython.Py_ssize_t) -> cython.void:
        if self.shaking or self.notified or size == 0:
            return  # there is nobody to tell yet, or no more
        self.tls.write(PyMemoryView_FromMemory(cython.cast(cython.p_char, data), size, PyBUF_READ))

    @cython.cfunc
    def send_records(self) -> cython.void:
        records: bytes = self.outgoing.read()
        Stream.send(self, PyBytes_AS_STRING(records), PyBytes_GET_SIZE(records))

    # --- ending ---

    @cython.cfunc
    def notify(self) -> cython.void:
        """Send close_notify, once."""
        if self.shaking or self.notified or self.fd < 0 or self.closing:
            return
        self.notified = True
        # It would read on, up to the other side's close_notify, and take data for an error that ends all reading.
        unread: bytes = self.incoming.read()
        try:
            self.tls.unwrap()
        except ssl.SSLError:  # it has nothing to read
            pass
        self.incoming.write(unread)
        self.send_records()

    @cython.cfunc
    def finish(self) -> cython.void:
        self.notify()
        Stream.finish(self)

    @cython.cfunc
    def close(self) -> cython.void:
        if self.shaking and self.begun:  # else it was only looked whether somebody is here
            self.tell(_CLOSED if self.finished else _TIMEOUT)
        self.notify()
        Stream.close(self)

    @cython.cfunc
    def abort(self) -> cython.void:
        if self.shaking and self.begun:
            self.tell(_CLOSED)
        Stream.abort(self)

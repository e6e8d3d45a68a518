"""A connection over TLS: the octets of a stream, decrypted and encrypted on the way.

OpenSSL works on memory here, not on the socket, so that back-pressure, timeouts and endings are those of every stream.

- Until the handshake is over the user hears nothing; its deadline for the first request bounds the handshake, too.
- One record at a time goes to the user, so a user that wants no more leaves the rest encrypted.
- The end of the connection is told by close_notify, then FIN (RFC 8446 section 6.1).
"""

import ssl

import cython
from cython.cimports.cpython.buffer import PyBUF_READ
from cython.cimports.cpython.bytearray import PyByteArray_AS_STRING
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.cpython.memoryview import PyMemoryView_FromMemory
from cython.cimports.haproxy_py.datapath.sockets import iovec
from cython.cimports.haproxy_py.datapath.stream import Stream, StreamUser
from cython.cimports.libc.errno import EPROTO

_RECORD = cython.declare(cython.int, 16384)  # RFC 8446 section 5.1: octets of data in one record

# What one record decrypts to; of use within one visit only.
_plain = cython.declare(bytearray, bytearray(_RECORD))


@cython.final
@cython.cclass
class TlsStream(Stream):
    """The server's side of one TLS connection."""

    def __init__(self, context: object):
        """`context` is the ssl.SSLContext with the certificate."""
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
        except ssl.SSLError:
            self.send_records()  # the alert that says why
            self.fail(EPROTO)
        else:
            self.shaking = False
            self.send_records()

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
        self.notify()
        Stream.close(self)

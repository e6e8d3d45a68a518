from haproxy_py.datapath.sockets cimport iovec
from haproxy_py.datapath.stream cimport Stream

cdef class TlsStream(Stream):
    cdef object tls  # the ssl.SSLObject
    cdef object incoming  # records that have come
    cdef object outgoing  # records that are to be sent
    cdef bint shaking  # the handshake is not over
    cdef bint undecrypted  # records that have come wait for the user to read on
    cdef bint notified  # close_notify is on its way
    cdef object failed  # called with a reason of counters.TLS_FAILURES, by its index, when the handshake fails; None: it was
    cdef bint begun  # something has come
    cdef bint refused  # the client does not speak TLS: what it sends is thrown away
    cdef Py_ssize_t discarded  # octets of that

    cdef shake(self)
    cdef refuse_plain(self)
    cdef void tell(self, int reason)
    cdef decrypt(self)
    cdef take_records(self)
    cdef void encrypt(self, const char* data, Py_ssize_t size)
    cdef void send_records(self)
    cdef void notify(self)

from haproxy_py.datapath.sockets cimport iovec
from haproxy_py.datapath.stream cimport Stream

cdef class TlsStream(Stream):
    cdef object tls  # the ssl.SSLObject
    cdef object incoming  # records that have come
    cdef object outgoing  # records that are to be sent
    cdef bint shaking  # the handshake is not over
    cdef bint undecrypted  # records that have come wait for the user to read on
    cdef bint notified  # close_notify is on its way

    cdef shake(self)
    cdef decrypt(self)
    cdef take_records(self)
    cdef void encrypt(self, const char* data, Py_ssize_t size)
    cdef void send_records(self)
    cdef void notify(self)

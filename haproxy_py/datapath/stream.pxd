from haproxy_py.datapath.deadlines cimport Timed
from haproxy_py.datapath.poller cimport Pipe, Watched
from haproxy_py.datapath.sockets cimport iovec, sockaddr, socklen_t

cdef class StreamUser(Timed):
    cdef connected(self, Stream stream)
    cdef received(self, const char* data, Py_ssize_t size)
    cdef ended(self)
    cdef lost(self, int problem)
    cdef blocks(self, bint blocks)
    cdef passed(self, Py_ssize_t size)

cdef class Stream(Watched):
    cdef StreamUser user
    # what waits to be sent
    cdef char* waiting
    cdef Py_ssize_t room  # allocated
    cdef Py_ssize_t start  # of what is left
    cdef readonly Py_ssize_t unsent  # octets
    cdef Py_ssize_t high  # above it the user is told that the other side takes too little
    cdef bint blocked  # the user was told so
    # what goes past this process
    cdef Stream sink  # where the next octets go without being read here; None: they are read
    cdef long long to_pass  # how many
    cdef Pipe pipe  # on the way to the other side of this stream
    cdef readonly Py_ssize_t piped  # octets in it: they go before what waits
    # states
    cdef bint connecting
    cdef bint bulk  # much is to come that cannot be diverted: it is read in large pieces
    cdef bint paused  # the user wants nothing to read
    cdef bint readable  # there may be something to read
    cdef bint ending  # a FIN or an error stands behind what is still to be read
    cdef bint finished  # the other side has sent FIN, and the user knows
    cdef bint finishing  # a FIN goes out behind what waits
    cdef readonly bint closing  # ends when what waits has left
    cdef bint patient  # what came before a reset is read, however late
    cdef int problem  # the error number it was lost for

    cdef void connect(self, sockaddr* address, socklen_t size)
    cdef void begin(self)
    cdef void send(self, const char* data, Py_ssize_t size)
    cdef void send_bytes(self, bytes data)
    cdef void send_pieces(self, const char* first, Py_ssize_t first_size, const char* second, Py_ssize_t second_size,
                          bint line)
    cdef void put(self, iovec* parts, int count)
    cdef void keep(self, const char* data, Py_ssize_t size)
    cdef flush(self)
    cdef void pause(self) noexcept
    cdef void resume(self)
    cdef void finish(self)
    cdef void close(self)
    cdef void abort(self)
    cdef void reset(self)
    cdef read(self)
    cdef bint divert(self, Stream sink, long long size)
    cdef void undivert(self) noexcept
    cdef pass_on(self)
    cdef block(self)
    cdef empty_pipe(self)
    cdef bint is_plain(self) noexcept
    cdef bint has_more(self) noexcept
    cdef Py_ssize_t waits(self) noexcept
    cdef deliver(self, Py_ssize_t size)
    cdef void fail(self, int problem)
    cdef void write_failed(self, int problem)
    cdef void set_limit(self, Py_ssize_t high) noexcept
    cdef int take_error(self) noexcept
    cdef void forget_waiting(self) noexcept
    cdef has_connected(self, unsigned int events)

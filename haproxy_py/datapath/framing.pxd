from haproxy_py.datapath.heads cimport Head

# How a body ends.
cdef enum:
    NO_BODY
    BY_LENGTH
    CHUNKED
    UNTIL_CLOSE

cdef class Body:
    # of this message
    cdef int kind
    cdef bint complete
    cdef bint decoding  # pass on the data alone, without the chunk lines (for an HTTP/1.0 client)
    cdef long long remaining  # octets: of the body, or of the current chunk
    cdef long long total  # octets of data announced so far
    cdef long long limit  # on `total`; 0: none
    # of the chunk that is being read
    cdef int state
    cdef int digits
    cdef int extensions  # octets of its extensions
    cdef long long extensions_excess  # octets of extensions in this message beyond what each chunk may have
    cdef bytes trailers  # held until they are complete
    cdef Py_ssize_t max_trailers
    # of the last piece
    cdef list spans  # what to pass on instead of the piece itself; None: the piece as it came

    cdef void begin(self, int kind, long long length) noexcept
    cdef Py_ssize_t take(self, const char* data, Py_ssize_t start, Py_ssize_t size) except? -1
    cdef Py_ssize_t take_chunks(self, const char* data, Py_ssize_t start, Py_ssize_t size) except? -1
    cdef Py_ssize_t take_trailers(self, const char* data, Py_ssize_t start, Py_ssize_t size) except? -1
    cdef bytes rewritten(self)
    cdef void passed(self, Py_ssize_t size) noexcept

cdef int frame_request(Head head, Body body) noexcept
cdef int frame_response(Head head, Body body, bint to_head_request) noexcept
cdef long long parse_length(Head head) noexcept

from haproxy_py.datapath.limits cimport MAX_FIELD_LINES

# Kinds of fields that the proxy knows.
cdef enum:
    OTHER
    HOST
    CONNECTION
    CONTENT_LENGTH
    TRANSFER_ENCODING
    KEEP_ALIVE
    PROXY_CONNECTION
    TE
    TRAILER
    UPGRADE
    EXPECT
    VIA
    FORWARDED
    X_FORWARDED_FOR
    X_FORWARDED_PROTO
    X_FORWARDED_HOST
    X_FORWARDED_PORT
    X_REAL_IP
    X_REQUEST_ID
    COOKIE
    ACCEPT
    DATE
    HTTP2_SETTINGS
    MAX_FORWARDS
    SEC_WEBSOCKET_KEY
    SEC_WEBSOCKET_ACCEPT
    X_HA_REPLICA
    USER_AGENT
    AUTHORIZATION
    PROXY_AUTHORIZATION
    SET_COOKIE
    KINDS

cdef enum:
    REQUEST
    RESPONSE
    TRAILERS

# Bits of the options that Connection lists.
cdef enum:
    OPTION_CLOSE = 1
    OPTION_KEEP_ALIVE = 2
    OPTION_UPGRADE = 4

cdef struct FieldLine:
    const char* name
    const char* value
    const char* end  # past the CR LF
    int name_size
    int value_size
    unsigned char kind
    bint canonical  # stands as `name: value CR LF`, so it can be copied as it is
    bint dropped  # ends here: hop-by-hop, or replaced by the proxy's own

cdef class Head:
    cdef FieldLine lines[MAX_FIELD_LINES]
    cdef int count  # of field lines
    cdef short first[KINDS]  # index of the first line of this kind; valid where `seen` is not zero
    cdef short seen[KINDS]  # number of lines of this kind
    cdef Py_ssize_t skipped  # octets before the start line (one empty line may stand there)
    cdef Py_ssize_t line_size  # of the start line, without its CR LF
    cdef int version  # minor version: 0 or 1
    cdef int options  # bits of the options below
    # of a request
    cdef const char* method
    cdef int method_size
    cdef int method_label  # index in counters.METHODS
    cdef const char* target
    cdef int target_size
    # of a response
    cdef int status
    cdef const char* reason_text  # with the space before it
    cdef int reason_size

    cdef Py_ssize_t parse_request(self, const char* data, Py_ssize_t size, Py_ssize_t max_line, Py_ssize_t max_head,
                                  int max_lines) noexcept
    cdef Py_ssize_t parse_response(self, const char* data, Py_ssize_t size, Py_ssize_t max_head, int max_lines) noexcept
    cdef Py_ssize_t parse_trailers(self, const char* data, Py_ssize_t size, Py_ssize_t max_head, int max_lines) noexcept
    cdef Py_ssize_t parse_lines(self, const char* data, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t limit, int max_lines,
                                int type) noexcept
    cdef int parse_request_line(self, const char* line, Py_ssize_t size) noexcept
    cdef int read_connection_options(self) noexcept
    cdef bint has_many_empty(self, int kind) noexcept
    cdef bint has_token(self, int kind, const char* token, int size) noexcept

cdef struct Element:
    const char* at
    Py_ssize_t size
    const char* rest  # where the next element begins; NULL after the last

cdef bint next_element(Element* element, const char* stop) noexcept nogil
cdef bint is_token(const char* at, Py_ssize_t size) noexcept nogil
cdef bint equals(const char* at, Py_ssize_t size, const char* lower, Py_ssize_t lower_size) noexcept nogil

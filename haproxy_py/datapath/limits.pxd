# Bounds that no configuration can move, with the reason of each.
cdef enum:
    MAX_FIELD_LINES = 512  # room for the parsed lines of one head; the configuration allows at most 500
    MAX_CONTENT_LENGTH_DIGITS = 18  # FRM-8: fits 63 bits
    MAX_CHUNK_SIZE_DIGITS = 15  # FRM-16: fits 60 bits
    MAX_CHUNK_EXTENSIONS = 4096  # FRM-17: octets in one chunk; a signature of every chunk is about 90
    CHUNK_EXTENSIONS_ALLOWED = 256  # FRM-17: octets that any chunk may have besides as many as it has data
    MAX_EXTENSIONS_EXCESS = 1048576  # FRM-17: octets in one message beyond that; Go's net/http has 16 KiB for all chunk lines
    MAX_EMPTY_ELEMENTS = 16  # FLD-14: empty elements in a list
    MAX_CONNECTION_OPTIONS = 32  # names in Connection; a browser sends one or two
    MAX_INTERIM = 32  # EXP-1: 1xx answers in one exchange
    MAX_HOST = 261  # a DNS name (253), a colon and a port, with room for brackets
    MAX_REQUEST_ID = 128  # FWD-13
    WRITER_SIZE = 327680  # the largest head that the configuration allows (256 KiB), what the proxy adds, and room
    REPLAYABLE = 65536  # RTY-9: octets of a body that is kept, whole, until the first octet of its answer
    SMALL_BODY = 16384  # body bytes up to here are copied behind the head, so that both leave in one piece
    SERVED_PER_TURN = 64  # requests of one queue that get a place in a row before others get their turn
    MAX_REQUESTS_PER_TURN = 64  # of one connection in a row, answered by the proxy itself, before others get their turn
    LINGER_BYTES = 65536  # CON-9: discarded after an early answer
    READ_SIZE = 262144  # octets that one visit of a connection reads, of a body that is copied through the worker
    FIRST_SIZE = 73728  # octets read where a head may come: 64 KiB behind it come along, more can be diverted
    EVENTS_PER_ROUND = 128  # connections that one look at the sockets finds ready
    DIVERT_FROM = 65536  # octets left of a body from which on they are not copied through the worker
    PIPE_SIZE = 262144  # octets that a diverted body is moved by
    IDLE_PIPES = 16  # kept for the next body
    ROUNDS_PER_TURN = 8  # looks at the sockets before the event loop's own business
    ACCEPTS_PER_VISIT = 32  # connections accepted in a row before others get their turn

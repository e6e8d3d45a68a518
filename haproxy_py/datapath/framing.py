"""Framing: how the body of a message ends, and counting a body's octets until it does.

The rules (RFC 9112 sections 6 and 7):

- Two Content-Length fields, a list in one, a sign, a space or too many digits: refused, never repaired (FRM-8, FRM-9). Two
  parsers could read such a message in two ways. So is Transfer-Encoding together with Content-Length in a request (FRM-1).
- An answer with both is chunked, because Node-RED sends such: flows copy the fields of what they fetched. Its Content-Length
  ends here, and the connection with it (FRM-2, section 6.3): no client gets two lengths, nothing is read behind the body.
- The only coding is `chunked`, once, last, without a parameter (FRM-3 to FRM-5), and never in an HTTP/1.0 message (FRM-7).
- A request with neither field has no body (FRM-12). An answer with neither ends with the connection (FRM-13); an answer to
  HEAD, a 1xx, a 204 and a 304 have none whatever they say (FRM-14).
- A chunk line is up to fifteen hexadecimal digits, an extension by the grammar, CR LF (FRM-16 to FRM-18). Extensions are
  dropped. Those of one chunk are bounded, and so is what all of a message have beyond an allowance for each chunk.
- Trailers are checked like fields and may not frame, route, authenticate or control (FRM-19).

A body is never collected and never copied: a piece that was read is passed on as the object it is. Only where octets must
not be passed on (extensions, trailers that are still incomplete, chunk lines for an HTTP/1.0 client) are spans cut out.
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.heads import (
    ACCEPT,
    CONTENT_LENGTH,
    DATE,
    OTHER,
    TRANSFER_ENCODING,
    USER_AGENT,
    Element,
    FieldLine,
    Head,
    equals,
    next_element,
)
from cython.cimports.haproxy_py.datapath.limits import (
    CHUNK_EXTENSIONS_ALLOWED,
    MAX_CHUNK_EXTENSIONS,
    MAX_CHUNK_SIZE_DIGITS,
    MAX_CONTENT_LENGTH_DIGITS,
    MAX_EMPTY_ELEMENTS,
    MAX_EXTENSIONS_EXCESS,
)
from cython.cimports.haproxy_py.datapath.reason import (
    AMBIGUOUS_FRAMING,
    BAD_CHUNK,
    BAD_FIELD,
    BAD_FRAMING,
    BAD_RESPONSE,
    BODY_TOO_LARGE,
    HEAD_TOO_LARGE,
    TOO_MANY_FIELDS,
    UNSUPPORTED_CODING,
)

# Where a chunked body stands. The next octet to come is ...
SIZE = cython.declare(cython.int, 0)  # a digit of a chunk's size, or what ends the digits
SIZE_LF = cython.declare(cython.int, 1)  # the LF of a chunk line
DATA = cython.declare(cython.int, 2)  # data of the chunk; `remaining` octets are left
DATA_CR = cython.declare(cython.int, 3)  # the CR behind the data
DATA_LF = cython.declare(cython.int, 4)  # the LF behind the data
EXTENSION_SPACE = cython.declare(cython.int, 5)  # a space, or the semicolon of an extension
EXTENSION_NAME_START = cython.declare(cython.int, 6)  # a space, or the first octet of an extension's name
EXTENSION_NAME = cython.declare(cython.int, 7)  # of the name, or what ends it
EXTENSION_EQUALS = cython.declare(cython.int, 8)  # a space behind the name, then `=` or the next `;`
EXTENSION_VALUE_START = cython.declare(cython.int, 9)  # a space, or the first octet of the value
EXTENSION_VALUE = cython.declare(cython.int, 10)  # of a token value, or what ends it
EXTENSION_QUOTED = cython.declare(cython.int, 11)  # of a quoted value
EXTENSION_ESCAPED = cython.declare(cython.int, 12)  # the octet behind a backslash
EXTENSION_END = cython.declare(cython.int, 13)  # CR, a space or `;` behind a quoted value
TRAILERS_START = cython.declare(cython.int, 14)  # the CR of the empty line, or the first octet of a trailer
TRAILERS = cython.declare(cython.int, 15)  # of the trailers, which are held
LAST_LF = cython.declare(cython.int, 16)  # the LF of the empty line

_TRAILER_HEAD = cython.declare(Head, Head())
_MAX_TRAILERS = cython.declare(cython.int, 100)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _is_tchar(octet: cython.uchar) -> cython.bint:
    if 48 <= octet <= 57 or 65 <= octet <= 90 or 97 <= octet <= 122:
        return True
    return (
        octet == 33
        or 35 <= octet <= 39
        or octet == 42
        or octet == 43
        or octet == 45
        or octet == 46
        or (octet == 94 or octet == 95 or octet == 96 or octet == 124 or octet == 126)
    )


@cython.final
@cython.cclass
class Body:
    """The body of one message after the other of a connection: what is still to come of it."""

    def __cinit__(self):
        self.max_trailers = 15360
        self.complete = True

    @cython.cfunc
    @cython.exceptval(check=False)
    def begin(self, kind: cython.int, length: cython.longlong) -> cython.void:
        """Start with a new message. `length` counts only for `BY_LENGTH`."""
        self.kind = kind
        self.remaining = length
        self.complete = kind == NO_BODY or (kind == BY_LENGTH and length == 0)
        self.total = length
        self.decoding = False
        self.spans = None
        if kind == CHUNKED:
            self.state = SIZE
            self.remaining = 0
            self.total = 0
            self.digits = 0
            self.extensions = 0
            self.extensions_excess = 0
            self.trailers = None

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def take(self, data: cython.p_const_char, start: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Count what `data` (`size` octets) holds of the body from `start` on; gives where it ends there, or -(reason + 2).

        Afterwards `complete` says whether the body has ended, and `spans` what to pass on if not the piece itself.
        """
        self.spans = None
        if self.kind == BY_LENGTH:
            if size - start < self.remaining:
                self.remaining -= size - start
                return size
            start += self.remaining
            self.remaining = 0
            self.complete = True
            return start
        if self.kind == CHUNKED:
            return start if self.complete else self.take_chunks(data, start, size)
        return size if self.kind == UNTIL_CLOSE else start

    @cython.cfunc
    @cython.exceptval(check=False)
    def passed(self, size: cython.Py_ssize_t) -> cython.void:
        """Count octets of a body `BY_LENGTH` that nobody read, at most the `remaining` ones."""
        self.remaining -= size
        self.complete = self.remaining == 0

    @cython.cfunc
    def rewritten(self) -> bytes:
        """What to pass on of the last piece where `spans` is set."""
        return b"".join(self.spans)

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def take_chunks(
        self, data: cython.p_const_char, start: cython.Py_ssize_t, size: cython.Py_ssize_t
    ) -> cython.Py_ssize_t:
        at: cython.Py_ssize_t = start
        kept: cython.Py_ssize_t = start  # start of the span that is passed on; -1 while octets are being dropped
        step: cython.Py_ssize_t
        octet: cython.uchar
        state: cython.int = self.state
        value: cython.int
        if self.decoding:
            self.spans = []
            if state != DATA:
                kept = -1
        elif EXTENSION_SPACE <= state <= EXTENSION_END or state == TRAILERS:
            self.spans = []
            kept = -1
        while at < size:
            octet = cython.cast(cython.uchar, data[at])
            if state == DATA:
                step = size - at if size - at < self.remaining else self.remaining
                at += step  # 0 < step <= size - at
                self.remaining -= step
                if self.remaining == 0:
                    state = DATA_CR
                    if self.decoding:
                        self.spans.append(data[kept:at])
                        kept = -1
                continue
            if state == SIZE:
                if 48 <= octet <= 57:
                    value = octet - 48
                elif 97 <= (octet | 32) <= 102:
                    value = (octet | 32) - 87
                else:
                    value = -1
                if value >= 0:
                    self.digits += 1
                    if self.digits > MAX_CHUNK_SIZE_DIGITS:  # FRM-16: counted before multiplying
                        return -(BAD_CHUNK + 2)
                    self.remaining = self.remaining * 16 + value
                elif self.digits == 0:
                    return -(BAD_CHUNK + 2)
                elif octet == 13:
                    state = SIZE_LF
                elif octet == 59 or octet == 32 or octet == 9:
                    if self.spans is None:
                        self.spans = []
                    if kept >= 0:
                        self.spans.append(data[kept:at])
                        kept = -1
                    state = EXTENSION_NAME_START if octet == 59 else EXTENSION_SPACE
                    self.extensions += 1
                else:
                    return -(BAD_CHUNK + 2)
            elif state == SIZE_LF:
                if octet != 10:
                    return -(BAD_CHUNK + 2)
                self.digits = 0
                if self.extensions > 0:  # FRM-17: as Go's net/http does, with more room
                    self.extensions_excess += self.extensions - CHUNK_EXTENSIONS_ALLOWED - self.remaining
                    if self.extensions_excess < 0:
                        self.extensions_excess = 0
                    elif self.extensions_excess > MAX_EXTENSIONS_EXCESS:
                        return -(BAD_CHUNK + 2)
                    self.extensions = 0
                if self.remaining == 0:
                    state = TRAILERS_START
                else:
                    state = DATA
                    if self.decoding:
                        kept = at + 1
                    self.total += self.remaining
                    if self.limit > 0 and self.total > self.limit:
                        return -(BODY_TOO_LARGE + 2)
            elif state == DATA_CR:
                if octet != 13:
                    return -(BAD_CHUNK + 2)  # FRM-18
                state = DATA_LF
            elif state == DATA_LF:
                if octet != 10:
                    return -(BAD_CHUNK + 2)
                state = SIZE
            elif state == TRAILERS_START:
                if octet == 13:
                    state = LAST_LF
                else:
                    if self.spans is None:
                        self.spans = []
                    if kept >= 0:
                        self.spans.append(data[kept:at])
                        kept = -1
                    self.trailers = b""
                    state = TRAILERS
                    continue
            elif state == LAST_LF:
                if octet != 10:
                    return -(BAD_CHUNK + 2)
                at += 1
                self.complete = True
                break
            elif state == TRAILERS:
                return self.take_trailers(data, at, size)
            else:
                state = _next_in_extension(state, octet)
                if state < 0:
                    return -(BAD_CHUNK + 2)
                if state != SIZE_LF:
                    self.extensions += 1
                    if self.extensions > MAX_CHUNK_EXTENSIONS:  # FRM-17
                        return -(BAD_CHUNK + 2)
                elif not self.decoding:
                    kept = at  # the CR is passed on
            at += 1
        self.state = state
        if self.spans is not None and kept >= 0:
            self.spans.append(data[kept:at])
        return at

    @cython.cfunc
    @cython.exceptval(-1, check=True)
    def take_trailers(
        self, data: cython.p_const_char, start: cython.Py_ssize_t, size: cython.Py_ssize_t
    ) -> cython.Py_ssize_t:
        """Hold trailers until they are complete, check them, pass them on as they should have been written."""
        held: cython.Py_ssize_t = PyBytes_GET_SIZE(self.trailers)
        end: cython.Py_ssize_t
        index: cython.int
        kind: cython.int
        line: cython.pointer(FieldLine)
        self.state = TRAILERS
        self.trailers = self.trailers + data[start:size]
        end = _TRAILER_HEAD.parse_trailers(
            PyBytes_AS_STRING(self.trailers), PyBytes_GET_SIZE(self.trailers), self.max_trailers, _MAX_TRAILERS
        )
        if end == -(HEAD_TOO_LARGE + 1) or end == -(TOO_MANY_FIELDS + 1):
            return -(BAD_FIELD + 2)  # the head was in order: 400, not 431 (section 14)
        if end < 0:
            return end - 1
        if end == 0:
            return size
        for index in range(_TRAILER_HEAD.count):
            line = cython.address(_TRAILER_HEAD.lines[index])
            kind = line.kind
            if kind != OTHER and kind != DATE and kind != ACCEPT and kind != USER_AGENT:
                return -(BAD_FIELD + 2)  # FRM-19
            if equals(line.name, line.name_size, b"www-authenticate", 16) or (
                equals(line.name, line.name_size, b"proxy-authenticate", 18)
            ):
                return -(BAD_FIELD + 2)
            if not self.decoding:
                self.spans.append(line.name[: line.name_size])
                self.spans.append(b": ")
                self.spans.append(line.value[: line.value_size])
                self.spans.append(b"\r\n")
        if not self.decoding:
            self.spans.append(b"\r\n")
        self.trailers = None
        self.complete = True
        return start + end - held


@cython.cfunc
@cython.exceptval(check=False)
def _next_in_extension(state: cython.int, octet: cython.uchar) -> cython.int:
    """chunk-ext of RFC 9112 section 7.1.1: the next state, -1 where the grammar is broken."""
    space: cython.bint = octet == 32 or octet == 9
    if state == EXTENSION_SPACE:
        return EXTENSION_SPACE if space else (EXTENSION_NAME_START if octet == 59 else -1)
    if state == EXTENSION_NAME_START:
        return EXTENSION_NAME_START if space else (EXTENSION_NAME if _is_tchar(octet) else -1)
    if state == EXTENSION_NAME or state == EXTENSION_EQUALS:
        if state == EXTENSION_NAME and _is_tchar(octet):
            return EXTENSION_NAME
        if space:
            return EXTENSION_EQUALS
        if octet == 61:
            return EXTENSION_VALUE_START
        if octet == 59:
            return EXTENSION_NAME_START
        return SIZE_LF if octet == 13 and state == EXTENSION_NAME else -1
    if state == EXTENSION_VALUE_START:
        if space:
            return EXTENSION_VALUE_START
        if octet == 34:
            return EXTENSION_QUOTED
        return EXTENSION_VALUE if _is_tchar(octet) else -1
    if state == EXTENSION_QUOTED:
        if octet == 34:
            return EXTENSION_END
        if octet == 92:
            return EXTENSION_ESCAPED
        return EXTENSION_QUOTED if octet == 9 or (octet >= 32 and octet != 127) else -1
    if state == EXTENSION_ESCAPED:
        return EXTENSION_QUOTED if octet == 9 or (octet >= 32 and octet != 127) else -1
    # EXTENSION_VALUE and EXTENSION_END
    if state == EXTENSION_VALUE and _is_tchar(octet):
        return EXTENSION_VALUE
    if space:
        return EXTENSION_SPACE
    if octet == 59:
        return EXTENSION_NAME_START
    return SIZE_LF if octet == 13 else -1


@cython.cfunc
@cython.exceptval(check=False)
def parse_length(head: Head) -> cython.longlong:
    """The value of the one Content-Length field, or -1 if it is not digits alone (FRM-8) or not alone (FRM-9)."""
    line: cython.pointer(FieldLine) = cython.address(head.lines[head.first[CONTENT_LENGTH]])
    length: cython.longlong = 0
    index: cython.int
    if head.seen[CONTENT_LENGTH] != 1 or not 1 <= line.value_size <= MAX_CONTENT_LENGTH_DIGITS:
        return -1
    for index in range(line.value_size):
        if line.value[index] < 48 or line.value[index] > 57:
            return -1
        length = length * 10 + (line.value[index] - 48)
    return length


@cython.cfunc
@cython.exceptval(check=False)
def _is_chunked_with_parameter(element: cython.pointer(Element)) -> cython.bint:
    size: cython.Py_ssize_t = 7
    if element.size <= 7 or not equals(element.at, 7, b"chunked", 7):
        return False
    while size < element.size and (element.at[size] == 32 or element.at[size] == 9):
        size += 1
    return size < element.size and element.at[size] == 59


@cython.cfunc
@cython.exceptval(check=False)
def _judge_coding(head: Head) -> cython.int:
    """0 if Transfer-Encoding is `chunked` and nothing else, else -(reason + 1) as for a request."""
    index: cython.int
    chunked: cython.int = 0
    others: cython.int = 0
    empty: cython.int = 0
    last_is_chunked: cython.bint = False
    element: Element
    line: cython.pointer(FieldLine)
    for index in range(head.first[TRANSFER_ENCODING], head.count):
        line = cython.address(head.lines[index])
        if line.kind != TRANSFER_ENCODING:
            continue
        element.rest = line.value
        while next_element(cython.address(element), line.value + line.value_size):
            if element.size == 0:
                empty += 1
                if empty > MAX_EMPTY_ELEMENTS:
                    return -(BAD_FIELD + 1)
                continue
            last_is_chunked = equals(element.at, element.size, b"chunked", 7)  # FRM-6
            if last_is_chunked:
                chunked += 1
            elif _is_chunked_with_parameter(cython.address(element)):
                return -(BAD_FRAMING + 1)  # FRM-5
            else:
                others += 1
    if not last_is_chunked or chunked != 1:
        return -(BAD_FRAMING + 1)
    return -(UNSUPPORTED_CODING + 1) if others else 0


@cython.cfunc
@cython.exceptval(check=False)
def frame_request(head: Head, body: Body) -> cython.int:
    """Decide how the body of a request ends. 0, or -(reason + 1)."""
    length: cython.longlong
    error: cython.int
    if head.seen[TRANSFER_ENCODING]:
        if head.seen[CONTENT_LENGTH]:
            return -(AMBIGUOUS_FRAMING + 1)  # FRM-1
        if head.version == 0:
            return -(BAD_FRAMING + 1)  # FRM-7
        error = _judge_coding(head)
        if error < 0:
            return error
        body.begin(CHUNKED, 0)
        return 0
    if head.seen[CONTENT_LENGTH]:
        length = parse_length(head)
        if length < 0:
            return -(BAD_FRAMING + 1)
        body.begin(BY_LENGTH, length)
        return 0
    body.begin(NO_BODY, 0)  # FRM-12
    return 0


@cython.cfunc
@cython.exceptval(check=False)
def frame_response(head: Head, body: Body, to_head_request: cython.bint) -> cython.int:
    """Decide how the body of an answer ends. 0, or -(reason + 1)."""
    length: cython.longlong = 0
    if head.seen[TRANSFER_ENCODING]:
        if head.version == 0 or _judge_coding(head) < 0:
            return -(BAD_RESPONSE + 1)  # FRM-7
    if head.seen[CONTENT_LENGTH]:  # also where it does not count (FRM-2)
        length = parse_length(head)
        if length < 0:
            return -(BAD_RESPONSE + 1)  # FRM-10
    if to_head_request or head.status < 200 or head.status == 204 or head.status == 304:
        body.begin(NO_BODY, 0)  # FRM-14
    elif head.seen[TRANSFER_ENCODING]:
        body.begin(CHUNKED, 0)
    elif head.seen[CONTENT_LENGTH]:
        body.begin(BY_LENGTH, length)
    else:
        body.begin(UNTIL_CLOSE, 0)  # FRM-13
    return 0

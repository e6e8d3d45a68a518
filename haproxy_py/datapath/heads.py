"""Heads: the start line and the fields of a message, found and checked in one walk.

The rules (RFC 9112 sections 2 to 5; the ids are those of the reference):

- A line ends with CR LF and nothing else; a CR or LF elsewhere is an error (REQ-2, REQ-3).
- A line that is complete is judged when it is complete, in order. So the verdict on a message does not depend on how the
  network cut it: the first wrong line decides, wherever the cuts were.
- One space stands between the parts of a request line, none elsewhere (REQ-7). One empty line may come before it (REQ-4).
- A field is `token ":" OWS value OWS` (FLD-2). A folded line, a control character in a value, or a space before the colon
  of a request's field is an error (FLD-1, FLD-3 to FLD-5).
- Sizes and counts have bounds, and a bound is noticed when it is passed, not when the head ends.

A parsed head points into the bytes it was parsed from; it is valid only as long as those are. The parser allocates nothing.
What the fields mean for body, connection and forwarding is decided elsewhere (`framing`, `forward`).
"""

import cython
from cython.cimports.haproxy_py.datapath.limits import MAX_CONNECTION_OPTIONS, MAX_EMPTY_ELEMENTS, MAX_FIELD_LINES
from cython.cimports.haproxy_py.datapath.reason import (
    BAD_CONNECTION_OPTION,
    BAD_FIELD,
    BAD_REQUEST,
    BAD_RESPONSE,
    HEAD_TOO_LARGE,
    METHOD_UNKNOWN,
    RESPONSE_HEAD_TOO_LARGE,
    TOO_MANY_FIELDS,
    URI_TOO_LONG,
    VERSION_NOT_SUPPORTED,
)
from cython.cimports.libc.string import memchr, memcmp, memset
from cython.cimports.posix.strings import strncasecmp

# tchar of RFC 9110 section 5.6.2.
_TCHAR = cython.declare(cython.uchar[256])


@cython.cfunc
def _fill_tchar() -> cython.void:
    code: cython.int
    for code in range(256):
        _TCHAR[code] = 0
    for code in b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
        _TCHAR[code] = 1


_fill_tchar()

# What Node knows (REQ-8), in the order of how often they are met. CONNECT and TRACE are known but never forwarded.
_METHODS = cython.declare(
    dict,
    {method: index for index, method in enumerate((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"))},
)
_OTHER_METHODS = cython.declare(
    frozenset,
    frozenset(
        b"ACL BIND CHECKOUT COPY LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY PROPFIND PROPPATCH PURGE "
        b"QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE UNBIND UNLINK UNLOCK UNSUBSCRIBE CONNECT TRACE".split()
    ),
)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_token(at: cython.p_const_char, size: cython.Py_ssize_t) -> cython.bint:
    index: cython.Py_ssize_t
    if size <= 0:
        return False
    for index in range(size):
        if not _TCHAR[cython.cast(cython.uchar, at[index])]:
            return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def equals(
    at: cython.p_const_char, size: cython.Py_ssize_t, lower: cython.p_const_char, lower_size: cython.Py_ssize_t
) -> cython.bint:
    """Equal without regard to the case of ASCII letters."""
    return size == lower_size and strncasecmp(at, lower, size) == 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _has_control(at: cython.p_const_char, size: cython.Py_ssize_t) -> cython.bint:
    """Whether a control character other than HTAB is there (FLD-4, FLD-5). Without a branch, so that it becomes vector code."""
    bad: cython.uchar = 0
    octet: cython.uchar
    index: cython.Py_ssize_t
    for index in range(size):
        octet = cython.cast(cython.uchar, at[index])
        bad |= ((octet < 32) & (octet != 9)) | (octet == 127)
    return bad != 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def next_element(element: cython.pointer(Element), stop: cython.p_const_char) -> cython.bint:
    """Move to the next element of a comma-separated list, spaces around it removed; False after the last.

    Set `element.rest` to the start of the list first. An empty element is given as one of size 0.
    """
    at: cython.p_const_char = element.rest
    comma: cython.p_const_char
    end: cython.p_const_char
    if at == cython.NULL:
        return False
    comma = cython.cast(cython.p_const_char, memchr(at, 44, stop - at)) if stop > at else cython.NULL
    end = comma if comma != cython.NULL else stop
    element.rest = comma + 1 if comma != cython.NULL else cython.NULL
    while at < end and (at[0] == 32 or at[0] == 9):
        at += 1
    while end > at and (end[-1] == 32 or end[-1] == 9):
        end -= 1
    element.at = at
    element.size = end - at
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _recognise(name: cython.p_const_char, size: cython.Py_ssize_t) -> cython.uchar:
    """The kind of a field, by length and first letter and only then by comparing."""
    first: cython.char = name[0] | 32
    if size == 2:
        return TE if equals(name, size, b"te", 2) else OTHER
    if size == 3:
        return VIA if first == 118 and equals(name, size, b"via", 3) else OTHER
    if size == 4:
        if first == 104:
            return HOST if equals(name, size, b"host", 4) else OTHER
        return DATE if first == 100 and equals(name, size, b"date", 4) else OTHER
    if size == 6:
        if first == 99:
            return COOKIE if equals(name, size, b"cookie", 6) else OTHER
        if first == 97:
            return ACCEPT if equals(name, size, b"accept", 6) else OTHER
        return EXPECT if first == 101 and equals(name, size, b"expect", 6) else OTHER
    if size == 7:
        if first == 117:
            return UPGRADE if equals(name, size, b"upgrade", 7) else OTHER
        return TRAILER if first == 116 and equals(name, size, b"trailer", 7) else OTHER
    if size == 9:
        if first == 120:
            return X_REAL_IP if equals(name, size, b"x-real-ip", 9) else OTHER
        return FORWARDED if first == 102 and equals(name, size, b"forwarded", 9) else OTHER
    if size == 10:
        if first == 99:
            return CONNECTION if equals(name, size, b"connection", 10) else OTHER
        if first == 117:
            return USER_AGENT if equals(name, size, b"user-agent", 10) else OTHER
        if first == 115:
            return SET_COOKIE if equals(name, size, b"set-cookie", 10) else OTHER
        return KEEP_ALIVE if first == 107 and equals(name, size, b"keep-alive", 10) else OTHER
    if size == 12:
        if first == 120:
            if equals(name, size, b"x-request-id", 12):
                return X_REQUEST_ID
            return X_HA_REPLICA if equals(name, size, b"x-ha-replica", 12) else OTHER
        return MAX_FORWARDS if first == 109 and equals(name, size, b"max-forwards", 12) else OTHER
    if size == 13:
        return AUTHORIZATION if first == 97 and equals(name, size, b"authorization", 13) else OTHER
    if size == 14:
        if first == 99:
            return CONTENT_LENGTH if equals(name, size, b"content-length", 14) else OTHER
        return HTTP2_SETTINGS if first == 104 and equals(name, size, b"http2-settings", 14) else OTHER
    if size == 15:
        return X_FORWARDED_FOR if first == 120 and equals(name, size, b"x-forwarded-for", 15) else OTHER
    if size == 16:
        if first == 120:
            if equals(name, size, b"x-forwarded-host", 16):
                return X_FORWARDED_HOST
            return X_FORWARDED_PORT if equals(name, size, b"x-forwarded-port", 16) else OTHER
        return PROXY_CONNECTION if first == 112 and equals(name, size, b"proxy-connection", 16) else OTHER
    if size == 17:
        if first == 116:
            return TRANSFER_ENCODING if equals(name, size, b"transfer-encoding", 17) else OTHER
        if first == 120:
            return X_FORWARDED_PROTO if equals(name, size, b"x-forwarded-proto", 17) else OTHER
        return SEC_WEBSOCKET_KEY if first == 115 and equals(name, size, b"sec-websocket-key", 17) else OTHER
    if size == 19:
        return PROXY_AUTHORIZATION if first == 112 and equals(name, size, b"proxy-authorization", 19) else OTHER
    if size == 20:
        return SEC_WEBSOCKET_ACCEPT if first == 115 and equals(name, size, b"sec-websocket-accept", 20) else OTHER
    return OTHER


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _may_not_be_an_option(name: cython.p_const_char, size: cython.Py_ssize_t) -> cython.bint:
    """End-to-end fields that Connection may not name (CON-2), or a client could make the proxy strip them."""
    kind: cython.uchar = _recognise(name, size)
    if size > 12 and strncasecmp(name, b"x-forwarded-", 12) == 0:
        return True
    return (
        kind == HOST
        or kind == CONTENT_LENGTH
        or kind == TRANSFER_ENCODING
        or kind == AUTHORIZATION
        or kind == COOKIE
        or kind == EXPECT
        or kind == VIA
        or kind == FORWARDED
        or kind == X_REAL_IP
        or kind == X_REQUEST_ID
    )


@cython.final
@cython.cclass
class Head:
    """One parsed head. The three parse methods give the octets consumed, 0 while incomplete, or -(reason + 1)."""

    @cython.cfunc
    @cython.exceptval(check=False)
    def parse_request(
        self,
        data: cython.p_const_char,
        size: cython.Py_ssize_t,
        max_line: cython.Py_ssize_t,
        max_head: cython.Py_ssize_t,
        max_lines: cython.int,
    ) -> cython.Py_ssize_t:
        start: cython.Py_ssize_t = 0
        reach: cython.Py_ssize_t
        end: cython.p_const_char
        error: cython.int
        if size > 0 and data[0] == 13:  # REQ-4: one empty line
            if size == 1:
                return 0
            if data[1] != 10:
                return -(BAD_REQUEST + 1)
            start = 2
        if size == start:
            return 0
        # REQ-6: what cannot begin a method (a TLS hello, a control character) is refused at once.
        if not _TCHAR[cython.cast(cython.uchar, data[start])]:
            return -(BAD_REQUEST + 1)
        self.skipped = start
        reach = size - start if size - start < max_line + 2 else max_line + 2
        end = cython.cast(cython.p_const_char, memchr(data + start, 10, reach))
        if end == cython.NULL:
            return -(URI_TOO_LONG + 1) if size - start >= max_line + 2 else 0  # REQ-9
        self.line_size = end - (data + start) - 1
        if self.line_size < 0 or end[-1] != 13:
            return -(BAD_REQUEST + 1)  # REQ-2
        error = self.parse_request_line(data + start, self.line_size)
        if error < 0:
            return error
        return self.parse_lines(data, start + self.line_size + 2, size, start + max_head, max_lines, REQUEST)

    @cython.cfunc
    @cython.exceptval(check=False)
    def parse_request_line(self, line: cython.p_const_char, size: cython.Py_ssize_t) -> cython.int:
        """`method SP target SP HTTP/1.x`. The shape of all three is judged first, then the version, then the method."""
        stop: cython.p_const_char = line + size
        space: cython.p_const_char = cython.cast(cython.p_const_char, memchr(line, 32, size))
        version: cython.p_const_char
        label: object
        if space == cython.NULL:
            return -(BAD_REQUEST + 1)
        self.method = line
        self.method_size = space - line
        if not is_token(line, self.method_size):
            return -(BAD_REQUEST + 1)
        self.target = space + 1
        space = cython.cast(cython.p_const_char, memchr(self.target, 32, stop - self.target))
        if space == cython.NULL or space == self.target:
            return -(BAD_REQUEST + 1)  # REQ-11: no version, or two spaces
        self.target_size = space - self.target
        version = space + 1
        # REQ-10: `HTTP/` digit `.` digit
        if stop - version != 8 or memcmp(version, b"HTTP/", 5) != 0 or version[6] != 46:
            return -(BAD_REQUEST + 1)
        if version[5] < 48 or version[5] > 57 or version[7] < 48 or version[7] > 57:
            return -(BAD_REQUEST + 1)
        if version[5] != 49:
            return -(VERSION_NOT_SUPPORTED + 1)
        self.version = 0 if version[7] == 48 else 1
        if self.method_size == 3 and memcmp(line, b"GET", 3) == 0:
            self.method_label = 0
        elif self.method_size == 4 and memcmp(line, b"POST", 4) == 0:
            self.method_label = 2
        else:
            label = _METHODS.get(line[: self.method_size])
            if label is None:
                if line[: self.method_size] not in _OTHER_METHODS:
                    return -(METHOD_UNKNOWN + 1)  # REQ-8
                self.method_label = 7
            else:
                self.method_label = label
        return 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def parse_response(
        self, data: cython.p_const_char, size: cython.Py_ssize_t, max_head: cython.Py_ssize_t, max_lines: cython.int
    ) -> cython.Py_ssize_t:
        reach: cython.Py_ssize_t = size if size < max_head else max_head
        end: cython.p_const_char = cython.cast(cython.p_const_char, memchr(data, 10, reach))
        digit: cython.int
        if end == cython.NULL:
            if size >= max_head:
                return -(RESPONSE_HEAD_TOO_LARGE + 1)
            # Nothing that will become a status line: do not wait for the end of the line.
            return 0 if memcmp(data, b"HTTP/", 5 if size > 5 else size) == 0 else -(BAD_RESPONSE + 1)
        self.line_size = end - data - 1
        # FLD-23: `HTTP/1.` digit SP three digits, then nothing or SP and a text
        if self.line_size < 12 or end[-1] != 13 or memcmp(data, b"HTTP/1.", 7) != 0 or data[8] != 32:
            return -(BAD_RESPONSE + 1)
        if data[7] < 48 or data[7] > 57 or data[9] < 49 or data[9] > 57:
            return -(BAD_RESPONSE + 1)
        for digit in range(10, 12):
            if data[digit] < 48 or data[digit] > 57:
                return -(BAD_RESPONSE + 1)
        if self.line_size > 12 and data[12] != 32:
            return -(BAD_RESPONSE + 1)
        if _has_control(data + 12, self.line_size - 12):
            return -(BAD_RESPONSE + 1)
        self.version = 0 if data[7] == 48 else 1
        self.status = (data[9] - 48) * 100 + (data[10] - 48) * 10 + (data[11] - 48)
        self.reason_text = data + 12
        self.reason_size = self.line_size - 12
        self.skipped = 0
        return self.parse_lines(data, self.line_size + 2, size, max_head, max_lines, RESPONSE)

    @cython.cfunc
    @cython.exceptval(check=False)
    def parse_trailers(
        self, data: cython.p_const_char, size: cython.Py_ssize_t, max_head: cython.Py_ssize_t, max_lines: cython.int
    ) -> cython.Py_ssize_t:
        """The field lines behind the last chunk, up to and including the empty line (RFC 9112 section 7.1.2)."""
        return self.parse_lines(data, 0, size, max_head, max_lines, TRAILERS)

    @cython.cfunc
    @cython.exceptval(check=False)
    def parse_lines(
        self,
        data: cython.p_const_char,
        start: cython.Py_ssize_t,
        stop: cython.Py_ssize_t,
        limit: cython.Py_ssize_t,
        max_lines: cython.int,
        type: cython.int,
    ) -> cython.Py_ssize_t:
        """Field lines from `start` up to the empty line; `limit` is where the head must have ended."""
        at: cython.p_const_char = data + start
        reach: cython.p_const_char = data + (stop if stop < limit else limit)
        end: cython.p_const_char
        colon: cython.p_const_char
        value: cython.p_const_char
        value_end: cython.p_const_char
        line: cython.pointer(FieldLine)
        name_size: cython.Py_ssize_t
        kind: cython.uchar
        self.count = 0
        self.options = 0
        memset(self.seen, 0, cython.sizeof(self.seen))
        while True:
            end = cython.cast(cython.p_const_char, memchr(at, 10, reach - at)) if at < reach else cython.NULL
            if end == cython.NULL:
                if stop < limit:
                    return 0
                return -(RESPONSE_HEAD_TOO_LARGE + 1) if type == RESPONSE else -(HEAD_TOO_LARGE + 1)  # FLD-12
            if end == at or end[-1] != 13:
                return -(BAD_RESPONSE + 1) if type == RESPONSE else -(BAD_REQUEST + 1)  # REQ-2
            if end == at + 1:
                break  # the empty line
            if self.count >= max_lines or self.count >= MAX_FIELD_LINES:
                return -(RESPONSE_HEAD_TOO_LARGE + 1) if type == RESPONSE else -(TOO_MANY_FIELDS + 1)  # FLD-13
            line = cython.address(self.lines[self.count])
            line.name = at
            line.end = end + 1
            value_end = end - 1
            colon = cython.cast(cython.p_const_char, memchr(at, 58, value_end - at))
            if colon == cython.NULL:
                return -(BAD_RESPONSE + 1) if type == RESPONSE else -(BAD_FIELD + 1)
            name_size = colon - at
            line.canonical = True
            if type == RESPONSE:  # FLD-1: a response's space before the colon is removed
                while name_size > 1 and (at[name_size - 1] == 32 or at[name_size - 1] == 9):
                    name_size -= 1
                    line.canonical = False
            # A folded line or one after a folded start line begins with a space, which is no tchar (REQ-5, FLD-3).
            if not is_token(at, name_size):
                return -(BAD_RESPONSE + 1) if type == RESPONSE else -(BAD_FIELD + 1)
            value = colon + 1
            if value_end - value < 2 or value[0] != 32 or value[1] == 32 or value[1] == 9:
                line.canonical = False
            while value < value_end and (value[0] == 32 or value[0] == 9):
                value += 1
            if value_end > value and (value_end[-1] == 32 or value_end[-1] == 9):
                line.canonical = False
                while value_end > value and (value_end[-1] == 32 or value_end[-1] == 9):
                    value_end -= 1
            if _has_control(value, value_end - value):
                return -(BAD_RESPONSE + 1) if type == RESPONSE else -(BAD_FIELD + 1)
            line.name_size = name_size
            line.value = value
            line.value_size = value_end - value
            line.dropped = False
            kind = _recognise(at, name_size)
            line.kind = kind
            if kind != OTHER:
                if self.seen[kind] == 0:
                    self.first[kind] = self.count
                self.seen[kind] += 1
            self.count += 1
            at = end + 1
        return end + 1 - data

    @cython.cfunc
    @cython.exceptval(check=False)
    def read_connection_options(self) -> cython.int:
        """Note the options of Connection and drop the fields it names (CON-1 to CON-3). 0, or -(reason + 1)."""
        index: cython.int
        other: cython.int
        named: cython.int = 0
        empty: cython.int = 0
        element: Element
        line: cython.pointer(FieldLine)
        if self.seen[CONNECTION] == 0:
            return 0
        for index in range(self.first[CONNECTION], self.count):
            line = cython.address(self.lines[index])
            if line.kind != CONNECTION:
                continue
            element.rest = line.value
            while next_element(cython.address(element), line.value + line.value_size):
                if element.size == 0:
                    empty += 1
                    if empty > MAX_EMPTY_ELEMENTS:
                        return -(BAD_FIELD + 1)  # FLD-14
                    continue
                named += 1
                if named > MAX_CONNECTION_OPTIONS or not is_token(element.at, element.size):
                    return -(BAD_FIELD + 1)
                if equals(element.at, element.size, b"close", 5):
                    self.options |= OPTION_CLOSE
                elif equals(element.at, element.size, b"keep-alive", 10):
                    self.options |= OPTION_KEEP_ALIVE
                elif equals(element.at, element.size, b"upgrade", 7):
                    self.options |= OPTION_UPGRADE
                elif _may_not_be_an_option(element.at, element.size):
                    return -(BAD_CONNECTION_OPTION + 1)
                else:
                    for other in range(self.count):
                        if (
                            self.lines[other].name_size == element.size
                            and strncasecmp(self.lines[other].name, element.at, element.size) == 0
                        ):
                            self.lines[other].dropped = True
        return 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def has_many_empty(self, kind: cython.int) -> cython.bint:
        """Whether the list that all lines of a kind make together has more empty elements than are tolerated (FLD-14)."""
        index: cython.int
        empty: cython.int = 0
        element: Element
        line: cython.pointer(FieldLine)
        if self.seen[kind] == 0:
            return False
        for index in range(self.first[kind], self.count):
            line = cython.address(self.lines[index])
            if line.kind != kind:
                continue
            element.rest = line.value
            while next_element(cython.address(element), line.value + line.value_size):
                if element.size == 0:
                    empty += 1
        return empty > MAX_EMPTY_ELEMENTS

    @cython.cfunc
    @cython.exceptval(check=False)
    def has_token(self, kind: cython.int, token: cython.p_const_char, size: cython.int) -> cython.bint:
        """Whether the list that all lines of a kind make together has this element, in any case of letters."""
        index: cython.int
        element: Element
        line: cython.pointer(FieldLine)
        if self.seen[kind] == 0:
            return False
        for index in range(self.first[kind], self.count):
            line = cython.address(self.lines[index])
            if line.kind != kind:
                continue
            element.rest = line.value
            while next_element(cython.address(element), line.value + line.value_size):
                if equals(element.at, element.size, token, size):
                    return True
        return False

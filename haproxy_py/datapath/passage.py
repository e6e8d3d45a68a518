"""What a request asks of the proxy: where to, for which host, and whether to become a tunnel.

- The target is one of four forms (RFC 9112 section 3.2): origin-form and absolute-form are forwarded, `*` only for OPTIONS,
  authority-form belongs to CONNECT, which is refused (REQ-16 to REQ-19). Octets that are not visible ASCII, `#`, and a
  backslash in the path are refused (REQ-22): Node would read such a target in another way than it looks.
- What is forwarded reads the same for everybody behind (REQ-25). Node's `url.parse` and `new URL(target, base)` take what
  stands behind a leading `//` for an authority: `//a@b/comms` is `/comms` to them, and `//a@[` makes them throw, which ends a
  process that does not expect it. So no path begins with `//`, in no form of target. The law, for every target that passes:
  none of `url.parse`, `new URL` and Express' `parseurl` throws; the path that each finds is the path that the gate judges, but
  that the first two may write some signs percent-encoded and `new URL` resolves dot segments, as the gate does too (GATE-2).
- Host is there once and is `uri-host [":" port]` (REQ-13, REQ-14). The authority of an absolute-form replaces it.
- Via may name this proxy a few times: a flow that copies its request's fields into a request of its own, sent by way of the
  proxy, is no loop. From the eighth time on it is one (FLD-18): so is soon a replica that is the proxy itself.
- Only an upgrade to WebSocket is carried on (EXP-8 to EXP-10), and its handshake must be whole (WSK-1, WSK-2, EXP-15).
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.context import Context
from cython.cimports.haproxy_py.datapath.framing import BY_LENGTH, CHUNKED, NO_BODY, Body
from cython.cimports.haproxy_py.datapath.heads import (
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    MAX_FORWARDS,
    OPTION_UPGRADE,
    SEC_WEBSOCKET_KEY,
    TE,
    UPGRADE,
    VIA,
    Element,
    FieldLine,
    Head,
    next_element,
)
from cython.cimports.haproxy_py.datapath.limits import MAX_HOST
from cython.cimports.haproxy_py.datapath.reason import (
    BAD_FIELD,
    BAD_HOST,
    BAD_REQUEST,
    BAD_TARGET,
    BAD_WEBSOCKET,
    LOOP_DETECTED,
    METHOD_NOT_SUPPORTED,
    OPTIONS_ANSWERED,
)
from cython.cimports.libc.string import memchr, memcmp
from cython.cimports.posix.strings import strncasecmp

_OPTIONS = cython.declare(cython.int, 6)  # index in counters.METHODS
_MOST_PASSES = cython.declare(cython.int, 8)  # FLD-18
_MOST_FORWARDS = cython.declare(cython.longlong, 100_000_000)  # FLD-19: a number as large as this gets no more digits

# Octets of a reg-name (RFC 3986 section 3.2.2) without the comma, which would look like a list (REQ-14).
_IN_HOST = cython.declare(cython.uchar[256])
# Octets that may stand in a target at all (REQ-22).
_IN_TARGET = cython.declare(cython.uchar[256])


@cython.cfunc
def _fill_classes() -> cython.void:
    code: cython.int
    for code in range(256):
        _IN_HOST[code] = 0
        _IN_TARGET[code] = 1 if 0x21 <= code <= 0x7E and code != 0x23 else 0
    for code in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%!$&'()*+;=":
        _IN_HOST[code] = 1


_fill_classes()


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def measure_host(host: cython.p_const_char, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The size of the name in a valid `uri-host [":" port]`, or -1 (REQ-14)."""
    at: cython.Py_ssize_t = 0
    name_size: cython.Py_ssize_t
    port: cython.int = 0
    octet: cython.uchar
    if size <= 0 or size > MAX_HOST:
        return -1
    if host[0] == 91:  # [IPv6]
        at = 1
        while at < size and host[at] != 93:
            octet = host[at] | 32
            if not (48 <= host[at] <= 58 or 97 <= octet <= 102 or host[at] == 46):
                return -1
            at += 1
        if at >= size or at < 3:
            return -1
        at += 1
    else:
        while at < size and _IN_HOST[cython.cast(cython.uchar, host[at])]:
            at += 1
        if at == 0:
            return -1
    name_size = at
    if at == size:
        return name_size
    if host[at] != 58 or size - at > 6:
        return -1
    at += 1
    while at < size:
        if host[at] < 48 or host[at] > 57:
            return -1
        port = port * 10 + (host[at] - 48)
        at += 1
    return name_size if port <= 65535 else -1


@cython.cfunc
@cython.exceptval(check=False)
def _read_target(head: Head, passage: cython.pointer(Passage)) -> cython.int:
    """The path to forward, and for absolute-form the host. 0, or -(reason + 1)."""
    target: cython.p_const_char = head.target
    stop: cython.p_const_char = target + head.target_size
    at: cython.p_const_char
    question: cython.p_const_char
    name_size: cython.Py_ssize_t
    index: cython.int
    connecting: cython.bint = head.method_size == 7 and memcmp(head.method, b"CONNECT", 7) == 0
    for index in range(head.target_size):
        if not _IN_TARGET[cython.cast(cython.uchar, target[index])]:
            return -(BAD_REQUEST + 1) if target[index] == 13 else -(BAD_TARGET + 1)  # REQ-3, REQ-22
    passage.path = target
    passage.path_size = head.target_size
    if connecting:  # REQ-19
        name_size = measure_host(target, head.target_size)
        if name_size < 0 or name_size + 1 >= head.target_size:  # no port, or an empty one
            return -(BAD_TARGET + 1)
        return -(METHOD_NOT_SUPPORTED + 1)
    if head.method_size == 5 and memcmp(head.method, b"TRACE", 5) == 0:  # REQ-20
        return -(METHOD_NOT_SUPPORTED + 1)
    if target[0] != 47:
        if head.target_size == 1 and target[0] == 42:
            if head.method_label != _OPTIONS:
                return -(BAD_TARGET + 1)  # REQ-18
            passage.judged_size = 1
            return 0
        if head.target_size > 7 and strncasecmp(target, b"http://", 7) == 0:
            at = target + 7
        elif head.target_size > 8 and strncasecmp(target, b"https://", 8) == 0:
            at = target + 8
        else:
            return -(BAD_TARGET + 1)  # REQ-16, REQ-23
        passage.rewritten = True
        passage.host = at
        while at < stop and at[0] != 47 and at[0] != 63:
            at += 1
        passage.host_size = at - passage.host
        passage.host_replaced = True
        passage.path = at
        passage.path_size = stop - at
        passage.needs_slash = at == stop or at[0] != 47
        if at == stop and head.method_label == _OPTIONS:  # REQ-17
            passage.path = b"*"
            passage.path_size = 1
            passage.needs_slash = False
    question = cython.cast(cython.p_const_char, memchr(passage.path, 63, passage.path_size))
    passage.judged_size = question - passage.path if question != cython.NULL else passage.path_size
    if memchr(passage.path, 92, passage.judged_size) != cython.NULL:
        return -(BAD_TARGET + 1)  # REQ-22
    if passage.judged_size > 1 and passage.path[0] == 47 and passage.path[1] == 47:
        return -(BAD_TARGET + 1)  # REQ-25
    return 0


def forward_target(method: bytes, target: bytes) -> bytes | None:
    """What a replica gets of a target, None if it is refused: `read_passage` for tests and tools."""
    head: Head = Head()
    passage: Passage
    text: bytes = b"%s %s HTTP/1.1\r\n\r\n" % (method, target)
    size: cython.Py_ssize_t = PyBytes_GET_SIZE(text)
    if head.parse_request(PyBytes_AS_STRING(text), size, size, size, 0) != size:
        return None
    passage.needs_slash = False
    if _read_target(head, cython.address(passage)) < 0:
        return None
    return (b"/" if passage.needs_slash else b"") + passage.path[: passage.path_size]


@cython.cfunc
@cython.exceptval(check=False)
def _read_host(head: Head, authority: bytes, passage: cython.pointer(Passage)) -> cython.int:
    """The host to route by and to forward. 0, or -(reason + 1)."""
    line: cython.pointer(FieldLine)
    if head.seen[HOST] > 1 or (head.seen[HOST] == 0 and head.version > 0):
        return -(BAD_HOST + 1)  # REQ-13
    if head.seen[HOST]:
        line = cython.address(head.lines[head.first[HOST]])
        if not passage.host_replaced:
            passage.host = line.value
            passage.host_size = line.value_size
        elif measure_host(line.value, line.value_size) < 0:
            return -(BAD_HOST + 1)  # an invalid Host is an error even where it does not count
    elif not passage.host_replaced:  # REQ-15
        passage.host = PyBytes_AS_STRING(authority)
        passage.host_size = PyBytes_GET_SIZE(authority)
        passage.host_replaced = True
        passage.rewritten = True
    passage.name_size = measure_host(passage.host, passage.host_size)
    if passage.name_size < 0:
        return -(BAD_TARGET + 1) if passage.host_replaced else -(BAD_HOST + 1)
    return 0


@cython.cfunc
@cython.exceptval(check=False)
def _is_websocket_key(key: cython.p_const_char, size: cython.int) -> cython.bint:
    """Base64 of sixteen octets (WSK-2)."""
    index: cython.int
    octet: cython.uchar
    if size != 24 or key[22] != 61 or key[23] != 61:
        return False
    for index in range(22):
        octet = key[index]
        if not (48 <= octet <= 57 or 65 <= octet <= 90 or 97 <= octet <= 122 or octet == 43 or octet == 47):
            return False
    # Of the last digit four bits count. The other two should be zero, but the key is never decoded, by servers neither: it is
    # only hashed as it stands.
    return True


@cython.cfunc
@cython.exceptval(-1, check=True)
def _count_passes(line: cython.pointer(FieldLine), via: bytes) -> cython.int:
    """How often a Via line names this proxy as one that the request has come through."""
    passes: cython.int = 0
    element: Element
    at: cython.p_const_char
    end: cython.p_const_char
    name: cython.p_const_char
    element.rest = line.value
    while next_element(cython.address(element), line.value + line.value_size):
        # received-protocol RWS received-by [ RWS comment ]
        end = element.at + element.size
        at = element.at
        while at < end and at[0] != 32 and at[0] != 9:
            at += 1
        while at < end and (at[0] == 32 or at[0] == 9):
            at += 1
        name = at
        while at < end and at[0] != 32 and at[0] != 9:
            at += 1
        if at - name == PyBytes_GET_SIZE(via) and memcmp(name, PyBytes_AS_STRING(via), at - name) == 0:
            passes += 1
    return passes


@cython.cfunc
@cython.exceptval(-1000, check=True)
def read_passage(
    head: Head, body: Body, context: Context, authority: bytes, passage: cython.pointer(Passage)
) -> cython.int:
    """Fill in the passage of a request whose body has been framed. 0, or -(reason + 1).

    `authority` stands in for a Host that an HTTP/1.0 request lacks; the passage points into it.
    """
    line: cython.pointer(FieldLine)
    index: cython.int
    error: cython.int
    passes: cython.int = 0
    passage.rewritten = False
    passage.needs_slash = False
    passage.host_replaced = False
    passage.upgrades = False
    passage.length = -1
    passage.chunked = body.kind == CHUNKED
    passage.max_forwards = -1
    error = _read_target(head, passage)
    if error < 0:
        return error
    error = _read_host(head, authority, passage)
    if error < 0:
        return error
    if (
        head.has_many_empty(UPGRADE)
        or head.has_many_empty(EXPECT)
        or head.has_many_empty(TE)
        or head.has_many_empty(VIA)
    ):
        return -(BAD_FIELD + 1)  # FLD-14
    if body.kind == BY_LENGTH:
        line = cython.address(head.lines[head.first[CONTENT_LENGTH]])
        if line.value[0] == 48 and line.value_size > 1:  # FRM-8: forwarded as the number it is
            passage.length = body.total
    if (
        head.seen[UPGRADE]
        and head.version > 0
        and head.options & OPTION_UPGRADE
        and head.has_token(UPGRADE, b"websocket", 9)
    ):
        if head.method_label != 0 or body.kind == CHUNKED or (body.kind != NO_BODY and body.total > 0):
            return -(BAD_WEBSOCKET + 1)
        line = cython.address(head.lines[head.first[SEC_WEBSOCKET_KEY]])
        if head.seen[SEC_WEBSOCKET_KEY] != 1 or not _is_websocket_key(line.value, line.value_size):
            return -(BAD_WEBSOCKET + 1)
        passage.upgrades = True
    if head.seen[VIA]:  # FLD-18
        for index in range(head.count):
            line = cython.address(head.lines[index])
            if line.kind == VIA:
                passes += _count_passes(line, context.via)
                if passes >= _MOST_PASSES:
                    return -(LOOP_DETECTED + 1)
    if head.seen[MAX_FORWARDS] and head.method_label == _OPTIONS:  # FLD-19
        line = cython.address(head.lines[head.first[MAX_FORWARDS]])
        if head.seen[MAX_FORWARDS] > 1 or line.value_size < 1:
            return -(BAD_FIELD + 1)
        passage.max_forwards = 0
        for index in range(line.value_size):
            if line.value[index] < 48 or line.value[index] > 57:
                return -(BAD_FIELD + 1)
            # RFC 9110 section 7.6.2: no more hops than the most that we count.
            if passage.max_forwards < _MOST_FORWARDS:
                passage.max_forwards = passage.max_forwards * 10 + (line.value[index] - 48)
        if passage.max_forwards == 0:
            return -(OPTIONS_ANSWERED + 1)
        passage.max_forwards -= 1
    return 0

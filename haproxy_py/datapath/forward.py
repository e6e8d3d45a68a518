"""Forwarding: a parsed head becomes the head that the other side gets.

- Names, case, order and duplicates stay as they came; hop-by-hop fields end here (CON-1 to CON-3, FLD-8 to FLD-10); fields
  of our own come last, once each.
- The target is forwarded octet for octet (REQ-21), in origin-form (REQ-16), and the version is our own (REQ-12).
- What a client says of other clients (X-Forwarded-*, Forwarded, X-Real-IP, X-Request-Id) is believed only of a trusted proxy
  (FWD-1 to FWD-13); else it is replaced.
- The client is the first address of X-Forwarded-For from the right that is no trusted proxy's, with or without a port (FWD-2).
  Its scheme is the first word of X-Forwarded-Proto, because proxies append: `https` or `wss` is https, `http` or `ws` is http,
  in any case; anything else is the listener's own scheme (FWD-3).

Lines that stand as they should are not copied one by one: a run of them is copied in one piece, up to the next line that
is dropped or must be written anew.
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.context import Context, Entrance
from cython.cimports.haproxy_py.datapath.heads import (
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    EXPECT,
    FORWARDED,
    HOST,
    HTTP2_SETTINGS,
    KEEP_ALIVE,
    KINDS,
    MAX_FORWARDS,
    PROXY_CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_PROTO,
    X_HA_REPLICA,
    X_REAL_IP,
    X_REQUEST_ID,
    FieldLine,
    Head,
)
from cython.cimports.haproxy_py.datapath.passage import Passage, measure_host
from cython.cimports.haproxy_py.datapath.pool import Replica
from cython.cimports.haproxy_py.datapath.writer import Writer

from haproxy_py.networks import read_hop

_SCHEMES = cython.declare(dict, {"http": "http", "ws": "http", "https": "https", "wss": "https"})  # FWD-3

# Kinds of fields that never pass as they came.
_ENDS_IN_REQUEST = cython.declare(cython.uchar[KINDS])
_ENDS_IN_RESPONSE = cython.declare(cython.uchar[KINDS])


@cython.cfunc
def _fill_ends() -> cython.void:
    kind: cython.int
    for kind in range(KINDS):
        _ENDS_IN_REQUEST[kind] = 0
        _ENDS_IN_RESPONSE[kind] = 0
    for kind in (CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS):
        _ENDS_IN_REQUEST[kind] = 1
        _ENDS_IN_RESPONSE[kind] = 1
    for kind in (X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_PORT, X_REAL_IP, X_REQUEST_ID):
        _ENDS_IN_REQUEST[kind] = 1
    _ENDS_IN_RESPONSE[FORWARDED] = 1  # FWD-11
    _ENDS_IN_RESPONSE[X_HA_REPLICA] = 1


_fill_ends()


@cython.cfunc
@cython.exceptval(check=False)
def _write_lines(
    writer: Writer, head: Head, start: cython.p_const_char, ends: cython.pointer(cython.uchar)
) -> cython.void:
    """All lines that pass, behind the octets from `start` (the start line, or the first line where that was written)."""
    run: cython.p_const_char = start
    line: cython.pointer(FieldLine)
    index: cython.int
    for index in range(head.count):
        line = cython.address(head.lines[index])
        if not line.dropped and not ends[line.kind] and line.canonical:
            continue
        writer.put(run, line.name - run)
        run = line.end
        if line.dropped or ends[line.kind]:
            continue
        writer.put(line.name, line.name_size)
        writer.put(b": ", 2)
        writer.put(line.value, line.value_size)
        writer.put(b"\r\n", 2)
    if head.count > 0:
        line = cython.address(head.lines[head.count - 1])
        writer.put(run, line.end - run)


@cython.cfunc
def write_request(
    context: Context,
    head: Head,
    passage: cython.pointer(Passage),
    data: cython.p_const_char,
    entrance: Entrance,
    peer: bytes,
    request_id: cython.p_const_char,
    request_id_size: cython.int,
    client: bytes,
) -> cython.void:
    """Write the head for a replica into the context's writer.

    `data` holds the head; `client` is whom a trusted proxy forwards (`find_client`), None if the peer is no trusted proxy.
    """
    writer: Writer = context.writer
    first: cython.p_const_char = data + head.skipped
    fields: cython.p_const_char = first + head.line_size + 2
    line: cython.pointer(FieldLine)
    index: cython.int
    writer.clear()
    # Lines that this very message must not carry as they came.
    if passage.host_replaced:
        for index in range(head.count):
            line = cython.address(head.lines[index])
            if line.kind == HOST:
                line.dropped = True
    if passage.length >= 0 and head.seen[CONTENT_LENGTH]:
        head.lines[head.first[CONTENT_LENGTH]].dropped = True
    if passage.max_forwards >= 0:
        head.lines[head.first[MAX_FORWARDS]].dropped = True
    if head.version == 0 and head.seen[EXPECT]:  # EXP-5
        for index in range(head.count):
            if head.lines[index].kind == EXPECT:
                head.lines[index].dropped = True
    if client is None and head.seen[FORWARDED]:  # FWD-5
        for index in range(head.count):
            if head.lines[index].kind == FORWARDED:
                head.lines[index].dropped = True
    if passage.rewritten or head.version == 0 or head.count == 0:
        writer.put(head.method, head.method_size)
        writer.put_byte(32)
        if passage.needs_slash:
            writer.put_byte(47)
        writer.put(passage.path, passage.path_size)
        writer.put(b" HTTP/1.1\r\n", 11)
        if passage.host_replaced:
            writer.put(b"Host: ", 6)
            writer.put(passage.host, passage.host_size)
            writer.put(b"\r\n", 2)
        _write_lines(writer, head, fields, _ENDS_IN_REQUEST)
    elif head.lines[0].name == fields and first[head.line_size - 1] == 49:  # the line ends in HTTP/1.1
        _write_lines(writer, head, first, _ENDS_IN_REQUEST)
    else:
        writer.put(first, head.line_size - 1)
        writer.put(b"1\r\n", 3)
        _write_lines(writer, head, fields, _ENDS_IN_REQUEST)
    if passage.chunked:
        writer.put(b"Transfer-Encoding: chunked\r\n", 28)
    elif passage.length >= 0:
        writer.put(b"Content-Length: ", 16)
        writer.put_number(passage.length)
        writer.put(b"\r\n", 2)
    if passage.upgrades:
        writer.put(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", 41)
    if passage.max_forwards >= 0:
        writer.put(b"Max-Forwards: ", 14)
        writer.put_number(passage.max_forwards)
        writer.put(b"\r\n", 2)
    if client is None:
        writer.put(b"X-Forwarded-For: ", 17)
        writer.put_bytes(peer)
        writer.put(b"\r\nX-Real-IP: ", 13)
        writer.put_bytes(peer)
        writer.put(b"\r\n", 2)
        writer.put_bytes(entrance.forwarding)
        writer.put(b"X-Forwarded-Host: ", 18)
        writer.put(passage.host, passage.host_size)
        writer.put(b"\r\n", 2)
    else:
        writer.put_bytes(_believe(head, passage, entrance, peer, client))
    writer.put(b"X-Request-Id: ", 14)
    writer.put(request_id, request_id_size)
    # FLD-17
    writer.put(b"\r\nVia: 1.1 " if head.version else b"\r\nVia: 1.0 ", 11)
    writer.put_bytes(context.via)
    writer.put(b"\r\n\r\n", 4)


@cython.cfunc
def _values(head: Head, kind: cython.int) -> list:
    index: cython.int
    return [
        head.lines[index].value[: head.lines[index].value_size].decode("latin-1")
        for index in range(head.count)
        if head.lines[index].kind == kind
    ]


@cython.cfunc
def _is_port(text: str) -> cython.bint:
    return text.isdecimal() and len(text) <= 5 and 0 < int(text) <= 65535


@cython.cfunc
def _is_host(text: bytes) -> cython.bint:
    return measure_host(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)) > 0


@cython.cfunc
def _hops(head: Head) -> list:
    hops: list = [hop.strip(" \t") for value in _values(head, X_FORWARDED_FOR) for hop in value.split(",")]
    return [hop for hop in hops if hop]


@cython.cfunc
def find_client(head: Head, peer: bytes, trusted: object) -> bytes:
    """Whom the trusted proxy `peer` forwards (FWD-2); the proxy itself if it does not say. `trusted`: the networks of proxies."""
    client: str = peer.decode("ascii")
    address: str
    for hop in reversed(_hops(head)):
        address = read_hop(hop)
        if address is None:
            break
        client = address
        if address not in trusted:
            break
    return client.encode("ascii")


@cython.cfunc
def scheme_of_client(head: Head, entrance: Entrance) -> str:
    """FWD-3."""
    first: str = ",".join(_values(head, X_FORWARDED_PROTO)).partition(",")[0].strip(" \t").lower()
    return _SCHEMES.get(first, entrance.scheme)


@cython.cfunc
def _believe(head: Head, passage: cython.pointer(Passage), entrance: Entrance, peer: bytes, client: bytes) -> bytes:
    """The forwarding fields where a trusted proxy speaks for the client (FWD-1 to FWD-4, FWD-12)."""
    port: list = _values(head, X_FORWARDED_PORT)
    host: list = _values(head, X_FORWARDED_HOST)
    received_host: str = passage.host[: passage.host_size].decode("latin-1")
    lines: list = [
        "X-Forwarded-For: " + ", ".join([*_hops(head), peer.decode("ascii")]),
        "X-Real-IP: " + client.decode("ascii"),
        "X-Forwarded-Proto: " + scheme_of_client(head, entrance),
        "X-Forwarded-Port: " + (port[0] if len(port) == 1 and _is_port(port[0]) else str(entrance.port)),
        "X-Forwarded-Host: " + (host[0] if len(host) == 1 and _is_host(host[0].encode("latin-1")) else received_host),
        "",
    ]
    return "\r\n".join(lines).encode("latin-1")


@cython.cfunc
@cython.exceptval(check=False)
def _write_status_line(writer: Writer, head: Head) -> cython.void:
    writer.put(b"HTTP/1.1 ", 9)
    writer.put_number(head.status)
    if head.reason_size > 0:
        writer.put(head.reason_text, head.reason_size)
    else:
        writer.put_byte(32)  # FLD-23: the space belongs there even without a text
    writer.put(b"\r\n", 2)


@cython.cfunc
@cython.exceptval(check=False)
def _first_field(head: Head) -> cython.p_const_char:
    """Where the field lines begin; the status line's text is the last thing before them."""
    return head.lines[0].name if head.count > 0 else head.reason_text + head.reason_size


@cython.cfunc
def write_response(
    context: Context,
    head: Head,
    replica: Replica,
    chunked: cython.bint,
    keeps_coding: cython.bint,
    closing: cython.bint,
    cookie_line: bytes,
) -> cython.void:
    """Write the head of a replica's answer for the client into the context's writer.

    `chunked` says that the body goes out chunked; `keeps_coding` that Transfer-Encoding is passed on although there is no
    body (FRM-14); `closing` that the client's connection ends with this answer.
    """
    writer: Writer = context.writer
    writer.clear()
    if head.status < 200 or head.status == 204 or head.seen[TRANSFER_ENCODING]:  # FRM-14, FRM-2
        if head.seen[CONTENT_LENGTH]:
            head.lines[head.first[CONTENT_LENGTH]].dropped = True
    _write_status_line(writer, head)
    _write_lines(writer, head, _first_field(head), _ENDS_IN_RESPONSE)
    if chunked or keeps_coding:
        writer.put(b"Transfer-Encoding: chunked\r\n", 28)
    if head.status >= 200:
        if closing:
            if head.status == 426 and head.seen[UPGRADE]:  # EXP-16
                writer.put(b"Connection: close, upgrade\r\n", 28)
            else:
                writer.put(b"Connection: close\r\n", 19)
        elif head.status == 426 and head.seen[UPGRADE]:
            writer.put(b"Connection: upgrade\r\n", 21)
        if head.status == 426 and head.seen[UPGRADE]:
            writer.put(b"Upgrade: ", 9)
            writer.put(head.lines[head.first[UPGRADE]].value, head.lines[head.first[UPGRADE]].value_size)
            writer.put(b"\r\n", 2)
        if head.seen[DATE] == 0 or head.lines[head.first[DATE]].dropped:  # FLD-16
            writer.put_bytes(context.date_line)
        writer.put_bytes(replica.stamp)
        if cookie_line is not None:
            writer.put_bytes(cookie_line)
    writer.put(b"\r\n", 2)


@cython.cfunc
def write_switch(context: Context, head: Head, replica: Replica) -> cython.void:
    """Write the head of a 101 for the client: the connection becomes a tunnel behind it."""
    writer: Writer = context.writer
    writer.clear()
    _write_status_line(writer, head)
    _write_lines(writer, head, _first_field(head), _ENDS_IN_RESPONSE)
    writer.put(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", 41)
    writer.put_bytes(replica.stamp)
    writer.put(b"\r\n", 2)

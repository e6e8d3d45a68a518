"""Every form of message that the proxy may meet, each with what must become of it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.wire.talk import TAG_TEXT

SIZES_OF_EVERY_CUT = 600
"""Octets up to which a message is cut at every one; a longer one is cut around both ends and at steps between."""


@dataclass(frozen=True, slots=True)
class Form:
    """One message and its verdict; `reason` is empty where the replica answers."""

    message: bytes
    status: int = 200
    reason: str = ""
    stays: bool = True
    requests: int = 1  # complete ones that reach the replica

    @property
    def cuts(self) -> list[int]:
        size = len(self.message)
        if size <= SIZES_OF_EVERY_CUT:
            return list(range(1, size + 1))
        near = [*range(1, 60), *range(60, size - 60, max(1, size // 60)), *range(size - 60, size + 1)]
        return sorted(set(near))


def get(line: bytes = b"GET /a?" + TAG_TEXT + b" HTTP/1.1", *fields: bytes, host: bytes | None = b"Host: h") -> bytes:
    lines = [line, *([host] if host is not None else []), *fields]
    return b"".join(each + b"\r\n" for each in lines) + b"\r\n"


def post(body: bytes, *fields: bytes, path: bytes = b"/a") -> bytes:
    return get(b"POST " + path + b"?" + TAG_TEXT + b" HTTP/1.1", *fields) + body


def chunked(body: bytes, *fields: bytes, path: bytes = b"/a") -> bytes:
    return post(body, b"Transfer-Encoding: chunked", *fields, path=path)


def bad(message: bytes, reason: str = "bad_request", status: int = 400) -> Form:
    return Form(message, status, reason, stays=False, requests=0)


LINE = b"GET /a?" + TAG_TEXT + b" HTTP/1.1"


def line_of(size: int) -> bytes:
    """A request whose line has this size."""
    start, end = b"GET /a?" + TAG_TEXT + b"&", b" HTTP/1.1"
    return get(start + b"x" * (size - len(start) - len(end)) + end)


def head_of(size: int) -> bytes:
    """A request whose head has this size, its empty line included."""
    without = get(LINE, b"X: ")
    return get(LINE, b"X: " + b"x" * (size - len(without)))


def fields_of(count: int) -> bytes:
    return get(LINE, *(b"X-%d: y" % index for index in range(count - 1)))


GOOD_REQUESTS: dict[str, Form] = {
    "get": Form(get(LINE, b"Accept: */*", b"User-Agent: test")),
    "get without more than Host": Form(get()),
    "head": Form(get(b"HEAD /a?" + TAG_TEXT + b" HTTP/1.1")),
    "leading empty line": Form(b"\r\n" + get()),
    "spaces around values": Form(get(LINE, b"A:b", b"C: \t d \t ", b"E:", b"F:  ")),
    "octets above 127 in a value": Form(get(LINE, b"A: \xe4\xff\x80")),
    "unusual target": Form(get(b'GET /a//b/../%2e%2E/%00;x=|^{}`"<>?' + TAG_TEXT + b"\\?? HTTP/1.1")),
    "version 1.7": Form(get(b"GET /a?" + TAG_TEXT + b" HTTP/1.7")),
    "post": Form(post(b"hello", b"Content-Length: 5")),
    "post with length zero": Form(post(b"", b"Content-Length: 0")),
    "post with leading zeros": Form(post(b"hello", b"Content-Length: 000000000000000005")),
    "post without length": Form(post(b"")),
    "put with a body like a request": Form(
        get(b"PUT /a?" + TAG_TEXT + b" HTTP/1.1", b"Content-Length: 28") + b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n"
    ),
    "chunked": Form(chunked(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")),
    "chunked and empty": Form(chunked(b"0\r\n\r\n")),
    "chunked in upper case": Form(chunked(b"A\r\n0123456789\r\n000b\r\n0123456789a\r\n000\r\n\r\n")),
    "chunked with extensions": Form(
        chunked(b'5;a=b ; c = "q\\"; \r\n'[:-2] + b'x"\r\nhello\r\n5\t;d;e=f\r\nworld\r\n0;last\r\n\r\n')
    ),
    "chunked with trailers": Form(chunked(b"5\r\nhello\r\n0\r\nA: b\r\nX-Sum:abc\r\n\r\n")),
    "chunked with both": Form(chunked(b"5;x\r\nhello\r\n0;y\r\nA:  b \r\n\r\n")),
    "chunked said in another case": Form(post(b"1\r\na\r\n0\r\n\r\n", b"TRANSFER-ENCODING: , CHUNKED ,")),
    "pipelined pair": Form(get() + get(b"GET /b?" + TAG_TEXT + b" HTTP/1.1"), requests=2),
    "pipelined posts": Form(
        post(b"hello", b"Content-Length: 5") + chunked(b"1\r\na\r\n0\r\n\r\n") + b"\r\n" + get(), requests=3
    ),
    "absolute-form": Form(get(b"GET http://other:81/a?" + TAG_TEXT + b" HTTP/1.1")),
    "absolute-form without a path": Form(get(b"GET HTTP://trusting.test?" + TAG_TEXT + b" HTTP/1.1")),
    "options for the whole server": Form(get(b"OPTIONS * HTTP/1.1", b"X: " + TAG_TEXT)),
    "options with hops left": Form(get(b"OPTIONS /a?" + TAG_TEXT + b" HTTP/1.1", b"Max-Forwards: 3")),
    "options without hops left": Form(get(b"OPTIONS /a HTTP/1.1", b"Max-Forwards: 0"), 200, "", stays=True, requests=0),
    "an uncommon method": Form(get(b"M-SEARCH /a?" + TAG_TEXT + b" HTTP/1.1")),
    "http 1.0": Form(b"GET /a?" + TAG_TEXT + b" HTTP/1.0\r\n\r\n", stays=False),
    "http 1.0 with fields": Form(get(b"GET /a?" + TAG_TEXT + b" HTTP/1.0", b"Connection: keep-alive"), stays=False),
    "connection close": Form(get(LINE, b"Connection: close"), stays=False),
    "connection options": Form(get(LINE, b"Connection: X-Gone, keep-alive,,", b"X-Gone: 1", b"X-Kept: 2")),
    "expectation": Form(post(b"hello", b"Content-Length: 5", b"Expect: 100-continue", path=b"/continue")),
    "upgrade to something else": Form(get(LINE, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c")),
    "refused upgrade": Form(
        get(
            LINE,
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        stays=False,
    ),
    "line at the limit": Form(line_of(8192)),
    "line one below the limit": Form(line_of(8191)),
    "head at the limit": Form(head_of(15360)),
    "head one below the limit": Form(head_of(15359)),
    "fields at the limit": Form(fields_of(100)),
    "fields one below the limit": Form(fields_of(99)),
    "denied": Form(get(b"GET /settings?" + TAG_TEXT + b" HTTP/1.1"), 403, "gate_denied", requests=0),
    "trace": Form(get(b"TRACE /a?" + TAG_TEXT + b" HTTP/1.1"), 405, "method_not_supported", requests=0),
}

OVERFLOWS = {
    "10000000000000001": b"A\r\n0\r\n",
    "10000000000000000": b"abc",
    "8000000000000000": b"abc",
    "ffffffffffffffff": b"abc",
    "fffffffffffffff0": b"abc",
}
"""Chunk sizes that wrap in 64 bits, with the data that they came with (`uvloop-cython.md`, the overflow trap)."""

BAD_REQUESTS: dict[str, Form] = {
    "both lengths": bad(chunked(b"0\r\n\r\n", b"Content-Length: 5"), "ambiguous_framing"),
    "both lengths, other order": bad(
        post(b"0\r\n\r\n", b"Content-Length: 5", b"Transfer-Encoding: chunked"), "ambiguous_framing"
    ),
    **{
        f"content-length {value!r}": bad(post(b"hello", b"Content-Length: " + value), "bad_framing")
        for value in (
            b"+5",
            b"-5",
            b"5 5",
            b"5,5",
            b"5, 5",
            b"",
            b"0x5",
            b"5a",
            b"5_0",
            b"5.0",
            b"1" * 19,
            b"18446744073709551621",
            b"\xb2",
        )
    },
    "content-length twice": bad(post(b"hello", b"Content-Length: 5", b"Content-Length: 5"), "bad_framing"),
    "content-length twice, different": bad(post(b"hello", b"Content-Length: 5", b"content-length: 0"), "bad_framing"),
    **{
        f"transfer-encoding {value!r}": bad(post(b"0\r\n\r\n", b"Transfer-Encoding: " + value), reason, status)
        for value, reason, status in (
            (b"gzip, chunked", "unsupported_coding", 501),
            (b"chunked, gzip", "bad_framing", 400),
            (b"gzip", "bad_framing", 400),
            (b"identity", "bad_framing", 400),
            (b"", "bad_framing", 400),
            (b"chunked, chunked", "bad_framing", 400),
            (b"chunked;q=1", "bad_framing", 400),
            (b"chunked;q=1, chunked", "bad_framing", 400),
            (b"xchunked", "bad_framing", 400),
            (b"chunked\x0b", "bad_field", 400),
            (b'"chunked"', "bad_framing", 400),
            (b"," * 17 + b"chunked", "bad_field", 400),
        )
    },
    "chunked twice": bad(chunked(b"0\r\n\r\n", b"transfer-encoding: chunked"), "bad_framing"),
    "chunked in http 1.0": bad(
        get(b"POST /a?" + TAG_TEXT + b" HTTP/1.0", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", "bad_framing"
    ),
    **{
        f"chunk size {size!r}": bad(chunked(size + b"\r\nabc\r\n0\r\n\r\n"), "bad_chunk")
        for size in (
            b"",
            b" 3",
            b"+3",
            b"-3",
            b"0x3",
            b"3 ",
            b"g",
            b"3g",
            b"0" * 15 + b"3",
            b"f" * 16,
            b"0" * 16 + b"3",
            b"0" * 31 + b"3",
            b"3\r",
            b"3\x00",
        )
    },
    **{
        f"chunk size that wraps {size}": bad(chunked(size.encode() + b"\r\n" + data), "bad_chunk")
        for size, data in OVERFLOWS.items()
    },
    "no CRLF behind a chunk": bad(chunked(b"3\r\nabc0\r\n\r\n"), "bad_chunk"),
    "LF behind a chunk": bad(chunked(b"3\r\nabc\n0\r\n\r\n"), "bad_chunk"),
    "CR alone behind a chunk": bad(chunked(b"3\r\nabc\r0\r\n\r\n"), "bad_chunk"),
    "chunk longer than its size": bad(chunked(b"3\r\nabcd\r\n0\r\n\r\n"), "bad_chunk"),
    "LF behind a chunk size": bad(chunked(b"3\nabc\r\n0\r\n\r\n"), "bad_chunk"),
    "LF instead of the last empty line": bad(chunked(b"3\r\nabc\r\n0\r\n\n"), "bad_request"),
    "CR alone at the end": bad(chunked(b"3\r\nabc\r\n0\r\n\rX"), "bad_chunk"),
    **{
        f"chunk extension {extension!r}": bad(chunked(b"3" + extension + b"\r\nabc\r\n0\r\n\r\n"), "bad_chunk")
        for extension in (
            b";",
            b";;",
            b"; ",
            b";a=",
            b";a ",
            b";a=b ",
            b" ;a=b c",
            b';a="',
            b';a="b\x01"',
            b';a="\\\x00"',
            b";a=b=c",
            b"a",
            b";\xe4",
            b';a="b"c',
            b";a\nb",
            b";a\rb",
            b';a="\n"',
        )
    },
    "folded trailer": bad(chunked(b"0\r\nA: b\r\n c\r\n\r\n"), "bad_field"),
    "trailer without a colon": bad(chunked(b"0\r\nA\r\n\r\n"), "bad_field"),
    **{
        f"trailer {name!r}": bad(chunked(b"0\r\nA: b\r\n" + name + b": 1\r\n\r\n"), "bad_field")
        for name in (
            b"Content-Length",
            b"Transfer-Encoding",
            b"Host",
            b"Authorization",
            b"Connection",
            b"Trailer",
            b"Cookie",
            b"Set-Cookie",
            b"Via",
            b"X-Forwarded-For",
            b"X-Request-Id",
            b"Upgrade",
            b"Expect",
            b"Proxy-Authorization",
            b"Max-Forwards",
            b"TE",
            b"WWW-Authenticate",
        )
    },
    "LF alone": bad(b"GET /a?" + TAG_TEXT + b" HTTP/1.1\nHost: h\n\n"),
    "LF alone behind a field": bad(b"GET /a?" + TAG_TEXT + b" HTTP/1.1\r\nHost: h\nA: b\r\n\r\n"),
    "LF alone as the empty line": bad(b"GET /a?" + TAG_TEXT + b" HTTP/1.1\r\nHost: h\r\n\n"),
    "LF in front": bad(b"\n" + get()),
    "two empty lines in front": bad(b"\r\n\r\n" + get()),
    "CR in front": bad(b"\r" + get()),
    "CR in the request line": bad(get(b"GET /a\rb?" + TAG_TEXT + b" HTTP/1.1")),
    "CR behind the request line": bad(get(LINE + b"\r")),
    "CR in a value": bad(get(LINE, b"A: b\rc"), "bad_field"),
    "CR behind a value": bad(get(LINE, b"A: b\r"), "bad_field"),
    "CR in a name": bad(get(LINE, b"A\r: b"), "bad_field"),
    "folded field": bad(get(LINE, b"A: b", b" c"), "bad_field"),
    "field folded with a tab": bad(get(LINE, b"A: b", b"\tc"), "bad_field"),
    "space before the first field": bad(get(LINE + b"\r\n A: b"), "bad_field"),
    "space before the colon": bad(get(LINE, b"A : b"), "bad_field"),
    "tab before the colon": bad(get(LINE, b"A\t: b"), "bad_field"),
    **{
        f"field {line!r}": bad(get(LINE, line), "bad_field")
        for line in (
            b": b",
            b"A",
            b"A B: c",
            b"A(: b",
            b"\xe4: b",
            b"A\x00: b",
            b"A@: b",
            b'"A": b',
            b"[A]: b",
            b"A/: b",
        )
    },
    **{
        f"control character {code} in a value": bad(get(LINE, b"A: b" + bytes([code]) + b"c"), "bad_field")
        for code in (0, 1, 8, 11, 12, 14, 31, 127)
    },
    "no host": bad(get(host=None), "bad_host"),
    "two hosts": bad(get(LINE, b"Host: h"), "bad_host"),
    "two hosts in http 1.0": bad(get(b"GET /a?" + TAG_TEXT + b" HTTP/1.0", b"host: h"), "bad_host"),
    **{
        f"host {value!r}": bad(get(host=b"Host: " + value), "bad_host")
        for value in (
            b"",
            b"a@b",
            b"a/b",
            b"a,b",
            b"a b",
            b"a:b",
            b"a:65536",
            b"a:80:80",
            b":80",
            b"[::1",
            b"[",
            b"[]",
            b"[::1]x",
            b"a\\b",
            b"a?b",
            b"a#b",
            b"\xe4",
            b"a:-1",
            b"a:+1",
            b"x" * 262,
        )
    },
    "no version": bad(b"GET /a?" + TAG_TEXT + b"\r\nHost: h\r\n\r\n"),
    **{
        f"request line {line!r}": bad(get(line), reason, status)
        for line, reason, status in (
            (b"GET  /a HTTP/1.1", "bad_request", 400),
            (b"GET /a  HTTP/1.1", "bad_request", 400),
            (b"GET /a HTTP/1.1 ", "bad_request", 400),
            (b"GET\t/a HTTP/1.1", "bad_request", 400),
            (b"GET /a\tHTTP/1.1", "bad_request", 400),
            (b" GET /a HTTP/1.1", "bad_request", 400),
            (b"GET", "bad_request", 400),
            (b"GET /a b HTTP/1.1", "bad_request", 400),
            (b"GET /a http/1.1", "bad_request", 400),
            (b"GET /a HTTP/1", "bad_request", 400),
            (b"GET /a HTTP/1.10", "bad_request", 400),
            (b"GET /a HTTP/11.1", "bad_request", 400),
            (b"GET /a HTTP/1,1", "bad_request", 400),
            (b"GET /a HTTPS/1.1", "bad_request", 400),
            (b"GET /a HTTP/ 1.1", "bad_request", 400),
            (b"GET /a HTTP/-1.1", "bad_request", 400),
            (b"GET /a HTTP/0.9", "version_not_supported", 505),
            (b"GET /a HTTP/2.0", "version_not_supported", 505),
            (b"GET /a HTTP/3.1", "version_not_supported", 505),
            (b"G(T /a HTTP/1.1", "bad_request", 400),
            (b"G\xe4T /a HTTP/1.1", "bad_request", 400),
            (b"get /a HTTP/1.1", "method_unknown", 501),
            (b"GETT /a HTTP/1.1", "method_unknown", 501),
            (b"PRI * HTTP/1.1", "method_unknown", 501),
            (b"X" * 400 + b" /a HTTP/1.1", "method_unknown", 501),
            (b"GET * HTTP/1.1", "bad_target", 400),
            (b"GET h:80 HTTP/1.1", "bad_target", 400),
            (b"GET a HTTP/1.1", "bad_target", 400),
            (b"GET //a@b/comms HTTP/1.1", "bad_target", 400),
            (b"GET //a@[ HTTP/1.1", "bad_target", 400),
            (b"GET //a@xn--/ HTTP/1.1", "bad_target", 400),
            (b"GET // HTTP/1.1", "bad_target", 400),
            (b"OPTIONS //a HTTP/1.1", "bad_target", 400),
            (b"GET http://x//a@b/comms HTTP/1.1", "bad_target", 400),
            (b"GET HTTPS://x//a@b/comms?x HTTP/1.1", "bad_target", 400),
            (b"OPTIONS ** HTTP/1.1", "bad_target", 400),
            (b"GET /a#b HTTP/1.1", "bad_target", 400),
            (b"GET /a\x00b HTTP/1.1", "bad_target", 400),
            (b"GET /a\x7fb HTTP/1.1", "bad_target", 400),
            (b"GET /\xe4 HTTP/1.1", "bad_target", 400),
            (b"GET /a\\b HTTP/1.1", "bad_target", 400),
            (b"GET ftp://h/ HTTP/1.1", "bad_target", 400),
            (b"GET http:/h/ HTTP/1.1", "bad_target", 400),
            (b"GET http:// HTTP/1.1", "bad_target", 400),
            (b"GET http:///a HTTP/1.1", "bad_target", 400),
            (b"GET http://u@h/ HTTP/1.1", "bad_target", 400),
            (b"GET http://h:x/ HTTP/1.1", "bad_target", 400),
            (b"GET http://?a HTTP/1.1", "bad_target", 400),
            (b"GET ?a HTTP/1.1", "bad_target", 400),
            (b"CONNECT h:80 HTTP/1.1", "method_not_supported", 501),
            (b"CONNECT h HTTP/1.1", "bad_target", 400),
            (b"CONNECT h: HTTP/1.1", "bad_target", 400),
            (b"CONNECT h:x HTTP/1.1", "bad_target", 400),
            (b"CONNECT [::1] HTTP/1.1", "bad_target", 400),
            (b"CONNECT /a HTTP/1.1", "bad_target", 400),
            (b"CONNECT [::1]:80 HTTP/1.1", "method_not_supported", 501),
        )
    },
    "http 2 preface": bad(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "version_not_supported", 505),
    "tls hello": bad(b"\x16\x03\x01\x00\x05hello\r\n\r\n"),
    "control character first": bad(b"\x00"),
    "line one above the limit": bad(line_of(8193), "uri_too_long", 414),
    "head one above the limit": bad(head_of(15361), "head_too_large", 431),
    "fields one above the limit": bad(fields_of(101), "too_many_fields", 431),
    **{
        f"connection option {name!r}": bad(get(LINE, b"Connection: x, " + name), "bad_connection_option")
        for name in (
            b"Host",
            b"content-length",
            b"Transfer-Encoding",
            b"Authorization",
            b"Cookie",
            b"Expect",
            b"Via",
            b"Forwarded",
            b"X-Forwarded-For",
            b"X-Forwarded-Anything",
            b"X-Real-IP",
            b"X-Request-ID",
        )
    },
    "connection option that is no token": bad(get(LINE, b"Connection: a b"), "bad_field"),
    **{
        f"17 empty elements in {name!r}": bad(get(LINE, name + b": a" + b"," * 17), "bad_field")
        for name in (b"Connection", b"Upgrade", b"Expect", b"TE", b"Via")
    },
    "hops that are no number": bad(get(b"OPTIONS /a HTTP/1.1", b"Max-Forwards: x"), "bad_field"),
    "websocket by post": bad(
        get(
            b"POST /a HTTP/1.1",
            b"Connection: upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        "bad_websocket",
    ),
    "websocket without a key": bad(get(LINE, b"Connection: upgrade", b"Upgrade: websocket"), "bad_websocket"),
    "body over the limit": bad(
        b"POST /a?" + TAG_TEXT + b" HTTP/1.1\r\nHost: small.test\r\nContent-Length: 11\r\n\r\nhello world",
        "body_too_large",
        413,
    ),
    "chunks over the limit": bad(
        b"POST /a?" + TAG_TEXT + b" HTTP/1.1\r\nHost: small.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        "body_too_large",
        413,
    ),
}

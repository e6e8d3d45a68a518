"""Answers cut in two at every octet: the cut changes nothing of what the client gets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest

from tests.wire.forms import SIZES_OF_EVERY_CUT
from tests.wire.replica import PAUSE, Script
from tests.wire.talk import TAG_TEXT, Outcome, Wire

AT_ONCE = 96
LONG_PAUSE = 0.2
"""Seconds in which the head reaches the client for certain, on a busy machine too."""

OK = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True, slots=True)
class Form:
    """An answer, how its connection goes on, and what the client must get."""

    answer: bytes
    then: str = "keep"
    status: int = 200
    reason: str = ""
    stays: bool = True
    interim: tuple[int, ...] = ()
    body: bytes = b""
    method: bytes = b"GET"
    version: bytes = b"1.1"
    broken: bool = False  # the answer reaches the client cut short, and its connection is reset
    extra: int = 0  # octets behind the answer

    @property
    def request(self) -> bytes:
        return self.method + b" /split/%d?" + TAG_TEXT + b" HTTP/" + self.version + b"\r\nHost: h\r\n\r\n"

    @property
    def cuts(self) -> Iterable[int]:
        size = len(self.answer)
        if self.extra:
            # Not exactly behind the answer: what comes later meets the next request on that connection, and nobody can
            # tell it from that one's answer (RFC 9112 section 9.2).
            return [cut for cut in range(1, size) if cut != size - self.extra]
        if size <= SIZES_OF_EVERY_CUT:
            return range(1, size)
        return sorted({*range(1, 60), *range(60, size - 60, max(1, size // 60)), *range(size - 60, size)})


def bad(answer: bytes, reason: str = "bad_response", then: str = "keep") -> Form:
    return Form(answer, then, 502, reason)


def cut_short(answer: bytes, then: str = "keep") -> Form:
    return Form(answer, then, broken=True, stays=False)


def head_of(size: int) -> bytes:
    start, end = OK + b"X: ", b"\r\nContent-Length: 0\r\n\r\n"
    return start + b"x" * (size - len(start) - len(end)) + end


def fields_of(count: int) -> bytes:
    return OK + b"X: y\r\n" * (count - 1) + b"Content-Length: 0\r\n\r\n"


LENGTH = b"Content-Length: 5\r\n\r\nhello"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"HTTP/1.1 200 Smuggled\r\n\r\n"
UNTIL_CLOSE = b"X-Dechunk: yes\r\n\r\nhello world"

GOOD: dict[str, Form] = {
    "by length": Form(OK + LENGTH, body=b"hello"),
    "by length and closing": Form(OK + b"Connection: close\r\n" + LENGTH, "close", body=b"hello"),
    "without a body": Form(OK + b"Content-Length: 0\r\n\r\n"),
    "many fields": Form(
        OK + b"Set-Cookie: a=b\r\nset-cookie: c=d\r\nServer:  x \r\nDate: y\r\n" + LENGTH, body=b"hello"
    ),
    "no reason phrase": Form(b"HTTP/1.1 200\r\n" + LENGTH, body=b"hello"),
    "empty reason phrase": Form(b"HTTP/1.1 200 \r\n" + LENGTH, body=b"hello"),
    "octets above 127 in the reason phrase": Form(b"HTTP/1.1 200 \xe4\r\n" + LENGTH, body=b"hello"),
    "space before the colon": Form(OK + b"A : b\r\nC\t :d\r\n" + LENGTH, body=b"hello"),
    "version 1.0": Form(b"HTTP/1.0 200 OK\r\n" + LENGTH, "close", body=b"hello"),
    "version 1.9": Form(b"HTTP/1.9 200 OK\r\n" + LENGTH, body=b"hello"),
    "status 999": Form(b"HTTP/1.1 999 X\r\n" + LENGTH, status=999, body=b"hello"),
    "chunked": Form(OK + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", body=b"5\r\nhello\r\n0\r\n\r\n"),
    "chunked beside a length": Form(
        OK + b"Content-Length: 999\r\n" + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", body=b"5\r\nhello\r\n0\r\n\r\n"
    ),
    "chunked beside a length, and more": Form(
        OK + CHUNKED[:-2] + b"Content-Length: 1\r\n\r\n0\r\n\r\n" + SMUGGLED,
        body=b"0\r\n\r\n",
        extra=len(SMUGGLED),
    ),
    "chunked beside a length to 1.0": Form(
        OK + b"Content-Length: 1\r\n" + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
        body=b"hello",
        version=b"1.0",
        stays=False,
    ),
    "chunked with extensions": Form(
        OK + CHUNKED + b'5;a="b"\r\nhello\r\n1 ; c\r\n!\r\n0;d\r\n\r\n', body=b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    ),
    "chunked with trailers": Form(
        OK + CHUNKED + b"5;x\r\nhello\r\n0;y\r\nA:b\r\nE: f\r\n\r\n",
        body=b"5\r\nhello\r\n0\r\nA: b\r\nE: f\r\n\r\n",
    ),
    "chunked in upper case": Form(
        OK + CHUNKED + b"0A\r\n0123456789\r\n00\r\n\r\n", body=b"0A\r\n0123456789\r\n00\r\n\r\n"
    ),
    "until close": Form(OK + UNTIL_CLOSE, "close", body=b"hello world"),
    "until close and empty": Form(OK + b"X-Dechunk: yes\r\n\r\n", "close", body=b""),
    "until close in version 1.0": Form(b"HTTP/1.0 200 OK\r\n" + UNTIL_CLOSE, "close", body=b"hello world"),
    "to HEAD": Form(OK + b"Content-Length: 5\r\n\r\n", method=b"HEAD"),
    "to HEAD, chunked": Form(OK + CHUNKED, method=b"HEAD"),
    "to HEAD without length": Form(OK + b"\r\n", method=b"HEAD"),
    "204": Form(b"HTTP/1.1 204 No Content\r\n\r\n", status=204),
    "204 with a length": Form(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", status=204),
    "304": Form(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", status=304),
    "1xx series": Form(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nA: b\r\n\r\nHTTP/1.1 150 X\r\n\r\n" + OK + LENGTH,
        interim=(100, 102, 150),
        body=b"hello",
    ),
    "103 then 200": Form(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n" + OK + LENGTH, interim=(103,), body=b"hello"
    ),
    "more than the answer": Form(OK + LENGTH + SMUGGLED, body=b"hello", extra=len(SMUGGLED)),
    "chunked and more": Form(OK + CHUNKED + b"0\r\n\r\n" + SMUGGLED, body=b"0\r\n\r\n", extra=len(SMUGGLED)),
    "chunked to 1.0": Form(
        OK + CHUNKED + b"5;x\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n", body=b"hello!", version=b"1.0", stays=False
    ),
    "until close to 1.0": Form(OK + UNTIL_CLOSE, "close", body=b"hello world", version=b"1.0", stays=False),
    "1xx to 1.0": Form(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + LENGTH, body=b"hello", version=b"1.0", stays=False),
    "head at the limit": Form(head_of(65536)),
    "head one below the limit": Form(head_of(65535)),
    "fields at the limit": Form(fields_of(200)),
    "fields one below the limit": Form(fields_of(199)),
}

BAD: dict[str, Form] = {
    **{
        f"status line {line!r}": bad(line + b"\r\n" + LENGTH)
        for line in (
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 099 OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1 2x0 OK",
            b"HTTP/1.1 200OK",
            b"HTTP/2.0 200 OK",
            b"HTTP/1.x 200 OK",
            b"http/1.1 200 OK",
            b"HTTPS/1.1 200 OK",
            b"HTTP/1.1\t200 OK",
            b"HTTP/1.1 200\tOK",
            b"ICY 200 OK",
            b" HTTP/1.1 200 OK",
            b"HTTP/1.1 +20 OK",
            b"HTTP/11 200 OK",
            b"HTTP/1.1 200 O\x00K",
            b"HTTP/1.1 200 O\rK",
            b"",
            b"\r\nHTTP/1.1 200 OK",
        )
    },
    "LF alone": bad(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    "LF alone behind a field": bad(OK + b"A: b\nContent-Length: 0\r\n\r\n"),
    "LF alone as the empty line": bad(OK + b"Content-Length: 0\r\n\n"),
    **{
        f"field {line!r}": bad(OK + line + b"\r\n" + LENGTH)
        for line in (
            b"A",
            b": b",
            b"A B: c",
            b"A: b\x00",
            b"A: b\rc",
            b"A: \x7f",
            b"A: b\r\n c",
            b" A: b",
            b"\xe4: b",
            b" : b",
        )
    },
    **{
        f"both lengths, {name}": bad(OK + lines + b"\r\n0\r\n\r\n")
        for name, lines in {
            "length twice": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "length as a list": b"Content-Length: 5, 5\r\nTransfer-Encoding: chunked\r\n",
            "length that is none": b"Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
            "not chunked last": b"Content-Length: 5\r\nTransfer-Encoding: chunked, identity\r\n",
            "another coding": b"Content-Length: 5\r\nTransfer-Encoding: gzip\r\n",
            "another coding first": b"Transfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\n",
        }.items()
    },
    "both lengths in version 1.0": bad(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n"),
    "two lengths": bad(OK + b"Content-Length: 5\r\n" + LENGTH),
    "two lengths to HEAD": replace(bad(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n"), method=b"HEAD"),
    **{
        f"length {value!r}": bad(OK + b"Content-Length: " + value + b"\r\n\r\nhello")
        for value in (b"", b"x", b"5, 5", b"-5", b"+5", b"5 5", b"1" * 19)
    },
    **{
        f"coding {value!r}": bad(OK + b"Transfer-Encoding: " + value + b"\r\n\r\n0\r\n\r\n")
        for value in (b"", b"gzip", b"gzip, chunked", b"chunked, chunked", b"chunked, gzip", b"chunked;a")
    },
    "coding in version 1.0": bad(b"HTTP/1.0 200 OK\r\n" + CHUNKED + b"0\r\n\r\n"),
    **{
        f"connection option {name!r}": bad(OK + b"Connection: " + name + b"\r\n" + LENGTH)
        for name in (b"Content-Length", b"transfer-encoding", b"Via", b"a b", b"," * 18)
    },
    "101 that nobody asked for": bad(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "bad_upgrade"
    ),
    "33 interim answers": bad(b"HTTP/1.1 102 P\r\n\r\n" * 33 + OK + LENGTH),
    "closed at once": bad(b"", "upstream_closed", "close"),
    "closed in the head": bad(OK + b"A: b\r\n", "upstream_closed", "close"),
    "head one above the limit": bad(head_of(65537), "response_head_too_large"),
    "fields one above the limit": bad(fields_of(201), "response_head_too_large"),
}

BROKEN: dict[str, Form] = {
    "by length, closed early": cut_short(OK + b"Content-Length: 9\r\n\r\nhello", "close"),
    "chunked, closed early": cut_short(OK + CHUNKED + b"5\r\nhello\r\n", "close"),
    "chunked, closed before the last empty line": cut_short(OK + CHUNKED + b"5\r\nhello\r\n0\r\n", "close"),
    "until close, reset": cut_short(OK + UNTIL_CLOSE, "reset"),
    **{
        f"chunked, then {data!r}": cut_short(OK + CHUNKED + b"5\r\nhello" + data)
        for data in (
            b"x\r\n",
            b"\n0\r\n\r\n",
            b"\r\nx\r\n",
            b"\r\n0000000000000001\r\n",
            b"\r\n1;\r\nx",
            b"\r\n0\r\nContent-Length: 5\r\n\r\n",
            b"\r\n0\r\nA\r\n\r\n",
            b"\r\n-1\r\n",
        )
    },
}


async def answer_cut(wire: Wire, number: int, form: Form, cut: int, pause: float = PAUSE) -> Outcome:
    path = b"/split/%d" % number
    wire.replica.scripts[path] = Script(form.answer, form.then, cut, pause)
    try:
        return await wire.send_cut(form.request.replace(b"%d", b"%d" % number), 0)
    finally:
        del wire.replica.scripts[path]


@pytest.mark.parametrize("name", GOOD | BAD)
async def test_each_form_reaches_the_client_as_it_should(wire: Wire, name: str) -> None:
    form = (GOOD | BAD)[name]
    outcome = await answer_cut(wire, 0, form, 0)
    interim = tuple(answer.status for answer in outcome.answers if 100 <= answer.status < 200)
    if name != "33 interim answers":
        assert interim == form.interim
    assert outcome.verdict == (form.status, form.reason)
    assert outcome.stayed == form.stays
    assert outcome.rest == b""
    if form.status < 500:
        (_, body) = outcome.normal()[0][-1]
        assert body == form.body


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_body_ends_in_a_reset_and_nothing_that_looks_complete(wire: Wire, name: str) -> None:
    """FRM-11, FRM-16 to FRM-19."""
    form = BROKEN[name]
    cut = len(OK + CHUNKED + b"5\r\nhel") if b"chunked" in form.answer else len(form.answer) - 2
    outcome = await answer_cut(wire, 0, form, cut, LONG_PAUSE)
    assert outcome.reset
    assert not outcome.stayed
    assert outcome.answer.status == 200
    assert b"0\r\n\r\n" not in outcome.answer.body


async def test_an_answer_cut_at_any_octet_gives_the_same(wire: Wire) -> None:
    forms = GOOD | BAD
    whole = {name: (await answer_cut(wire, 0, form, 0)).normal() for name, form in forms.items()}
    work = iter([(name, cut) for name, form in forms.items() for cut in form.cuts])
    wrong: list[str] = []
    count = 0

    async def send_some() -> None:
        nonlocal count
        for name, cut in work:
            count += 1
            outcome = await answer_cut(wire, count, forms[name], cut)
            if outcome.normal() != whole[name]:
                wrong.append(f"{name} cut at {cut}: {outcome.normal()} instead of {whole[name]}")

    await asyncio.gather(*(send_some() for _ in range(AT_ONCE)))
    assert count > 5_000
    assert wrong == []

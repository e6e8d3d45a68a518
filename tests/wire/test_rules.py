"""One test per rule of the HTTP reference that the forms in `forms` do not state already; the ids are its."""

from __future__ import annotations

import base64
import hashlib
import re
import socket

import pytest

from tests.wire.forms import LINE, chunked, get, post
from tests.wire.replica import Request, Script
from tests.wire.talk import TAG_TEXT, TIMEOUT, Answer, Outcome, Wire, new_tag, put_tag

ADDED = (
    b"X-Forwarded-For", b"X-Real-IP", b"X-Forwarded-Proto", b"X-Forwarded-Port", b"X-Forwarded-Host", b"X-Request-Id",
    b"Via",
)  # fmt: skip
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
TRUSTED = b"Host: trusting.test"


def received_lines(request: Request) -> list[bytes]:
    """The lines that the replica got, without those that the proxy adds last."""
    return [line for line in request.lines if line.partition(b":")[0] not in ADDED]


def answered(
    wire: Wire, answer: bytes, message: bytes | None = None, *, then: str = "keep", path: bytes = b"/rule"
) -> Outcome:
    wire.replica.scripts[path] = Script(answer, then)
    return wire.send(message or get(b"GET " + path + b"?" + TAG_TEXT + b" HTTP/1.1"))


def without_added(answer: Answer) -> list[bytes]:
    return [line for line in answer.lines if line.partition(b":")[0] not in (b"Date", b"X-HA-Replica")]


# --- request line and Host ---


def test_target_is_forwarded_octet_for_octet_req_21(wire: Wire) -> None:
    target = b'/a/../b//c/%2e%2F%zz;p|^{}`"<>?x=\\/?../%00&' + TAG_TEXT
    outcome = wire.send(get(b"GET " + target + b" HTTP/1.1"))
    got = re.sub(rb"tag=\d+", TAG_TEXT, outcome.request.line)
    assert got == b"GET " + target + b" HTTP/1.1"


@pytest.mark.parametrize("version", [b"1.0", b"1.1", b"1.9"])
def test_version_is_our_own_in_both_directions_req_12(wire: Wire, version: bytes) -> None:
    outcome = wire.send(get(b"GET /a?" + TAG_TEXT + b" HTTP/" + version))
    assert outcome.request.line.endswith(b" HTTP/1.1")
    assert outcome.answer.line == b"HTTP/1.1 200 OK"


def test_http_1_0_without_host_gets_the_address_it_came_to_req_15(wire: Wire) -> None:
    outcome = wire.send(get(b"GET /a?" + TAG_TEXT + b" HTTP/1.0", host=None))
    assert outcome.request.values(b"Host") == [b"127.0.0.1:%d" % wire.port]
    assert not outcome.stayed


def test_absolute_form_becomes_origin_form_and_replaces_host_req_16(wire: Wire) -> None:
    outcome = wire.send(get(b"GET hTTp://Other.test:81/x?" + TAG_TEXT + b" HTTP/1.1", host=b"Host: ignored"))
    assert outcome.request.line.startswith(b"GET /x?")
    assert outcome.request.values(b"Host") == [b"Other.test:81"]
    assert outcome.request.values(b"X-Forwarded-Host") == [b"Other.test:81"]


@pytest.mark.parametrize(
    ("line", "target"),
    [
        (b"GET http://trusting.test HTTP/1.1", b"/"),
        (b"GET http://trusting.test?a HTTP/1.1", b"/?a"),
        (b"OPTIONS http://trusting.test HTTP/1.1", b"*"),
        (b"OPTIONS http://trusting.test?a HTTP/1.1", b"/?a"),
        (b"OPTIONS http://trusting.test/ HTTP/1.1", b"/"),
        (b"OPTIONS * HTTP/1.1", b"*"),
    ],
)
def test_empty_path_of_an_absolute_form_req_17_req_18(wire: Wire, line: bytes, target: bytes) -> None:
    outcome = wire.send(get(line, b"X: " + TAG_TEXT))
    assert outcome.request.line.split(b" ")[1] == target


@pytest.mark.parametrize(
    "host", [b"h", b"h:", b"h:0", b"h:65535", b"[::1]", b"[::1]:80", b"a_b.c%20!$&'()*+;=~", b"1.2.3.4"]
)
def test_valid_hosts_pass_unchanged_req_14_fwd_15(wire: Wire, host: bytes) -> None:
    outcome = wire.send(get(LINE, host=b"hoST: " + host))
    assert b"hoST: " + host in outcome.request.lines


def test_host_at_its_greatest_length(wire: Wire) -> None:
    assert wire.send(get(LINE, host=b"Host: " + b"x" * 260)).answer.status == 200
    assert wire.send(get(LINE, host=b"Host: " + b"x" * 261)).answer.status == 200
    assert wire.send(get(LINE, host=b"Host: " + b"x" * 262)).verdict == (400, "bad_host")


def test_every_method_of_node_is_forwarded_req_8(wire: Wire) -> None:
    for method in (
        b"ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY OPTIONS "
        b"PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE UNBIND UNLINK UNLOCK "
        b"UNSUBSCRIBE"
    ).split():
        outcome = wire.send(get(method + b" /a?" + TAG_TEXT + b" HTTP/1.1"))
        assert outcome.request.line.startswith(method + b" /a?")


def test_trace_is_answered_with_allow_req_20(wire: Wire) -> None:
    outcome = wire.send(get(b"TRACE /a HTTP/1.1"))
    assert outcome.verdict == (405, "method_not_supported")
    assert outcome.answer.values(b"Allow") == [b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"]


# --- fields ---


def test_names_case_order_and_duplicates_of_a_request_are_kept_fld_8_to_fld_11(wire: Wire) -> None:
    lines = [
        b"x-B: 2", b"X-b: 1", b"aCCept: */*", b"X-B: 3", b"under_score: 1", b"Cookie: a", b"Cookie: b",
        b"Authorization: Basic eA==", b"Proxy-Authorization: x", b"Referer: http://a", b"If-None-Match: x", b"Empty: ",
    ]  # fmt: skip
    outcome = wire.send(get(LINE, *lines))
    assert received_lines(outcome.request) == [b"Host: h", *lines]


def test_optional_whitespace_becomes_one_space_fld_7(wire: Wire) -> None:
    outcome = wire.send(get(LINE, b"A:b", b"C: \t d \t", b"E:", b"F:\tg h\ti"))
    assert received_lines(outcome.request)[1:] == [b"A: b", b"C: d", b"E: ", b"F: g h\ti"]


def test_lines_of_an_answer_are_kept_fld_8_to_fld_10(wire: Wire) -> None:
    lines = [b"SERVER: node", b"Set-Cookie: a=1", b"x-A: 1", b"set-cookie: b=2", b"Set-Cookie: c=3", b"Vary: x", b"vary: y",
             b"Proxy-Status: other", b"Content-Length: 0"]  # fmt: skip
    outcome = answered(wire, b"HTTP/1.1 200 Fine\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
    assert outcome.answer.line == b"HTTP/1.1 200 Fine"
    assert without_added(outcome.answer) == lines
    assert re.fullmatch(rb"[0-9a-f]{4}", outcome.answer.values(b"X-HA-Replica")[0])
    assert len(outcome.answer.values(b"Date")) == 1


def test_date_is_added_only_where_there_is_none_fld_16(wire: Wire) -> None:
    outcome = answered(wire, b"HTTP/1.1 200 OK\r\ndate: yesterday\r\nContent-Length: 0\r\n\r\n")
    assert outcome.answer.values(b"Date") == [b"yesterday"]
    outcome = answered(wire, b"HTTP/1.1 200 OK\r\nConnection: Date\r\nDate: gone\r\nContent-Length: 0\r\n\r\n")
    (date,) = outcome.answer.values(b"Date")
    assert re.fullmatch(rb"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date)


def test_a_replica_cannot_name_itself(wire: Wire) -> None:
    outcome = answered(wire, b"HTTP/1.1 200 OK\r\nx-ha-replica: mine\r\nContent-Length: 0\r\n\r\n")
    assert b"mine" not in outcome.answer.head


def test_missing_reason_text_gets_its_space_fld_23(wire: Wire) -> None:
    assert answered(wire, b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n").answer.line == b"HTTP/1.1 200 "


def test_via_is_appended_fld_17(wire: Wire) -> None:
    outcome = wire.send(get(LINE, b"Via: 1.0 fred, 1.1 p.example.net (haproxy_py)"))
    first, own = outcome.request.values(b"Via")
    assert first == b"1.0 fred, 1.1 p.example.net (haproxy_py)"
    assert re.fullmatch(rb"1\.1 haproxy_py-[0-9a-f]{6,8}", own)
    outcome = wire.send(get(b"GET /a?" + TAG_TEXT + b" HTTP/1.0"))
    assert outcome.request.values(b"Via")[0].startswith(b"1.0 haproxy_py-")
    assert not outcome.answer.values(b"Via")


def test_request_that_came_through_this_proxy_before_passes_fld_18(wire: Wire) -> None:
    own = wire.send(get()).request.values(b"Via")[0].removeprefix(b"1.1 ")
    for passes in (1, 7):
        assert wire.send(get(LINE, *[b"Via: 1.1 " + own] * passes)).answer.status == 200


def test_own_name_in_via_eight_times_is_a_loop_fld_18(wire: Wire) -> None:
    own = wire.send(get()).request.values(b"Via")[0].removeprefix(b"1.1 ")
    for value in (b"1.1 " + own, b"1.0 x,HTTP/1.1\t" + own + b" (comment)", b"1.1 x, 1.1 " + own + b", 1.1 y"):
        for lines in ([b"Via: " + value] * 8, [b"Via: " + b", ".join([value] * 8)]):
            outcome = wire.send(get(LINE, b"Via: 1.1 z", *lines))
            assert outcome.verdict == (502, "loop_detected")
            assert not outcome.received
    assert wire.send(get(LINE, *[b"Via: 1.1 " + own + b"0, 1.1 x" + own] * 8)).answer.status == 200


def test_max_forwards_counts_down_for_options_only_fld_19(wire: Wire) -> None:
    options = b"OPTIONS /a?" + TAG_TEXT + b" HTTP/1.1"
    for received, sent in ((b"1", b"0"), (b"2", b"1"), (b"010", b"9")):
        assert wire.send(get(options, b"Max-Forwards: " + received)).request.values(b"Max-Forwards") == [sent]
    assert wire.send(get(options, b"Max-Forwards: 99999999999999999999")).answer.status == 200
    assert wire.send(get(LINE, b"Max-Forwards: 0")).request.values(b"Max-Forwards") == [b"0"]
    for value in (b"", b"-1", b"1x", b"1, 1"):
        assert wire.send(get(options, b"Max-Forwards: " + value)).verdict == (400, "bad_field")
    outcome = wire.send(get(options, b"Max-Forwards: 0"))
    assert (outcome.answer.status, outcome.answer.body, outcome.received) == (200, b"", [])
    assert outcome.answer.values(b"Allow")
    assert outcome.stayed


# --- framing ---


def test_content_length_is_forwarded_as_its_number_frm_8(wire: Wire) -> None:
    outcome = wire.send(post(b"hello", b"content-LENGTH: 0005"))
    assert outcome.request.values(b"Content-Length") == [b"5"]
    assert outcome.request.body == b"hello"


def test_a_body_keeps_its_kind_frm_21(wire: Wire) -> None:
    outcome = wire.send(chunked(b"05\r\nhello\r\n0\r\n\r\n"))
    assert outcome.request.values(b"Transfer-Encoding") == [b"chunked"]
    assert outcome.request.body == b"05\r\nhello\r\n0\r\n\r\n"


def test_chunk_extensions_are_dropped_frm_17(wire: Wire) -> None:
    outcome = wire.send(chunked(b'5;a="\\""\r\nhello\r\n1 ; b = c\r\n!\r\n0;d\r\nA:b\r\n\r\n'))
    assert outcome.request.body == b"5\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n"


@pytest.mark.parametrize(("size", "status"), [(4095, 200), (4096, 200), (4097, 400)])
def test_chunk_extensions_are_bounded_frm_17(wire: Wire, size: int, status: int) -> None:
    outcome = wire.send(chunked(b"1;" + b"a" * (size - 1) + b"\r\na\r\n1;b\r\nb\r\n0\r\n\r\n"))
    assert outcome.answer.status == status


def test_long_upload_with_an_extension_on_each_chunk_passes_frm_17(wire: Wire) -> None:
    chunk = b"5;chunk-signature=" + b"0" * 64 + b"\r\nhello\r\n"
    outcome = wire.send(chunked(chunk * 20_000 + b"0;x\r\n\r\n"))
    assert outcome.answer.status == 200
    assert outcome.request.body == b"5\r\nhello\r\n" * 20_000 + b"0\r\n\r\n"


@pytest.mark.parametrize(("chunks", "status"), [(273, 200), (274, 400)])
def test_chunk_extensions_without_data_are_bounded_frm_17(wire: Wire, chunks: int, status: int) -> None:
    chunk = b"1;" + b"a" * 4095 + b"\r\nb\r\n"
    assert wire.send(chunked(chunk * chunks + b"0\r\n\r\n")).answer.status == status


def test_answer_with_coding_and_length_is_chunked_and_its_length_ends_here_frm_2(wire: Wire) -> None:
    both = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n"
    outcome = answered(wire, both + b"5\r\nhello\r\n0\r\n\r\n")
    assert outcome.answer.status == 200
    assert without_added(outcome.answer) == [b"A: b", b"Transfer-Encoding: chunked"]
    assert outcome.answer.body == b"5\r\nhello\r\n0\r\n\r\n"
    assert outcome.stayed


def test_length_beside_a_coding_ends_where_there_is_no_body_too_frm_2(wire: Wire) -> None:
    both = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
    outcome = answered(wire, both, get(b"HEAD /rule?" + TAG_TEXT + b" HTTP/1.1"))
    assert without_added(outcome.answer) == [b"Transfer-Encoding: chunked"]


@pytest.mark.parametrize(("size", "status"), [(15359, 200), (15360, 200), (15361, 400)])
def test_trailers_are_bounded_frm_19(wire: Wire, size: int, status: int) -> None:
    outcome = wire.send(chunked(b"0\r\nA: " + b"b" * (size - 7) + b"\r\n\r\n"))
    assert outcome.answer.status == status
    assert outcome.answer.reason == ("" if status == 200 else "bad_field")


@pytest.mark.parametrize(("count", "status"), [(99, 200), (100, 200), (101, 400)])
def test_number_of_trailers_is_bounded_frm_19(wire: Wire, count: int, status: int) -> None:
    assert wire.send(chunked(b"0\r\n" + b"A: b\r\n" * count + b"\r\n")).answer.status == status


@pytest.mark.parametrize("host", [b"small.test"])
@pytest.mark.parametrize(("size", "status"), [(9, 200), (10, 200), (11, 413)])
def test_bodies_are_bounded_where_configured(wire: Wire, host: bytes, size: int, status: int) -> None:
    for fields, body in (
        (b"Content-Length: %d" % size, b"x" * size),
        (b"Transfer-Encoding: chunked", b"4\r\nxxxx\r\n%x\r\n%b\r\n0\r\n\r\n" % (size - 4, b"x" * (size - 4))),
    ):
        outcome = wire.send(get(b"POST /a?" + TAG_TEXT + b" HTTP/1.1", fields, host=b"Host: " + host) + body)
        assert outcome.answer.status == status
        assert outcome.stayed == (status == 200)


def test_content_length_passes_to_head_and_304_but_not_204_frm_14(wire: Wire) -> None:
    head = get(b"HEAD /rule?" + TAG_TEXT + b" HTTP/1.1")
    assert answered(wire, b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", head).answer.values(b"Content-Length") == [
        b"7"
    ]
    assert answered(wire, b"HTTP/1.1 304 X\r\nContent-Length: 7\r\n\r\n").answer.values(b"Content-Length") == [b"7"]
    outcome = answered(wire, b"HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n")
    assert not outcome.answer.values(b"Content-Length")
    for status, expected in ((b"304", [b"chunked"]), (b"204", [])):
        outcome = answered(wire, b"HTTP/1.1 " + status + b" X\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert outcome.answer.values(b"Transfer-Encoding") == expected
        assert outcome.stayed


# --- connection ---


def test_fields_named_by_connection_end_here_con_1_con_3(wire: Wire) -> None:
    outcome = wire.send(
        get(LINE, b"Connection: X-Gone, keep-alive", b"x-gone: 1", b"X-Kept: 2", b"Keep-Alive: timeout=5", b"TE: trailers",
            b"Proxy-Connection: close", b"Upgrade: h2c", b"HTTP2-Settings: x", b"connection: ,also", b"Also: 3", b"X-GONE: 4")
    )  # fmt: skip
    assert received_lines(outcome.request) == [b"Host: h", b"X-Kept: 2"]
    outcome = answered(
        wire,
        b"HTTP/1.1 200 OK\r\nConnection: x-gone, close\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\nX-Kept: 2\r\n"
        b"Proxy-Connection: x\r\nUpgrade: h2c\r\nForwarded: for=x\r\nContent-Length: 0\r\n\r\n",
        then="close",
    )
    assert without_added(outcome.answer) == [b"X-Kept: 2", b"Content-Length: 0"]  # CON-7: the close is the replica's
    assert outcome.stayed


def test_close_of_the_client_is_not_passed_on_con_6_con_7(wire: Wire) -> None:
    outcome = wire.send(get(LINE, b"Connection: CLOSE"))
    assert not outcome.request.values(b"Connection")
    assert outcome.answer.values(b"Connection") == [b"close"]
    assert not outcome.stayed


def test_http_1_0_connection_never_persists_con_5(wire: Wire) -> None:
    outcome = wire.send(get(b"GET /a?" + TAG_TEXT + b" HTTP/1.0", b"Connection: keep-alive"))
    assert outcome.answer.values(b"Connection") == [b"close"]
    assert not outcome.stayed


def test_denied_request_keeps_the_connection_exactly_if_its_body_is_complete_con_8(wire: Wire) -> None:
    outcome = wire.send(get(b"GET /settings HTTP/1.1"))
    assert outcome.verdict == (403, "gate_denied")
    assert outcome.stayed
    complete = get(b"POST /flows HTTP/1.1", b"Content-Length: 5") + b"hello"
    outcome = wire.send(complete)
    assert (outcome.verdict, outcome.stayed) == ((403, "gate_denied"), True)
    assert not outcome.answer.values(b"Connection")
    # What stands behind an incomplete body is the rest of it, even where it looks like a request.
    outcome = wire.send(get(b"POST /flows HTTP/1.1", b"Content-Length: 5000") + get())
    assert (outcome.verdict, outcome.stayed, outcome.received) == ((403, "gate_denied"), False, [])
    assert outcome.answer.values(b"Connection") == [b"close"]
    assert not outcome.reset


def test_denied_request_with_a_bad_chunk_is_denied_and_closed(wire: Wire) -> None:
    outcome = wire.send(get(b"POST /flows HTTP/1.1", b"Transfer-Encoding: chunked") + b"x\r\n" + get())
    assert (outcome.verdict, outcome.stayed, outcome.received) == ((403, "gate_denied"), False, [])


def test_pipelined_answers_come_in_order_con_10(wire: Wire) -> None:
    denied = get(b"GET /settings HTTP/1.1")
    outcome = wire.send(get() + denied + get(b"HEAD /b?" + TAG_TEXT + b" HTTP/1.1") + denied + get())
    assert [answer.status for answer in outcome.answers] == [200, 403, 200, 403, 200]
    assert outcome.stayed


def test_fin_behind_a_request_does_not_cost_the_answer_con_11(wire: Wire) -> None:
    outcome = wire.send(get() + get(), probe=b"", finish=True)
    assert [answer.status for answer in outcome.answers] == [200, 200]


def test_fin_inside_a_body_that_was_sent_ahead_ends_the_connection_frm_11(wire: Wire) -> None:
    outcome = wire.send(get() + post(b"he", b"Content-Length: 5"), probe=b"", finish=True)
    assert [answer.status for answer in outcome.answers] == [200]
    assert len(outcome.received) == 1


def test_early_answer_goes_on_at_once_and_closes_con_13_exp_7(wire: Wire) -> None:
    wire.replica.scripts[b"/early"] = Script(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno", early=True)
    outcome = wire.send(
        post(b"he", b"Content-Length: 500000", b"Expect: 100-continue", path=b"/early"), probe=b"", finish=False
    )
    assert outcome.answer.status == 413
    assert outcome.answer.values(b"Connection") == [b"close"]


def test_nothing_behind_a_refusal_is_read_as_a_request_frm_24(wire: Wire) -> None:
    outcome = wire.send(get(LINE, b"A : b") + get() * 20)
    assert (len(outcome.answers), outcome.received, outcome.stayed) == (1, [], False)
    assert not outcome.reset  # CON-9: the client has the time to read it
    assert outcome.answer.values(b"Connection") == [b"close"]


# --- 1xx, Expect, Upgrade ---


def test_interim_answers_pass_in_order_exp_1_and_not_to_http_1_0_exp_2(wire: Wire) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 3\r\n\r\nHTTP/1.1 102 P\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    outcome = answered(wire, interim + final)
    assert [answer.head for answer in outcome.answers[:2]] == [
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        b"HTTP/1.1 102 P\r\n\r\n",
    ]
    outcome = answered(wire, interim + final, get(b"GET /rule?" + TAG_TEXT + b" HTTP/1.0"))
    assert [answer.status for answer in outcome.answers] == [200]


@pytest.mark.parametrize(("count", "status"), [(31, 200), (32, 200), (33, 502)])
def test_interim_answers_are_bounded_exp_1(wire: Wire, count: int, status: int) -> None:
    outcome = answered(wire, b"HTTP/1.1 102 P\r\n\r\n" * count + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert outcome.answer.status == status


def test_expect_is_forwarded_and_ignored_in_http_1_0_exp_3_exp_5_exp_6(wire: Wire) -> None:
    for value in (b"100-continue", b"something-else"):
        outcome = wire.send(post(b"hello", b"Content-Length: 5", b"Expect: " + value))
        assert outcome.request.values(b"Expect") == [value]
        assert [answer.status for answer in outcome.answers] == [200]
    outcome = wire.send(
        get(b"POST /a?" + TAG_TEXT + b" HTTP/1.0", b"Expect: 100-continue", b"Content-Length: 5") + b"hello"
    )
    assert not outcome.request.values(b"Expect")
    assert outcome.request.body == b"hello"


@pytest.mark.parametrize(
    "lines",
    [
        (b"Upgrade: websocket",),  # EXP-9: without the option
        (b"Connection: Upgrade", b"Upgrade: h2c"),  # EXP-10
        (b"Connection: Upgrade", b"Upgrade: TLS/1.0, h2c"),
        (b"Connection: Upgrade",),
    ],
)
def test_other_upgrades_are_removed_exp_9_exp_10(wire: Wire, lines: tuple[bytes, ...]) -> None:
    outcome = wire.send(get(LINE, *lines))
    assert received_lines(outcome.request) == [b"Host: h"]
    assert outcome.stayed


def test_upgrade_in_http_1_0_is_an_ordinary_request_exp_8(wire: Wire) -> None:
    outcome = wire.send(get(b"GET /a?" + TAG_TEXT + b" HTTP/1.0", *UPGRADE))
    assert not outcome.request.values(b"Upgrade")
    assert outcome.answer.status == 200


def test_upgrade_with_a_body_is_refused_exp_15(wire: Wire) -> None:
    key = b"Sec-WebSocket-Key: " + KEY
    for more in (b"Content-Length: 1", b"Transfer-Encoding: chunked"):
        assert wire.send(get(LINE, *UPGRADE, key, more)).verdict == (400, "bad_websocket")
    assert wire.send(get(LINE, *UPGRADE, key, b"Content-Length: 0")).answer.status == 200


@pytest.mark.parametrize(
    "keys",
    [
        (),
        (KEY, KEY),
        (b"",),
        (KEY[:-1],),
        (KEY + b"=",),
        (KEY[:-3] + b"===",),
        (b"d" * 24,),
        (b"-" * 22 + b"==",),
    ],
)
def test_the_key_must_be_sixteen_octets_wsk_2(wire: Wire, keys: tuple[bytes, ...]) -> None:
    outcome = wire.send(get(LINE, *UPGRADE, *(b"Sec-WebSocket-Key: " + key for key in keys)))
    assert (outcome.verdict, outcome.received) == ((400, "bad_websocket"), [])


@pytest.mark.parametrize("last", [b"A", b"R", b"b", b"/", b"9"])
def test_the_key_may_end_in_any_digit_wsk_2(wire: Wire, last: bytes) -> None:
    outcome = wire.send(get(LINE, *UPGRADE, b"Sec-WebSocket-Key: " + KEY[:21] + last + b"=="))
    assert outcome.request.values(b"Sec-WebSocket-Key") == [KEY[:21] + last + b"=="]


def test_refused_upgrade_closes_and_discards_what_was_sent_ahead_exp_12_wsk_3(wire: Wire) -> None:
    outcome = wire.send(get(LINE, *UPGRADE, b"Sec-WebSocket-Key: " + KEY) + get() + b"\x81\x85")
    assert [answer.status for answer in outcome.answers] == [200]
    assert outcome.answer.values(b"Connection") == [b"close"]
    assert len(outcome.received) == 1
    assert not outcome.stayed
    assert [line for line in outcome.request.lines if b"pgrade" in line] == [
        b"Connection: Upgrade",
        b"Upgrade: websocket",
    ]


def test_426_keeps_upgrade_exp_16(wire: Wire) -> None:
    outcome = answered(
        wire, b"HTTP/1.1 426 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
    )
    assert outcome.answer.values(b"Upgrade") == [b"websocket"]
    assert outcome.answer.values(b"Connection") == [b"upgrade"]
    outcome = answered(
        wire, b"HTTP/1.1 400 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
    )
    assert not outcome.answer.values(b"Upgrade")


def switch(*lines: bytes) -> bytes:
    return b"HTTP/1.1 101 Switching Protocols\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


ACCEPT = b"Sec-WebSocket-Accept: " + base64.b64encode(
    hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
)


@pytest.mark.parametrize(
    "lines",
    [
        (b"Connection: Upgrade", b"Upgrade: websocket"),  # WSK-4: no answer to the key
        (b"Connection: Upgrade", b"Upgrade: websocket", ACCEPT[:-1]),
        (b"Connection: Upgrade", b"Upgrade: websocket", ACCEPT, ACCEPT),
        (b"Connection: Upgrade", b"Upgrade: h2c", ACCEPT),  # EXP-13
        (b"Upgrade: websocket", ACCEPT),
        (b"Connection: Upgrade", ACCEPT),
    ],
)
def test_a_wrong_101_is_refused_exp_13_wsk_4(wire: Wire, lines: tuple[bytes, ...]) -> None:
    message = get(b"GET /rule?" + TAG_TEXT + b" HTTP/1.1", *UPGRADE, b"Sec-WebSocket-Key: " + KEY)
    assert answered(wire, switch(*lines), message).verdict == (502, "bad_upgrade")


def test_a_101_that_nobody_asked_for_does_not_hold_up_the_next_request_exp_13(wire: Wire) -> None:
    outcome = answered(wire, switch(b"Connection: Upgrade", b"Upgrade: websocket", ACCEPT))
    assert (outcome.verdict, outcome.stayed) == ((502, "bad_upgrade"), True)


def test_an_accepted_upgrade_carries_what_was_sent_ahead_exp_11_wsk_9(wire: Wire) -> None:
    wire.replica.scripts[b"/switch"] = Script(
        switch(b"Connection: Upgrade", b"Upgrade: websocket", ACCEPT, b"Sec-WebSocket-Protocol: x") + b"first"
    )
    tag = new_tag()
    head = get(b"GET /switch?" + TAG_TEXT + b" HTTP/1.1", *UPGRADE, b"Sec-WebSocket-Key: " + KEY, b"Origin: http://o")
    with socket.create_connection(("127.0.0.1", wire.port), TIMEOUT) as client:
        client.sendall(put_tag(head, tag) + b"ahead")
        got = b""
        while not got.endswith(b"firstahead"):
            piece = client.recv(65536)
            assert piece, got
            got += piece
    answer = got.partition(b"\r\n\r\n")[0]
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket" in answer
    assert b"\r\nSec-WebSocket-Protocol: x" in answer
    (request,) = wire.replica.requests.pop(tag)
    assert b"Origin: http://o" in request.lines


# --- forwarding fields ---


def test_untrusted_client_is_not_believed_fwd_1_to_fwd_5_fwd_12_fwd_13(wire: Wire) -> None:
    outcome = wire.send(
        get(LINE, b"X-Forwarded-For: 1.1.1.1", b"x-forwarded-for: 2.2.2.2", b"X-Forwarded-Proto: https",
            b"X-Forwarded-Port: 1", b"X-Forwarded-Host: evil", b"X-Real-IP: 1.1.1.1", b"Forwarded: for=1.1.1.1",
            b"X-Request-ID: mine")
    )  # fmt: skip
    request = outcome.request
    lines = request.lines[1:]
    assert lines[:5] == [
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Real-IP: 127.0.0.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Port: %d" % wire.port,
        b"X-Forwarded-Host: h",
    ]
    assert re.fullmatch(rb"X-Request-Id: [0-9a-f]{32}", lines[5])
    assert lines[6].startswith(b"Via: 1.1 ")
    assert len(lines) == 7


def test_trusted_proxy_is_believed_fwd_1_to_fwd_5_fwd_12_fwd_13(wire: Wire) -> None:
    outcome = wire.send(
        get(LINE, b"X-Forwarded-For: 6.6.6.6,1.1.1.1", b"x-forwarded-for: 10.0.0.2 ,", b"X-Forwarded-Proto: https",
            b"X-Forwarded-Port: 443", b"X-Forwarded-Host: shown.example:8443", b"X-Real-IP: 9.9.9.9",
            b"Forwarded: for=1.1.1.1", b"X-Request-ID: Mine-1._", host=TRUSTED)
    )  # fmt: skip
    request = outcome.request
    assert request.values(b"X-Forwarded-For") == [b"6.6.6.6, 1.1.1.1, 10.0.0.2, 127.0.0.1"]
    assert request.values(b"X-Real-IP") == [b"1.1.1.1"]
    assert request.values(b"X-Forwarded-Proto") == [b"https"]
    assert request.values(b"X-Forwarded-Port") == [b"443"]
    assert request.values(b"X-Forwarded-Host") == [b"shown.example:8443"]
    assert request.values(b"Forwarded") == [b"for=1.1.1.1"]
    assert request.values(b"X-Request-Id") == [b"Mine-1._"]


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ((b"HTTPS",), b"https"),
        ((b"https, http",), b"https"),
        ((b"https\t,http,https",), b"https"),
        ((b"https", b"http"), b"https"),
        ((b"http, https",), b"http"),
        ((b"wss",), b"https"),
        ((b"WS",), b"http"),
    ],
)
def test_scheme_is_the_first_word_of_a_trusted_proxy_fwd_3(
    wire: Wire, values: tuple[bytes, ...], scheme: bytes
) -> None:
    outcome = wire.send(get(LINE, *(b"X-Forwarded-Proto: " + value for value in values), host=TRUSTED))
    assert outcome.request.values(b"X-Forwarded-Proto") == [scheme]


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        (b"1.2.3.4:5678", b"1.2.3.4"),
        (b"1.2.3.4:5678, 10.0.0.1:80", b"1.2.3.4"),
        (b"[2001:db8::1]:80", b"2001:db8::1"),
        (b"[2001:db8::1]", b"2001:db8::1"),
        (b"2001:DB8:0::1", b"2001:db8::1"),
        (b"::ffff:1.2.3.4", b"1.2.3.4"),
        (b"1.2.3.4, ::ffff:10.0.0.1", b"1.2.3.4"),
        (b"[::ffff:1.2.3.4]:80", b"1.2.3.4"),
        (b'"1.2.3.4"', b"1.2.3.4"),
        (b'"[2001:db8::1]:80"', b"2001:db8::1"),
        (b"fe80::1%<eth0>", b"fe80::1"),
    ],
)
def test_client_of_a_trusted_proxy_is_found_in_every_spelling_fwd_2(wire: Wire, hops: bytes, client: bytes) -> None:
    outcome = wire.send(get(LINE, b"X-Forwarded-For: " + hops, host=TRUSTED))
    assert outcome.request.values(b"X-Real-IP") == [client]
    assert outcome.request.values(b"X-Forwarded-For") == [hops + b", 127.0.0.1"]


@pytest.mark.parametrize(
    "hop", [b"1.2.3.4:x", b"1.2.3.4:", b"[1.2.3.4]:80", b"[::1", b"::1]:80", b"[]:80", b'"', b'""', b"1" * 65]
)
def test_hop_that_is_no_address_ends_the_search_fwd_2(wire: Wire, hop: bytes) -> None:
    outcome = wire.send(get(LINE, b"X-Forwarded-For: 1.2.3.4, " + hop, host=TRUSTED))
    assert outcome.request.values(b"X-Real-IP") == [b"127.0.0.1"]


@pytest.mark.parametrize(
    ("field", "value", "instead"),
    [
        (b"X-Forwarded-Proto", b"ftp", b"http"),
        (b"X-Forwarded-Proto", b", https", b"http"),
        (b"X-Forwarded-Proto", b"https http", b"http"),
        (b"X-Forwarded-Host", b"a, b", b"trusting.test"),
        (b"X-Forwarded-Host", b"a<b>", b"trusting.test"),
        (b"X-Forwarded-Host", b"", b"trusting.test"),
        (b"X-Forwarded-Host", b"a:99999", b"trusting.test"),
        (b"X-Forwarded-Port", b"65536", b"PORT"),
        (b"X-Forwarded-Port", b"\xb2", b"PORT"),
        (b"X-Forwarded-Port", b"-1", b"PORT"),
        (b"X-Forwarded-For", b"not an address", b"not an address, 127.0.0.1"),
    ],
)
def test_invalid_word_of_a_trusted_proxy_is_replaced_fwd_2_to_fwd_4(
    wire: Wire, field: bytes, value: bytes, instead: bytes
) -> None:
    outcome = wire.send(get(LINE, field + b": " + value, host=TRUSTED))
    assert outcome.request.values(field) == [instead.replace(b"PORT", b"%d" % wire.port)]
    assert outcome.request.values(b"X-Real-IP") == [b"127.0.0.1"]


@pytest.mark.parametrize(
    ("value", "kept"),
    [(b"a" * 127, True), (b"a" * 128, True), (b"a" * 129, False), (b"a b", False), (b"", False), (b"<", False)],
)
def test_request_id_of_a_trusted_proxy_fwd_13(wire: Wire, value: bytes, kept: bool) -> None:
    outcome = wire.send(get(LINE, b"X-Request-ID: " + value, host=TRUSTED))
    (received,) = outcome.request.values(b"X-Request-Id")
    assert (received == value) == kept


# --- the proxy's own answers (sections 11 and 12) ---


def test_own_answer_is_json_with_its_reason_in_every_place(wire: Wire) -> None:
    answer = wire.send(get(b"GET /settings HTTP/1.1")).answer
    assert answer.line == b"HTTP/1.1 403 Forbidden"
    assert answer.values(b"Content-Type") == [b"application/json"]
    assert answer.values(b"Proxy-Status") == [b'haproxy_py; error=http_request_denied; details="gate_denied"']
    assert answer.values(b"Server") == [b"haproxy_py"]
    assert answer.values(b"Cache-Control") == [b"no-store"]
    assert len(answer.values(b"Date")) == 1
    assert answer.values(b"Content-Length") == [b"%d" % len(answer.body)]
    assert not answer.values(b"X-HA-Replica")
    assert set(answer.json) == {"status", "reason", "message", "rule", "hint", "request_id"}
    assert (answer.json["status"], answer.json["reason"]) == (403, "gate_denied")


@pytest.mark.parametrize(
    ("target", "rule", "title"),
    [
        (b"/", "editor_page", "The editor is closed while"),
        (b"/settings", "admin_route", "This address belongs to the admin side"),
        (b"/dashboard/api/x", "dashboard_admin", "This address belongs to the admin side of a package"),
        (b"/dashboard/_debug/x", "dashboard_debug", "This address is for debugging a dashboard"),
    ],
)
def test_a_denial_says_by_which_rule_and_how_to_go_on(wire: Wire, target: bytes, rule: str, title: str) -> None:
    said = wire.send(get(b"GET " + target + b" HTTP/1.1")).answer.json
    assert said["rule"] == rule
    assert said["message"].startswith(title)
    assert "gate.allow" in said["hint"]
    page = wire.send(get(b"GET " + target + b" HTTP/1.1", b"Accept: text/html")).answer.body
    assert f"<h1>{title}".encode() in page
    assert f"<code>{rule}</code>".encode() in page


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ((b"Accept: text/html,application/xhtml+xml;q=0.9",), True),
        ((b"Accept: application/json", b"Accept: TEXT/html"), True),
        ((b"Accept: */*",), False),
        ((), False),
        ((b"Accept: text/htm",), False),
    ],
)
def test_own_answer_is_html_for_browsers(wire: Wire, accept: tuple[bytes, ...], html: bool) -> None:
    answer = wire.send(get(b"GET /settings?<script> HTTP/1.1", *accept)).answer
    assert (answer.values(b"Content-Type") == [b"text/html; charset=utf-8"]) == html
    assert answer.body.startswith(b"<!") == html
    assert b"<script>" not in answer.body


def test_own_answer_to_head_has_the_fields_alone(wire: Wire) -> None:
    outcome = wire.send(get(b"HEAD /settings HTTP/1.1"))
    assert outcome.verdict == (403, "gate_denied")
    assert outcome.answer.body == b""
    assert int(outcome.answer.values(b"Content-Length")[0]) > 0
    assert outcome.stayed

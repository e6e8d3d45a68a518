"""The judgement on an answer to a check, however it is cut."""

from __future__ import annotations

import pytest

from haproxy_py.config import Health
from haproxy_py.control.probe_answer import MAX_BODY, MAX_CHUNK_LINE, MAX_HEAD, MAX_INTERIM, Answer, Finding, Outcome

PLAIN = Health(type="http", path="/")
TEXT = Health(type="http", path="/", body="ready")
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def judge(health: Health, octets: bytes, size: int = 1 << 20) -> Finding:
    """The finding on octets that arrive in pieces of a size, and then the end."""
    answer = Answer(health)
    for at in range(0, len(octets), size):
        finding = answer.feed(octets[at : at + size])
        if finding is not None:
            return finding
    return answer.end()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    ("health", "octets", "expected"),
    [
        (PLAIN, HEAD + b"\r\n", Outcome.OK),
        (PLAIN, b"HTTP/1.0 399 \r\n\r\n", Outcome.OK),
        (PLAIN, b"HTTP/1.1 204\r\n\r\n", Outcome.OK),
        (PLAIN, b"HTTP/1.1 404 Not Found\r\n\r\n", Outcome.STATUS),
        (PLAIN, b"HTTP/1.1 503 x\r\nA: b\r\n\r\n", Outcome.STATUS),
        (PLAIN, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: a\r\n\r\n" + HEAD + b"\r\n", Outcome.OK),
        (PLAIN, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 x\r\n\r\n", Outcome.STATUS),
        (PLAIN, b"HTTP/1.1 101 x\r\n\r\n", Outcome.MALFORMED),
        (PLAIN, b"HTTP/1.1 100 x\r\n\r\n" * (MAX_INTERIM + 1), Outcome.MALFORMED),
        (PLAIN, HEAD, Outcome.CLOSED),
        (PLAIN, b"", Outcome.CLOSED),
        (PLAIN, b"SSH-2.0-OpenSSH\r\n", Outcome.MALFORMED),
        (PLAIN, b"\x15\x03\x01", Outcome.MALFORMED),
        (PLAIN, b"HTTP/2.0 200 OK\r\n\r\n", Outcome.MALFORMED),
        (PLAIN, b"HTTP/1.1 2000 OK\r\n\r\n", Outcome.MALFORMED),
        (PLAIN, b"HTTP/1.1 600 OK\r\n\r\n", Outcome.MALFORMED),
        (PLAIN, b"HTTP/1.1 200 OK\nA: b\r\n\r\n", Outcome.MALFORMED),
        (TEXT, HEAD + b"Content-Length: 12\r\n\r\nI am ready .", Outcome.OK),
        (TEXT, HEAD + b"Content-Length: 5\r\n\r\nI am ready .", Outcome.BODY),
        (TEXT, HEAD + b"Content-Length: 20\r\n\r\nI am not", Outcome.CLOSED),
        (TEXT, HEAD + b"Content-Length: 0\r\n\r\n", Outcome.BODY),
        (TEXT, HEAD + b"\r\nnothing", Outcome.BODY),
        (TEXT, HEAD + b"\r\nalready", Outcome.OK),
        (TEXT, b"HTTP/1.1 204 x\r\n\r\nready", Outcome.BODY),
        (TEXT, b"HTTP/1.1 404 x\r\nContent-Length: 5\r\n\r\nready", Outcome.STATUS),
        (TEXT, CHUNKED + b"3\r\nI r\r\n4;a=b\r\nead.\r\n0\r\n\r\n", Outcome.BODY),
        (TEXT, CHUNKED + b"3\r\nI r\r\n004 ;a=b\r\neady\r\n0\r\n\r\n", Outcome.OK),
        (TEXT, CHUNKED + b"0\r\n\r\n", Outcome.BODY),
        (TEXT, CHUNKED + b"5\r\nrea", Outcome.CLOSED),
        (TEXT, CHUNKED + b"3\r\nready\r\n", Outcome.MALFORMED),
        (TEXT, CHUNKED + b"-1\r\nready", Outcome.MALFORMED),
        (TEXT, CHUNKED + b"\r\nready", Outcome.MALFORMED),
        (TEXT, CHUNKED + b"f" * 16 + b"\r\nready", Outcome.MALFORMED),
    ],
)
def test_an_answer_is_judged_alike_however_it_is_cut(
    health: Health, octets: bytes, expected: Outcome, size: int
) -> None:
    assert judge(health, octets, size).outcome is expected


def test_statuses_are_those_that_are_expected() -> None:
    health = Health(type="http", path="/", status=((200, 204), (401, 401)))
    for status, expected in ((200, True), (204, True), (205, False), (401, True), (400, False), (599, False)):
        finding = judge(health, b"HTTP/1.1 %d x\r\n\r\n" % status)
        assert (finding.outcome is Outcome.OK) is expected
    assert finding.detail == "it answered 599, expected 200-204, 401"


def test_a_head_has_a_bound() -> None:
    line = b"A: " + b"b" * 1000 + b"\r\n"
    fits = HEAD + line * 65
    assert len(fits) < MAX_HEAD
    assert judge(PLAIN, fits + b"\r\n").outcome is Outcome.OK
    assert judge(PLAIN, fits + line * 2 + b"\r\n").outcome is Outcome.MALFORMED
    answer = Answer(PLAIN)
    fed = 0
    while (finding := answer.feed(b"HTTP/" + b"x" * 995)) is None:
        fed += 1000
    assert finding.outcome is Outcome.MALFORMED
    assert fed <= MAX_HEAD


@pytest.mark.parametrize("start", [HEAD + b"\r\n", HEAD + b"Content-Length: 99999999999999999\r\n\r\n"])
def test_the_text_counts_in_the_first_64_kib_only(start: bytes) -> None:
    assert judge(TEXT, start + b"x" * (MAX_BODY - 5) + b"ready", 4096).outcome is Outcome.OK
    finding = judge(TEXT, start + b"x" * (MAX_BODY - 4) + b"ready", 4096)
    assert finding == Finding(Outcome.BODY, 'the first 64 KiB of its answer does not have the text "ready"')


def test_chunks_without_an_end_are_read_up_to_the_bound() -> None:
    answer = Answer(TEXT)
    assert answer.feed(CHUNKED) is None
    fed = 0
    while (finding := answer.feed(b"400\r\n" + b"x" * 1024 + b"\r\n")) is None:
        fed += 1024
    assert (finding.outcome, fed) == (Outcome.BODY, MAX_BODY - 1024)


def test_the_line_in_front_of_a_chunk_has_a_bound() -> None:
    line = b"1;" + b"a" * (MAX_CHUNK_LINE - 2)
    assert judge(TEXT, CHUNKED + line + b"\r\nx\r\n5\r\nready\r\n0\r\n\r\n").outcome is Outcome.OK
    assert judge(TEXT, CHUNKED + line + b"a\r\nx\r\n", 1000).outcome is Outcome.MALFORMED

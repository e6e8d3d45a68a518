"""Whether what a replica answers to a check is what the configuration expects. Octets in, a finding out.

Only as much is read as it takes: the head, or until the wanted text was seen in the body. Interim answers are passed over.
An answer that is not HTTP/1.1 (RFC 9112), or has a head above its bound, is no answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from haproxy_py.config import Health

MAX_HEAD = 65536
"""Octets of one head."""

MAX_BODY = 65536
"""Octets of the body in which the text is looked for."""

MAX_CHUNK_LINE = 4096
"""Octets of the line in front of a chunk."""

MAX_INTERIM = 32
"""1xx answers in front of the answer."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
_CODING = re.compile(rb"^transfer-encoding:[ \t]*(.*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"^content-length:[ \t]*([0-9]{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")


class Outcome(Enum):
    """How a check ended: the `outcome` label of the metrics."""

    OK = "ok"
    REFUSED = "refused"  # nobody listens there
    UNREACHABLE = "unreachable"  # the network says no
    TIMEOUT = "timeout"
    CLOSED = "closed"  # the connection ended before the answer could be judged
    MALFORMED = "malformed"  # the answer is not HTTP
    STATUS = "status"  # another status than one of those expected
    BODY = "body"  # the text is not in the body
    UNRESOLVED = "unresolved"  # its name could not be looked up: nothing is known of the replica
    OWN_FAULT = "own_fault"  # no file or memory here, or no time to look: nothing is known of the replica


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    outcome: Outcome
    detail: str  # for people


class Answer:
    """One answer as it arrives."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._wanted = health.body.encode()
        self._held = bytearray()  # not looked at yet
        self._text = bytearray()  # of the body, without its framing
        self._in_body = False
        self._is_chunked = False
        self._left: int | None = None  # octets of the body, or of its present chunk; None: until the connection ends
        self._interim = 0

    def feed(self, data: bytes) -> Finding | None:
        """Take octets as they came; None as long as they do not tell."""
        self._held += data
        while not self._in_body:
            finding = self._take_head()
            if finding is not None or not self._held:
                return finding
            if not self._in_body and b"\r\n\r\n" not in self._held:
                return None
        return self._take_chunks() if self._is_chunked else self._take_body()

    def end(self) -> Finding:
        """The connection has ended."""
        if self._in_body and self._left is None and not self._is_chunked:
            return self._miss()
        return Finding(Outcome.CLOSED, "it closed the connection before its answer was complete")

    def _take_head(self) -> Finding | None:
        end = self._held.find(b"\r\n\r\n")
        if end > MAX_HEAD or (end < 0 and len(self._held) > MAX_HEAD):
            return Finding(Outcome.MALFORMED, f"the head of its answer is larger than {MAX_HEAD} bytes")
        if end < 0:
            # What cannot become a status line is told at once: a wrong protocol may never send an empty line.
            first = bytes(self._held[:5])
            return None if b"HTTP/".startswith(first) else _not_http(first)
        head = bytes(self._held[:end])
        del self._held[: end + 4]
        match = _STATUS_LINE.fullmatch(head.partition(b"\r\n")[0])
        if not match:
            return _not_http(head)
        status = int(match[1])
        if status < 200:
            self._interim += 1
            if status == 101 or self._interim > MAX_INTERIM:
                return Finding(Outcome.MALFORMED, f"it answered with interim answers only, the last {status}")
            return None
        return self._judge_head(status, head)

    def _judge_head(self, status: int, head: bytes) -> Finding | None:
        expected = self._health.status
        if not any(first <= status <= last for first, last in expected):
            ranges = ", ".join(f"{first}-{last}" if first != last else f"{first}" for first, last in expected)
            return Finding(Outcome.STATUS, f"it answered {status}, expected {ranges}")
        if not self._wanted:
            return Finding(Outcome.OK, f"it answered {status}")
        if status in (204, 304):
            return self._miss()
        coding, length = _CODING.search(head), _LENGTH.search(head)
        self._in_body = True
        self._is_chunked = coding is not None and coding[1].lower().endswith(b"chunked")
        self._left = 0 if self._is_chunked else int(length[1]) if length else None
        return self._take_chunks() if self._is_chunked else self._take_body()

    def _take_body(self) -> Finding | None:
        if self._left is None:
            self._text += self._held
        else:
            self._text += self._held[: self._left]
            self._left -= min(self._left, len(self._held))
        self._held.clear()
        return self._look(complete=self._left == 0)

    def _take_chunks(self) -> Finding | None:
        """RFC 9112 section 7.1."""
        while self._held:
            if self._left:
                piece = self._held[: self._left]
                self._text += piece
                self._left -= len(piece)
                del self._held[: len(piece)]
                if self._left == 0:
                    self._left = None  # its line end comes next
                continue
            if self._left is None:
                if len(self._held) < 2:
                    break
                if not self._held.startswith(b"\r\n"):
                    return Finding(Outcome.MALFORMED, "a chunk of its answer is longer than it says")
                del self._held[:2]
                self._left = 0
                continue
            line, found, _ = bytes(self._held[: MAX_CHUNK_LINE + 2]).partition(b"\r\n")
            if not found and len(self._held) <= MAX_CHUNK_LINE:
                break
            match = _CHUNK_SIZE.fullmatch(line) if found else None
            if match is None:
                return Finding(Outcome.MALFORMED, "its answer has a chunk without a valid size")
            del self._held[: len(line) + 2]
            self._left = int(match[1], 16)
            if self._left == 0:
                return self._look(complete=True)
        return self._look(complete=False)

    def _look(self, *, complete: bool) -> Finding | None:
        if self._wanted in self._text[:MAX_BODY]:
            return Finding(Outcome.OK, "its answer has the text")
        return self._miss() if complete or len(self._text) >= MAX_BODY else None

    def _miss(self) -> Finding:
        where = f"the first {MAX_BODY // 1024} KiB of its answer" if len(self._text) >= MAX_BODY else "its answer"
        return Finding(Outcome.BODY, f'{where} does not have the text "{self._health.body}"')


def _not_http(octets: bytes) -> Finding:
    return Finding(Outcome.MALFORMED, f"its answer is not HTTP/1.1: it begins with {octets[:16]!r}")

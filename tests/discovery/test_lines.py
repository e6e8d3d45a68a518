"""Lines of a watch, however they were cut, and none without end."""

from __future__ import annotations

import pytest

from haproxy_py.discovery.lines import MAX_LINE, Lines, LineTooLongError

STREAM = b'{"a": 1}\n\n{"b": "\xc3\xa9"}\r\n{"c": 3}\n{"d'
LINES = [b'{"a": 1}', b'{"b": "\xc3\xa9"}\r', b'{"c": 3}']


@pytest.mark.parametrize("size", range(1, len(STREAM) + 1))
def test_lines_are_the_same_however_they_are_cut(size: int) -> None:
    lines = Lines()
    assert [line for at in range(0, len(STREAM), size) for line in lines.feed(STREAM[at : at + size])] == LINES


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_lines_are_the_same_when_cut_once_at_any_byte(cut: int) -> None:
    lines = Lines()
    assert lines.feed(STREAM[:cut]) + lines.feed(STREAM[cut:]) == LINES


def test_a_line_of_four_mebibytes_is_taken() -> None:
    lines = Lines()
    piece = b"x" * 65536
    assert [found for _ in range(64) for found in lines.feed(piece)] == []
    (line,) = lines.feed(b"\n")
    assert len(line) == 64 * 65536


def test_a_line_without_end_is_refused_before_it_is_complete() -> None:
    lines = Lines()
    piece = b"x" * 65536
    for _ in range(MAX_LINE // len(piece)):
        lines.feed(piece)
    with pytest.raises(LineTooLongError):
        lines.feed(b"x")


@pytest.mark.parametrize("data", [b"123456\n", b"1\n123456\n", b"1\n123456"])
def test_the_bound_holds_for_every_line(data: bytes) -> None:
    with pytest.raises(LineTooLongError):
        Lines(5).feed(data)

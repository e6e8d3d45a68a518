"""The operator's log."""

from __future__ import annotations

from datetime import UTC, datetime

from haproxy_py.control.log import Log


def make_log(level: str) -> tuple[Log, list[str]]:
    lines: list[str] = []
    return Log(level, lines.append, lambda: datetime(2026, 11, 22, 23, 1, 2, 345678, UTC)), lines


def test_line_has_moment_level_and_message() -> None:
    log, lines = make_log("info")
    log.info("it runs")
    log.warning("it limps")
    assert lines == ["2026-11-22T23:01:02.345Z info  it runs\n", "2026-11-22T23:01:02.345Z warning it limps\n"]


def test_lines_below_the_level_are_not_written() -> None:
    log, lines = make_log("warning")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert [line[-2] for line in lines] == ["c", "d"]


def test_level_may_change_while_it_runs() -> None:
    log, lines = make_log("error")
    log.level = "debug"
    log.debug("now")
    assert len(lines) == 1


def test_message_stays_on_one_line_and_cannot_move_the_cursor() -> None:
    log, lines = make_log("info")
    log.info("a\nb\x1b[2J\u2028c é")
    assert lines == ["2026-11-22T23:01:02.345Z info  a\\nb\\x1b[2J\\u2028c é\n"]

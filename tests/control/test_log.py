"""The operator's log."""

from __future__ import annotations

import fcntl
import os
import time
from datetime import UTC, datetime

from haproxy_py.control.log import Log, Outlet


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


def test_reader_that_does_not_read_makes_nobody_wait_and_learns_what_it_missed() -> None:
    reading, writing = os.pipe()
    try:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 65536)
        outlet = Outlet(writing)
        log = Log("info", outlet.write)
        began = time.monotonic()
        for number in range(2000):
            log.info(f"line {number} {'x' * 100}")
        assert time.monotonic() - began < 1.0
        taken = os.read(reading, 65536).decode().splitlines()
        assert 400 < len(taken) < 500
        log.info("again")
        lost, again = os.read(reading, 65536).decode().splitlines()
        assert lost == f"({2000 - len(taken)} lines of this log could not be written and are lost)"
        assert again.endswith("again")
    finally:
        os.close(reading)
        os.close(writing)


def test_line_that_was_cut_is_ended_before_the_next() -> None:
    reading, writing = os.pipe()
    try:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 8192)
        outlet = Outlet(writing)
        assert not outlet.write("x" * 20000 + "\n")
        assert os.read(reading, 65536).decode() == "x" * 8192
        assert outlet.write("next\n")
        assert os.read(reading, 65536).decode() == "\n(1 lines of this log could not be written and are lost)\nnext\n"
    finally:
        os.close(reading)
        os.close(writing)


def test_full_disk_loses_lines_only() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        assert not Outlet(full).write("line\n")
    finally:
        os.close(full)


def test_reader_that_is_gone_loses_lines_only() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert not Outlet(writing).write("line\n")
    finally:
        os.close(writing)

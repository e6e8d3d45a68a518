"""What is shown of the time."""

from __future__ import annotations

import io

from benchmarks.progress import Progress, show_time


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_time_left_follows_the_pace_so_far() -> None:
    now, stream = [0.0], Terminal()
    progress = Progress(100, stream, lambda: now[0])
    progress.begin("first", 50)
    now[0] = 100.0  # twice as long as expected
    progress.begin("second", 50)
    assert stream.getvalue().endswith("1:40 passed, about 1:40 left: second")


def test_a_file_gets_a_line_a_minute() -> None:
    now, stream = [0.0], io.StringIO()
    progress = Progress(100, stream, lambda: now[0])
    for second in range(90):
        now[0] = float(second)
        progress.begin("x", 1)
    assert len(stream.getvalue().splitlines()) == 2


def test_a_time_is_minutes_and_seconds() -> None:
    assert show_time(125.9) == "2:05"

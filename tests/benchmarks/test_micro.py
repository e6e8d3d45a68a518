"""The micro-benchmarks reach compiled functions by their declarations, so they break when those change."""

from __future__ import annotations

from pathlib import Path

from benchmarks.micro import measure_micros


def test_every_function_is_measured(tmp_path: Path) -> None:
    found = measure_micros(tmp_path, ())
    assert len(found) == 10
    assert all(1 < micro.nanoseconds < 100_000 for micro in found)

"""Reads the shared counters: sums of the same cell over the workers.

A read may fall between two adds of a worker: cells are never torn, but a count and a histogram may differ by the
exchange that is just ending.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from haproxy_py import counters

Cells = Sequence["memoryview[int]"]
"""The cells of every worker."""

_BITMAP_CELLS = 15  # 900 codes, 64 to a cell
_SIMPLE_CELLS = 16


@dataclass(frozen=True, slots=True)
class Histogram:
    counts: tuple[int, ...]  # per bucket of `counters.DURATION_BUCKETS`, then above the last; not cumulative
    sum: float  # seconds


def sum_cell(cells: Cells, at: int) -> int:
    """One cell, over all workers."""
    return sum(segment[at] for segment in cells)


def sum_cells(cells: Cells, at: int, number: int) -> list[int]:
    """Neighbouring cells, each over all workers."""
    return [sum(column) for column in zip(*(segment[at : at + number].tolist() for segment in cells), strict=True)]


def read_simple(cells: Cells, slot: int) -> list[int]:
    """The gauges and plain counters of a replica, at the offsets that `counters` names."""
    return sum_cells(cells, counters.replica_at(slot), _SIMPLE_CELLS)


def read_histogram(cells: Cells, slot: int, offset: int) -> Histogram:
    """`counters.REPLICA_DURATION` or `counters.REPLICA_CONNECT_DURATION` of a replica."""
    buckets = len(counters.DURATION_BUCKETS) + 1
    return take_histogram(sum_cells(cells, counters.replica_at(slot) + offset, buckets + 1))


def take_histogram(values: Sequence[int]) -> Histogram:
    """The histogram that lies at the begin of these cells."""
    buckets = len(counters.DURATION_BUCKETS) + 1
    return Histogram(tuple(values[:buckets]), values[buckets] / 1e9)


def read_requests(cells: Cells, slot: int) -> Iterator[tuple[int, str, int]]:
    """Code, method and number of the exchanges of a replica that were counted, ascending by code.

    Reads only the codes that a worker has marked in its bitmap: a replica has 7,200 cells and uses a handful.
    """
    at = counters.replica_at(slot)
    methods = len(counters.METHODS)
    for code in _list_codes(cells, at):
        row = at + counters.REPLICA_REQUESTS + (code - counters.FIRST_CODE) * methods
        for method, number in zip(counters.METHODS, sum_cells(cells, row, methods), strict=True):
            if number:
                yield code, method, number


def _list_codes(cells: Cells, at: int) -> Iterator[int]:
    start = at + counters.REPLICA_CODES_SEEN
    rows = zip(*(segment[start : start + _BITMAP_CELLS].tolist() for segment in cells), strict=True)
    for index, column in enumerate(rows):
        bits = 0
        for seen in column:
            bits |= seen
        while bits:
            lowest = bits & -bits
            bits ^= lowest
            yield counters.FIRST_CODE + index * 64 + lowest.bit_length() - 1

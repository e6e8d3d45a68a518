"""What discovery counts, for the metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds, without +Inf. The aim is a tenth of a second."""

CHANGES = ("added", "removed", "state", "none")
"""What can happen to a replica; `none`: an event after which everything was as before."""


@dataclass(slots=True)
class Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(LAG_BUCKETS) + 1))  # not cumulative
    sum: float = 0.0  # seconds

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(LAG_BUCKETS, seconds)] += 1
        self.sum += seconds


@dataclass(slots=True)
class Records:
    """Counted since the process started."""

    requests: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # kind, verb, outcome
    changes: Counter[str] = field(default_factory=Counter)  # one of CHANGES
    malformed: Counter[str] = field(default_factory=Counter)  # objects that were skipped, by kind
    lag_of_receipt: Histogram = field(default_factory=Histogram)  # from the event's arrival to the table in all workers
    lag_of_change: Histogram = field(default_factory=Histogram)  # from what the event tells of, by the cluster's clock

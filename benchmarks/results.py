"""What was measured, sample by sample, and the arithmetic that turns samples into figures."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

DISTRIBUTION = ("haproxy", "nginx")
"""The peers that haproxy_py is judged against, as the distribution packs them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One proxy under one load in one round."""

    scenario: str
    proxy: str
    round: int
    micros: float  # CPU per request
    rate: float  # requests per second, closed loop
    memory: float  # MiB, peak
    requests: int
    wrong: int
    errors: int


@dataclass(frozen=True, slots=True)
class Latency:
    """One proxy at a fixed rate in one round; milliseconds from the moment a request fell due."""

    scenario: str
    proxy: str
    round: int
    rate: float  # requests per second that fell due
    p50: float
    p99: float
    p999: float
    requests: int
    failed: int


@dataclass(frozen=True, slots=True)
class Cost:
    """haproxy_py in one setting in one round: what workers, replicas and instances cost per request."""

    setting: str
    round: int
    micros: float
    requests: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory: of a worker at rest, or what one more idle connection adds."""

    what: str
    proxy: str
    octets: float


@dataclass(frozen=True, slots=True)
class Micro:
    """One compiled function: nanoseconds per call, the best of several runs."""

    function: str
    nanoseconds: float


@dataclass(slots=True)
class Results:
    """All of one run."""

    machine: str
    versions: dict[str, str] = field(default_factory=dict)
    newest: list[str] = field(default_factory=list)  # further builds of HAProxy and nginx that were given
    remarks: list[str] = field(default_factory=list)  # who took no part in what, and why
    samples: list[Sample] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    micros: list[Micro] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.samples or self.latencies or self.costs or self.memory or self.micros)

    def write_json(self) -> str:
        """Every sample as it was taken."""
        return json.dumps(asdict(self), indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class Spread:
    """Ratios of several rounds. Their median is the figure."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.median:.2f}"
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def spread(ratios: list[float]) -> Spread | None:
    """Median and range; None of nothing."""
    return Spread(median(ratios), min(ratios), max(ratios)) if ratios else None


def pairwise(samples: list[Sample], scenario: str, proxy: str, other: str) -> list[float]:
    """The ratio of CPU per request to another proxy's, round by round."""
    by_round = {s.round: s.micros for s in samples if s.scenario == scenario and s.proxy == other}
    return [
        s.micros / by_round[s.round]
        for s in samples
        if s.scenario == scenario and s.proxy == proxy and by_round.get(s.round)
    ]


def ratio_to_better(samples: list[Sample], scenario: str, peers: list[str]) -> tuple[str, Spread] | None:
    """haproxy_py's ratio to the best of some peers, and which that is; None if none of them was measured."""
    found = [(peer, ratios) for peer in peers if (ratios := spread(pairwise(samples, scenario, "haproxy_py", peer)))]
    return max(found, key=lambda pair: pair[1].median, default=None)


def ratio_of_cost(costs: list[Cost], setting: str, base: str) -> Spread | None:
    """What a setting costs per request against the base, round by round."""
    by_round = {cost.round: cost.micros for cost in costs if cost.setting == base}
    return spread([c.micros / by_round[c.round] for c in costs if c.setting == setting and by_round.get(c.round)])


def describe_machine() -> str:
    """CPU, number of cores, kernel and Python."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = Path("/proc/cpuinfo").read_text().count("\nprocessor") + 1
    return f"{model}, {cores} cores, Linux {platform.release()}, Python {platform.python_version()}"

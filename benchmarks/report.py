"""What came out: a table for people, JSON for programs."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median


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


def pairwise(samples: list[Sample], scenario: str, proxy: str, other: str) -> list[float]:
    """The ratio of CPU per request to another proxy's, round by round."""
    by_round = {s.round: s.micros for s in samples if s.scenario == scenario and s.proxy == other}
    return [
        s.micros / by_round[s.round]
        for s in samples
        if s.scenario == scenario and s.proxy == proxy and by_round.get(s.round)
    ]


def describe_machine() -> str:
    """CPU, kernel and Python."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, Linux {platform.release()}, Python {platform.python_version()}"


def write_markdown(samples: list[Sample], limits: dict[str, tuple[str, float]], versions: dict[str, str]) -> str:
    """A table per scenario: medians over rounds, and the ratios pair by pair with their spread."""
    lines = [f"Machine: {describe_machine()}.", ""]
    lines += [f"- {name}: {version}" for name, version in versions.items() if version]
    for scenario, (about, limit) in limits.items():
        here = [s for s in samples if s.scenario == scenario]
        if not here:
            continue
        lines += ["", f"### {scenario}: {about}", ""]
        lines += [
            "| proxy | CPU per request | to HAProxy | to nginx | to the relay | requests/s | peak memory | failed |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for proxy in dict.fromkeys(s.proxy for s in here):
            own = [s for s in here if s.proxy == proxy]
            cells = [
                proxy,
                f"{median(s.micros for s in own):.1f} µs",
                *(_show(pairwise(samples, scenario, proxy, other)) for other in ("haproxy", "nginx", "relay")),
                f"{median(s.rate for s in own):,.0f}",
                f"{max(s.memory for s in own):.0f} MiB",
                str(sum(s.wrong + s.errors for s in own)),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        ratio = best_ratio(samples, scenario)
        if ratio is not None:
            verdict = "reached" if ratio <= limit else "NOT reached"
            lines += [
                "",
                f"haproxy_py against the better of HAProxy and nginx: **{ratio:.2f}** (at most {limit}: {verdict})",
            ]
    return "\n".join(lines) + "\n"


def best_ratio(samples: list[Sample], scenario: str) -> float | None:
    """Median ratio of haproxy_py to the better of HAProxy and nginx; None if one of them is missing."""
    ratios = [pairwise(samples, scenario, "haproxy_py", other) for other in ("haproxy", "nginx")]
    found = [median(ratio) for ratio in ratios if ratio]
    return max(found) if found else None


def _show(ratios: list[float]) -> str:
    if not ratios:
        return "-"
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def write_json(samples: list[Sample], versions: dict[str, str]) -> str:
    """Every sample as it was taken."""
    return json.dumps(
        {"machine": describe_machine(), "versions": versions, "samples": [asdict(s) for s in samples]}, indent=1
    )

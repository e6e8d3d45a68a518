"""The report: one table that says how haproxy_py stands, then the details."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from benchmarks import flatness, memory
from benchmarks.results import (
    DISTRIBUTION,
    Latency,
    Results,
    Spread,
    pairwise,
    ratio_of_cost,
    ratio_to_better,
    spread,
)
from benchmarks.scenarios import Scenario


def write_markdown(results: Results, scenarios: Iterable[Scenario]) -> str:
    """All of a run for people. Figures are medians over rounds; in brackets stands the range of the rounds."""
    measured = [s for s in scenarios if any(sample.scenario == s.name for sample in results.samples)]
    lines = [f"Machine: {results.machine}.", ""]
    lines += [f"- {name}: {version}" for name, version in results.versions.items() if version]
    lines += _summary(results, measured)
    lines += _checks(results)
    lines += _latencies(results)
    for scenario in measured:
        lines += _details(results, scenario)
    lines += _micros(results)
    if results.remarks:
        lines += ["", "## Left out", "", *(f"- {remark}" for remark in dict.fromkeys(results.remarks))]
    return "\n".join(lines) + "\n"


def judge(ratio: float | None, limit: float, aim: float) -> str:
    """What is to be said of a ratio."""
    if ratio is None:
        return "not measured"
    if ratio <= aim:
        return "aim reached"
    return "reached" if ratio <= limit else "NOT reached"


def worst(*ratios: Spread | None) -> float | None:
    """The ratio that a verdict rests on: the one to the best peer of all."""
    return max((ratio.median for ratio in ratios if ratio), default=None)


def _summary(results: Results, scenarios: list[Scenario]) -> list[str]:
    lines = [
        "", "## CPU per request", "",
        "| scenario | haproxy_py | relay | HAProxy | nginx | to the better, distribution's | to the better, newest | at most "
        "| aim | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for scenario in scenarios:
        packed = ratio_to_better(results.samples, scenario.name, list(DISTRIBUTION))
        newest = ratio_to_better(results.samples, scenario.name, results.newest)
        ratio = worst(packed[1] if packed else None, newest[1] if newest else None)
        lines.append(
            _row(
                scenario.about,
                *(_micros_of(results, scenario, proxy) for proxy in ("haproxy_py", "relay", *DISTRIBUTION)),
                f"{packed[1]} of {packed[0]}" if packed else "-",
                f"{newest[1]} of {newest[0]}" if newest else "-",
                scenario.limit,
                scenario.aim,
                judge(ratio, scenario.limit, scenario.aim),
            )
        )
    for scenario in scenarios:
        if scenario.floor_limit is not None and scenario.floor_aim is not None:
            floor = spread(pairwise(results.samples, scenario.name, "haproxy_py", "relay"))
            verdict = judge(worst(floor), scenario.floor_limit, scenario.floor_aim)
            lines += [
                "",
                f"Against the raw relay, {scenario.name}: {floor or '-'}; at most {scenario.floor_limit}, "
                f"aim {scenario.floor_aim}: {verdict}.",
            ]
    return lines if scenarios else []


def _checks(results: Results) -> list[str]:
    rows = []
    for what, limit in memory.LIMITS.items():
        found = {entry.proxy: entry.octets for entry in results.memory if entry.what == what}
        if found:
            own = found.pop("haproxy_py", None)
            others = ", ".join(f"{proxy} {_show_octets(octets)}" for proxy, octets in found.items())
            verdict = "not measured" if own is None else "reached" if own <= limit else "NOT reached"
            rows.append(_row(what, "-" if own is None else _show_octets(own), others, _show_octets(limit), verdict))
    for setting in flatness.SETTINGS[1:]:
        ratio = ratio_of_cost(results.costs, setting.name, flatness.BASE.name)
        if ratio:
            verdict = judge(ratio.median, flatness.LIMIT, flatness.LIMIT).replace("aim ", "")
            rows.append(_row(f"CPU per request, {setting.name}", ratio, "", f"{flatness.LIMIT:.2f}", verdict))
    if not rows:
        return []
    about = f"CPU per request is against {flatness.BASE.name}; memory is resident, and growth per connection."
    return [
        "", "## Memory, and cost by setting", "", about, "",
        "| what | haproxy_py | others | at most | verdict |", "| --- | --- | --- | --- | --- |", *rows,
    ]  # fmt: skip


def _latencies(results: Results) -> list[str]:
    if not results.latencies:
        return []
    lines = ["", "## Latency at half of HAProxy's peak rate", ""]
    lines.append("Milliseconds from the moment at which a request fell due, whether or not it could be sent then.")
    for scenario in dict.fromkeys(entry.scenario for entry in results.latencies):
        here = [entry for entry in results.latencies if entry.scenario == scenario]
        lines += [
            "", f"### {scenario}: {here[0].rate:,.0f} requests/s", "",
            "| proxy | p50 | p99 | p99.9 | failed |", "| --- | --- | --- | --- | --- |",
        ]  # fmt: skip
        for proxy in dict.fromkeys(entry.proxy for entry in here):
            own = [entry for entry in here if entry.proxy == proxy]
            figures = [_show_range([getattr(entry, name) for entry in own]) for name in ("p50", "p99", "p999")]
            lines.append(_row(proxy, *figures, sum(entry.failed for entry in own)))
        ratio = _p99_ratio(here)
        if ratio:
            verdict = "no worse" if ratio.median <= 1 else "WORSE"
            lines += ["", f"p99 of haproxy_py against HAProxy's: {ratio}: {verdict}."]
    return lines


def _p99_ratio(latencies: list[Latency]) -> Spread | None:
    by_round = {entry.round: entry.p99 for entry in latencies if entry.proxy == "haproxy"}
    own = [entry for entry in latencies if entry.proxy == "haproxy_py" and by_round.get(entry.round)]
    return spread([entry.p99 / by_round[entry.round] for entry in own])


def _details(results: Results, scenario: Scenario) -> list[str]:
    here = [sample for sample in results.samples if sample.scenario == scenario.name]
    lines = [
        "", f"## {scenario.name}: {scenario.about}", "",
        "| proxy | CPU per request | haproxy_py to it | it to the relay | requests/s | peak memory | failed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for proxy in dict.fromkeys(sample.proxy for sample in here):
        own = [sample for sample in here if sample.proxy == proxy]
        lines.append(
            _row(
                proxy,
                _show_range([sample.micros for sample in own], "µs"),
                "-" if proxy == "haproxy_py" else spread(pairwise(here, scenario.name, "haproxy_py", proxy)) or "-",
                "-" if proxy == "relay" else spread(pairwise(here, scenario.name, proxy, "relay")) or "-",
                f"{median(sample.rate for sample in own):,.0f}",
                f"{max(sample.memory for sample in own):.0f} MiB",
                sum(sample.wrong + sample.errors for sample in own),
            )
        )
    return lines


def _micros(results: Results) -> list[str]:
    if not results.micros:
        return []
    lines = ["", "## Compiled functions", "", "| function | ns per call |", "| --- | --- |"]
    return lines + [_row(entry.function, f"{entry.nanoseconds:,.0f}") for entry in results.micros]


def _micros_of(results: Results, scenario: Scenario, proxy: str) -> str:
    own = [s.micros for s in results.samples if s.scenario == scenario.name and s.proxy == proxy]
    return f"{median(own):.1f} µs" if own else "-"


def _show_range(figures: list[float], unit: str = "") -> str:
    digits = 1 if median(figures) >= 10 else 2
    middle, low, high = (f"{figure:.{digits}f}" for figure in (median(figures), min(figures), max(figures)))
    shown = f"{middle} {unit}" if unit else middle
    return shown if len(figures) == 1 else f"{shown} ({low} to {high})"


def _show_octets(octets: float) -> str:
    return f"{octets / 2**20:.1f} MiB" if octets >= 2**20 else f"{octets / 2**10:.2f} KiB"


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"

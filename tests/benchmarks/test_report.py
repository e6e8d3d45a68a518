"""What the report says of figures, and what it leaves out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import flatness, memory
from benchmarks.machine import UnavailableError
from benchmarks.plot import draw
from benchmarks.report import judge, write_markdown
from benchmarks.results import Cost, Latency, Memory, Micro, Results, Sample
from benchmarks.scenarios import SCENARIOS


def sample(proxy: str, micros: float, round_: int = 1, scenario: str = "small") -> Sample:
    return Sample(scenario, proxy, round_, micros, 1000.0, 20.0, 1000, 0, 0)


PAIR = [sample("haproxy_py", 18.0), sample("haproxy", 20.0)]


def report(results: Results) -> str:
    return write_markdown(results, SCENARIOS)


def test_a_ratio_is_judged_by_limit_and_aim() -> None:
    assert judge(0.7, 0.9, 0.75) == "aim reached"
    assert judge(0.9, 0.9, 0.75) == "reached"
    assert judge(0.91, 0.9, 0.75) == "NOT reached"
    assert judge(None, 0.9, 0.75) == "not measured"


def test_the_summary_names_the_better_peer_and_the_verdict() -> None:
    samples = [sample("haproxy_py", 18.0), sample("haproxy", 20.0), sample("nginx", 30.0)]
    row = "| 18.0 µs | - | 20.0 µs | 30.0 µs | 0.90 of haproxy | - | 0.9 | 0.75 | reached |"
    assert row in report(Results("a machine", samples=samples))


def test_a_newer_build_counts_in_the_verdict() -> None:
    samples = [sample("haproxy_py", 18.0), sample("haproxy", 20.0), sample("haproxy-9", 19.0)]
    table = report(Results("a machine", samples=samples, newest=["haproxy-9"]))
    assert "0.90 of haproxy | 0.95 of haproxy-9 | 0.9 | 0.75 | NOT reached" in table


def test_a_scenario_without_haproxy_py_is_not_measured() -> None:
    assert "| not measured |" in report(Results("a machine", samples=[sample("haproxy", 20.0)]))


def test_the_floor_has_a_verdict_of_its_own() -> None:
    samples = [sample("haproxy_py", 18.0, scenario="realistic"), sample("relay", 10.0, scenario="realistic")]
    assert "Against the raw relay, realistic: 1.80; at most 1.35, aim 1.2: NOT reached." in report(
        Results("a machine", samples=samples)
    )


def test_p99_is_compared_with_haproxys() -> None:
    latencies = [
        Latency("small", "haproxy", 1, 5000.0, 0.1, 2.0, 3.0, 1000, 0),
        Latency("small", "haproxy_py", 1, 5000.0, 0.1, 3.0, 4.0, 1000, 2),
    ]
    table = report(Results("a machine", latencies=latencies))
    assert "| haproxy_py | 0.10 | 3.00 | 4.00 | 2 |" in table
    assert "p99 of haproxy_py against HAProxy's: 1.50: WORSE." in table


def test_memory_stands_beside_its_limit() -> None:
    entries = [Memory(memory.KEEP_ALIVE, "haproxy_py", 3072.0), Memory(memory.KEEP_ALIVE, "nginx", 512.0)]
    assert f"| {memory.KEEP_ALIVE} | 3.00 KiB | nginx 0.50 KiB | 2.50 KiB | NOT reached |" in report(
        Results("a machine", memory=entries)
    )


def test_a_setting_stands_beside_its_limit() -> None:
    costs = [Cost(flatness.BASE.name, 1, 10.0, 1), Cost("2 workers", 1, 10.5, 1)]
    assert "| CPU per request, 2 workers | 1.05 |  | 1.10 | reached |" in report(Results("a machine", costs=costs))


def test_what_was_left_out_is_told_once() -> None:
    table = report(
        Results("a machine", micros=[Micro("parse", 51.7)], remarks=["caddy is missing", "caddy is missing"])
    )
    assert "| parse | 52 |" in table
    assert table.count("caddy is missing") == 1


def test_without_matplotlib_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnavailableError, match="pip install matplotlib"):
        draw(Results("a machine", samples=PAIR), SCENARIOS, tmp_path / "picture.svg")


def test_without_a_ratio_there_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="not measured under the same load"):
        draw(Results("a machine", samples=PAIR[:1]), SCENARIOS, tmp_path / "picture.svg")


def test_the_picture_shows_every_peer(tmp_path: Path) -> None:
    samples = [sample(proxy, 10.0 + at, 1) for at, proxy in enumerate(("haproxy_py", "haproxy", "nginx", "nginx-9"))]
    picture = tmp_path / "picture.svg"
    draw(Results("a machine", samples=samples, newest=["nginx-9"]), SCENARIOS, picture)
    for peer in ("haproxy", "nginx", "nginx-9"):
        assert f">to {peer} <" in picture.read_text()
    assert picture.stat().st_size < 200_000

"""The arithmetic that turns samples into figures."""

from __future__ import annotations

import json

import pytest

from benchmarks.results import Cost, Results, Sample, pairwise, ratio_of_cost, ratio_to_better, spread


def sample(proxy: str, round_: int, micros: float) -> Sample:
    return Sample("small", proxy, round_, micros, 1000.0, 20.0, 1000, 0, 0)


SAMPLES = [
    sample("haproxy_py", 1, 18.0), sample("haproxy", 1, 20.0), sample("nginx", 1, 30.0),
    sample("haproxy_py", 2, 27.0), sample("haproxy", 2, 30.0), sample("nginx", 2, 40.0),
]  # fmt: skip


def test_ratios_are_taken_within_a_round() -> None:
    assert pairwise(SAMPLES, "small", "haproxy_py", "haproxy") == pytest.approx([0.9, 0.9])


def test_a_round_without_the_other_proxy_gives_no_ratio() -> None:
    more = [*SAMPLES, sample("haproxy_py", 3, 1.0)]
    assert pairwise(more, "small", "haproxy_py", "nginx") == pytest.approx([0.6, 0.675])


def test_the_better_of_the_peers_counts() -> None:
    found = ratio_to_better(SAMPLES, "small", ["nginx", "haproxy"])
    assert found is not None
    assert found[0] == "haproxy"
    assert found[1].median == pytest.approx(0.9)


def test_without_any_peer_there_is_no_ratio() -> None:
    assert ratio_to_better(SAMPLES, "small", ["haproxy-9"]) is None
    assert ratio_to_better(SAMPLES, "small", []) is None


def test_the_spread_is_the_median_and_the_range_of_the_rounds() -> None:
    assert str(spread([0.9, 0.7, 0.8])) == "0.80 (0.70 to 0.90)"
    assert str(spread([0.9])) == "0.90"
    assert spread([]) is None


def test_a_setting_is_compared_with_the_base_of_the_same_round() -> None:
    costs = [Cost("base", 1, 10.0, 1), Cost("200", 1, 11.0, 1), Cost("base", 2, 20.0, 1), Cost("200", 2, 22.0, 1)]
    found = ratio_of_cost([*costs, Cost("200", 3, 99.0, 1)], "200", "base")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((1.1, 1.1))


def test_json_holds_every_sample() -> None:
    results = Results("a machine", versions={"nginx": "1.22"}, samples=SAMPLES)
    written = json.loads(results.write_json())
    assert [entry["micros"] for entry in written["samples"]] == [18.0, 20.0, 30.0, 27.0, 30.0, 40.0]
    assert written["versions"] == {"nginx": "1.22"}

"""The benchmark's arithmetic and what it says when something is missing; no figure is measured here."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import start_all
from benchmarks.proxies import Proxy, list_proxies
from benchmarks.report import Sample, best_ratio, pairwise, write_markdown
from benchmarks.scenarios import SCENARIOS, Scenario, write_script


def sample(proxy: str, round_: int, micros: float) -> Sample:
    return Sample("small", proxy, round_, micros, 1000.0, 20.0, 1000, 0, 0)


SAMPLES = [
    sample("haproxy_py", 1, 18.0), sample("haproxy", 1, 20.0), sample("nginx", 1, 30.0),
    sample("haproxy_py", 2, 27.0), sample("haproxy", 2, 30.0), sample("nginx", 2, 40.0),
]  # fmt: skip


def test_ratios_are_taken_within_a_round() -> None:
    assert pairwise(SAMPLES, "small", "haproxy_py", "haproxy") == pytest.approx([0.9, 0.9])


def test_the_better_of_haproxy_and_nginx_counts() -> None:
    assert best_ratio(SAMPLES, "small") == pytest.approx(0.9)


def test_a_round_without_the_other_proxy_gives_no_ratio() -> None:
    assert pairwise([*SAMPLES, sample("haproxy_py", 3, 1.0)], "small", "haproxy_py", "nginx") == pytest.approx(
        [0.6, 0.675]
    )


def test_a_figure_above_its_limit_is_called_not_reached() -> None:
    table = write_markdown(SAMPLES, {"small": ("small GET", 0.8)}, {})
    assert "**0.90** (at most 0.8: NOT reached)" in table


def test_a_missing_peer_is_named_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = Proxy("haproxy-9", ["/nowhere/haproxy"], program="/nowhere/haproxy", hint="build it")
    assert start_all([missing], tmp_path, (1, 2), None) == []
    assert "haproxy-9 takes no part: /nowhere/haproxy is not on this machine (build it)" in capsys.readouterr().err


def test_another_build_of_a_peer_takes_part_under_its_own_name(tmp_path: Path) -> None:
    proxies = list_proxies(tmp_path, {"nginx-new": "/opt/nginx"})
    assert [proxy.command[0] for proxy in proxies if proxy.name == "nginx-new"] == ["/opt/nginx"]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenario_has_a_script_that_reports(scenario: Scenario) -> None:
    script = write_script(scenario)
    assert f'wrk.method = "{scenario.method}"' in script
    assert 'io.write(string.format("RESULT' in script

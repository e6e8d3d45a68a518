"""Every scenario as wrk and load.c are told of it."""

from __future__ import annotations

import pytest

from benchmarks.scenarios import SCENARIOS, Scenario, find_scenario, write_request, write_script


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenario_has_a_script_that_reports(scenario: Scenario) -> None:
    script = write_script(scenario)
    assert f'wrk.method = "{scenario.method}"' in script
    assert 'io.write(string.format("RESULT' in script


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenario_aims_below_what_it_must_reach(scenario: Scenario) -> None:
    assert scenario.aim < scenario.limit


def test_a_request_says_how_long_its_body_is() -> None:
    head, _, body = write_request(find_scenario("realistic"), 8080).partition("\r\n\r\n")
    assert head.startswith("POST /api/hello HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n")
    assert f"Content-Length: {len(body)}" in head


def test_hosts_take_turns() -> None:
    script = write_script(find_scenario("small"), hosts=1000)
    assert "turn = (turn + 1) % 1000" in script

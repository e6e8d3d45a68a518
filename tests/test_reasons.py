"""The table of reasons agrees with the counters and with itself."""

from __future__ import annotations

import pytest

from haproxy_py.counters import INSTANCE_GATE_DENIED, INSTANCE_PROXY_REPLIES
from haproxy_py.counters import REASONS as COUNTED
from haproxy_py.reasons import REASONS


def test_reasons_stand_in_the_order_of_the_counters() -> None:
    assert tuple(REASONS) == COUNTED


def test_every_reason_has_a_cell() -> None:
    assert len(REASONS) <= INSTANCE_GATE_DENIED - INSTANCE_PROXY_REPLIES


@pytest.mark.parametrize("name", REASONS)
def test_message_is_one_sentence(name: str) -> None:
    message = REASONS[name].message
    assert message.endswith(".")
    assert message.count(". ") == 0
    assert message[0].isupper()


@pytest.mark.parametrize("name", REASONS)
def test_only_failures_that_are_sent_have_a_proxy_status_error(name: str) -> None:
    reason = REASONS[name]
    assert bool(reason.error) == (reason.is_sent and reason.status >= 400)


def test_the_proxy_never_answers_404_itself() -> None:
    assert 404 not in {reason.status for reason in REASONS.values()}

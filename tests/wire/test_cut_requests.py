"""Requests cut in two at every octet (issue point 3): the cut changes nothing of what becomes of them."""

from __future__ import annotations

import asyncio

import pytest

from tests.wire.forms import BAD_REQUESTS, GOOD_REQUESTS, Form
from tests.wire.replica import Script, ScriptedReplica
from tests.wire.talk import Wire

AT_ONCE = 96
"""Connections at a time: enough to hide the pauses, few enough that the proxy reads both pieces apart."""

FORMS = GOOD_REQUESTS | BAD_REQUESTS


@pytest.fixture(autouse=True, scope="module")
def scripts(replica: ScriptedReplica) -> None:
    replica.scripts[b"/continue"] = Script(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", at_head=b"HTTP/1.1 100 Continue\r\n\r\n"
    )


@pytest.mark.parametrize("name", FORMS)
def test_each_form_has_its_verdict(wire: Wire, name: str) -> None:
    form = FORMS[name]
    outcome = wire.send(form.message)
    final = [answer for answer in outcome.answers if answer.status >= 200]
    assert [(answer.status, answer.reason) for answer in final] == [(form.status, form.reason)] * max(1, form.requests)
    assert outcome.stayed == form.stays
    assert len(outcome.received) == form.requests
    assert outcome.rest == b""
    assert (b"close" in final[-1].values(b"Connection")) == (not form.stays)


async def cut_everywhere(wire: Wire, forms: dict[str, Form]) -> tuple[int, list[str]]:
    """The number of cuts, and the forms and cuts whose outcome was another than uncut."""
    whole = {name: (await wire.send_cut(form.message, 0)).normal() for name, form in forms.items()}
    work = iter([(name, cut) for name, form in forms.items() for cut in form.cuts])
    wrong: list[str] = []
    count = 0

    async def send_some() -> None:
        nonlocal count
        for name, cut in work:
            outcome = await wire.send_cut(forms[name].message, cut)
            count += 1
            if outcome.normal() != whole[name]:
                wrong.append(f"{name} cut at {cut}: {outcome.normal()} instead of {whole[name]}")

    await asyncio.gather(*(send_some() for _ in range(AT_ONCE)))
    return count, wrong


async def test_a_request_cut_at_any_octet_gives_the_same(wire: Wire) -> None:
    count, wrong = await cut_everywhere(wire, FORMS)
    assert count > 10_000
    assert wrong == []

"""Calls that change something: who may make them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from haproxy_py.ops import changes
from haproxy_py.ops.view import RefusedError
from tests.ops.test_port import Opened

TOKEN = "0123456789abcdef0123"
DRAIN = "/api/v1/instances/one/replicas/pod-b/drain"
UNDRAIN = "/api/v1/instances/one/replicas/pod-b/undrain"


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    """A port that has a token."""
    one = Opened()
    await one.open()
    one.port.changes.token = TOKEN.encode()
    yield one
    await one.client.close()
    await one.port.close()


async def post(opened: Opened, path: str = DRAIN, token: str = TOKEN, **fields: str) -> tuple[int, dict[str, object]]:
    sent = fields | ({"Authorization": f"Bearer {token}"} if token else {})
    status, body, _ = await opened.get(path, "POST", **sent)
    return status, json.loads(body)


async def test_with_the_token_a_replica_drains_and_is_shown(opened: Opened) -> None:
    status, told = await post(opened)
    assert (status, told["instance"], told["table_version"]) == (200, "one", 7)
    replica = told["replica"]
    assert isinstance(replica, dict)
    assert (replica["name"], replica["state"]) == ("pod-b", "draining")
    assert opened.proxy.asked == ["drain one pod-b"]


async def test_each_call_does_what_its_path_says(opened: Opened) -> None:
    assert (await post(opened, UNDRAIN))[0] == 200
    assert (await post(opened, f"{DRAIN}?force=true"))[0] == 200
    assert (await post(opened, f"{DRAIN}?force=false"))[0] == 200
    assert (await post(opened, "/api/v1/instances/a%20b/replicas/%5B::1%5D:80/drain"))[0] == 200
    expected = ["undrain one pod-b", "drain one pod-b forced", "drain one pod-b", "drain a b [::1]:80"]
    assert opened.proxy.asked == expected


@pytest.mark.parametrize("path", [DRAIN, UNDRAIN])
async def test_without_a_token_in_the_configuration_changes_are_off(opened: Opened, path: str) -> None:
    opened.port.changes.token = b""
    status, told = await post(opened, path)
    assert (status, told["reason"]) == (403, "changes_off")
    assert "ops.token_file" in str(told["message"])
    assert opened.proxy.asked == []


@pytest.mark.parametrize("path", [DRAIN, UNDRAIN])
@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("", "token_needed"),
        ("Bearer", "token_needed"),
        ("Bearer ", "token_needed"),
        (f"Bearer {TOKEN[:-1]}", "wrong_token"),
        (f"Bearer {TOKEN}x", "wrong_token"),
        (f"Bearer {TOKEN} {TOKEN}", "wrong_token"),
        (f"Basic {TOKEN}", "wrong_token"),
        (TOKEN, "token_needed"),
        ("Bearer \u00e9", "wrong_token"),
    ],
)
async def test_without_the_right_token_nothing_changes(opened: Opened, path: str, field: str, reason: str) -> None:
    status, body, fields = await opened.get(path, "POST", **({"Authorization": field} if field else {}))
    assert (status, json.loads(body)["reason"]) == (401, reason)
    assert fields["WWW-Authenticate"].startswith('Bearer realm="haproxy_py"')
    assert TOKEN not in body
    assert opened.proxy.asked == []


async def test_what_a_form_of_another_site_can_send_is_refused(opened: Opened) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://evil.example", "Cookie": "a=b"}
    async with opened.client.post(DRAIN, data=b"token=" + TOKEN.encode(), headers=form) as answer:
        assert answer.status == 401
    async with opened.client.post(f"{DRAIN}?access_token={TOKEN}", headers=form) as answer:
        assert answer.status == 401
    assert opened.proxy.asked == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_only_post_changes_something(opened: Opened, method: str) -> None:
    status, _, fields = await opened.get(DRAIN, method, Authorization=f"Bearer {TOKEN}")
    assert (status, fields["Allow"]) == (405, "POST")
    assert opened.proxy.asked == []


@pytest.mark.parametrize("query", ["force", "force=yes", "forced=true", "force=true&dry_run=true", "x=" + "y" * 4000])
async def test_parameter_that_is_not_known_holds_the_call_back(opened: Opened, query: str) -> None:
    status, told = await post(opened, f"{DRAIN}?{query}")
    assert (status, told["reason"]) == (400, "bad_parameter")
    assert (await post(opened, f"{UNDRAIN}?force=true"))[0] == 400
    assert opened.proxy.asked == []


async def test_refusal_of_control_is_told(opened: Opened) -> None:
    opened.proxy.refusal = RefusedError(409, "last_ready_replica", "it is the last")
    assert await post(opened) == (409, {"status": 409, "reason": "last_ready_replica", "message": "it is the last."})


async def test_guesses_are_logged_but_do_not_fill_the_log(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        await post(opened, token="wrong")
    (line,) = opened.lines
    assert line.startswith("warning operators' port: POST /api/v1/instances/one/replicas/pod-b/drain from 127.0.0.1")
    monkeypatch.setattr(changes, "COMPLAIN_AGAIN", 0.0)
    await post(opened, token="")
    assert opened.lines[1].endswith("it showed no token")


async def test_body_is_not_waited_for_and_has_no_effect(opened: Opened) -> None:
    sent = {"Authorization": f"Bearer {TOKEN}"}
    async with opened.client.post(DRAIN, data=b"x" * 200_000, headers=sent) as answer:
        assert answer.status == 200
    async with opened.client.post(DRAIN, json={"force": True}, headers=sent) as answer:
        assert answer.status == 200
    assert opened.proxy.asked == ["drain one pod-b"] * 2

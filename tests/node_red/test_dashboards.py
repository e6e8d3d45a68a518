"""Both dashboards in a browser, through the proxy in HA mode: they load, update, hear a click, outlive a replica."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import aiohttp
import pytest

from tests.browser import Page, PageError
from tests.node_red.front import put_proxy_before
from tests.node_red.replicas import Replicas
from tests.proxy_process import ProxyProcess

PATHS = {"dashboard 2": "/dashboard/page1", "dashboard 1": "/ui/"}

OWN_COMPLAINTS = ("/ui/loading.html", "SideNav 'left' is not available")
"""What dashboard 1 complains of without any proxy: no loading page of the user's own, no side bar for a single tab."""

SURVIVAL_TIMEOUT = 60.0  # seconds; socket.io itself waits up to 5 between two attempts


@pytest.fixture(params=list(PATHS))
def path(request: pytest.FixtureRequest) -> str:
    return PATHS[request.param]


async def test_dashboard_loads_updates_and_hears_a_click(page: Page, proxy: ProxyProcess, path: str) -> None:
    assert await page.open(proxy.url + path) == 200
    count, replica = await _read_tick(page)
    await page.wait_for(f"({_TICK})?.count > {count} + 1")
    await page.click("button.press, .press button")
    clicked = await page.wait_for_text(".clicks", "click ")
    assert clicked.endswith(f"on {replica}")  # the click went where the page's socket lives
    assert any("/socket.io/" in url for url in page.web_sockets.values()), "socket.io stayed with polling"
    complaints = page.failed_requests + page.console_errors
    assert [each for each in complaints if not any(own in each for own in OWN_COMPLAINTS)] == []


async def test_page_moves_on_when_its_replica_stops(
    page: Page, own_replicas: Replicas, tmp_path: Path, path: str
) -> None:
    with put_proxy_before(own_replicas.urls, tmp_path, ha=True) as proxy:
        await page.open(proxy.url + path)
        _, first = await _read_tick(page)
        other = next(name for name in own_replicas.names if name != first)
        own_replicas[first].stop()
        await page.wait_for(f"({_TICK})?.replica === '{other}'", SURVIVAL_TIMEOUT)
        await page.click("button.press, .press button")
        clicked = await page.wait_for_text(".clicks", f"on {other}")
        assert clicked
        # And back: a page that is opened after the replica has returned may live on either.
        own_replicas[first].start()
        own_replicas[first].wait_ready()
        await page.open(proxy.url + path)
        await _read_tick(page)


async def test_pages_of_different_people_are_spread(
    browser_pages: list[Page], proxy: ProxyProcess, replicas: Replicas
) -> None:
    seen = []
    for page in browser_pages:
        await page.open(proxy.url + PATHS["dashboard 2"])
        seen.append((await _read_tick(page))[1])
    assert set(seen) == set(replicas.names)


async def test_polling_client_without_cookies_is_never_told_that_its_session_is_unknown(
    replicas: Replicas, tmp_path: Path, path: str
) -> None:
    """Each request on a connection of its own, so that it comes to any of the two workers."""
    with put_proxy_before(replicas.urls, tmp_path, ha=True, workers=2) as proxy:
        target = f"{proxy.url}/{path.split('/')[1]}/socket.io/?EIO=4&transport=polling"
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(force_close=True), timeout=timeout
        ) as client:
            found = await asyncio.gather(*(_poll(client, target) for _ in range(6)))
    assert all(len(served_by) == 1 for served_by in found)  # a session is in one replica
    assert len(set.union(*found)) == 2


async def _poll(client: aiohttp.ClientSession, target: str) -> set[str]:
    """A session of socket.io by polling alone; the replicas that have served it."""
    served_by = set()

    async def ask(method: str, target: str, body: str | None = None) -> str:
        async with client.request(method, target, data=body) as answer:
            text = await answer.text()
            assert answer.status == 200, text
            served_by.add(answer.headers["X-HA-Replica"])
            return text

    opened = await ask("GET", target)
    session = f"{target}&sid={json.loads(opened.removeprefix('0'))['sid']}"
    assert await ask("POST", session, "40") == "ok"
    heard = await ask("GET", session)
    assert heard.startswith("40{")
    for _ in range(4):  # the flows tick
        heard = await ask("GET", session)
        if "2" in heard.split("\x1e"):
            await ask("POST", session, "3")
    return served_by


_TICK = """(() => {
    const text = document.querySelector('.ticks')?.textContent || ''
    const found = text.match(/tick (\\d+) of (\\w+)/)
    return found && {count: Number(found[1]), replica: found[2]}
})()"""


async def _read_tick(page: Page) -> tuple[int, str]:
    """The count that the page shows now, and the replica that sent it."""
    tick = await page.wait_for(_TICK)
    if not re.fullmatch(r"r\d", tick["replica"]):
        raise PageError(f"not a replica's name: {tick}")
    return tick["count"], tick["replica"]

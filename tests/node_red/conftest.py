"""Real Node-RED replicas, the proxy in front of them, and a browser. What is missing is a failure, never a skip."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import aiohttp
import pytest

from tests.browser import Browser, BrowserMissingError, Page
from tests.node_red.front import put_proxy_before
from tests.node_red.replicas import VERSIONS, MissingError, Replicas, find_node_red
from tests.proxy_process import ProxyProcess


@pytest.fixture(scope="session", params=list(VERSIONS))
def version(request: pytest.FixtureRequest) -> str:
    """Each test that uses this, or anything below, runs with every Node-RED version."""
    name: str = request.param
    try:
        find_node_red(name)
    except MissingError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    return name


@pytest.fixture(scope="session")
def replicas(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Two replicas, shared by all tests of a version: for tests that change nothing in them."""
    with Replicas(version, tmp_path_factory.mktemp("shared")) as members:
        yield members


@pytest.fixture
def own_replicas(version: str, tmp_path: Path) -> Iterator[Replicas]:
    """Two replicas for one test, which may deploy to them or stop them."""
    with Replicas(version, tmp_path) as members:
        yield members


@pytest.fixture(scope="session")
def proxy(replicas: Replicas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """The proxy with one worker, in HA mode, in front of the shared replicas."""
    with ExitStack() as stack:
        yield stack.enter_context(put_proxy_before(replicas.urls, tmp_path_factory.mktemp("proxy"), ha=True))


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without cookies: every request stands alone."""
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=90, sock_read=60)
    ) as session:
        yield session


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for the session."""
    try:
        started = Browser().__enter__()
    except BrowserMissingError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    with ExitStack() as stack:
        stack.callback(started.stop)
        yield started


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A new tab with cookies and cache of its own."""
    async with browser.page() as opened:
        yield opened


@pytest.fixture
async def browser_pages(browser: Browser) -> AsyncIterator[list[Page]]:
    """Four tabs of four people: no cookie in common."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(browser.page()) for _ in range(4)]

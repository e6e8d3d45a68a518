"""A headless Chromium, driven over the DevTools protocol: what a person with a browser sees through the proxy."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FLAGS = (
    "--headless",
    "--no-sandbox",  # CI runs as root, where Chromium refuses its sandbox; only pages on loopback are opened
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    # Chromium otherwise looks for its maker's hosts, which a closed network refuses, many at a time.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--remote-debugging-port=0",
    "--window-size=1400,900",
)

START_TIMEOUT = 60.0  # seconds; one is usual
CALL_TIMEOUT = 30.0  # seconds for one call of the protocol
WAIT_TIMEOUT = 30.0  # seconds until a condition in a page holds


class BrowserMissingError(Exception):
    """No Chromium on this machine; the text says how to get one."""


class PageError(AssertionError):
    """A page did not do what a test waited for; the text holds its errors, failed requests and a screenshot's path."""


def find_chromium() -> str:
    """The program to start: what CHROMIUM in the environment says, or a known name. Raises `BrowserMissingError`."""
    chosen = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if chosen is None:
        raise BrowserMissingError(
            "Chromium is missing: the dashboards and the editor are tested in it. Get it with `tests/install` or "
            "`apt-get install chromium`, or set CHROMIUM to the path of a Chromium or Chrome."
        )
    return chosen


class Browser:
    """One Chromium process with an empty profile. Pages of different tests share nothing but the process."""

    def __init__(self) -> None:
        self._program = find_chromium()
        self._profile = tempfile.TemporaryDirectory(prefix="haproxy-py-chromium-", ignore_cleanup_errors=True)
        self._log = Path(self._profile.name) / "console.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""  # the browser's own DevTools WebSocket

    def __enter__(self) -> Browser:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, *FLAGS, f"--user-data-dir={self._profile.name}/profile", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.address = self._wait_for_address(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
            self._process = None
        self._profile.cleanup()

    @contextlib.asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        """A new page with its own cookies and cache; closed at the end."""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self.address, max_msg_size=0, compress=0, heartbeat=None) as socket,
        ):
            page = Page(socket)
            reading = asyncio.create_task(page._read())
            try:
                await page._begin()
                yield page
            finally:
                with contextlib.suppress(PageError, TimeoutError):
                    await page._end()
                await socket.close()
                await reading

    def _wait_for_address(self, process: subprocess.Popen[bytes]) -> str:
        port_file = Path(self._profile.name) / "profile" / "DevToolsActivePort"
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"Chromium ended while it started:\n{self._log.read_text(errors='replace')}")
            with contextlib.suppress(FileNotFoundError):
                lines = port_file.read_text().splitlines()
                if len(lines) == 2:
                    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            time.sleep(0.05)
        raise TimeoutError(
            f"Chromium was not ready after {START_TIMEOUT:.0f} s:\n{self._log.read_text(errors='replace')}"
        )


class Page:
    """One tab. Every wait is bounded; a failed one says what the page complained about."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.console_errors: list[str] = []  # console.error, uncaught exceptions and what the browser itself reports
        self.failed_requests: list[str] = []  # answers of 400 and above, and requests without an answer
        self.dialogs: list[str] = []  # texts of alert and confirm; each is accepted at once
        self.web_sockets: dict[str, str] = {}  # id to URL of the WebSockets that are open now
        self._socket = socket
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._requests: dict[str, str] = {}
        self._documents: dict[str, int] = {}  # URL to status of each document that was loaded
        self._loaded = asyncio.Event()
        self._context = ""
        self._target = ""
        self._session: str | None = None

    async def open(self, url: str) -> int:
        """Load a page; wait for its load event; give the status of the document."""
        self._loaded.clear()
        self._documents.clear()
        answer = await self._call("Page.navigate", url=url)
        if "errorText" in answer:
            raise PageError(f"{url}: {answer['errorText']}")
        await self._bounded(self._loaded.wait(), f"{url} to load")
        return next(iter(self._documents.values()))

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise. Raises `PageError` if it throws."""
        answer = await self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(f"{expression}: {details.get('exception', {}).get('description', details['text'])}")
        return answer["result"].get("value")

    async def wait_for(self, expression: str, seconds: float = WAIT_TIMEOUT) -> Any:
        """Wait until a JavaScript expression is truthy, across reloads of the page; give its value."""
        slice_ms = 1000
        script = f"""new Promise((resolve) => {{
            const end = Date.now() + {slice_ms}
            const look = () => {{
                let value = null
                try {{ value = ({expression}) }} catch (error) {{ value = null }}
                if (value || Date.now() > end) resolve(value || null)
                else setTimeout(look, 20)
            }}
            look()
        }})"""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                value = await self.evaluate(script)
            except PageError:  # the page was replaced while the promise waited in it
                await asyncio.sleep(0.05)
                continue
            if value:
                return value
        raise PageError(await self._describe(f"after {seconds:.0f} s still not true: {expression}"))

    async def wait_for_text(self, selector: str, text: str, seconds: float = WAIT_TIMEOUT) -> str:
        """Wait until an element's text contains `text`; give the whole text."""
        found = await self.wait_for(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.textContent)"
            f".find((each) => each.includes({json.dumps(text)}))",
            seconds,
        )
        return str(found).strip()

    async def click(self, selector: str, *, times: int = 1, seconds: float = WAIT_TIMEOUT) -> None:
        """Press the left button in the middle of an element, once it is there, at rest, and nothing covers it."""
        place = await self._find_at_rest(
            f"""(() => {{
                const element = document.querySelector({json.dumps(selector)})
                element.scrollIntoView({{block: 'nearest', inline: 'nearest'}})
                const box = element.getBoundingClientRect()
                const x = box.left + box.width / 2, y = box.top + box.height / 2
                const top = document.elementFromPoint(x, y)
                return box.width > 0 && top && (element.contains(top) || top.contains(element)) && {{x, y}}
            }})()""",
            seconds,
        )
        await self._call("Input.dispatchMouseEvent", type="mouseMoved", **place)
        for count in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                await self._call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=count, **place)

    async def _find_at_rest(self, place: str, seconds: float) -> dict[str, float]:
        """Where something is, once it has not moved for a tenth of a second: panels slide in."""
        deadline = time.monotonic() + seconds
        found: dict[str, float] = await self.wait_for(place, seconds)
        while time.monotonic() < deadline:
            later = await self.evaluate(
                f"new Promise((resolve) => setTimeout(resolve, 100)).then(() => {{ return {place} }})"
            )
            if later == found:
                return found
            found = await self.wait_for(place, seconds)
        raise PageError(await self._describe(f"after {seconds:.0f} s still moving: {place}"))

    async def type(self, text: str) -> None:
        """Type into whatever has the focus, replacing what is selected."""
        await self._call("Input.insertText", text=text)

    async def screenshot(self, path: Path) -> None:
        """A PNG of what is visible now."""
        answer = await self._call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))

    async def get_cookies(self) -> list[dict[str, Any]]:
        """All cookies of this page's profile."""
        cookies: list[dict[str, Any]] = (await self._call("Network.getCookies"))["cookies"]
        return cookies

    async def _begin(self) -> None:
        self._context = (await self._call("Target.createBrowserContext"))["browserContextId"]
        target = await self._call("Target.createTarget", url="about:blank", browserContextId=self._context)
        self._target = target["targetId"]
        attached = await self._call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self._call(f"{domain}.enable")

    async def _end(self) -> None:
        self._session = None
        if self._context:
            await self._call("Target.disposeBrowserContext", browserContextId=self._context)

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        try:
            await self._socket.send_json(message)
            answer = await self._bounded(future, f"an answer to {method}", CALL_TIMEOUT)
        finally:
            self._calls.pop(number, None)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    async def _bounded(self, waiting: Any, what: str, seconds: float = WAIT_TIMEOUT) -> Any:
        try:
            return await asyncio.wait_for(waiting, seconds)
        except TimeoutError:
            raise TimeoutError(
                f"waited {seconds:.0f} s for {what}; console: {self.console_errors}; requests: {self.failed_requests}"
            ) from None

    async def _describe(self, problem: str) -> str:
        lines = [problem]
        with contextlib.suppress(PageError, TimeoutError):
            lines.append(f"page: {await self.evaluate('location.href')}")
            lines.append(f"text: {(await self.evaluate('document.body.innerText'))[:800]!r}")
        with contextlib.suppress(PageError, TimeoutError):
            handle, name = tempfile.mkstemp(prefix="haproxy-py-page-", suffix=".png")
            os.close(handle)
            await self.screenshot(Path(name))
            lines.append(f"screenshot: {name}")
        lines += [f"console: {text}" for text in self.console_errors[-20:]]
        lines += [f"request: {text}" for text in self.failed_requests[-20:]]
        return "\n".join(lines)

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            event = json.loads(message.data)
            if "id" in event:
                future = self._calls.get(event["id"])
                if future is not None and not future.done():
                    future.set_result(event)
            elif event.get("method") == "Page.javascriptDialogOpening":
                self.dialogs.append(event["params"]["message"])
                await self._socket.send_json(
                    {
                        "id": next(self._numbers),
                        "method": "Page.handleJavaScriptDialog",
                        "params": {"accept": True},
                        "sessionId": event["sessionId"],
                    }
                )
            else:
                self._note(event.get("method", ""), event.get("params", {}))
        for future in self._calls.values():
            if not future.done():
                future.set_exception(PageError("Chromium closed the DevTools connection"))

    def _note(self, method: str, event: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.consoleAPICalled" if event["type"] in ("error", "assert"):
                self.console_errors.append(" ".join(str(a.get("value", a.get("description"))) for a in event["args"]))
            case "Runtime.exceptionThrown":
                details = event["exceptionDetails"]
                self.console_errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if event["entry"]["level"] == "error":
                self.console_errors.append(f"{event['entry']['text']} ({event['entry'].get('url', '')})")
            case "Network.requestWillBeSent":
                request = event["request"]
                self._requests[event["requestId"]] = f"{request['method']} {request['url']}"
            case "Network.responseReceived":
                response = event["response"]
                if event["type"] == "Document":
                    self._documents.setdefault(response["url"], response["status"])
                if response["status"] >= 400:
                    name = self._requests.get(event["requestId"], response["url"])
                    self.failed_requests.append(f"{name}: {response['status']}")
            case "Network.loadingFailed" if not event.get("canceled"):
                name = self._requests.get(event["requestId"], "?")
                self.failed_requests.append(f"{name}: {event['errorText']}")
            case "Network.webSocketCreated":
                self._requests[event["requestId"]] = event["url"]
            case "Network.webSocketHandshakeResponseReceived":
                url = self._requests.get(event["requestId"], "?")
                if event["response"]["status"] == 101:
                    self.web_sockets[event["requestId"]] = url
                else:
                    self.failed_requests.append(f"{url}: {event['response']['status']}")
            case "Network.webSocketClosed":
                self.web_sockets.pop(event["requestId"], None)
            case "Network.webSocketFrameError":
                url = self._requests.get(event["requestId"], "?")
                self.failed_requests.append(f"{url}: {event['errorMessage']}")

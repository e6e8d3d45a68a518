"""Lists and watches collections of the Kubernetes API over HTTP, and says in one kind of error what went wrong.

Everything is bounded: a page of a list, a line of a watch, an error's text, and every wait. Redirects are not followed, because
they would carry the token elsewhere. What is done about an error is decided by the reflector, not here.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import aiohttp

from haproxy_py import __version__
from haproxy_py.config import Cluster
from haproxy_py.discovery.credentials import Access, Credentials, CredentialsError
from haproxy_py.discovery.fields import MalformedError, read_list, read_mapping, read_text
from haproxy_py.discovery.lines import Lines, LineTooLongError

PAGE_OBJECTS = 50
"""Objects per page of a list (WAT-17). A full slice is 400 KB of JSON, and decoding takes five times that in memory."""

MAX_PAGE = 32 * 1024 * 1024
"""Bytes of one page."""

MAX_CONTINUE = 16384
"""Characters of a continue token, which is opaque."""

MAX_ERROR = 65536
"""Bytes of an answer that is no success; the rest does not matter."""

CONNECT_WITHIN = 10.0
PAGE_WITHIN = 60.0
"""Seconds for one page, from the connection to its last byte."""

ANSWER_WITHIN = 30.0
"""Seconds until a watch begins to answer."""

WATCH_FOR = (240, 300)
"""Seconds after which the server is asked to end a watch, at random, so that reconnects spread (WAT-4)."""

SILENCE = 75.0
"""Seconds without a line, above the bookmark a minute that servers send (WAT-5)."""


class Outcome(Enum):
    """How a list or a watch ended: the `outcome` label of the metrics."""

    OK = "ok"  # the list is complete, or a watch ended as agreed
    SILENT = "timeout"  # no line for too long
    EXPIRED = "expired"  # the version is too old (410, both forms)
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    MISSING = "missing"  # 404: no such collection
    CLIENT = "http_4xx"
    SERVER = "http_5xx"
    UNREACHABLE = "unreachable"  # no connection, no TLS, no credentials
    RESET = "reset"  # the connection broke
    DECODE = "decode"  # what came was not what the documentation says


class ApiError(Exception):
    """A list or a watch failed. The text is for the log."""

    def __init__(self, outcome: Outcome, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.retry_after = retry_after  # seconds that the server asked to wait


@dataclass(frozen=True, slots=True)
class Collection:
    """What is listed and watched."""

    kind: str  # plural, as in the URL and in a Role: endpointslices
    group: str  # discovery.k8s.io; empty: the core group
    version: str
    namespace: str  # empty: the own one
    label_selector: str = ""
    field_selector: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch."""

    kind: str  # ADDED, MODIFIED, DELETED, BOOKMARK, or one that a later server sends
    thing: dict[str, Any]


class Api:
    """One API server."""

    def __init__(self, cluster: Cluster) -> None:
        self._credentials = Credentials(cluster)
        self._session: aiohttp.ClientSession | None = None
        self.namespace = ""  # the own one, once credentials have been read

    def expire_credentials(self) -> None:
        """The next request reads them again."""
        self._credentials.expire()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # the transports of the connections end in the next turn of the loop

    async def list_pages(self, collection: Collection) -> AsyncGenerator[tuple[list[Any], str], None]:
        """Pages of a consistent list: the objects, and the version to watch from. Raises ApiError."""
        query: dict[str, str] = {"limit": str(PAGE_OBJECTS)}  # no resourceVersion: the newest state (WAT-1)
        while True:
            try:
                async with asyncio.timeout(PAGE_WITHIN):
                    page = await self._read_page(collection, query)
                metadata = read_mapping(page, "metadata")
                items = read_list(page, "items")
            except TimeoutError:
                raise ApiError(Outcome.SILENT, f"no complete list within {PAGE_WITHIN:g} s") from None
            except MalformedError as error:
                raise ApiError(Outcome.DECODE, f"the list is not as documented: {error}") from error
            version = read_text(metadata, "resourceVersion", MAX_CONTINUE)
            if not version:
                raise ApiError(Outcome.DECODE, "the list is not as documented: it has no resourceVersion")
            yield items, version
            token = read_text(metadata, "continue", MAX_CONTINUE)
            if not token:
                return
            query["continue"] = token

    async def watch(self, collection: Collection, version: str) -> AsyncGenerator[list[Event], None]:
        """What happens from `version` on: the events that arrived together, until the server ends. Raises ApiError.

        First comes an empty list, when the server has agreed.
        """
        watch_for = random.randint(*WATCH_FOR)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(watch_for),
        }
        loop = asyncio.get_running_loop()
        last = loop.time() + watch_for + ANSWER_WITHIN  # a server that forgets to end it
        lines = Lines()
        response = None
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                response = await self._request(collection, query)
            yield []
            quiet = loop.time() + SILENCE
            while True:
                async with asyncio.timeout_at(min(quiet, last)):
                    data = await response.content.readany()
                if not data:
                    return
                if found := lines.feed(data):
                    quiet = loop.time() + SILENCE
                    events, problem = _read_events(found)
                    if events:
                        yield events
                    if problem is not None:
                        raise problem
        except TimeoutError:
            raise ApiError(Outcome.SILENT, f"nothing was heard for {SILENCE:g} s") from None
        except LineTooLongError as error:
            raise ApiError(Outcome.DECODE, str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(Outcome.RESET, f"the connection broke: {_say(error)}") from error
        finally:
            if response is not None:
                _drop(response)

    async def _read_page(self, collection: Collection, query: Mapping[str, str]) -> dict[str, Any]:
        response = await self._request(collection, query)
        try:
            body = await _read_bounded(response, MAX_PAGE)
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(Outcome.RESET, f"the connection broke: {_say(error)}") from error
        finally:
            _drop(response)
        if body is None:
            raise ApiError(Outcome.DECODE, f"a page of the list is larger than {MAX_PAGE // 1024 // 1024} MiB")
        return _decode(body)

    async def _request(self, collection: Collection, query: Mapping[str, str]) -> aiohttp.ClientResponse:
        """A successful answer, of which the body is still to be read. Raises ApiError."""
        try:
            access = await self._credentials.read()
        except CredentialsError as error:
            raise ApiError(Outcome.UNREACHABLE, str(error)) from error
        self.namespace = access.namespace
        session = self._open_session()
        selectors = {"labelSelector": collection.label_selector, "fieldSelector": collection.field_selector}
        try:
            response = await session.get(
                _make_url(access, collection),
                params={**query, **{key: value for key, value in selectors.items() if value}},
                headers={"Authorization": access.authorization} if access.authorization else {},
                ssl=access.tls if access.tls is not None else True,
                server_hostname=access.server_name,
                proxy=access.proxy,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ApiError(Outcome.UNREACHABLE, f"{access.server} cannot be reached: {_say(error)}") from error
        if response.status == 200:
            return response
        try:
            raise await _explain(response, access.server)
        finally:
            _drop(response)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # the number of watches bounds it
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_WITHIN),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Not compressed: a watch gains nothing, and a small answer cannot become a huge one.
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": f"haproxy-py/{__version__}",
                },
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def _drop(response: aiohttp.ClientResponse) -> None:
    """End the connection of an answer, unless it was read to its end: what is left of a watch never ends (WAT-18)."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()  # without waiting for the other side of TLS to agree
    response.close()


def _make_url(access: Access, collection: Collection) -> str:
    root = f"/apis/{collection.group}" if collection.group else "/api"
    namespace = collection.namespace or access.namespace
    return f"{access.server}{root}/{collection.version}/namespaces/{namespace}/{collection.kind}"


def _read_events(lines: list[bytes]) -> tuple[list[Event], ApiError | None]:
    """The events up to the first line that is none, and what is wrong with that one."""
    events: list[Event] = []
    for line in lines:
        try:
            events.append(_read_event(line))
        except ApiError as error:
            return events, error
    return events, None


def _read_event(line: bytes) -> Event:
    """Raises ApiError for a line that is no event, and for an ERROR event (WAT-7, WAT-8)."""
    try:
        found = _decode(line)
    except ApiError as error:
        raise ApiError(Outcome.DECODE, f"a line of the watch is no event: {error}") from error
    kind, thing = found.get("type"), found.get("object")
    if not isinstance(kind, str) or not isinstance(thing, dict):
        raise ApiError(Outcome.DECODE, "a line of the watch is no event: type or object is missing")
    if kind == "ERROR":
        code = thing.get("code")
        reason = thing.get("reason")
        if code == 410 or reason in ("Expired", "Gone"):
            raise ApiError(Outcome.EXPIRED, "the watch ended because its version is too old")
        text = read_text(thing, "message", MAX_ERROR)[:300] or "no reason given"
        raise ApiError(Outcome.SERVER, f"the watch ended with an error: {text} (code {code}, reason {reason})"[:500])
    return Event(kind, thing)


def _decode(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(Outcome.DECODE, f"it is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ApiError(Outcome.DECODE, "it is not a JSON object")
    return found


async def _read_bounded(response: aiohttp.ClientResponse, most: int) -> bytes | None:
    """The whole body; None if it is larger."""
    body = bytearray()
    while data := await response.content.readany():
        body += data
        if len(body) > most:
            return None
    return bytes(body)


_OUTCOMES = {
    401: Outcome.UNAUTHORIZED,
    403: Outcome.FORBIDDEN,
    404: Outcome.MISSING,
    410: Outcome.EXPIRED,
}


async def _explain(response: aiohttp.ClientResponse, server: str) -> ApiError:
    """The error that an answer other than 200 stands for."""
    status = response.status
    try:
        body = await _read_bounded(response, MAX_ERROR)
        said = read_text(_decode(body or b"{}"), "message", MAX_ERROR)[:300]
    except (aiohttp.ClientError, OSError, ApiError):
        said = ""
    outcome = _OUTCOMES.get(status) or (Outcome.SERVER if status >= 500 or status == 429 else Outcome.CLIENT)
    text = f"{server} answered {status}" + (f": {said}" if said else "")
    return ApiError(outcome, text, _read_retry_after(response) if status in (429, 503) else 0.0)


def _read_retry_after(response: aiohttp.ClientResponse) -> float:
    """Seconds (RFC 9110 section 10.2.3; API servers send no dates), at most ten minutes."""
    written = response.headers.get("Retry-After", "")
    return min(float(written), 600.0) if written.isascii() and written.isdigit() and len(written) < 10 else 0.0


def _say(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error  # its own text has the address of an object in memory
    return str(error)[:300] or type(error).__name__

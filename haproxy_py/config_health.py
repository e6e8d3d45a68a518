"""The part of a configuration that says how the replicas of an instance are checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from haproxy_py import config_values as values
from haproxy_py.config import Health
from haproxy_py.config_error import Problems
from haproxy_py.config_reader import Reader, duration, list_of, number, scalar, section, text_only, word
from haproxy_py.config_tree import Node
from haproxy_py.config_tree import Sequence as ListNode
from haproxy_py.config_values import UnacceptableError, quote

MAX_PATH = 2048
"""Characters of the path of a check."""

MAX_BODY = 1024
"""Characters of the text that an answer must contain."""

MAX_RANGES = 16
"""Ranges of statuses."""

MAX_IN_A_ROW = 100
"""Checks in a row that `rise` and `fall` may ask for."""

_PATH = re.compile(r"/[!-~]*")
_HOST = re.compile(r"[!-~]+")
_RANGE = re.compile(r"([1-9][0-9]{2})(?:-([1-9][0-9]{2}))?")
_OF_HTTP = ("path", "method", "host", "status", "body")


def _path(text: str) -> str:
    if not _PATH.fullmatch(text) or "#" in text or len(text) > MAX_PATH:
        raise UnacceptableError(
            f"expected a path like /api/ready, at most {MAX_PATH} visible ASCII characters without '#', found {quote(text)}"
        )
    return text


def _host(text: str) -> str:
    if not _HOST.fullmatch(text) or len(text) > 255 or any(sign in text for sign in "/@?#\\,"):
        raise UnacceptableError(f"expected a host like nodered.example.com or 10.0.0.1:1880, found {quote(text)}")
    return text


def _status(text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    if not match:
        raise UnacceptableError(f"expected a status like 200 or a range like 200-399, found {quote(text)}")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 200 <= first <= last <= 599:  # a 1xx is never the end of an answer
        raise UnacceptableError(f"expected statuses from 200 to 599, the lower first, found {quote(text)}")
    return first, last


def _body(text: str) -> str:
    if not 1 <= len(text) <= MAX_BODY:
        raise UnacceptableError(f"expected a text of 1 to {MAX_BODY} characters, found {len(text)}")
    return text


_read_range: Reader[tuple[int, int]] = scalar(_status, "a status like 200 or a range like 200-399")


def _read_status(node: Node, problems: Problems) -> tuple[tuple[int, int], ...] | None:
    if isinstance(node, ListNode):
        return list_of(_read_range, MAX_RANGES)(node, problems)
    found = _read_range(node, problems)
    return None if found is None else (found,)


def _check_health(health: Health) -> str | None:
    defaults = Health()
    extra = [key for key in _OF_HTTP if getattr(health, key) != getattr(defaults, key)]
    if health.type != "http" and extra:
        return f'{" and ".join(extra)} can be checked only with "type: http", found "type: {health.type}"'
    if health.type == "http" and not health.path:
        return (
            'key "path" is missing: name a route of the flows that answers GET, because / of Node-RED answers whatever '
            "the flows do"
        )
    if health.body and health.method != "GET":
        return f"the answer to {health.method} has no body to look for a text in: use method GET"
    if health.timeout > health.interval:
        timeout, interval = values.spell_duration(health.timeout), values.spell_duration(health.interval)
        return f"timeout ({timeout}, of one check) must not exceed interval ({interval}, from one check to the next)"
    return None


_READERS: dict[str, Reader[Any]] = {
    "type": word("auto", "tcp", "http", "off"),
    "interval": duration(least=0.1, may_be_off=False),
    "timeout": duration(least=0.01, may_be_off=False),
    "rise": number(1, MAX_IN_A_ROW),
    "fall": number(1, MAX_IN_A_ROW),
    "path": text_only(_path, "a path like /api/ready"),
    "method": word("GET", "HEAD", "OPTIONS"),
    "host": text_only(_host, "a host name"),
    "status": _read_status,
    "body": text_only(_body, "a text"),
}

read_health: Callable[[Node, Problems], Health] = section(Health, _READERS, _check_health)
"""A `health`."""

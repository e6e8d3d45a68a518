"""Reads fields of an object of the Kubernetes API that may hold anything: what has another type than documented is absent."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

MAX_NAME = 253
"""Characters of the name of an object (RFC 1123 subdomain)."""

MAX_VERSION = 1024
"""Characters of a resource version: it is opaque, and stands in the query of the next watch."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


class MalformedError(ValueError):
    """An object lacks what every object of its kind has. The text says what."""


def read_mapping(holder: Any, key: str) -> dict[str, Any]:
    """A mapping; empty if it is absent, null or something else."""
    value = holder.get(key) if isinstance(holder, dict) else None
    return value if isinstance(value, dict) else {}


def read_list(holder: Any, key: str) -> list[Any]:
    """A list; empty if it is absent or null. Raises MalformedError if it is something else: then nothing is known."""
    value = holder.get(key) if isinstance(holder, dict) else None
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedError(f"its {key} is no list")
    return value


def read_text(holder: Any, key: str, most: int) -> str:
    """Text of at most that many characters; empty if it is absent, longer or something else."""
    value = holder.get(key) if isinstance(holder, dict) else None
    return value if isinstance(value, str) and len(value) <= most else ""


def read_flag(holder: dict[str, Any], key: str, absent: bool) -> bool:
    """A boolean; `absent` if it is absent, null or something else."""
    value = holder.get(key)
    return value if isinstance(value, bool) else absent


def read_name(holder: Any, key: str = "name") -> str:
    """The name of an object; empty if there is none that Kubernetes would allow (it stands in logs and answers)."""
    value = read_text(holder, key, MAX_NAME)
    return value if _NAME.fullmatch(value) else ""


def read_version(thing: Any) -> str:
    """The resource version of an object or a list. Raises MalformedError if it has none."""
    version = read_text(read_mapping(thing, "metadata"), "resourceVersion", MAX_VERSION)
    if not version:
        raise MalformedError("it has no resourceVersion")
    return version


def read_moment(holder: Any, key: str) -> float | None:
    """A time (RFC 3339) as seconds since the epoch; None if it is absent or no time."""
    try:
        return datetime.fromisoformat(read_text(holder, key, 64)).timestamp()
    except (ValueError, OverflowError):
        return None

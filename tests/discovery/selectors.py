"""Label and field selectors as the API server of the tests understands them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_REQUIREMENT = re.compile(
    r"(?P<absent>!)?(?P<key>[\w./-]+)"
    r"(?: ?(?P<sign>==|!=|=) ?(?P<value>[\w.-]*)| (?P<set>in|notin) \((?P<values>[^)]*)\))?(?:, ?|$)"
)


def matches(labels: Mapping[str, str], selector: str) -> bool:
    """Whether the labels satisfy every requirement. Raises ValueError for a selector that is none."""
    at = 0
    while at < len(selector):
        found = _REQUIREMENT.match(selector, at)
        if not found:
            raise ValueError(f"unable to parse requirement: {selector[at:]}")
        if not _satisfies(labels, found):
            return False
        at = found.end()
    return True


def _satisfies(labels: Mapping[str, str], found: re.Match[str]) -> bool:
    value = labels.get(found["key"])
    if found["sign"]:
        return (value == found["value"]) == (found["sign"] != "!=")
    if found["set"]:
        return (value in {one.strip() for one in found["values"].split(",")}) == (found["set"] == "in")
    return (value is None) == bool(found["absent"])


def is_selected(thing: Mapping[str, Any], label_selector: str, field_selector: str) -> bool:
    """Whether an object belongs to a list or watch with these selectors."""
    metadata = thing["metadata"]
    if field_selector:
        field, _, value = field_selector.partition("=")
        if field != "metadata.name":
            raise ValueError(f"field label not supported: {field}")
        if metadata["name"] != value:
            return False
    return matches(metadata.get("labels") or {}, label_selector)

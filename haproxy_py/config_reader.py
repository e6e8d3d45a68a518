"""How one part of a configuration is read: each function here makes a reader for one kind of value, list or section.

A reader takes a node of the tree. What is wrong with it goes to the problems, with its place; then there is no value.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from haproxy_py import config_values as values
from haproxy_py.config_error import Place, Problems
from haproxy_py.config_tree import Mapping, Node, Scalar, describe
from haproxy_py.config_tree import Sequence as ListNode
from haproxy_py.config_values import UnacceptableError, quote

T = TypeVar("T")
Reader = Callable[[Node, Problems], T | None]

LONGEST = 24 * 3600.0
"""Seconds. No timer is of use beyond a day; 0 switches most of them off."""


def scalar(check: Callable[[str], T], expected: str = "a value") -> Reader[T]:
    """Reads text, or a number as it was written."""

    def read(node: Node, problems: Problems) -> T | None:
        if not isinstance(node, Scalar) or node.kind not in ("text", "number"):
            problems.add(node.place, f"expected {expected}, found {describe(node)}")
            return None
        try:
            return check(node.text)
        except UnacceptableError as error:
            problems.add(node.place, str(error))
            return None

    return read


def text_only(check: Callable[[str], T], expected: str) -> Reader[T]:
    """Reads text only: what YAML takes for a number or a boolean needs quotes."""
    read_scalar = scalar(check, expected)

    def read(node: Node, problems: Problems) -> T | None:
        if isinstance(node, Scalar) and node.kind in ("number", "boolean", "date"):
            problems.add(node.place, f"expected {expected}, found {describe(node)}: text needs quotes here")
            return None
        return read_scalar(node, problems)

    return read


def file_path(expected: str) -> Reader[str]:
    """Reads the path of a file. A relative one counts from the folder of the configuration file; `~` is the user's home."""
    read_text: Reader[str] = text_only(values.file_path, expected)

    def read(node: Node, problems: Problems) -> str | None:
        text = read_text(node, problems)
        if text is None:
            return None
        return os.path.join(os.path.dirname(node.place.source), os.path.expanduser(text))

    return read


def duration(least: float = 0.001, may_be_off: bool = True) -> Reader[float]:
    def check(text: str) -> float:
        seconds = values.duration(text)
        if seconds == 0 and may_be_off:
            return seconds
        if seconds == 0:
            raise UnacceptableError("may not be 0: at least " + values.spell_duration(least))
        if not least <= seconds <= LONGEST:
            raise UnacceptableError(
                f"{text} is outside {values.spell_duration(least)} to {values.spell_duration(LONGEST)}"
            )
        return seconds

    return scalar(check, "a duration like 250ms, 5s, 2m or 1h")


def size(least: int, most: int, may_be_off: bool = False) -> Reader[int]:
    def check(text: str) -> int:
        octets = values.size(text)
        if not least <= octets <= most and not (octets == 0 and may_be_off):
            raise UnacceptableError(f"{text} is outside {values.spell_size(least)} to {values.spell_size(most)}")
        return octets

    return scalar(check, "a size like 512B, 16KiB or 1MiB")


def number(least: int, most: int, auto: bool = False) -> Reader[int]:
    """Reads a number; where there is an `auto`, the model spells it 0."""
    expected = f"auto or a number from {least} to {most}" if auto else f"a number from {least} to {most}"

    def check(text: str) -> int:
        if auto and text == "auto":
            return 0
        try:
            found = values.number(text)
        except UnacceptableError:
            raise UnacceptableError(f"expected {expected}, found {quote(text)}") from None
        if not least <= found <= most:
            raise UnacceptableError(f"{text} is outside {least} to {most}")
        return found

    return scalar(check, expected)


def word(*words: str, later: dict[str, str] | None = None) -> Reader[str]:
    """Reads one of some words; `later` is as in `read_keys`.

    YAML 1.1 makes a boolean of a bare `off`; where that is one of the words, the word is meant.
    """
    expected = " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)

    def check(text: str) -> str:
        if later and text in later:
            raise UnacceptableError(f"{quote(text)} is not available yet: {later[text]}")
        if text not in words:
            meant = values.nearest(text, words)
            raise UnacceptableError(
                f"expected {expected}, found {quote(text)}" + (f", did you mean {quote(meant)}?" if meant else "")
            )
        return text

    read_scalar = scalar(check, expected)

    def read(node: Node, problems: Problems) -> str | None:
        if "off" in words and isinstance(node, Scalar) and node.kind == "boolean" and not is_true(node):
            return "off"
        return read_scalar(node, problems)

    return read


def boolean(node: Node, problems: Problems) -> bool | None:
    if not isinstance(node, Scalar) or node.kind != "boolean":
        is_quoted = isinstance(node, Scalar) and node.text.lower() in ("true", "false", "yes", "no", "on", "off")
        advice = " in quotes: write it without" if is_quoted else ""
        problems.add(node.place, f"expected true or false, found {describe(node)}{advice}")
        return None
    return is_true(node)


def percent(node: Node, problems: Problems) -> int | None:
    """Reads a share like `20%`."""
    return scalar(values.percent, "a share like 20%")(node, problems)


def is_true(node: Scalar) -> bool:
    return node.text.lower() in ("true", "yes", "on")


def list_of(read_item: Reader[T], most: int, may_be_empty: bool = False) -> Reader[tuple[T, ...]]:
    def read(node: Node, problems: Problems) -> tuple[T, ...] | None:
        if not isinstance(node, ListNode):
            problems.add(node.place, f"expected a list, found {describe(node)}")
            return None
        if not node.items and not may_be_empty:
            problems.add(node.place, "expected at least one entry, found an empty list")
        if len(node.items) > most:
            problems.add(node.place, f"{len(node.items)} entries are too many: at most {most}")
            return None
        found = [read_item(item, problems) for item in node.items]
        return tuple(item for item in found if item is not None)

    return read


def once(read_item: Reader[T], seen: dict[Any, Place]) -> Reader[T]:
    """Reads what may be there only once among everything that was read with the same `seen`."""

    def read(node: Node, problems: Problems) -> T | None:
        item = read_item(node, problems)
        if item is not None and item in seen:
            problems.add(node.place, f"{describe(node)} is already there: {seen[item]}")
        elif item is not None:
            seen[item] = node.place
        return item

    return read


def kept(check: Callable[[str], object]) -> Callable[[str], str]:
    """A check whose text is kept as it was written."""

    def keep(text: str) -> str:
        check(text)
        return text

    return keep


def read_keys(
    node: Node,
    readers: dict[str, Reader[Any]],
    problems: Problems,
    *,
    needed: Sequence[str] = (),
    later: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The values of a mapping, by key, read in the order of `readers`; keys that are absent or wrong are left out.

    `later` names keys that only a later version will read, with what to do until then.
    """
    if not isinstance(node, Mapping):
        problems.add(node.place, f"expected a mapping of keys to values, found {describe(node)}")
        return {}
    later = later or {}
    for key, place in node.keys.items():
        if key in later:
            problems.add(place, f"not available yet: {later[key]}")
        elif key not in readers:
            meant = values.nearest(key, [*readers, *later])
            hint = f"did you mean {quote(meant)}?" if meant else "known here: " + ", ".join(readers)
            problems.add(dataclasses.replace(place, path=node.place.path), f"unknown key {quote(key)}, {hint}")
    for key in needed:
        if key not in node.values:
            problems.add(node.place, f"key {quote(key)} is missing")
    found = {key: read(node.values[key], problems) for key, read in readers.items() if key in node.values}
    return {key: item for key, item in found.items() if item is not None}


def section(
    make: Callable[..., T], readers: dict[str, Reader[Any]], check: Callable[[T], str | None] | None = None
) -> Callable[[Node, Problems], T]:
    """Reads a mapping whose keys are the fields of a dataclass that has a default for each.

    `check` says what is wrong between the fields; it is asked only when each is right by itself.
    """

    def read(node: Node, problems: Problems) -> T:
        before = len(problems)
        section = make(**read_keys(node, readers, problems))
        wrong = check(section) if check and len(problems) == before else None
        if wrong:
            problems.add(node.place, wrong)
        return section

    return read

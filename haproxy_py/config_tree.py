"""The text of a configuration as a tree in which every part knows its place.

The language is YAML without its surprises: one document, no tags, no key twice, no merge keys. Scalars stay as they
were written (`5`, `off`, `1:30`), with what YAML takes them for beside them, so that whoever reads a value decides what
it means. Anchors and aliases are accepted, within `MAX_PARTS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from haproxy_py.config_error import ConfigError, Place, Problem, Problems
from haproxy_py.config_values import quote

MAX_BYTES = 1024 * 1024
"""Size of a file. 1,024 instances with some replicas need a quarter of it; a ConfigMap may not be larger either."""

MAX_DEPTH = 16
"""Nesting. A real configuration has six levels; the YAML library recurses for each."""

MAX_PARTS = 200_000
"""Keys and values after aliases are expanded: ten lines of aliases to aliases can otherwise mean billions."""

_KINDS = {
    "tag:yaml.org,2002:str": "text",
    "tag:yaml.org,2002:int": "number",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:bool": "boolean",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "date",
    "tag:yaml.org,2002:merge": "text",
    "tag:yaml.org,2002:value": "text",
}
_MAPPING_TAG = "tag:yaml.org,2002:map"
_SEQUENCE_TAG = "tag:yaml.org,2002:seq"
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Scalar:
    text: str  # as written, quotes and escapes resolved
    kind: str  # text | number | boolean | nothing | date: what YAML 1.1 takes it for
    place: Place


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Mapping:
    values: dict[str, Node]
    keys: dict[str, Place]  # where each key stands; the path is that of its value
    place: Place


Node = Scalar | Sequence | Mapping


def describe(node: Node) -> str:
    """A node in the words of an error message."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    if node.kind == "nothing":
        return "nothing"
    if node.kind == "text":
        return quote(node.text)
    return f"the {node.kind} {node.text[:40]}"


def read_tree(text: str, source: str, problems: Problems) -> Node:
    """The one document in `text`.

    Duplicate keys and tags are added to `problems` and reading goes on; text that is no YAML at all, is too deep or too
    large raises `ConfigError`, because nothing sensible can be said about the rest.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise _refusal(Place(source), f"the file is larger than {MAX_BYTES // 1024}KiB")
    try:
        document = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _refusal(_place(error.problem_mark or error.context_mark, source, ""), _complaint(error)) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(source, before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1)
        raise _refusal(place, f"a character that YAML does not allow: U+{ord(text[error.position]):04X}") from error
    if document is None:
        raise _refusal(Place(source), "the file is empty")
    return _Conversion(source, problems).convert(document, "", 1)


_VARIABLE = re.compile(r"\$\{\w+[^}]*\}")
"""`${NAME}`, also with a default as a shell has it."""


class _Loader(yaml.SafeLoader):
    """Composes nodes with their marks, and refuses to go deeper than `MAX_DEPTH`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Conversion:
    """Turns the nodes of the YAML library into the tree, once per file."""

    def __init__(self, source: str, problems: Problems) -> None:
        self._source = source
        self._problems = problems
        self._parts = 0

    def convert(self, node: yaml.Node, path: str, depth: int) -> Node:
        place = _place(node.start_mark, self._source, path)
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _refusal(place, f"more than {MAX_PARTS:,} keys and values, aliases expanded")
        if depth > MAX_DEPTH:
            raise _refusal(place, f"nested deeper than {MAX_DEPTH} levels: an alias contains itself")
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node.tag == _MAPPING_TAG, node.tag, place)
            return self._convert_mapping(node, place, depth)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node.tag == _SEQUENCE_TAG, node.tag, place)
            items = [self.convert(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)]
            return Sequence(tuple(items), place)
        self._check_tag(node.tag in _KINDS, node.tag, place)
        if _VARIABLE.search(node.value):
            # Taken as it stands it would be the name of a file or a host that nobody meant.
            self._problems.add(
                place, f"environment variables are not expanded, found {quote(node.value)}: write the value"
            )
        return Scalar(node.value, _KINDS.get(node.tag, "text"), place)

    def _convert_mapping(self, node: yaml.MappingNode, place: Place, depth: int) -> Mapping:
        values: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        for key_node, value_node in node.value:
            key_place = _place(key_node.start_mark, self._source, place.path)
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.add(key_place, "a key must be a word, not a list or a mapping")
                continue
            key: str = key_node.value
            if key in values:
                self._problems.add(key_place, f"key {quote(key)} is there twice, first in line {keys[key].line}")
                continue
            spelled = key if _PLAIN_KEY.fullmatch(key) else quote(key)
            path = f"{place.path}.{spelled}" if place.path else spelled
            keys[key] = _place(key_node.start_mark, self._source, path)
            values[key] = self.convert(value_node, path, depth + 1)
        return Mapping(values, keys, place)

    def _check_tag(self, known: bool, tag: str, place: Place) -> None:
        if not known:
            self._problems.add(place, f"tags are not accepted: {quote(tag)}")


def _place(mark: yaml.Mark | None, source: str, path: str) -> Place:
    if mark is None:
        return Place(source, path=path)
    return Place(source, mark.line + 1, mark.column + 1, path)


def _refusal(place: Place, text: str) -> ConfigError:
    return ConfigError((Problem(place, text),))


def _complaint(error: yaml.MarkedYAMLError) -> str:
    """What the YAML library says, on one line."""
    said = [part for part in (error.context, error.problem) if part]
    return "not readable as YAML: " + ", ".join(said) if said else "not readable as YAML"

"""REQ-25, the law of targets: whatever passes reads the same to the gate and to every parser behind it, none of which throws.

A real Node reads what the proxy would forward: `url.parse`, `new URL` and the `parseurl` of both Express versions. TARGETS
says how many that pass are made up for each Node (`make targets`: a million).
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from haproxy_py.datapath.gate import path_of_url
from haproxy_py.datapath.passage import forward_target

SEED = 20261127
MADE_UP = int(os.environ.get("TARGETS", "25000"))
AT_ONCE = 50_000

NODE_RED = Path(__file__).parents[1] / "node_red"
NODES = [NODE_RED / version / "node_modules" / ".bin" / "node" for version in ("v4", "v5")]

PIECES = (
    "/", "/", "/", "//", "///", "/\\", "\\", "\\\\", "@", "a@b", "user:pw@", "@[", "[", "]", "[::1]", "[::1", "xn--",
    "xn--a", ":", ":80", ":x", "::", "?", "??", "?/", "?//a@b", "#", ".", "..", "/.", "/..", "/../", "/./", "...",
    ".%2e", "%2E.", "%2e", "%2e%2e", "%252e", "%2f", "%2F", "%5c", "%00", "%09", "%0d%0a", "%20", "%23", "%3f", "%40",
    "%ff", "%e2%82%ac", "%", "%2", "%zz", "%u0041", ";", ";x", "=", "&", "+", ",", "!", "$", "'", '"', "`", "<", ">",
    "{", "}", "|", "^", "~", "(", ")", "*", "-", "_", "\t", " ", "\x0b", "\x0c", "\r", "\x00", "\x7f", "\x85", "\xa0",
    "\xff", "http:", "http://", "https://", "HTTP://h", "http://h/", "ws://", "javascript:", "file:", "data:",
    "mailto:a@b", "blob:", "c:", "C|", "h", "h:80", "127.0.0.1", "0x7f.1", "comms", "flows", "a", "B", "0", "9", "api",
    "hello", "ui", "socket.io", "x" * 60,
)  # fmt: skip

CORPUS = [
    "".join(parts)
    for parts in product(
        ("", "/", "//", "///", "/\\", "\\/", "http://h", "http://h/", "HTTPS://h:1//", "http://u@h/", "http:/", "http://[::1]//"),
        ("", "a@b", "a@[", "a@xn--", "@", ":@:", "..", "%2e%2E", ".", "a%2fb/%2e%2e", "a//..", ";/..", "c:", "C|/..",
         "%", "'\"<>^`{|}"),
        ("", "/", "/comms", "//comms", "/..", "/../comms", "/%2e", "\\comms", "?", "?//a@[", "?\\", "?#", "#", "@[", ":80", "\t"),
    )
] + ["*", "**", "*/a"]  # fmt: skip


def make_target(source: random.Random) -> str:
    """Mostly pieces that mean something to some parser, put together without a plan, behind a slash."""
    text = "".join(source.choices(PIECES, k=source.randrange(1, 9)))
    kind = source.random()
    if kind < 0.05:
        return text
    if kind < 0.15:
        return "http://h" + text
    if kind < 0.25:
        return "/" + "".join(map(chr, source.choices(range(0x21, 0x7F), k=source.randrange(1, 30))))
    return "/" + text


def encode_all(path: str) -> str:
    """A path with every sign written out that `url.parse` or `new URL` may write percent-encoded."""
    return re.sub("""["'<>^`{|}]""", lambda found: f"%{ord(found[0]):02X}", path)


class Parsers:
    """A Node that parses whole batches."""

    def __init__(self, node: Path) -> None:
        self.node = node

    def find_others(self, targets: list[str]) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
        """Every target for which a parser finds another path than stands there, with what these find."""
        folders = [str(NODE_RED / version / "node_modules" / "parseurl") for version in ("v4", "v5")]
        done = subprocess.run(
            [self.node, str(Path(__file__).with_name("targets.js")), *folders],
            input="".join(target + "\n" for target in targets),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == len(targets)
        return ((target, json.loads(line)) for target, line in zip(targets, lines, strict=True) if line)


@pytest.fixture(params=NODES, ids=["v4", "v5"])
def parsers(request: pytest.FixtureRequest) -> Parsers:
    assert request.param.exists(), "Node.js is missing: run tests/install, which gets it together with Node-RED"
    return Parsers(request.param)


def check_law(parsers: Parsers, targets: list[str]) -> int:
    """Raises AssertionError for a target that breaks the law; gives how many passed the proxy's own check."""
    passed = []
    for target in targets:
        forwarded = forward_target(b"GET", target.encode("latin-1"))
        if forwarded is not None:
            passed.append(forwarded.decode("ascii"))
    for target, others in parsers.find_others(passed):
        path = target.partition("?")[0]
        for name, found in others:
            assert found is not None, f"{name} throws or finds an authority: {target!r}"
            assert not name.startswith("parseurl"), f"{name} finds {found!r} in {target!r}"
            expected = path_of_url(path.encode()).decode() if name == "new URL" else path
            assert encode_all(found) == encode_all(expected), f"{name} finds {found!r} in {target!r}"
    return len(passed)


def test_every_target_of_the_corpus_that_passes_reads_the_same_to_all(parsers: Parsers) -> None:
    assert check_law(parsers, CORPUS) > 700


def test_every_made_up_target_that_passes_reads_the_same_to_all(parsers: Parsers) -> None:
    source = random.Random(SEED)
    left = MADE_UP
    while left > 0:
        passed = check_law(parsers, [make_target(source) for _ in range(min(2 * left + 100, AT_ONCE))])
        assert passed > 0
        left -= passed


@pytest.mark.parametrize(
    "target", [b"//", b"//a", b"//a@b/comms", b"///a", b"http://h//a", b"HTTPS://h//?a", b"http://h//"]
)
def test_no_path_begins_with_two_slashes(target: bytes) -> None:
    assert forward_target(b"GET", target) is None
    assert forward_target(b"OPTIONS", target) is None


@pytest.mark.parametrize(
    ("target", "forwarded"),
    [
        (b"/a//b", b"/a//b"),
        (b"/?//a@b", b"/?//a@b"),
        (b"/./", b"/./"),
        (b"http://h", b"/"),
        (b"http://h?//", b"/?//"),
        (b"http://h/a", b"/a"),
    ],
)
def test_two_slashes_elsewhere_pass(target: bytes, forwarded: bytes) -> None:
    assert forward_target(b"GET", target) == forwarded

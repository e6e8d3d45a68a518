"""`haproxy-py demo`: its parser, which hands over to the demo itself."""

from __future__ import annotations

import argparse
import sys
from types import ModuleType

import pytest

from haproxy_py.cli import main


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], (False, "127.0.0.1:8080", "127.0.0.1:9090")),
        (["--node-red", "--listen", "a:1", "--ops", "b:2"], (True, "a:1", "b:2")),
    ],
)
def test_the_demo_is_given_its_flags(
    flags: list[str], expected: tuple[bool, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[bool, str, str]] = []
    demo = ModuleType("haproxy_py.demo")

    def run_demo(args: argparse.Namespace) -> int:
        given.append((args.node_red, args.listen, args.ops))
        return 0

    demo.run_demo = run_demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "haproxy_py.demo", demo)
    assert main(["demo", *flags]) == 0
    assert given == [expected]

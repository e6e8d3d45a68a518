"""Faults under load. Each test has a short form for every run and a full one, `make chaos`, and says its figures at the end."""

from __future__ import annotations

import os
from typing import TypeVar

import pytest

T = TypeVar("T")

FULL = os.environ.get("CHAOS") == "full"

_figures: list[str] = []


class Extent:
    """How much of a fault: the short form is part of `make test`."""

    full = FULL

    def choose(self, short: T, full: T) -> T:
        return full if FULL else short


class Figures:
    """Lines that say what a test measured."""

    def add(self, line: str) -> None:
        _figures.append(line)


@pytest.fixture
def extent() -> Extent:
    return Extent()


@pytest.fixture
def figures() -> Figures:
    return Figures()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if FULL:
        for item in items:
            if "/chaos/" in str(item.path):
                item.add_marker(pytest.mark.timeout(1800))
        return
    long = [item for item in items if item.get_closest_marker("chaos")]
    items[:] = [item for item in items if item not in long]
    config.hook.pytest_deselected(items=long)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("faults under load" + ("" if FULL else ", short form"))
        for line in _figures:
            terminalreporter.write_line(line)

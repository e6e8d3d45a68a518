"""The data path is compiled, all of it, and its numbers agree with the names that the rest of the program uses."""

from __future__ import annotations

import importlib
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import pytest

import haproxy_py.datapath
from haproxy_py import counters, reasons

MODULES = sorted(
    path.stem for path in Path(haproxy_py.datapath.__file__).parent.glob("*.py") if path.stem != "__init__"
)


@pytest.mark.parametrize("name", MODULES)
def test_module_is_loaded_from_an_extension(name: str) -> None:
    module = importlib.import_module(f"haproxy_py.datapath.{name}")
    assert module.__spec__ is not None
    assert isinstance(module.__spec__.loader, ExtensionFileLoader)


def test_reasons_have_the_same_numbers_everywhere() -> None:
    reason = importlib.import_module("haproxy_py.datapath.reason").Reason
    names = {member.name.lower(): int(member) for member in reason if member.name != "NONE"}
    assert names == {name: index for index, name in enumerate(counters.REASONS)}
    assert tuple(reasons.REASONS) == counters.REASONS
    assert int(reason.NONE) not in range(len(counters.REASONS))

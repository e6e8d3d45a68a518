"""The C programs of the suite, built once, and replicas that run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.load import Generators
from benchmarks.replicas import run_replicas


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for built programs."""
    return tmp_path_factory.mktemp("built")


@pytest.fixture(scope="session")
def replicas(built: Path) -> Iterator[tuple[int, ...]]:
    with run_replicas(built, ()) as ports:
        yield ports


@pytest.fixture(scope="session")
def generators(built: Path) -> Generators:
    return Generators(built, ())

"""API servers for tests: the own one, and a real one where TEST_KUBECONFIG names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.discovery.api_server import ApiServer
from tests.discovery.cluster import REAL, SAY_ABSENT, AnyCluster, OwnCluster, RealCluster

CLUSTERS = ["own", "real"] if REAL else ["own"]


def pytest_report_header() -> str:
    return f"Kubernetes: {REAL}" if REAL else SAY_ABSENT


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    """The own API server, over TLS."""
    with ApiServer(tmp_path, tls=True) as server:
        yield server


@pytest.fixture(params=CLUSTERS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyCluster]:
    """The own API server, then the real one if there is one."""
    if request.param == "own":
        yield OwnCluster(request.getfixturevalue("api"))
        return
    with RealCluster(Path(REAL), tmp_path) as real:
        yield real

"""How many connections a worker may have."""

from __future__ import annotations

import pytest

from haproxy_py.control.limits import share_connections


@pytest.mark.parametrize(
    ("configured", "file_limit", "listeners", "workers", "each"),
    [
        (0, 20_000, 1, 1, 9936),
        (0, 20_000, 1, 4, 2484),
        (0, 20_000, 2, 4, 1242),
        (1000, 20_000, 2, 4, 250),
        (1, 20_000, 1, 4, 1),
        (0, 100, 1, 1, 1),
    ],
)
def test_connections_are_shared_out(configured: int, file_limit: int, listeners: int, workers: int, each: int) -> None:
    assert share_connections(configured, file_limit, listeners, workers) == each

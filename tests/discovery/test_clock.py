"""A wall clock that jumps: nothing of discovery depends on it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.discovery.api_server import ApiServer
from tests.discovery.pods import Pods
from tests.discovery.watcher import Watcher, describe_kubernetes
from tests.load import Load

HOUR = 3600


@pytest.fixture
def clock_library(tmp_path: Path) -> Path:
    library = tmp_path / "wall_clock.so"
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, capture_output=True)
    return library


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, clock_library: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    with ApiServer(tmp_path) as api, Pods(api) as pods:
        pods.scale(1)
        proxy = Watcher(tmp_path, [describe_kubernetes(api.write_kubeconfig())])
        proxy.add_environment(LD_PRELOAD=str(clock_library), CLOCK_FILE=str(clock))
        with proxy, Load(proxy.port, threads=2) as load:
            proxy.wait_for(lambda: set(proxy.list_replicas()) == pods.names)
            for offset in (26 * HOUR, -26 * HOUR, 0):
                clock.write_text(str(offset))
                began = time.monotonic()
                load.run_for(20)
                pods.start()
                proxy.wait_for(lambda: set(proxy.list_replicas()) == pods.names)
                api.end_watches()  # whatever waits, waits by the monotonic clock
                api.wait_for_watch(since=began)
                pods.end(min(pods.names))
                proxy.wait_for(lambda: set(proxy.list_replicas()) == pods.names)
                assert len(api.list_requests(since=began)) <= 4
            assert load.list_failures() == []
        stamps = {line[:10] for line in proxy.log.splitlines() if line[:2] == "20"}
        assert len(stamps) >= 3, "the clock of the proxy did jump"

"""The configuration changes again and again under load: nothing that the change does not concern may notice."""

from __future__ import annotations

import http.client
import json
import signal
import time
from pathlib import Path
from typing import Any

from tests.chaos.conftest import Extent, Figures
from tests.chaos.replicas import START_WITHIN, Replicas, wait_for_all
from tests.chaos.tunnels import Tunnels
from tests.load import Load
from tests.proxy_process import ProxyProcess, describe_instance, find_free_ports

RATE = 2000.0


def read_status(proxy: ProxyProcess) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(proxy.get_ops("/api/v1/status")[1])
    return found


def change(config: dict[str, Any], turn: int, urls: list[str], port: int, extra: int) -> None:
    """Something else every time: listeners, replicas, gate, timeouts, limits."""
    listeners = [{"address": f"127.0.0.1:{port}", "connections": 20_000 + turn}]
    if turn % 2:
        listeners.append({"address": f"127.0.0.1:{extra}"})
    config["listen"] = listeners
    config["instances"] = [
        describe_instance(
            urls[: 3 - turn % 3 // 2],
            gate={"deny": [f"/closed-{turn}"]},
            timeouts={"response_head": f"{30 + turn % 7}s"},
            limits={"request_fields": 50 + turn % 50},
        )
    ]
    config["workers"] = 2 if turn < 5 else 3
    config["log"] = {"access": "off" if turn % 4 else "json"}


def wait_until_in_force(proxy: ProxyProcess, applied: int) -> None:
    end = time.monotonic() + START_WITHIN
    while f'haproxy_py_config_reloads_total{{outcome="applied"}} {applied}.0' not in proxy.get_ops("/metrics")[1]:
        assert time.monotonic() < end, proxy.log
        time.sleep(0.02)


def ask(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_reloads_fail_no_request_and_close_no_tunnel(tmp_path: Path, extent: Extent, figures: Figures) -> None:
    times, tunnels_open = extent.choose((8, 100), (100, 1000))
    (extra,) = find_free_ports(1)
    with (
        Replicas(3) as replicas,
        ProxyProcess(tmp_path, [describe_instance(replicas.urls)], workers=2) as proxy,
        Load(proxy.port, threads=24, pause=0, rate=RATE) as load,
    ):
        wait_for_all(load, 3)
        with Tunnels(proxy.port, tunnels_open) as tunnels:
            began = time.monotonic()
            for turn in range(1, times + 1):
                change(proxy.config, turn, replicas.urls, proxy.port, extra)
                proxy.write_config()
                if turn % 8:  # else the change of the file must do
                    proxy.signal(signal.SIGHUP)
                wait_until_in_force(proxy, turn)
                if turn % 2:
                    assert ask(extra, "/api/hello") == 200
                    assert ask(extra, f"/closed-{turn}") == 403
            took = time.monotonic() - began
            load.run_for(1000)
            assert load.list_failures(since=began) == []
            assert tunnels.count_alive() == tunnels_open
            requests = load.total
            assert sum(replica["active_tunnels"] for replica in read_status(proxy)["instances"][0]["replicas"]) > 0
    figures.add(
        f"{times} reloads in {took:.0f} s under load, {tunnels_open} open WebSockets: {requests} requests, 0 failed, "
        "0 tunnels closed"
    )

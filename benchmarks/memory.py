"""Memory: a haproxy_py worker at rest, and what idle connections and idle tunnels add to a proxy."""

from __future__ import annotations

import http.client
from dataclasses import replace

from benchmarks import accounting
from benchmarks.checks import ask
from benchmarks.load import Generators, LoadError
from benchmarks.machine import UnavailableError
from benchmarks.progress import Progress
from benchmarks.proxies import Job, Proxy, RunningProxy
from benchmarks.results import Memory, Results
from benchmarks.scenarios import Scenario, find_scenario

AT_REST = "worker at rest"
KEEP_ALIVE = "idle keep-alive connection"
TUNNEL = "idle WebSocket tunnel"

LIMITS = {AT_REST: 25 * 2**20, KEEP_ALIVE: 2.5 * 2**10, TUNNEL: 6 * 2**10}
"""Octets of haproxy_py, at most."""

FIRST = 200
"""Connections that stand before anything is counted: what a proxy takes once belongs to no connection."""

MORE = 1800
"""Connections whose memory is counted, all in addition to the first."""

SECONDS = 5.0
"""What one proxy takes, about."""


def measure_memory(
    proxies: list[Proxy], job: Job, generators: Generators, results: Results, progress: Progress
) -> None:
    """Start each proxy anew, so that nothing of the load before is counted; into the results."""
    for proxy in proxies:
        progress.begin(f"memory, {proxy.name}", SECONDS)
        try:
            _measure(proxy, job, generators, results)
        except (UnavailableError, LoadError, OSError, http.client.HTTPException) as problem:
            progress.say(f"memory of {proxy.name} is left out: {problem}")
            results.remarks.append(f"memory of {proxy.name} is left out: {problem}")


def _measure(proxy: Proxy, job: Job, generators: Generators, results: Results) -> None:
    for what, scenario in ((KEEP_ALIVE, find_scenario("small")), (TUNNEL, find_scenario("websocket"))):
        running = proxy.start(replace(job, folder=job.folder / proxy.name / scenario.name))
        try:
            ask(running.port, "/api/hello")  # its processes have all started
            if proxy.name == "haproxy_py" and what == KEEP_ALIVE:
                results.memory.append(Memory(AT_REST, proxy.name, read_worker(running)))
            results.memory.append(Memory(what, proxy.name, growth(running, scenario, generators)))
        finally:
            running.stop()


def read_worker(running: RunningProxy) -> int:
    """Resident octets of haproxy_py's worker process. Raises UnavailableError."""
    for pid in accounting.list_processes(running.pid):
        if "haproxy_py.worker" in accounting.read_command(pid):
            return accounting.read_status(pid, "VmRSS")
    raise UnavailableError("no worker process was found")


def growth(running: RunningProxy, scenario: Scenario, generators: Generators) -> float:
    """Octets that one more connection adds while it rests after its first exchange. Raises LoadError."""
    with generators.hold(scenario, running.port, FIRST):
        before = accounting.read_memory(running.pid)
        with generators.hold(scenario, running.port, MORE):
            return (accounting.read_memory(running.pid) - before) / MORE

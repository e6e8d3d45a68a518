"""The load generator: wrk, in a closed loop, and what it says afterwards."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scenarios import Scenario, write_script


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of load came to."""

    requests: int
    seconds: float
    wrong: int  # answers outside 2xx and 3xx
    errors: int  # of connecting, reading, writing, and timeouts
    p50: float  # milliseconds, in a closed loop: no figure to compare latencies by
    p99: float


class LoadError(Exception):
    """The load generator did not do its work."""


def run_load(scenario: Scenario, port: int, seconds: float, core: int | None, folder: Path) -> Load:
    """Load one port for a while. Raises LoadError."""
    script = folder / f"{scenario.name}.lua"
    script.write_text(write_script(scenario))
    command = ["wrk", "-t1", f"-c{scenario.connections}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
    command.append(f"http://127.0.0.1:{port}{scenario.path}")
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            requests, micros, wrong, errors, p50, p99 = map(int, line.split()[1:])
            return Load(requests, micros / 1e6, wrong, errors, p50 / 1000, p99 / 1000)
    raise LoadError(f"wrk gave no result: {(done.stderr or done.stdout).strip()[-300:]}")

"""The replicas behind every proxy: one small process that listens on many ports."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import compile_c, free_ports, pin, wait_for

MOST = 200
"""Replicas that listen: two for nearly everything, all of them to see what many cost."""


@contextmanager
def run_replicas(folder: Path, cores: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The replicas' ports, while they run. Raises UnavailableError."""
    program = compile_c("replica", folder)
    ports = free_ports(MOST)
    process = subprocess.Popen([*pin(cores), str(program), *map(str, ports)], start_new_session=True)
    try:
        wait_for(ports[-1], process)
        yield tuple(ports)
    finally:
        process.kill()
        process.wait()

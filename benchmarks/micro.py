"""Micro-benchmarks of the compiled functions, called in a C loop: nanoseconds per call.

The functions have no Python face, so `micro.pyx` reaches them as the data path does: it is compiled against the package's
`.pxd` files when the suite runs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import haproxy_py
from benchmarks.machine import FOLDER, UnavailableError, find_compiler, last_line, pin
from benchmarks.results import Micro

SECONDS = 12.0
"""What compiling and measuring takes, about."""

MEASURE = "import json, micro; print(json.dumps(micro.measure()))"


def measure_micros(folder: Path, cores: tuple[int, ...]) -> list[Micro]:
    """Every function of `micro.pyx`. Raises UnavailableError."""
    compile_micro(folder)
    root = str(Path(haproxy_py.__file__).parent.parent)
    done = _run(
        [*pin(cores), sys.executable, "-c", MEASURE], folder, {"PYTHONPATH": f"{folder}:{root}:{FOLDER.parent}"}
    )
    figures: dict[str, float] = json.loads(done)
    return [Micro(function, nanoseconds) for function, nanoseconds in figures.items()]


def compile_micro(folder: Path) -> None:
    """Build the extension module into `folder`. Raises UnavailableError."""
    compiler = find_compiler()
    if importlib.util.find_spec("Cython") is None:
        raise UnavailableError("Cython is not installed (pip install Cython)")
    root = str(Path(haproxy_py.__file__).parent.parent)
    source = folder / "micro.c"
    _run([sys.executable, "-m", "cython", "-3", "-I", root, "-o", str(source), str(FOLDER / "micro.pyx")], folder)
    include = sysconfig.get_paths()["include"]
    target = folder / f"micro{sysconfig.get_config_var('EXT_SUFFIX')}"
    _run([compiler, "-O3", "-shared", "-fPIC", "-w", f"-I{include}", "-o", str(target), str(source)], folder)


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})}
    )
    if done.returncode:
        raise UnavailableError(f"building or running micro.pyx failed: {last_line(done.stderr)}")
    return done.stdout

"""Workers that can be made to stand still: each obeys SIGUSR2 by never coming back from a signal handler."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]

_CUSTOM = """
import signal, sys, time

def spin(number, frame):
    while True:
        pass

def wait(number, frame):
    time.sleep(3600)

if "haproxy_py.worker" in sys.orig_argv:
    signal.signal(signal.SIGUSR2, {how})
"""


def make_stalling(folder: Path, how: str) -> dict[str, str]:
    """The environment of a proxy whose workers `spin` or `wait` at SIGUSR2. Python imports `sitecustomize` when it starts."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_CUSTOM.format(how=how))
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}

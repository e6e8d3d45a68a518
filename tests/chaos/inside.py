"""What a test has workers do at SIGUSR2: stand still, or say what lives in them. Python imports `sitecustomize` by itself."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITHIN = 20.0

_STALL = """
import signal, sys, time

def spin(number, frame):
    while True:
        pass

def wait(number, frame):
    time.sleep(3600)

if "haproxy_py.worker" in sys.orig_argv:
    signal.signal(signal.SIGUSR2, {how})
"""

_COUNT = """
import collections, gc, json, os, signal, sys

def count(number, frame):
    gc.collect()
    kinds = collections.Counter()
    for one in gc.get_objects():
        kind = type(one)
        if kind.__module__.partition(".")[0] in ("haproxy_py", "asyncio", "_asyncio", "uvloop"):
            kinds[kind.__module__ + "." + kind.__name__] += 1
    file = os.path.join({folder!r}, str(os.getpid()))
    with open(file + ".new", "w") as out:
        json.dump(kinds, out)
    os.rename(file + ".new", file)

if "haproxy_py.worker" in sys.orig_argv:
    signal.signal(signal.SIGUSR2, count)
"""


def make_stalling(folder: Path, how: str) -> dict[str, str]:
    """The environment of a proxy whose workers `spin` or `wait` for ever."""
    return _customize(folder, _STALL.format(how=how))


def make_counting(folder: Path) -> dict[str, str]:
    """The environment of a proxy whose workers count their objects for `count_objects`."""
    return _customize(folder, _COUNT.format(folder=str(folder)))


def count_objects(folder: Path, pid: int) -> dict[str, int]:
    """The objects of the proxy and of its event loop in a worker, by type; not those that live as long as the process."""
    file = folder / str(pid)
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    end = time.monotonic() + WITHIN
    while not file.exists():
        assert time.monotonic() < end, f"worker {pid} does not count its objects"
        time.sleep(0.01)
    counted: dict[str, int] = json.loads(file.read_text())
    return counted


def _customize(folder: Path, text: str) -> dict[str, str]:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(text)
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}

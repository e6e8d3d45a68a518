"""How a child process is started, so that it runs the code of this very package, whatever the current folder holds.

`python -m` looks into the current folder first, where anybody may have left a `json.py` or a `haproxy_py/`. So this file is
run by its path with `-P`, and takes the package that it lies in: not the first of that name that could be found.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path


def make_command(module: str) -> tuple[str, ...]:
    """The start of a command that runs a module of this package as its main program; its arguments follow."""
    return (sys.executable, "-P", os.path.abspath(__file__), module)


def make_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child: an empty entry of PYTHONPATH means the current folder, which nobody has named.

    Entries that are relative are what they were for this process, also for a child that runs in another folder.
    """
    child = dict(environment)
    entries = [os.path.abspath(entry) for entry in child.pop("PYTHONPATH", "").split(os.pathsep) if entry]
    if entries:
        child["PYTHONPATH"] = os.pathsep.join(entries)
    return child


def main(arguments: list[str]) -> None:
    """Become the module that the first argument names."""
    package = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "haproxy_py", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{package} is no package, and yet this file lies in it")
    found = sys.modules["haproxy_py"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Whether the compiled part of this package is there and belongs to this Python, asked before any port is opened."""

from __future__ import annotations

import re
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

_DATAPATH = Path(__file__).resolve().parent / "datapath"
_MAX_NAMED = 3
_CIMPORT = re.compile(rb"\bfrom (?:cython\.cimports\.)?haproxy_py\.datapath\.(\w+) c?import\b")


class CompiledError(Exception):
    """The data path cannot run; the text says why and what to do."""


def check_compiled(folder: Path = _DATAPATH) -> None:
    """Raises CompiledError if a module of the data path is not compiled for this Python."""
    missing = [source.stem for source in list_sources(folder) if find_extension(source) is None]
    if not missing:
        return
    names = ", ".join(missing[:_MAX_NAMED]) + (f" and {len(missing) - _MAX_NAMED} more" if missing[_MAX_NAMED:] else "")
    others = sorted(path.name for path in folder.glob(f"{missing[0]}.*.so"))
    version = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
    why = f" (there is {others[0]}, which is for another Python)" if others else ""
    raise CompiledError(
        f"the compiled part of haproxy-py is missing for {version}: {names} in {folder}{why}. "
        "Install haproxy-py with this Python, or run `make build` in a checkout"
    )


def list_stale(folder: Path = _DATAPATH) -> list[Path]:
    """Sources that have changed since they were compiled, in a checkout; an installed package has none.

    A source has changed, too, when a declaration has that it was compiled against: modules that have a struct or class of
    two forms in mind corrupt each other's memory. The C file tells a checkout, where the compiler has left it, from an
    installed package, where times of files mean nothing.
    """
    return [
        source
        for source in list_sources(folder)
        if source.with_suffix(".c").exists()
        and (extension := find_extension(source)) is not None
        and max(file.stat().st_mtime for file in _list_needed(source)) > extension.stat().st_mtime
    ]


def list_sources(folder: Path) -> list[Path]:
    """Every file that must be compiled."""
    return sorted(path for path in folder.glob("*.py") if path.stem != "__init__")


def find_extension(source: Path) -> Path | None:
    """What this Python would load for a source."""
    return next(
        (path for suffix in EXTENSION_SUFFIXES if (path := source.with_name(source.stem + suffix)).exists()), None
    )


def _list_needed(source: Path) -> set[Path]:
    """What a module is compiled from: its source, and every declaration that it cimports, directly or not."""
    needed = {source}
    new = [source, source.with_suffix(".pxd")]
    while new:
        file = new.pop()
        if file.suffix == ".pxd" and (file in needed or not file.exists()):
            continue
        needed.add(file)
        new += [source.with_name(f"{name.decode()}.pxd") for name in _CIMPORT.findall(file.read_bytes())]
    return needed

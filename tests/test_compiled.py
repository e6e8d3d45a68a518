"""Whether what is compiled is as new as its sources."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from haproxy_py import compiled

COMPILED_AT = 1_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Module `one` cimports `two`, whose declarations cimport `three`; `apart` stands alone."""
    texts = {
        "one.py": "from cython.cimports.haproxy_py.datapath.two import Two\n",
        "two.py": "",
        "two.pxd": "from haproxy_py.datapath.three cimport Three\n",
        "three.pxd": "from haproxy_py.datapath.two cimport Two\n",  # Cython allows a circle
        "apart.py": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    for name in ("one", "two", "apart"):
        (tmp_path / f"{name}.c").touch()
        (tmp_path / f"{name}{EXTENSION_SUFFIXES[0]}").touch()
    for path in tmp_path.iterdir():
        os.utime(path, (COMPILED_AT, COMPILED_AT))
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "stale"),
    [
        ("one.py", ["one"]),
        ("two.pxd", ["one", "two"]),
        ("three.pxd", ["one", "two"]),
        ("apart.py", ["apart"]),
    ],
)
def test_module_is_stale_when_anything_that_it_is_compiled_from_is_newer(
    folder: Path, changed: str, stale: list[str]
) -> None:
    assert compiled.list_stale(folder) == []
    os.utime(folder / changed, (COMPILED_AT + 1, COMPILED_AT + 1))
    assert [path.stem for path in compiled.list_stale(folder)] == stale


def test_stale_module_stops_the_tests_and_is_named() -> None:
    plugin = (
        "import pytest, sys; from pathlib import Path; from haproxy_py import compiled; "
        "compiled.list_stale = lambda: [Path(compiled.__file__).parent / 'datapath' / 'gate.py']; "
        "sys.exit(pytest.main(['-q', '--collect-only', 'tests/test_compiled.py']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", plugin],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "haproxy_py/datapath/gate.py" in done.stdout + done.stderr
    assert "make build" in done.stdout + done.stderr


def test_every_module_of_the_data_path_is_in_the_package() -> None:
    checkout = Path(__file__).parents[1]
    settings = tomllib.loads((checkout / "pyproject.toml").read_text())["tool"]["setuptools"]
    sources = {source for module in settings["ext-modules"] for source in module["sources"]}
    files = (checkout / "haproxy_py" / "datapath").glob("[!_]*.py")
    assert sources == {str(file.relative_to(checkout)) for file in files}

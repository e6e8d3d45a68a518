"""`haproxy-py config example`: what a package has of the example files is what the checkout has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from haproxy_py.cli import main
from tests.test_config import EXAMPLE, KUBERNETES_EXAMPLE

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize(("flags", "file"), [([], EXAMPLE), (["--kubernetes"], KUBERNETES_EXAMPLE)])
def test_example_is_printed_as_the_checkout_has_it(
    flags: list[str], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "example", *flags]) == 0
    assert capsys.readouterr().out == file.read_text(encoding="utf-8")


def test_package_has_the_contents_of_the_examples(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for folder in ("haproxy_py", "config"):
        left_out = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
        shutil.copytree(CHECKOUT / folder, source / folder, symlinks=True, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    build = [sys.executable, "-W", "ignore", "-c", "import setuptools; setuptools.setup()", "--quiet", "build_py"]
    subprocess.run([*build, "--build-lib", str(tmp_path / "package")], cwd=source, check=True, timeout=60)
    for file in (EXAMPLE, KUBERNETES_EXAMPLE):
        packed = tmp_path / "package" / "haproxy_py" / "cli" / file.name
        assert not packed.is_symlink()
        assert packed.read_bytes() == file.read_bytes()

"""Takes out of an installation what haproxy-py never imports: the models and calls of the `kubernetes` package, 70 MB.

Only the reading of credentials is used of that package, and it loads models when they are asked for. What is left is
tried afterwards, so a version that needs more fails the build and not the first start.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

UNUSED = ("client/models", "client/api", "aio/client/models", "aio/client/api")
NEEDED = ("kubernetes.aio.client", "kubernetes.aio.config", "kubernetes.aio.config.kube_config")


def main() -> None:
    """Trim the packages of the Python that runs this."""
    root = next(Path(path, "kubernetes") for path in sys.path if Path(path, "kubernetes", "aio").is_dir())
    before = measure(root)
    for folder in UNUSED:
        for path in sorted(root.joinpath(folder).iterdir()):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "__init__.py":
                path.unlink()
    for path in [*root.rglob("*_test.py"), *root.rglob("test_*.py")]:
        path.unlink()
    importlib.invalidate_caches()
    for name in NEEDED:
        importlib.import_module(name)
    sys.modules["kubernetes.aio.client"].Configuration()
    print(f"kubernetes: {before} MB before, {measure(root)} MB after")


def measure(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) // 1_000_000


if __name__ == "__main__":
    main()

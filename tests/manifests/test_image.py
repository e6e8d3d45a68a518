"""What the image is built from, and what it leaves out: the `kubernetes` package must still read credentials without it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes

from tests.manifests.render import ROOT

TRIM = ROOT / "config" / "docker" / "trim.py"


def test_a_trimmed_package_is_small_and_reads_credentials(tmp_path: Path) -> None:
    (source,) = kubernetes.__path__
    shutil.copytree(source, tmp_path / "kubernetes", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, TRIM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"kubernetes: \d+ MB before, \d MB after\n", done.stdout)
    # As discovery does it: a kubeconfig, and no pod.
    (tmp_path / "config").write_text(
        '{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],'
        ' "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:1"}}],'
        ' "users": [{"name": "a", "user": {"token": "t"}}]}'
    )
    program = (
        "import asyncio, kubernetes; from haproxy_py.config import Cluster\n"
        "from haproxy_py.discovery.credentials import Credentials, CredentialsError\n"
        f"assert kubernetes.__path__ == [{str(tmp_path / 'kubernetes')!r}]\n"
        f"print(asyncio.run(Credentials(Cluster({str(tmp_path / 'config')!r})).read()).authorization)\n"
        "try: asyncio.run(Credentials(Cluster()).read())\n"
        "except CredentialsError as error: print(error)\n"
    )
    environment.pop("KUBERNETES_SERVICE_HOST", None)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Bearer t\nthis is no pod with a service account")


def test_builder_is_sent_what_it_copies_and_nothing_that_was_built_here() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = set()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert "*" in lines
    assert all(name in sent or str(Path(name).parent) in sent for name in copied), copied - sent
    assert {"haproxy_py/datapath/*.c", "haproxy_py/datapath/*.so"} <= set(lines)

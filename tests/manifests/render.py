"""Renders the manifests with the tools that operators use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "config" / "kubernetes"
CHART = ROOT / "config" / "helm" / "haproxy-py"

Thing = dict[str, Any]

KUBE_VERSION = "1.32.0"
"""Of the cluster that helm renders for."""


def find_tool(name: str) -> str | None:
    """A program on PATH or beside the Python that runs the tests."""
    return shutil.which(name, path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))


def render_kustomization(folder: Path) -> list[Thing]:
    """What `kubectl apply -k` would apply."""
    kustomize, kubectl = find_tool("kustomize"), find_tool("kubectl")
    if not (kustomize or kubectl):
        raise AssertionError(
            "neither kustomize nor kubectl is there: they render the manifests. tests/install gets one."
        )
    command = [kustomize, "build"] if kustomize else [str(kubectl), "kustomize"]
    return _run([*command, str(folder)])


def render_chart(*values: str) -> list[Thing]:
    """What `helm install` would apply, with `--set` values."""
    helm = find_tool("helm")
    if not helm:
        raise AssertionError("helm is missing: it renders the chart. `make test-kubernetes` gets it.")
    sets = [word for value in values for word in ("--set", value)]
    command = [helm, "template", "my-proxy", str(CHART), "--namespace", "node-red", "--kube-version", KUBE_VERSION]
    return _run([*command, *sets])


def _run(command: list[str]) -> list[Thing]:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)} said:\n{done.stderr}"
    assert "deprecated" not in done.stderr, done.stderr
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def find(things: list[Thing], kind: str, name: str = "", namespace: str = "") -> Thing:
    """The one object of that kind, name and namespace."""
    found = [
        thing
        for thing in things
        if thing["kind"] == kind
        and name in ("", thing["metadata"]["name"])
        and namespace in ("", thing["metadata"].get("namespace"))
    ]
    assert len(found) == 1, f"{len(found)} objects of kind {kind} {name}"
    return found[0]

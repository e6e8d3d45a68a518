"""The two replicas of the demo as child processes: embedded ones, or real Node-RED."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import haproxy_py
from haproxy_py.child import make_command, make_environment
from haproxy_py.demo.flows import SETTINGS, build_flows

HOST = "127.0.0.1"
START_TIMEOUT = 60.0  # seconds until a replica answers; an embedded one needs under one, Node-RED about two
STOP_TIMEOUT = 3.0  # seconds from SIGTERM to SIGKILL
PROBE_INTERVAL = 0.05  # seconds


class DemoError(Exception):
    """The demo cannot run; the text says why and what to do."""


class DemoReplica:
    """One replica process. Its output goes to a file that is shown if it does not start."""

    def __init__(self, name: str, port: int, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self._log = folder / "console.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*make_command("haproxy_py.demo.leash"), str(os.getpid()), *command],
                cwd=folder,
                env={**make_environment(os.environ), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the proxy, which ends first and then stops its replicas
            )

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self) -> None:
        """Until /api/hello answers 200. Raises DemoError."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if not self.is_running:
                raise DemoError(f"{self.name} ended while it started. It said:\n{self._read_log()}")
            if self._answers():
                return
            time.sleep(PROBE_INTERVAL)
        raise DemoError(f"{self.name} does not answer after {START_TIMEOUT:.0f} s. It said:\n{self._read_log()}")

    def ask_to_end(self) -> None:
        if self.is_running:
            self._process.terminate()

    def wait_end(self) -> None:
        """The process is gone afterwards."""
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=1)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/api/hello")
            return connection.getresponse().status == 200
        return False

    def _read_log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]


@contextlib.contextmanager
def run_replicas(ports: tuple[int, ...], *, node_red: bool) -> Iterator[list[DemoReplica]]:
    """One ready replica per port; all gone at the end. Raises DemoError."""
    prefix = find_node_red() if node_red else []
    replicas: list[DemoReplica] = []
    with tempfile.TemporaryDirectory(prefix="haproxy-py-demo-", ignore_cleanup_errors=True) as folder:
        try:
            for number, port in enumerate(ports, 1):
                name = f"replica-{number}"
                own = Path(folder, name)
                own.mkdir()
                replicas.append(_start_node_red(name, port, own, prefix) if node_red else _start(name, port, own))
            for replica in replicas:
                replica.wait_ready()
            yield replicas
        finally:
            for replica in replicas:
                replica.ask_to_end()
            for replica in replicas:
                replica.wait_end()


def find_node_red() -> list[str]:
    """The start of a command that runs Node-RED. Raises DemoError if there is none."""
    package = Path(haproxy_py.__file__).resolve().parent
    for modules in (Path.cwd() / "node_modules", package.parent / "tests" / "node_red" / "v5" / "node_modules"):
        red = modules / "node-red" / "red.js"
        own_node = modules / ".bin" / "node"
        node = str(own_node) if own_node.exists() else shutil.which("node")
        if red.exists() and node is not None:
            return [node, str(red)]
    installed = shutil.which("node-red")
    if installed is not None:
        return [installed]
    raise DemoError(
        "Node-RED was not found: not in ./node_modules, not where tests/install puts it, and no `node-red` on PATH.\n"
        "Get it with one of:\n"
        "  npm install node-red            (into this folder; Node-RED 5 needs Node.js 22.9 or newer)\n"
        "  npm install -g node-red\n"
        "  tests/install                   (in a checkout of haproxy_py: brings its own Node.js)\n"
        "or run `haproxy-py demo` without --node-red."
    )


def _start(name: str, port: int, folder: Path) -> DemoReplica:
    command = [*make_command("haproxy_py.demo.replica"), "--port", str(port), "--name", name]
    return DemoReplica(name, port, command, folder, {})


def _start_node_red(name: str, port: int, folder: Path, prefix: list[str]) -> DemoReplica:
    (folder / "settings.js").write_text(SETTINGS)
    (folder / "flows.json").write_text(build_flows())
    command = [*prefix, "-u", str(folder), "-s", str(folder / "settings.js")]
    return DemoReplica(name, port, command, folder, {"DEMO_PORT": str(port), "REPLICA": name})

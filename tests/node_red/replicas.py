"""Real Node-RED replicas for tests: one process each, with its own user directory, on loopback."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
FLOWS = HERE / "flows.json"
SETTINGS = HERE / "settings.js"

VERSIONS = {"v5": "5.0.7", "v4": "4.1.15"}
"""Folder below this one, and the Node-RED that its lock file pins."""

START_TIMEOUT = 60.0  # seconds; a replica needs 1 to 2, and machines that run CI may be ten times slower
STOP_TIMEOUT = 20.0  # seconds; Node-RED itself gives its nodes 15 to close


class MissingError(Exception):
    """Something that the tests need is not on this machine; the text says what, and how to get it."""


def find_node_red(version: str) -> tuple[Path, Path]:
    """The Node.js and the `red.js` that `tests/install` put there for this version. Raises `MissingError`."""
    modules = HERE / version / "node_modules"
    node, red = modules / ".bin" / "node", modules / "node-red" / "red.js"
    if not (node.exists() and red.exists()):
        raise MissingError(
            f"Node-RED {VERSIONS[version]} is not installed in {modules}. Install it with `tests/install` "
            "(`make test` does); it needs npm and the npm registry, or whatever that script says is missing."
        )
    return node, red


def find_free_port() -> int:
    """A port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NodeRedReplica:
    """One Node-RED process. `start` and `stop` may alternate; port, user directory and name stay the same."""

    def __init__(self, version: str, name: str, folder: Path, *, flows: Path = FLOWS) -> None:
        """Prepare a user directory below `folder`. Its flows are a copy: a deploy to one replica changes no other.

        A relative `flowFile` is looked for in the working directory first, so every replica runs in its own.
        """
        self.version = version
        self.name = name  # what the flows tell as `replica`, and send as X-Replica
        self.port = find_free_port()
        self.user_dir = folder / f"{version}-{name}"
        self.static_dir = self.user_dir / "static"
        self.log = self.user_dir / "console.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.static_dir.mkdir(parents=True)
        shutil.copy(flows, self.user_dir / "flows.json")

    @property
    def url(self) -> str:
        """Without a slash at the end, as the configuration of the proxy takes it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; it is not ready yet. Starting two before waiting for both takes little longer than one."""
        node, red = find_node_red(self.version)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("NODE_RED_", "NR_"))}
        environment |= {"NR_PORT": str(self.port), "NR_STATIC": str(self.static_dir), "REPLICA": self.name}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(node), str(red), "-u", str(self.user_dir), "-s", str(SETTINGS)],
                cwd=self.user_dir,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Until a HTTP In route answers 200, which `GET /` would not prove. Raises `TimeoutError` or `RuntimeError`."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.is_running:
                raise RuntimeError(f"Node-RED replica {self.name} ended while it started:\n{self.read_log()}")
            if self._answers():
                return
            time.sleep(0.05)
        raise TimeoutError(f"Node-RED replica {self.name} was not ready after {timeout:.0f} s:\n{self.read_log()}")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL if that is not enough. The process is gone afterwards; harmless when it already was."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_TIMEOUT)
        self._process = None

    def get_flows(self) -> list[dict[str, Any]]:
        """The flows that this replica runs now, from its admin API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/flows", headers={"Node-RED-API-Version": "v2"})
            flows: list[dict[str, Any]] = json.loads(connection.getresponse().read())["flows"]
            return flows
        finally:
            connection.close()

    def read_log(self) -> str:
        """Everything that Node-RED has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/api/hello")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Replicas:
    """Some replicas of one instance, started together."""

    def __init__(self, version: str, folder: Path, count: int = 2, *, flows: Path = FLOWS) -> None:
        self.version = version
        self.members = [NodeRedReplica(version, f"r{number}", folder, flows=flows) for number in range(1, count + 1)]

    def __enter__(self) -> Replicas:
        try:
            for replica in self.members:
                replica.start()
            for replica in self.members:
                replica.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        for replica in self.members:
            replica.stop()

    def __getitem__(self, name: str) -> NodeRedReplica:
        return next(replica for replica in self.members if replica.name == name)

    @property
    def names(self) -> list[str]:
        return [replica.name for replica in self.members]

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.members]

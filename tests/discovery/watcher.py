"""The whole proxy in front of what an API server tells it, for tests."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.proxy_process import ProxyProcess

WITHIN = 30.0
"""Seconds that a test waits for something that usually takes milliseconds."""


def describe_kubernetes(
    kubeconfig: Path, *, name: str = "test", service: str = "my-instance", ha: Any = True, **more: Any
) -> dict[str, Any]:
    """One entry of `instances`, with the endpoints of a Service as replicas."""
    kubernetes = {"service": service, "kubeconfig": str(kubeconfig)} | more.pop("kubernetes", {})
    return {"name": name, "ha": ha, "replicas": {"kubernetes": kubernetes}} | more


class Watcher(ProxyProcess):
    """A proxy with discovery."""

    def __init__(self, folder: Path, instances: Sequence[Mapping[str, Any]], *, workers: int = 1, **extra: Any) -> None:
        super().__init__(folder, instances, workers=workers, extra={"log": {"access": "off"}, **extra})
        if not instances:
            del self.config["instances"]

    @contextlib.contextmanager
    def run_unready(self) -> Iterator[Self]:
        """As the context manager itself, but does not wait for readiness: it is not to be expected."""
        self.spawn()
        try:
            self.wait_for(self.answers)
            yield self
        except BaseException:
            self.kill()
            raise
        self.stop()

    def answers(self) -> bool:
        """Whether the operators' port and a worker answer."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return bool(self.get_ops("/livez")[0] == 200 and self.ask()[0])
        return False

    def ask(self, path: str = "/api/hello", host: str = "test.example.com") -> tuple[int, dict[str, Any]]:
        """Status and JSON body of one GET through the proxy; an empty body if it is no JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": host, "Accept": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
            if answer.headers.get_content_type() != "application/json":
                return answer.status, {}
            found: dict[str, Any] = json.loads(data)
            return answer.status, found

    def get_status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get_ops("/api/v1/status")[1])
        return found

    def list_replicas(self, instance: str = "test") -> dict[str, str]:
        """State by name, of the replicas in the table."""
        for entry in self.get_status()["instances"]:
            if entry["name"] == instance:
                return {replica["name"]: replica["state"] for replica in entry["replicas"]}
        return {}

    def wait_for_replicas(self, expected: dict[str, str], instance: str = "test") -> None:
        """Until the table with these replicas, by name and state, is in force in every worker."""
        self.wait_for_table(lambda replicas: replicas == expected, instance)

    def wait_for_table(self, fits: Callable[[dict[str, str]], bool], instance: str = "test") -> None:
        """Until a table whose replicas (state by name) fit is in force in every worker: control has it earlier."""

        def is_in_force() -> bool:
            status = self.get_status()
            replicas = {
                replica["name"]: replica["state"]
                for entry in status["instances"]
                if entry["name"] == instance
                for replica in entry["replicas"]
            }
            return fits(replicas) and all(
                worker["table_version"] == status["table_version"] for worker in status["workers"]
            )

        self.wait_for(is_in_force)

    def get_metric(self, series: str) -> float:
        """The value of a series as in the text format, without the prefix; 0 if it is absent."""
        for line in self.get_ops("/metrics")[1].splitlines():
            name, _, value = line.rpartition(" ")
            if name == f"haproxy_py_{series}":
                return float(value)
        return 0.0

    def sum_metric(self, name: str, **labels: str) -> float:
        """All series of a name that have these labels."""
        total = 0.0
        for line in self.get_ops("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if series.startswith(f"haproxy_py_{name}{{") and all(f'{k}="{v}"' in series for k, v in labels.items()):
                total += float(value)
        return total

    def read_cpu(self) -> float:
        """Seconds of CPU that the control process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def read_memory(self) -> float:
        """Resident MiB of the control process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024

    def wait_for(self, is_true: Callable[[], bool], within: float = WITHIN) -> None:
        """Until something holds. Raises AssertionError with the log."""
        deadline = time.monotonic() + within
        while not is_true():
            assert time.monotonic() < deadline, f"not within {within} s; the log is:\n{self.log[-6000:]}"
            time.sleep(0.01)

    def wait_for_log(self, text: str) -> None:
        self.wait_for(lambda: text in self.log)

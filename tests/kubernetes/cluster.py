"""The proxy's pods on the control plane of the tests, and a load on them."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kubernetes.control_plane import ControlPlane

WITHIN = 180.0


class Cluster:
    """One namespace of it."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane, self.namespace = plane, namespace

    def kubectl(self, *words: str) -> str:
        return self.plane.kubectl("-n", self.namespace, *words)

    def wait_for_rollout(self, deployment: str) -> None:
        """Raises AssertionError with what there is if it takes too long."""
        try:
            self.kubectl("rollout", "status", f"deployment/{deployment}", f"--timeout={WITHIN:g}s")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._describe()}") from None

    def list_pods(self, name: str) -> dict[str, str]:
        """Addresses by name of the pods that carry the name in their labels."""
        found = json.loads(self.kubectl("get", "pods", "-l", f"app.kubernetes.io/name={name}", "-o", "json"))
        return {
            pod["metadata"]["name"]: pod["status"]["podIP"]
            for pod in found["items"]
            if "podIP" in pod["status"] and "deletionTimestamp" not in pod["metadata"]
        }

    def list_replicas(self, proxy: str) -> dict[str, str]:
        """What a proxy, by its address, has in its table: state by name."""
        status = json.loads(ask(proxy, 9090, "/api/v1/status", proxy)[1])
        return {one["name"]: one["state"] for instance in status["instances"] for one in instance["replicas"]}

    def count_kept(self, proxy: str) -> int:
        status = json.loads(ask(proxy, 9090, "/api/v1/status", proxy)[1])
        return sum(one["kept"] for one in status["discovery"]["endpoints"])

    def scale(self, deployment: str, count: int) -> None:
        """Returns when every proxy has the pods that are left in its table, all ready, and nothing else."""
        self.kubectl("scale", f"deployment/{deployment}", f"--replicas={count}")
        self.wait_for_rollout(deployment)

        def is_done() -> bool:
            wanted = dict.fromkeys(self.list_pods(deployment), "ready")
            return len(wanted) == count and all(
                self.list_replicas(proxy) == wanted for proxy in self.list_pods("haproxy-py").values()
            )

        self.wait_for(is_done)

    def read_log(self, pod: str) -> str:
        return Path(self.plane.folder, "pods", pod, "haproxy-py.log").read_text()

    def wait_for(self, is_true: Callable[[], bool], within: float = WITHIN) -> None:
        """Until something holds. Raises AssertionError with what there is."""
        deadline = time.monotonic() + within
        while not is_true():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within:g} s\n{self._describe()}")
            time.sleep(0.1)

    def _describe(self) -> str:
        logs = [f"{name}:\n{self.read_log(name)[-3000:]}" for name in self.list_pods("haproxy-py")]
        return "\n".join([self.kubectl("get", "all"), *logs])


def ask(host: str, port: int, path: str, name: str = "test.example.com") -> tuple[int, bytes]:
    """Status and body of one GET."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    with closing(connection):
        connection.request("GET", path, headers={"Host": name})
        answer = connection.getresponse()
        return answer.status, answer.read()


class Load:
    """A context manager: a steady load on several proxies, a connection for each request."""

    def __init__(self, *proxies: str) -> None:
        self.failures: list[str] = []
        self.total = 0
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(proxy,)) for proxy in proxies]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, proxy: str) -> None:
        while not self._is_over.wait(0.02):
            try:
                status, body = ask(proxy, 8080, "/api/hello")
                problem = "" if status == 200 else f"{status} {body[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                problem = repr(error)
            self.total += 1
            if problem:
                self.failures.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {proxy}: {problem}")

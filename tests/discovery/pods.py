"""Pods as the kubelet runs them: real processes with a readiness probe, and an end with preStop, SIGTERM and a deadline.

Every pod has an address of 127.0.0.0/8 and the same port, as pods have. What becomes of a pod is written into the
EndpointSlices of its Service, as the controllers do.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.discovery.api_server import ApiServer
from tests.discovery.things import Thing, make_endpoint, make_port, make_slice
from tests.proxy_process import find_free_ports

PRE_STOP = 0.4
"""Seconds between the first word of the end and SIGTERM; the example manifest has 5."""

START_WITHIN = 60.0
STOP_WITHIN = 10.0
PER_SLICE = 4
"""Pods per slice, so that a few pods make several slices."""


@dataclass
class Pod:
    name: str
    address: str
    process: subprocess.Popen[bytes]
    ready: bool = False
    terminating: bool = False


class Pods:
    """The pods of one Service: a context manager, all processes are gone at the end."""

    def __init__(self, server: ApiServer, service: str = "my-instance", namespace: str = "node-red") -> None:
        (self.port,) = find_free_ports(1)
        self.running: dict[str, Pod] = {}
        self._server = server
        self._service = service
        self._namespace = namespace
        self._number = 0
        self._written: dict[str, Thing] = {}

    def __enter__(self) -> Self:
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pod in self.running.values():
            pod.process.kill()
        for pod in self.running.values():
            pod.process.wait()

    @property
    def names(self) -> set[str]:
        return set(self.running)

    def scale(self, count: int) -> None:
        """So many pods; returns when all are ready, and those that had to go are gone."""
        if count > len(self.running):
            self.start(count - len(self.running))
        elif count < len(self.running):
            self.end(*sorted(self.running)[count:])

    def start(self, count: int = 1) -> list[str]:
        """Start pods, and wait until each is ready."""
        made = []
        for _ in range(count):
            self._number += 1
            name, address = f"pod-{self._number:03}", f"127.0.1.{self._number}"
            command = [sys.executable, "-m", "haproxy_py.demo.replica", "--host", address, "--port", str(self.port)]
            made.append(Pod(name, address, subprocess.Popen([*command, "--name", name], stdin=subprocess.DEVNULL)))
            self.running[name] = made[-1]
        self._write()
        for pod in made:
            self._wait_ready(pod)
            pod.ready = True
            self._write()
        return [pod.name for pod in made]

    def start_everywhere(self) -> None:
        """One process that answers on every address of 127.0.0.0/8; the slices are left to the caller."""
        command = [sys.executable, "-m", "haproxy_py.demo.replica", "--host", "0.0.0.0", "--port", str(self.port)]
        process = subprocess.Popen([*command, "--name", "everywhere"], stdin=subprocess.DEVNULL)
        self.running["everywhere"] = Pod("everywhere", "127.0.0.1", process)
        self._wait_ready(self.running["everywhere"])

    def end(self, *names: str) -> None:
        """End pods together: first the endpoint says so, then preStop, then SIGTERM; when the process is gone, it goes."""
        ending = [self.running[name] for name in names]
        for pod in ending:
            pod.terminating = True
        self._write()
        time.sleep(PRE_STOP)
        for pod in ending:
            pod.process.terminate()
        for pod in ending:
            pod.process.wait(STOP_WITHIN)
            del self.running[pod.name]
        self._write()

    def set_ready(self, *names: str, ready: bool) -> None:
        """What the control plane says of pods, however they are."""
        for name in names:
            self.running[name].ready = ready
        self._write()

    def kill(self, name: str) -> None:
        """The process dies; nobody tells the API server."""
        pod = self.running.pop(name)
        pod.process.kill()
        pod.process.wait()

    def _wait_ready(self, pod: Pod) -> None:
        deadline = time.monotonic() + START_WITHIN
        while time.monotonic() < deadline:
            connection = http.client.HTTPConnection(pod.address, self.port, timeout=1)
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/api/hello")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"{pod.name} is not ready after {START_WITHIN} s")

    def _write(self) -> None:
        """Bring the slices up to date: each pod stays in the slice it began in."""
        slices: dict[str, list[Thing]] = {f"{self._service}-0": []}
        for pod in self.running.values():
            number = (int(pod.name.removeprefix("pod-")) - 1) // PER_SLICE
            slices.setdefault(f"{self._service}-{number}", []).append(
                make_endpoint(
                    pod.name,
                    pod.address,
                    ready=pod.ready and not pod.terminating,
                    serving=pod.ready,
                    terminating=pod.terminating,
                )
            )
        for name, endpoints in slices.items():
            thing = make_slice(*endpoints, name=name, service=self._service, ports=[make_port(self.port)])
            if self._written.get(name) != thing:
                self._written[name] = thing
                self._server.put("endpointslices", self._namespace, thing)
        for name in self._written.keys() - slices.keys():
            del self._written[name]
            self._server.delete("endpointslices", self._namespace, name)

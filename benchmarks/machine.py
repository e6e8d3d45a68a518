"""What the suite needs of the machine: cores, ports, programs, a certificate; and what it says when something is missing."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


class UnavailableError(Exception):
    """Something cannot take part; the message says why and how it could."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where. Empty: wherever the system likes."""

    proxy: tuple[int, ...]  # of a proxy with one worker
    workers: tuple[int, ...]  # of a proxy with two workers
    load: tuple[int, ...]  # of the load generator and the replicas


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate, in the forms that proxies want."""

    certificate: Path
    key: Path
    both: Path  # certificate and key in one file


def choose_cores() -> Cores:
    """One core for the proxy, another for load and replicas; the third, if there is one, for a second worker."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("only one core: proxy and load share it, the figures say little", file=sys.stderr)
        return Cores((), (), ())
    return Cores((cores[0],), (cores[0], cores[2]) if len(cores) > 2 else (cores[0],), (cores[1],))


def pin(cores: tuple[int, ...]) -> list[str]:
    """What stands in front of a command to keep it on its cores."""
    return ["taskset", "-c", ",".join(map(str, cores))] if cores else []


def allow_open_files() -> None:
    """Raise the limit of open files as far as the system lets; everything that is started inherits it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now, no two the same."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def is_taken(port: int) -> bool:
    """Whether somebody accepts connections on a port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 15.0) -> None:
    """Wait until a process accepts on its port. Raises UnavailableError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise UnavailableError(f"it ended with status {process.returncode} at the start")
        if is_taken(port):
            return
        time.sleep(0.05)
    raise UnavailableError(f"it did not listen within {seconds:.0f} s")


def find_program(name: str, hint: str) -> str:
    """The path of a program, beside the running interpreter or on PATH. Raises UnavailableError with `hint`."""
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    found = shutil.which(name, path=places)
    if found is None:
        raise UnavailableError(f"{name} is not on this machine ({hint})")
    return found


def find_compiler() -> str:
    """The C compiler. Raises UnavailableError."""
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found is not None:
            return found
    raise UnavailableError("a C compiler is not on this machine (Debian: apt-get install gcc libc6-dev)")


def compile_c(name: str, folder: Path, *options: str) -> Path:
    """Build one of the C programs of this folder. Raises UnavailableError."""
    program = folder / name
    built = subprocess.run(
        [find_compiler(), "-O2", *options, "-o", str(program), str(FOLDER / f"{name}.c")],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise UnavailableError(f"{name}.c does not compile: {last_line(built.stderr)}")
    return program


def make_certificate(folder: Path) -> Certificate:
    """A certificate with an ECDSA key on P-256, as most sites have today. Raises UnavailableError."""
    made = Certificate(folder / "tls.crt", folder / "tls.key", folder / "tls.pem")
    done = subprocess.run(
        [
            find_program("openssl", "Debian: apt-get install openssl"),
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"),
            *("-subj", "/CN=localhost", "-keyout", str(made.key), "-out", str(made.certificate)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UnavailableError(f"openssl made no certificate: {last_line(done.stderr)}")
    made.both.write_text(made.certificate.read_text() + made.key.read_text())
    return made


def last_line(text: str) -> str:
    """The last line with something in it: where programs say what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"

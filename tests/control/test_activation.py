"""Sockets that the service manager passes: whose they are, and that the next process serves who waits in their queues."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from haproxy_py.control import activation
from haproxy_py.control.activation import Activation
from haproxy_py.control.sockets import BindError
from tests.proxy_process import find_free_ports

WITHIN = 30.0

LAUNCHER = """
import os, sys
count, *command = sys.argv[1:]
given = [int(fd) for fd in os.environ.pop("GIVEN").split()]
for index, fd in enumerate(given):  # above all that is given, first: none may be overwritten
    given[index] = os.dup2(fd, 100 + index)
for index, fd in enumerate(given):
    os.dup2(fd, 3 + index)
    os.set_inheritable(3 + index, True)
os.environ |= {"LISTEN_FDS": count, "LISTEN_PID": str(os.getpid())}
os.closerange(3 + len(given), 200)
os.execv(sys.executable, [sys.executable, *command])
"""

TEXT = """
listen: [{{address: '{listen}'}}]
ops: {{address: '127.0.0.1:{ops}'}}
workers: {workers}
instances: [{{name: one, ha: true, replicas: {{static: [http://127.0.0.1:9]}}, health: {{type: off}}}}]
drain: {{delay: 200ms, deadline: 2s}}
"""


def listen(port: int = 0, *, share: bool = False) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if share:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(100)
    return sock


class Proxy:
    """The real proxy, started as the service manager starts it."""

    def __init__(self, file: Path, sockets: Sequence[socket.socket], name: str, *flags: str) -> None:
        self._log = file.with_name(f"{name}.log")
        command = [sys.executable, "-c", LAUNCHER, str(len(sockets))]
        command += ["-m", "haproxy_py", "run", "--config", str(file), *flags]
        fds = [sock.fileno() for sock in sockets]
        environment = {**os.environ, "GIVEN": " ".join(map(str, fds)), "LISTEN_FDNAMES": ":".join("web" for _ in fds)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, pass_fds=fds)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WITHIN) == 0, self.log

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Setting:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "proxy.yaml"
        (self.ops_port,) = find_free_ports(1)
        self._started: list[Proxy] = []

    def write(self, listen: str, workers: int = 1) -> None:
        self.file.write_text(TEXT.format(listen=listen, ops=self.ops_port, workers=workers))

    def start(self, *sockets: socket.socket) -> Proxy:
        self._started.append(Proxy(self.file, sockets, f"proxy-{len(self._started)}"))
        return self._started[-1]

    def close(self) -> None:
        for proxy in self._started:
            proxy.close()


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(tmp_path)
    yield setting
    setting.close()


def ask(port: int, client: socket.socket | None = None) -> bytes:
    """The status line for a path that the gate refuses, so no replica is needed. Waits in the queue until there is one."""
    with client or socket.create_connection(("127.0.0.1", port), WITHIN) as client:
        client.sendall(b"GET /flows HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return client.makefile("rb").readline()


def spell(sock: socket.socket) -> str:
    return f"127.0.0.1:{sock.getsockname()[1]}"


@contextlib.contextmanager
def take(sock: socket.socket, monkeypatch: pytest.MonkeyPatch, **more: str) -> Iterator[Activation]:
    """As a process to which one socket was passed."""
    monkeypatch.setattr(activation, "FIRST", os.dup(sock.fileno()))
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "web", **more}
    passed = Activation()
    passed.take(environment)
    try:
        yield passed
    finally:
        passed.close()


def test_socket_is_found_by_its_address_and_keeps_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen() as sock, take(sock, monkeypatch) as passed:
        port = sock.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port), WITHIN)
        assert passed.find("127.0.0.1", port + 1, "here") == []
        (found,) = passed.find("127.0.0.1", port, "here")
        passed.check_all_used()
        with client, found:
            accepted, address = found.accept()
            accepted.close()
            assert address == client.getsockname()
            assert not found.get_inheritable()


def test_socket_that_fits_nothing_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen() as sock, take(sock, monkeypatch) as passed:
        passed.find("127.0.0.2", sock.getsockname()[1], "here")
        with pytest.raises(
            BindError, match=rf"the socket 'web' \(descriptor \d+\) .* is bound to {spell(sock)}, which"
        ):
            passed.check_all_used()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_socket_that_does_not_listen_is_an_error(kind: socket.SocketKind, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(type=kind) as sock:
        sock.bind(("127.0.0.1", 0))
        with take(sock, monkeypatch) as passed:
            assert passed.find("127.0.0.1", sock.getsockname()[1], "here") == []
            with pytest.raises(BindError, match="is no TCP socket that listens"):
                passed.check_all_used()


def test_sockets_for_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getppid()), "LISTEN_FDNAMES": "web", "HOME": "/"}
    passed = Activation()
    passed.take(environment)
    assert (bool(passed), environment) == (False, {"HOME": "/"})


@pytest.mark.parametrize("count", ["many", "-1", "2000", "0x1"])
def test_number_that_is_none_is_an_error(count: str) -> None:
    with pytest.raises(BindError, match="LISTEN_FDS is"):
        Activation().take({"LISTEN_FDS": count, "LISTEN_PID": str(os.getpid())})


def test_descriptor_that_is_no_socket_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        monkeypatch.setattr(activation, "FIRST", file.fileno())
        with pytest.raises(BindError, match=f"descriptor {file.fileno()} is no socket"):
            Activation().take({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})


def test_who_comes_while_no_process_runs_is_served_by_the_next_one(setting: Setting) -> None:
    with listen() as sock:
        port = sock.getsockname()[1]
        setting.write(spell(sock))
        proxy = setting.start(sock)
        assert b" 403 " in ask(port)
        proxy.stop()
        client = socket.create_connection(("127.0.0.1", port), WITHIN)
        proxy = setting.start(sock)
        assert b" 403 " in ask(port, client)
        proxy.stop()


def test_each_worker_has_a_socket_of_its_own_if_so_many_are_passed(setting: Setting) -> None:
    with listen(share=True) as first, listen(first.getsockname()[1], share=True) as second:
        setting.write(spell(first), workers=2)
        proxy = setting.start(first, second)
        for _ in range(20):
            assert b" 403 " in ask(first.getsockname()[1])
        assert "the service manager passed" not in proxy.log
        proxy.stop()


def test_sockets_for_more_workers_than_there_are_are_an_error(setting: Setting) -> None:
    with listen(share=True) as first, listen(first.getsockname()[1], share=True) as second:
        setting.write(spell(first), workers=1)
        proxy = setting.start(first, second)
        assert proxy.process.wait(WITHIN) == 1
        assert (
            "listen[0].address: the service manager passed 2 sockets for it, and there are workers for 1" in proxy.log
        )


def test_workers_for_whom_no_socket_was_passed_are_told_of(setting: Setting) -> None:
    with listen() as sock:
        setting.write(spell(sock), workers=2)
        proxy = setting.start(sock)
        for _ in range(10):
            assert b" 403 " in ask(sock.getsockname()[1])
        assert "passed 1 of the 2 sockets that as many workers need" in proxy.log
        proxy.stop()


def test_operators_port_may_be_passed_too(setting: Setting) -> None:
    with listen() as sock, listen(setting.ops_port) as ops:
        setting.write(spell(sock))
        proxy = setting.start(sock, ops)
        assert b" 403 " in ask(sock.getsockname()[1])
        with socket.create_connection(("127.0.0.1", setting.ops_port), WITHIN) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in client.recv(1000)
        proxy.stop()


def test_process_does_not_start_with_a_socket_that_fits_nothing(setting: Setting) -> None:
    (port,) = find_free_ports(1)
    with listen() as sock:
        setting.write(f"127.0.0.1:{port}")
        proxy = setting.start(sock)
        assert proxy.process.wait(WITHIN) == 1
        assert f"is bound to {spell(sock)}, which is neither in listen[].address nor ops.address" in proxy.log


def test_workers_that_come_back_get_their_sockets_again(setting: Setting) -> None:
    with listen(share=True) as first, listen(first.getsockname()[1], share=True) as second:
        port = first.getsockname()[1]
        setting.write(spell(first), workers=2)
        proxy = setting.start(first, second)
        assert b" 403 " in ask(port)
        for workers in (1, 2, 1, 2):
            applied = proxy.log.count("is in force as")
            setting.write(spell(first), workers=workers)
            proxy.process.send_signal(signal.SIGHUP)
            while proxy.log.count("is in force as") == applied:  # each request is bounded, and so is the test
                assert b" 403 " in ask(port)
            for _ in range(10):
                assert b" 403 " in ask(port)
        assert "was not applied" not in proxy.log
        proxy.stop()


@pytest.mark.parametrize("both", [True, False])
def test_passed_socket_for_every_address_must_take_the_families_that_the_listener_takes(
    setting: Setting, both: bool
) -> None:
    with socket.socket(socket.AF_INET6) as passed:
        passed.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        passed.bind(("::", 0))
        passed.listen(100)
        port = passed.getsockname()[1]
        setting.write(f"[::]:{port}")
        proxy = setting.start(passed)
        if both:
            assert b" 403 " in ask(port)
            proxy.stop()
        else:
            assert proxy.process.wait(WITHIN) != 0
            assert "takes IPv6 only: set BindIPv6Only=both in its socket unit" in proxy.log

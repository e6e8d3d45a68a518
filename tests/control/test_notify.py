"""What the service manager hears of a control process, on a socket that stands for systemd's."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haproxy_py.control import notify
from haproxy_py.control.log import Log
from haproxy_py.control.notify import Notifier, make_notifier
from tests.control.conftest import FILE, WITHIN, Start, get
from tests.proxy_process import find_free_ports


class Manager:
    """A datagram socket as systemd has it, and what came there."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(WITHIN)

    def hear(self) -> list[str]:
        """The lines of the next message."""
        return self._socket.recv(4096).decode().split("\n")

    def hear_until(self, line: str) -> list[str]:
        """All lines up to the message with this one."""
        heard: list[str] = []
        deadline = time.monotonic() + WITHIN
        while line not in heard:
            assert time.monotonic() < deadline, f"no {line} in {heard}"
            heard += self.hear()
        return heard

    def hear_to_the_end(self) -> list[str]:
        """What has come up to now."""
        heard: list[str] = []
        self._socket.setblocking(False)
        try:
            while True:
                heard += self.hear()
        except BlockingIOError:
            return heard
        finally:
            self._socket.settimeout(WITHIN)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def log(lines: list[str]) -> Log:
    return Log(write=lines.append)


# --- by itself ---


def test_without_a_service_manager_nothing_is_sent(log: Log, lines: list[str]) -> None:
    notifier = make_notifier({}, log, takeover=False)
    notifier.look([], "fine", 0.0)
    notifier.stop(1.0)
    assert (notifier.is_on, lines) == (False, [])


def test_environment_is_taken_out_so_that_no_child_speaks_for_the_process(manager: Manager, log: Log) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    make_notifier(environment, log, takeover=False)
    assert environment == {"HOME": "/"}


def test_abstract_socket_is_reached(log: Log) -> None:
    manager = Manager(f"@haproxy-py-test-{os.getpid()}")
    try:
        Notifier(manager.address, 0.0, log).look([], "fine", 0.0)
        assert manager.hear() == ["READY=1", "STATUS=fine"]
    finally:
        manager.close()


def test_address_of_another_kind_is_refused_with_a_warning(log: Log, lines: list[str]) -> None:
    assert not make_notifier({"NOTIFY_SOCKET": "vsock:2:1234"}, log, takeover=False).is_on
    assert "vsock:2:1234" in lines[0]


def test_ready_is_told_when_nothing_is_waited_for_and_the_wait_is_extended_until_then(
    manager: Manager, log: Log
) -> None:
    notifier = Notifier(manager.address, 0.0, log)
    notifier.look(["no table\nyet"], "fine", 0.0)
    assert manager.hear() == ["EXTEND_TIMEOUT_USEC=15000000", "STATUS=not ready: no table yet"]
    notifier.look(["no table\nyet"], "fine", 1.0)
    assert manager.hear_to_the_end() == []
    notifier.look(["no table\nyet"], "fine", 5.0)
    assert manager.hear() == ["EXTEND_TIMEOUT_USEC=15000000"]
    notifier.look([], "fine", 6.0)
    assert manager.hear() == ["READY=1", "STATUS=fine"]
    notifier.look(["a replica"], "fine", 7.0)  # readiness comes once
    assert manager.hear_to_the_end() == []


def test_signs_of_life_come_in_half_the_interval(manager: Manager, log: Log) -> None:
    notifier = make_notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"}, log, takeover=False)
    assert notifier.pause <= 0.5
    heard = []
    for step in range(9):
        notifier.look([], "fine", 100 + step / 2)
        heard += manager.hear_to_the_end()
    assert heard.count("WATCHDOG=1") == 9


def test_signs_of_life_that_another_process_must_give_are_not_given(manager: Manager, log: Log) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getppid())}
    make_notifier(environment, log, takeover=False).look([], "fine", 100.0)
    assert "WATCHDOG=1" not in manager.hear_to_the_end()


def test_reload_is_told_with_its_time_and_its_end(manager: Manager, log: Log) -> None:
    notifier = Notifier(manager.address, 0.0, log)
    notifier.look([], "fine", 0.0)
    manager.hear_to_the_end()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    with notifier.reloading():
        word, monotonic = manager.hear()
        assert word == "RELOADING=1"
        assert before <= int(monotonic.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert manager.hear() == ["READY=1"]


def test_nothing_is_reloaded_before_the_start_or_after_the_end(manager: Manager, log: Log) -> None:
    notifier = Notifier(manager.address, 0.0, log)
    with notifier.reloading():
        pass
    assert manager.hear_to_the_end() == []
    notifier.look([], "fine", 0.0)
    notifier.stop(5.0)
    assert manager.hear_to_the_end()[2:] == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=5000000", "STATUS=draining"]
    with notifier.reloading():
        pass
    notifier.look([], "other", 1.0)
    assert manager.hear_to_the_end() == []


def test_what_could_not_be_sent_is_sent_with_the_next_message(tmp_path: Path, log: Log, lines: list[str]) -> None:
    address = str(tmp_path / "late")
    notifier = Notifier(address, 0.0, log)
    notifier.look([], "fine", 0.0)
    notifier.look([], "better", 1.0)
    assert len(lines) == 1
    assert "the service manager cannot be told" in lines[0]
    manager = Manager(address)
    try:
        notifier.look([], "better", 2.0)
        assert manager.hear_to_the_end() == ["READY=1", "STATUS=fine", "STATUS=better"]
    finally:
        manager.close()


def test_process_of_the_same_unit_that_took_over_speaks_alone(
    manager: Manager, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = {1: "a", os.getpid(): "a"}
    monkeypatch.setattr(notify, "_read_unit", units.get)
    notifier = Notifier(manager.address, 2.0, log)
    notifier.hand_over(1, 5.0)
    notifier.look([], "fine", 100.0)
    notifier.stop(5.0)
    assert manager.hear_to_the_end() == []


def test_unit_ends_when_a_process_of_another_one_took_over(
    manager: Manager, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_read_unit", {1: "b", os.getpid(): "a"}.get)
    Notifier(manager.address, 0.0, log).hand_over(1, 5.0)
    assert manager.hear()[0] == "STOPPING=1"


# --- a whole control process ---


@pytest.fixture
def notified(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Manager:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    return manager


def test_ready_is_told_when_readyz_says_so(notified: Manager, start: Start) -> None:
    control = start()
    heard = notified.hear_until("READY=1")
    assert get(f"{control.expect_ready()}/readyz")[0] == 200
    assert any(re.match("STATUS=not ready: no ", line) for line in heard)
    assert "STATUS=instances: 1, replicas: 2, workers: 2" in heard


def test_ready_is_not_told_before_a_worker_is(notified: Manager, start: Start) -> None:
    control = start("mute", "--impatient")
    control.expect("not ready within|was not ready")
    heard = notified.hear_to_the_end()
    assert heard
    assert "READY=1" not in heard


def test_reload_and_drain_are_told(notified: Manager, start: Start, file: Path) -> None:
    control = start()
    notified.hear_until("READY=1")
    control.expect_ready()
    file.write_text(FILE.replace("workers: 2", "workers: nonsense"))
    control.signal(signal.SIGHUP)
    heard = [*notified.hear_until("RELOADING=1"), *notified.hear_until("READY=1")]
    assert any(line.startswith("MONOTONIC_USEC=") for line in heard)
    deadline = time.monotonic() + WITHIN
    while not any("the changed configuration was refused" in line for line in heard):
        assert time.monotonic() < deadline
        heard += notified.hear()
    control.signal(signal.SIGTERM)
    heard = notified.hear_until("STOPPING=1")
    assert "EXTEND_TIMEOUT_USEC=8000000" in heard  # the drain's deadline, and what killing may take
    assert control.wait() == 0


def test_signs_of_life_are_given(notified: Manager, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    start()
    notified.hear_until("READY=1")
    for _ in range(3):
        notified.hear_until("WATCHDOG=1")


def test_process_that_takes_over_within_a_unit_becomes_its_main_process(
    notified: Manager, start: Start, file: Path
) -> None:
    (ops_port,) = find_free_ports(1)
    file.write_text(FILE.replace("ops: {address: '127.0.0.1:0'}", f"ops: {{address: '127.0.0.1:{ops_port}'}}"))
    old = start()
    notified.hear_until("READY=1")
    old.expect_ready()
    new = start("normal", "--takeover")
    heard = notified.hear_until(f"MAINPID={new.process.pid}")
    assert "READY=1" in heard[-2:]
    assert old.wait() == 0
    assert "STOPPING=1" not in [*heard, *notified.hear_to_the_end()]

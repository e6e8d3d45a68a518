"""A new process takes the sockets of a running one: the two control processes, with workers that carry no traffic."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from haproxy_py import session_table
from haproxy_py.control import takeover
from haproxy_py.control.takeover import PROTOCOL, name_socket
from tests.control.conftest import Control, Start, get, get_metric, get_status
from tests.proxy_process import find_free_ports

TEXT = """
listen: [LISTENERS]
ops: {{address: '127.0.0.1:{ops}'}}
workers: {workers}
instances: [{{name: one, ha: true, replicas: {{static: [http://127.0.0.1:1880]}}, health: {{type: off}}}}]
drain: {{delay: 200ms, deadline: 5s}}
"""


class Setting:
    """A configuration on ports that stay the same from one process to the next."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.ports = find_free_ports(3)
        self.ops_port = self.ports.pop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ops_port}"

    def write(self, *ports: int, workers: int = 2) -> None:
        listeners = ", ".join(f"{{address: '127.0.0.1:{port}'}}" for port in ports)
        self.file.write_text(TEXT.format(ops=self.ops_port, workers=workers).replace("LISTENERS", listeners))


@pytest.fixture
def setting(file: Path) -> Setting:
    setting = Setting(file)
    setting.write(setting.ports[0])
    return setting


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def expect_taken_over(old: Control, new: Control) -> None:
    new.expect("this process has taken over from process")
    new.expect("operators' port on")
    old.expect(f"process {new.process.pid} has taken over: draining")
    assert old.wait() == 0


def test_new_process_takes_over_and_the_old_one_drains_and_ends(start: Start, setting: Setting) -> None:
    old = start()
    old.expect_ready()
    new = start("normal", "--takeover")
    new.expect(f"taking over from process {old.process.pid}")
    old.expect(rf"process {new.process.pid} has the listening sockets and starts")
    expect_taken_over(old, new)
    assert any("got Drain 0.2" in line for line in old.lines)
    assert is_open(setting.ports[0])
    status = get_status(setting.url)
    assert [listener["port"] for listener in status["listeners"]] == [setting.ports[0]]
    assert {worker["pid"] for worker in status["workers"]}.isdisjoint({old.process.pid})
    assert get(f"{setting.url}/readyz")[0] == 200


def test_one_process_after_the_other_takes_over(start: Start, setting: Setting) -> None:
    old = start()
    old.expect_ready()
    for _ in range(4):
        new = start("normal", "--takeover")
        expect_taken_over(old, new)
        old = new
    assert is_open(setting.ports[0])


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_number_of_workers_may_differ(start: Start, setting: Setting, before: int, after: int) -> None:
    setting.write(setting.ports[0], workers=before)
    old = start()
    old.expect_ready(before)
    setting.write(setting.ports[0], workers=after)
    new = start("normal", "--takeover")
    expect_taken_over(old, new)
    for _ in range(20):
        assert is_open(setting.ports[0])
    assert len(get_status(setting.url)["workers"]) == after


def test_listeners_may_differ(start: Start, setting: Setting) -> None:
    first, second = setting.ports
    old = start()
    old.expect_ready()
    setting.write(second)
    new = start("normal", "--takeover")
    expect_taken_over(old, new)
    assert is_open(second)
    assert not is_open(first)


def test_without_a_running_process_it_starts_as_ever(start: Start, setting: Setting) -> None:
    control = start("normal", "--takeover")
    control.expect("no haproxy_py of this user has its operators' port at .*: nothing to take over")
    control.expect_ready()
    assert is_open(setting.ports[0])


def test_old_process_goes_on_if_the_new_one_cannot_start_its_workers(start: Start, setting: Setting) -> None:
    old = start()
    old.expect_ready()
    new = start("broken", "--takeover")
    new.expect("5 attempts to start worker . have failed")
    assert new.wait() == 1
    old.expect(f"process {new.process.pid} did not become ready; nothing has changed")
    assert get(f"{setting.url}/readyz")[0] == 200
    assert is_open(setting.ports[0])
    expect_taken_over(old, start("normal", "--takeover"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_old_process_goes_on_if_the_new_one_is_ended_before_it_is_ready(
    start: Start, setting: Setting, number: signal.Signals
) -> None:
    old = start()
    old.expect_ready()
    new = start("mute", "--takeover")
    old.expect("has the listening sockets and starts")
    new.expect("workers: 2")
    new.signal(number)
    old.expect(f"process {new.process.pid} did not become ready; nothing has changed")
    for pid in [worker["pid"] for worker in get_status(setting.url)["workers"]]:
        os.kill(pid, 0)
    assert get(f"{setting.url}/readyz")[0] == 200
    assert is_open(setting.ports[0])


def test_mistake_in_the_new_configuration_leaves_the_old_process_alone(start: Start, setting: Setting) -> None:
    old = start()
    old.expect_ready()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        setting.write(setting.ports[0], taken.getsockname()[1])
        new = start("normal", "--takeover")
        new.expect(r"error listen\[1\].address: cannot listen on .*: another program uses this port")
        assert new.wait() == 1
    old.expect("did not become ready; nothing has changed")
    assert is_open(setting.ports[0])


def test_process_that_drains_already_is_not_taken_over(start: Start, setting: Setting, file: Path) -> None:
    file.write_text(file.read_text().replace("delay: 200ms, deadline: 5s", "delay: 15s, deadline: 20s"))
    old = start()
    old.expect_ready()
    old.signal(signal.SIGTERM)
    old.expect("SIGTERM: draining")
    new = start("normal", "--takeover")
    new.expect("lets nobody take over: it is ending already")
    assert new.wait() == 1


def test_signal_that_comes_while_another_process_starts_still_hands_over(
    start: Start, setting: Setting, file: Path
) -> None:
    """Whoever starts the new process and ends the old one at once loses nothing, within the delay of the drain."""
    file.write_text(file.read_text().replace("delay: 200ms, deadline: 5s", "delay: 7s, deadline: 9s"))
    old = start()
    old.expect_ready()
    new = start("normal", "--takeover")
    old.expect("has the listening sockets and starts")
    old.signal(signal.SIGTERM)
    expect_taken_over(old, new)
    assert is_open(setting.ports[0])


def test_reload_that_meets_a_takeover_waits_for_its_end(start: Start, setting: Setting, file: Path) -> None:
    old = start()
    old.expect_ready()
    new = start("mute", "--takeover")
    old.expect("has the listening sockets and starts")
    setting.write(*setting.ports)
    old.signal(signal.SIGHUP)
    assert not is_open(setting.ports[1])
    new.signal(signal.SIGKILL)
    old.expect(r"is in force as table \d+")
    assert is_open(setting.ports[1])


def test_another_protocol_is_refused_with_advice(start: Start, setting: Setting) -> None:
    old = start()
    old.expect_ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(10)
        link.connect(name_socket("127.0.0.1", setting.ops_port))
        link.send(json.dumps({"protocol": PROTOCOL + 1, "version": "9.9"}).encode())
        refused = json.loads(link.recv(65536))["refused"]
    assert "version 9.9 speaks another protocol" in refused
    assert "Stop this one, then start the other" in refused


@pytest.mark.parametrize("layout", [None, session_table.LAYOUT + 1])
def test_process_that_knows_no_such_memory_of_sessions_gets_none(
    start: Start, setting: Setting, layout: int | None
) -> None:
    old = start()
    old.expect_ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(10)
        link.connect(name_socket("127.0.0.1", setting.ops_port))
        link.send(json.dumps({"protocol": PROTOCOL, "sessions": layout}).encode())
        assert json.loads(link.recv(65536))["sessions"] is False
        for _ in range(2):
            assert link.recv(65536) == b"s"  # the sockets of the listener, and that of the operators' port
        link.setblocking(False)
        with pytest.raises(BlockingIOError):
            link.recv(65536)


def test_memory_of_sessions_that_is_too_small_is_not_taken() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    memory = os.memfd_create("small")
    try:
        with one, other:
            socket.send_fds(one, [b"m"], [memory])
            with pytest.raises(ValueError, match=f"has 0 octets instead of {session_table.TABLE_BYTES}"):
                takeover._receive_sessions(other)
    finally:
        os.close(memory)


@pytest.mark.parametrize("hello", [b"", b"{", b"[]", b"\xff", b"{}", b"x" * 60000])
def test_nonsense_is_refused_and_changes_nothing(start: Start, setting: Setting, hello: bytes) -> None:
    old = start()
    old.expect_ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(10)
        link.connect(name_socket("127.0.0.1", setting.ops_port))
        if hello:
            link.send(hello)
            assert "refused" in json.loads(link.recv(65536))
    old.expect("another process has asked for the sockets and got none")
    assert is_open(setting.ports[0])
    expect_taken_over(old, start("normal", "--takeover"))


def test_process_of_another_user_is_not_talked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        assert takeover._check_user(one) == os.getpid()
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        with pytest.raises(takeover.TakeoverError, match="belongs to another user"):
            takeover._check_user(one)


def test_operators_port_that_moves_takes_the_name_along(start: Start, setting: Setting) -> None:
    old = start()
    old.expect_ready()
    (setting.ops_port,) = find_free_ports(1)
    setting.write(setting.ports[0])
    old.signal(signal.SIGHUP)
    old.expect(r"is in force as table \d+")
    expect_taken_over(old, start("normal", "--takeover"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user as well; run the tests as root")
@pytest.mark.parametrize("accepts", [True, False])
def test_start_goes_on_if_another_user_has_taken_the_name(start: Start, setting: Setting, accepts: bool) -> None:
    squat = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
        f"s.bind({name_socket('127.0.0.1', setting.ops_port)!r}); s.listen(5); print('there', flush=True);"
        f"held = [s.accept() for _ in range(1 if {accepts} else 0)]; sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", squat], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as squatter:
        assert squatter.stdout is not None
        assert squatter.stdout.readline() == b"there\n"
        control = start("normal", "--takeover")
        control.expect("nothing to take over: process .* belongs to another user .* this process starts as ever")
        control.expect_ready()
        assert is_open(setting.ports[0])
        squatter.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user as well; run the tests as root")
def test_other_users_that_connect_again_and_again_are_told_once(start: Start, setting: Setting) -> None:
    old = start()
    old.expect_ready()
    connect = (
        "import os, socket; os.setuid(65534)\n"
        "for _ in range(20):\n"
        "    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"    s.connect({name_socket('127.0.0.1', setting.ops_port)!r}); s.recv(1)\n"
    )
    subprocess.run([sys.executable, "-c", connect], check=True, timeout=60)
    expect_taken_over(old, start("normal", "--takeover"))
    assert sum("belongs to another user" in line for line in old.lines) == 1


def test_takeover_is_still_possible_after_control_had_no_files_left(start: Start, setting: Setting) -> None:
    old = start()
    url = old.expect_ready()
    pid = old.process.pid
    used = {int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(set(range(len(used) + 1)) - used), limits[1]))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(name_socket("127.0.0.1", setting.ops_port))
        old.expect("the background task takeover has failed: .*open files.*; it starts again in")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    assert (get_metric(url, 'haproxy_py_task_restarts_total{task="takeover"}') or 0) >= 1
    expect_taken_over(old, start("normal", "--takeover"))

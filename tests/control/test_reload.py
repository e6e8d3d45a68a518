"""What a changed configuration does to a running control process: listeners, workers, the operators' port."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.control.conftest import FILE, Control, Start, get, get_metric, get_status
from tests.proxy_process import find_free_ports

IN_FORCE = r"is in force as table \d+"


@pytest.fixture
def reload(file: Path) -> Callable[[Control, str], None]:
    """Write the file and send SIGHUP."""

    def write_and_signal(control: Control, text: str) -> None:
        file.write_text(text)
        control.signal(signal.SIGHUP)

    return write_and_signal


Reload = Callable[[Control, str], None]


def add_listeners(*listeners: str) -> str:
    return FILE.replace(
        "{address: '127.0.0.1:0'}]\nops", ", ".join(["{address: '127.0.0.1:0'}", *listeners]) + "]\nops"
    )


def is_open(port: int, host: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def list_ports(url: str) -> list[int]:
    return [listener["port"] for listener in get_status(url)["listeners"]]


def test_listener_is_added_and_removed_in_every_worker(start: Start, reload: Reload) -> None:
    (port,) = find_free_ports(1)
    control = start()
    url = control.expect_ready()
    (first,) = list_ports(url)
    reload(control, add_listeners(f"{{address: '127.0.0.1:{port}'}}"))
    control.expect(rf"listening on http://127.0.0.1:{port}$")
    for _ in range(2):
        control.expect(rf"listens on http:{first}\*\d+, http:{port}\*\d+")
    assert list_ports(url) == [first, port]
    assert is_open(port)
    reload(control, FILE)
    control.expect(rf"no longer listening on http://127.0.0.1:{port}; .* within 5 s")
    for _ in range(2):
        control.expect(rf"listens on http:{first}\*\d+;")
    control.expect(IN_FORCE)
    assert not is_open(port)
    assert list_ports(url) == [first]
    assert is_open(first)
    reload(control, add_listeners(f"{{address: '127.0.0.1:{port}'}}"))
    control.expect(IN_FORCE)
    assert is_open(port)


def test_nothing_changes_if_one_of_the_new_addresses_cannot_be_opened(start: Start, reload: Reload) -> None:
    (free,) = find_free_ports(1)
    control = start()
    url = control.expect_ready()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        both = add_listeners(f"{{address: '127.0.0.1:{free}'}}", f"{{address: '127.0.0.1:{busy}'}}")
        both = both.replace("1881", "1999")
        reload(control, both)
        control.expect(
            rf"was not applied: listen\[2\].address: cannot listen on 127.0.0.1:{busy}: another program uses"
        )
        assert not is_open(free)
        status = get_status(url)
        assert status["table_version"] == 1
        assert "another program" in status["config"]["refused_because"]
    control.signal(signal.SIGHUP)  # the same again: now it can be done
    control.expect(IN_FORCE)
    assert is_open(free)
    assert is_open(busy)
    assert get_status(url)["table_version"] == 2


def test_nothing_changes_if_a_certificate_is_missing(start: Start, reload: Reload) -> None:
    (port,) = find_free_ports(1)
    control = start()
    control.expect_ready()
    reload(control, add_listeners(f"{{address: '127.0.0.1:{port}', tls: {{certificate: none.pem}}}}"))
    control.expect(r"was not applied: listen\[1\].tls: .*none.pem cannot be read: No such file")
    assert not is_open(port)


def test_address_may_be_widened_and_narrowed(start: Start, reload: Reload) -> None:
    (port,) = find_free_ports(1)
    control = start()
    control.expect_ready()
    for host in ("127.0.0.1", "0.0.0.0", "127.0.0.1"):
        reload(control, add_listeners(f"{{address: '{host}:{port}'}}"))
        control.expect(rf"listening on http://{host}:{port}$")
        control.expect(IN_FORCE)
        assert is_open(port)


def test_ipv4_listener_may_stand_beside_the_one_of_both_families_and_go_again(start: Start, reload: Reload) -> None:
    (port,) = find_free_ports(1)
    six, four = f"{{address: '[::]:{port}'}}", f"{{address: '0.0.0.0:{port}'}}"
    control = start()
    control.expect_ready()
    for listeners in ([six], [six, four], [six], [four], [four, six]):
        reload(control, add_listeners(*listeners))
        control.expect(IN_FORCE)
        assert is_open(port)
        assert is_open(port, "::1") is (six in listeners)


def test_switch_of_ha_mode_in_a_file_is_logged_as_what_it_does_to_the_editor(start: Start, reload: Reload) -> None:
    control = start()
    control.expect_ready()
    reload(control, FILE.replace("ha: true", "ha: false"))
    control.expect(r" info  instance one: editor open: HA mode is off, the editor and the admin API are open$")
    control.expect(r" warning instance one: the editor is open over 2 replicas: ")
    reload(control, FILE)
    control.expect(r" info  instance one: editor closed: HA mode is on, the editor and the admin API are closed$")


def test_limit_of_connections_and_access_log_reach_the_workers(start: Start, reload: Reload) -> None:
    control = start()
    control.expect_ready()
    reload(
        control,
        FILE.replace("{address: '127.0.0.1:0'}]\nops", "{address: '127.0.0.1:0', connections: 50}]\nops")
        + "log: {access: off}\n",
    )
    for _ in range(2):
        control.expect(r"listens on http:\d+\*25; access log False")


def test_workers_are_added_and_join_when_they_are_ready(start: Start, reload: Reload) -> None:
    control = start()
    url = control.expect_ready()
    reload(control, FILE.replace("workers: 2", "workers: 4"))
    control.expect("workers: 4, formerly 2")
    control.expect(r"worker [34] \(pid \d+\) accepts connections")
    control.expect(r"worker [34] \(pid \d+\) accepts connections")
    assert get_metric(url, 'haproxy_py_workers{state="ready"}') == 4
    assert get_metric(url, "haproxy_py_client_connections") == 28  # every stand-in adds 7
    assert get(f"{url}/readyz")[0] == 200


def test_workers_that_are_too_many_drain_and_their_counters_stay(start: Start, reload: Reload) -> None:
    control = start()
    url = control.expect_ready()
    pids = {worker["worker"]: worker["pid"] for worker in get_status(url)["workers"]}
    reload(control, FILE.replace("workers: 2", "workers: 1"))
    control.expect("workers: 1, formerly 2")
    control.expect(r"worker 2 \(pid \d+\): got Drain 0.3")
    control.expect(r"worker 2 \(pid \d+\) ended with status 0; it is not replaced")
    control.expect(IN_FORCE)
    assert [(worker["worker"], worker["pid"]) for worker in get_status(url)["workers"]] == [(1, pids[1])]
    assert get_metric(url, "haproxy_py_client_connections") == 7
    assert get_metric(url, "haproxy_py_client_connections_accepted_total") == 14
    reload(control, FILE)
    control.expect(r"worker 2 \(pid \d+\) accepts connections")
    assert get_metric(url, "haproxy_py_client_connections_accepted_total") == 21


def test_number_of_a_worker_is_not_given_again_while_it_drains(start: Start, file: Path, reload: Reload) -> None:
    slow = FILE.replace("deadline: 5s", "deadline: 60s")
    file.write_text(slow)
    control = start("stubborn")
    url = control.expect_ready()
    reload(control, slow.replace("workers: 2", "workers: 1"))
    control.expect(IN_FORCE)
    reload(control, slow.replace("workers: 2", "workers: 3"))
    control.expect(r"worker [34] \(pid \d+\) accepts connections")
    control.expect(r"worker [34] \(pid \d+\) accepts connections")
    workers = {worker["worker"]: worker["leaving"] for worker in get_status(url)["workers"]}
    assert workers == {1: False, 3: False, 4: False, 2: True}


def test_added_worker_that_never_starts_does_not_end_the_proxy(start: Start, file: Path, reload: Reload) -> None:
    control = start()
    url = control.expect_ready()
    control.break_next_workers()
    reload(control, FILE.replace("workers: 2", "workers: 3"))
    for _ in range(6):
        control.expect(r"worker 3 \(pid \d+\) ended with status 3; .* another is started")
    assert get(f"{url}/readyz")[0] == 200
    reload(control, FILE)
    control.expect("workers: 2, formerly 3")
    control.expect(IN_FORCE)
    assert [worker["worker"] for worker in get_status(url)["workers"]] == [1, 2]


def test_operators_port_moves(start: Start, reload: Reload) -> None:
    (port,) = find_free_ports(1)
    control = start()
    url = control.expect_ready()
    reload(control, FILE.replace("ops: {address: '127.0.0.1:0'}", f"ops: {{address: '127.0.0.1:{port}'}}"))
    control.expect(rf"operators' port on http://127.0.0.1:{port}:")
    control.expect(IN_FORCE)
    assert get(f"http://127.0.0.1:{port}/readyz")[0] == 200
    assert not is_open(int(url.rpartition(":")[2]))


def test_port_cannot_change_its_part_in_one_step(start: Start, reload: Reload) -> None:
    control = start()
    url = control.expect_ready()
    ops = url.rpartition(":")[2]
    (port,) = find_free_ports(1)
    wanted = add_listeners(f"{{address: '127.0.0.1:{ops}'}}").replace(
        "ops: {address: '127.0.0.1:0'}", f"ops: {{address: '127.0.0.1:{port}'}}"
    )
    reload(control, wanted)
    control.expect("was not applied: .* This proxy itself has it until the change: make it in two steps")
    assert get(f"{url}/readyz")[0] == 200
    assert not is_open(port)


def test_listener_that_is_added_while_a_worker_is_being_replaced_reaches_its_successor(
    start: Start, reload: Reload
) -> None:
    (port,) = find_free_ports(1)
    control = start()
    url = control.expect_ready()
    os.kill(get_status(url)["workers"][0]["pid"], signal.SIGKILL)
    reload(control, add_listeners(f"{{address: '127.0.0.1:{port}'}}"))
    control.expect(r"worker 1 \(pid \d+\) accepts connections")
    control.expect(rf"worker 1 \(pid \d+\): listens on http:\d+\*\d+, http:{port}\*\d+")

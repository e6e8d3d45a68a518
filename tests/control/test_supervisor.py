"""The control process as a whole: workers that die, signals, reloads, ports that are taken."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.control.conftest import FILE, Start, get, get_metric, get_status

ACTIVE = 'haproxy_py_replica_active_requests{instance="one",replica="127.0.0.1:1880"}'
SENT = 'haproxy_py_replica_sent_bytes_total{instance="one",replica="127.0.0.1:1880"}'


def test_killed_worker_is_replaced_within_a_second(start: Start) -> None:
    control = start()
    url = control.expect_ready()
    victim = get_status(url)["workers"][0]
    began = time.monotonic()
    os.kill(victim["pid"], signal.SIGKILL)
    control.expect(rf"worker 1 \(pid {victim['pid']}\) was killed by SIGKILL; .* another is started at once")
    control.expect(r"worker 1 \(pid \d+\) accepts connections")
    assert time.monotonic() - began < 1.0
    heir = get_status(url)["workers"][0]
    assert heir["ready"]
    assert heir["pid"] != victim["pid"]
    assert heir["restarts"] == 1
    assert get_metric(url, "haproxy_py_worker_restarts_total") == 1


def test_counters_survive_a_killed_worker_and_gauges_do_not(start: Start) -> None:
    control = start()
    url = control.expect_ready()
    assert get_metric(url, ACTIVE) == 10  # every stand-in adds 5 when it starts
    assert get_metric(url, SENT) == 200
    assert get_metric(url, "haproxy_py_client_connections") == 14
    os.kill(get_status(url)["workers"][1]["pid"], signal.SIGKILL)
    control.expect(r"worker 2 \(pid \d+\) accepts connections")
    assert get_metric(url, ACTIVE) == 10
    assert get_metric(url, SENT) == 300
    assert get_metric(url, "haproxy_py_client_connections") == 14
    assert get_metric(url, "haproxy_py_client_connections_accepted_total") == 21


def test_worker_that_keeps_dying_is_replaced_after_growing_pauses(start: Start) -> None:
    control = start()
    url = control.expect_ready()
    for pause in ("at once", "in 0.1 s", "in 0.2 s"):
        os.kill(get_status(url)["workers"][0]["pid"], signal.SIGKILL)
        control.expect(f"worker 1 .* another is started {pause}")
        control.expect("worker 1 .* accepts connections")


def test_workers_that_never_start_end_the_proxy_with_status_1(start: Start) -> None:
    control = start("broken")
    control.expect("ended with status 3; 5 attempts to start worker . have failed; haproxy_py ends")
    assert control.wait() == 1


def test_worker_that_is_not_ready_in_time_is_killed_and_replaced(start: Start) -> None:
    control = start("mute", "--impatient")
    control.expect(r"worker 1 \(pid \d+\) was not ready within 1 s; it is killed")
    control.expect(r"worker 1 \(pid \d+\) was killed by SIGKILL; .* another is started at once")


def test_worker_without_a_channel_is_killed_and_replaced(start: Start) -> None:
    control = start("deaf")
    control.expect_ready()
    control.expect(r"worker 1 \(pid \d+\) was killed by SIGKILL; .* another is started at once")


def test_proxy_is_not_ready_before_a_worker_is(start: Start) -> None:
    control = start("mute")
    url = control.expect(r"operators' port on (http://[^:]+:\d+)")[1]
    status, body = get(f"{url}/readyz")
    assert status == 503
    assert "no worker accepts connections" in body
    assert get(f"{url}/livez")[0] == 200


def test_first_sigterm_drains_and_ends_with_status_0(start: Start, file: Path) -> None:
    file.write_text(FILE.replace("300ms", "2s"))
    control = start()
    url = control.expect_ready()
    assert get(f"{url}/readyz")[0] == 200
    control.signal(signal.SIGTERM)
    control.expect("SIGTERM: draining")
    status, body = get(f"{url}/readyz")
    assert status == 503
    assert "draining" in body
    assert get(f"{url}/livez")[0] == 200
    control.expect("got Drain 2.0")
    control.expect("got Drain 2.0")
    control.expect("every worker has ended; haproxy_py ends")
    assert control.wait() == 0
    assert get_restarts(control.lines) == 0


def test_listening_ports_stay_open_during_the_drain_delay_and_close_after_it(start: Start, file: Path) -> None:
    file.write_text(FILE.replace("300ms", "1s"))
    control = start("stubborn")  # a worker that keeps its own copies open
    port = int(control.expect(r"listening on http://127.0.0.1:(\d+)")[1])
    control.expect_ready()
    control.signal(signal.SIGTERM)
    control.expect("SIGTERM: draining")
    socket.create_connection(("127.0.0.1", port), 5).close()
    control.expect("the listening ports are closed")
    control.signal(signal.SIGTERM)
    assert control.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_worker_that_dies_during_the_drain_delay_is_replaced_and_drains(start: Start, file: Path) -> None:
    file.write_text(FILE.replace("300ms", "3s"))
    control = start()
    url = control.expect_ready()
    control.signal(signal.SIGTERM)
    control.expect("got Drain")
    control.expect("got Drain")
    os.kill(get_status(url)["workers"][0]["pid"], signal.SIGKILL)
    control.expect("worker 1 .* was killed by SIGKILL; .* started at once")
    control.expect("worker 1 .* accepts connections")
    control.expect("worker 1 .* got Drain [12]")
    assert control.wait() == 0


def test_worker_that_dies_after_the_drain_delay_is_not_replaced(start: Start) -> None:
    control = start("stubborn")
    url = control.expect_ready()
    control.signal(signal.SIGTERM)
    control.expect("the listening ports are closed")
    for worker in get_status(url)["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
    control.expect("was killed by SIGKILL; it is not replaced")
    assert control.wait() == 0


def test_workers_that_ignore_the_drain_deadline_are_killed_two_seconds_later(start: Start, file: Path) -> None:
    file.write_text(FILE.replace("300ms", "100ms").replace("5s", "200ms"))
    control = start("stubborn")
    control.expect_ready()
    began = time.monotonic()
    control.signal(signal.SIGINT)
    control.expect("SIGINT: draining")
    control.expect("the drain deadline is over")
    assert control.wait() == 0
    assert 2.0 < time.monotonic() - began < 5.0


def test_second_signal_stops_the_workers_at_once(start: Start, file: Path) -> None:
    file.write_text(FILE.replace("300ms", "30s").replace("5s", "60s"))
    control = start()
    control.expect_ready()
    control.signal(signal.SIGTERM)
    control.expect("got Drain")
    control.signal(signal.SIGINT)
    control.expect("SIGINT again")
    control.expect("got Stop")
    assert control.wait() == 0


def test_second_signal_kills_workers_that_do_not_stop(start: Start, file: Path) -> None:
    file.write_text(FILE.replace("300ms", "30s").replace("5s", "60s"))
    control = start("stubborn")
    control.expect_ready()
    control.signal(signal.SIGTERM)
    control.expect("SIGTERM: draining")
    control.signal(signal.SIGTERM)
    control.expect("was killed by SIGKILL; it is not replaced")
    assert control.wait() == 0


def test_workers_end_when_control_is_killed(start: Start) -> None:
    control = start()
    url = control.expect_ready()
    pids = [worker["pid"] for worker in get_status(url)["workers"]]
    handles = [os.pidfd_open(pid) for pid in pids]
    control.process.kill()
    for handle in handles:
        assert select.select([handle], [], [], 10)[0]  # a pidfd is readable when its process has ended
        os.close(handle)


def test_sighup_publishes_the_changed_file(start: Start, file: Path) -> None:
    control = start()
    url = control.expect_ready()
    file.write_text(FILE.replace("1881", "1999"))
    control.signal(signal.SIGHUP)
    said = "is in force as table 2, instances: 1, replicas: 2", "got table 2: 127.0.0.1:1880,127.0.0.1:1999"
    lines = [control.expect("|".join(said))[0] for _ in range(3)]  # control and two workers, in any order
    assert sorted(lines) == sorted([*said, said[1]])
    status = get_status(url)
    assert status["table_version"] == 2
    assert {worker["table_version"] for worker in status["workers"]} == {2}
    assert [replica["port"] for replica in status["instances"][0]["replicas"]] == [1880, 1999]
    # DRN-4: the one that left is still counted, but has no state.
    gone = 'instance="one",replica="127.0.0.1:1881"'
    assert get_metric(url, f"haproxy_py_replica_sent_bytes_total{{{gone}}}") == 0
    assert get_metric(url, f'haproxy_py_replica_state{{{gone},state="ready"}}') is None


def test_sighup_with_a_bad_file_tells_every_error_and_changes_nothing(start: Start, file: Path) -> None:
    control = start()
    url = control.expect_ready()
    file.write_text(FILE.replace("workers: 2", "worker: 2").replace("delay: 300ms", "dely: 300ms"))
    control.signal(signal.SIGHUP)
    first = control.expect("error .*(worker|dely)")
    second = control.expect("error .*(worker|dely)")
    assert {first[1], second[1]} == {"worker", "dely"}
    control.expect("was not applied: 2 mistakes in it; the former configuration stays in force")
    assert get_status(url)["table_version"] == 1
    assert get(f"{url}/readyz")[0] == 200


def test_sighup_with_a_missing_file_changes_nothing(start: Start, file: Path) -> None:
    control = start()
    url = control.expect_ready()
    file.unlink()
    control.signal(signal.SIGHUP)
    control.expect("was not applied: cannot be read: .*; the former configuration stays in force")
    assert get(f"{url}/readyz")[0] == 200


def test_sighup_without_a_file_says_so(start: Start) -> None:
    control = start("normal", "--forget-file")
    control.expect_ready()
    control.signal(signal.SIGHUP)
    control.expect("warning SIGHUP: there is no configuration file to read again; nothing was changed")


def test_changed_file_is_applied_without_a_signal(start: Start, file: Path) -> None:
    control = start()
    url = control.expect_ready()
    began = time.time()
    assert get_metric(url, "haproxy_py_config_last_reload_success") == 1
    file.write_text(FILE.replace("1881", "1999"))
    control.expect("file changed: .* is in force as table 2, instances: 1, replicas: 2", within=4)
    assert [replica["port"] for replica in get_status(url)["instances"][0]["replicas"]] == [1880, 1999]
    since = get_metric(url, "haproxy_py_config_last_reload_success_timestamp_seconds")
    assert since is not None
    assert began <= since <= time.time()
    assert get_metric(url, 'haproxy_py_config_reloads_total{outcome="applied"}') == 1


def test_changed_file_with_a_mistake_is_refused_once_and_the_status_says_so(start: Start, file: Path) -> None:
    control = start()
    url = control.expect_ready()
    file.write_text(FILE.replace("workers: 2", "worker: 2"))
    control.expect('error .*proxy.yaml:4:1: unknown key "worker"')
    control.expect("was not applied: a mistake in it; the former configuration stays in force")
    assert "unknown key" in get_status(url)["config"]["refused_because"]
    assert get_metric(url, "haproxy_py_config_last_reload_success") == 0
    assert get_metric(url, 'haproxy_py_config_reloads_total{outcome="refused"}') == 1
    assert get_status(url)["table_version"] == 1
    os.utime(file, ns=(1, 1))
    file.write_text(FILE)
    control.expect("says what is in force, as before")
    assert sum("was not applied" in line for line in control.lines) == 1
    assert get_status(url)["config"]["refused_because"] is None
    assert get_status(url)["table_version"] == 1
    assert get_metric(url, "haproxy_py_config_last_reload_success") == 1


def test_file_that_disappears_is_told_once_and_read_when_it_is_back(start: Start, file: Path) -> None:
    control = start()
    url = control.expect_ready()
    file.unlink()
    control.expect("was not applied: cannot be read: No such file or directory")
    assert get(f"{url}/readyz")[0] == 200
    file.write_text(FILE.replace("1881", "1999"))
    control.expect("file changed: .* is in force as table 2")


@pytest.mark.parametrize("part", ["listen", "ops"])
def test_port_in_use_is_a_clear_error_and_status_1(start: Start, file: Path, part: str) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        position = FILE.index(f"{part}:")
        file.write_text(FILE[:position] + FILE[position:].replace("127.0.0.1:0", address, 1))
        control = start()
        control.expect(rf"error {part}.*address: cannot listen on {address}: another program uses this port")
        assert control.wait() == 1


def test_every_configured_worker_is_a_process_of_its_own(start: Start) -> None:
    control = start()
    url = control.expect_ready()
    assert len({worker["pid"] for worker in get_status(url)["workers"]}) == 2
    assert get_metric(url, 'haproxy_py_workers{state="configured"}') == 2
    assert get_metric(url, 'haproxy_py_workers{state="ready"}') == 2


def get_restarts(lines: list[str]) -> int:
    return sum("another is started" in line for line in lines)


def test_start_warns_once_of_a_gate_that_has_to_know_every_admin_route(start: Start) -> None:
    control = start()
    control.expect(r"in HA mode, one: gate\.admin_root is /: .* httpAdminRoot: '/admin' .* gate\.admin_root: /admin")
    control.expect_ready()
    control.process.send_signal(signal.SIGHUP)
    control.expect("SIGHUP")
    assert sum("gate.admin_root is /" in line for line in control.lines) == 1

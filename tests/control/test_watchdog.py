"""What the watchdog takes for a stall, and what it does about one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from haproxy_py.config import Watchdog
from haproxy_py.control.watchdog import LOOK_EVERY, Activity, Verdict, Watch, read_activity
from tests.control.conftest import FILE, Start, get_metric, get_status

LIMITS = Watchdog(report=1.0, replace=3.0)
STOPPED = Activity("T", 0.0)


def watch_for(
    seconds: float, activities: Iterable[Activity | None], limits: Watchdog = LIMITS, every: float = LOOK_EVERY
) -> list[tuple[float, Verdict]]:
    """What looks at a process whose loop stands still have found, but for those that found nothing new."""
    watch = Watch()
    watch.look(100.0, 7, lambda: None, limits)
    reading: Iterator[Activity | None] = iter(activities)
    found = []
    for number in range(1, int(seconds / every) + 1):
        verdict = watch.look(100.0 + number * every, 7, lambda: next(reading), limits)
        found.append((number * every, verdict))
    return [one for one in found if one[1] is not Verdict.TURNS]


def repeat(activity: Activity) -> Iterator[Activity]:
    while True:
        yield activity


def use_cpu(share: float) -> Iterator[Activity]:
    """Runnable all the time, and on a CPU for a share of it."""
    number = 0
    while True:
        number += 1
        yield Activity("R", number * LOOK_EVERY * share)


@pytest.mark.parametrize("state", "STD")
def test_stall_is_reported_once_and_ends_in_a_replacement(state: str) -> None:
    found = watch_for(10.0, repeat(Activity(state, 5.0)))
    assert [verdict for _, verdict in found] == [Verdict.REPORT, Verdict.REPLACE]
    (reported, _), (replaced, _) = found
    assert 1.0 <= reported <= 1.0 + 2 * LOOK_EVERY
    assert 3.0 <= replaced <= 3.0 + 2 * LOOK_EVERY


def test_endless_loop_is_a_stall() -> None:
    assert watch_for(10.0, use_cpu(1.0)) == watch_for(10.0, repeat(STOPPED))


def test_process_that_waits_for_a_cpu_is_not_stalled_for_longer_than_it_ran() -> None:
    assert watch_for(9.0, use_cpu(0.1)) == []
    assert watch_for(25.0, use_cpu(0.1))[0][1] is Verdict.REPORT  # it has run for a second, and no turn was done


def test_late_looks_are_no_stall() -> None:
    """Control was stopped, too, or the machine was suspended."""
    assert watch_for(60.0, repeat(STOPPED), every=60.0) == []
    assert watch_for(120.0, repeat(STOPPED), every=60.0) == []
    assert [verdict for _, verdict in watch_for(60.0 * 20, repeat(STOPPED), every=60.0)] == [
        Verdict.REPORT,
        Verdict.REPLACE,
    ]


def test_process_that_has_ended_is_not_stalled() -> None:
    assert watch_for(10.0, repeat(None)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Watchdog(report=0.0, replace=3.0), [Verdict.REPLACE]),
        (Watchdog(report=1.0, replace=0.0), [Verdict.REPORT]),
        (Watchdog(report=0.0, replace=0.0), []),
    ],
)
def test_either_is_off_at_0(limits: Watchdog, expected: list[Verdict]) -> None:
    assert [verdict for _, verdict in watch_for(100.0, repeat(STOPPED), limits)] == expected


def test_end_of_a_reported_stall_is_told_with_its_length() -> None:
    watch = Watch()
    moment, ticks = 0.0, 1
    found = []
    for number in range(40):
        moment += LOOK_EVERY
        ticks += not 4 <= number < 12
        found.append(watch.look(moment, ticks, lambda: STOPPED, LIMITS))
        if found[-1] is Verdict.AGAIN:
            assert watch.stalled == pytest.approx(7 * LOOK_EVERY)
            assert watch.reported == 0.0
    assert found.count(Verdict.REPORT) == found.count(Verdict.AGAIN) == 1
    assert found.index(Verdict.AGAIN) == 12


def test_activity_of_real_processes() -> None:
    assert (read_activity(os.getpid()) or STOPPED).state == "R"
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            before = read_activity(process.pid)
            time.sleep(0.3)
            after = read_activity(process.pid)
            assert before is not None
            assert after is not None
            assert after.state == "R"
            assert after.cpu > before.cpu
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            assert (read_activity(process.pid) or after).doing == "is stopped by a signal"
        finally:
            process.kill()
    assert read_activity(process.pid) is None


@pytest.fixture
def hasty(file: Path) -> None:
    """A watchdog that waits no longer than it must."""
    file.write_text(FILE + "watchdog: {report: 500ms, replace: 1500ms}\n")


@pytest.mark.usefixtures("hasty")
def test_stopped_worker_is_reported_and_replaced(start: Start) -> None:
    control = start()
    url = control.expect_ready()
    victim = get_status(url)["workers"][0]["pid"]
    os.kill(victim, signal.SIGSTOP)
    stopped = time.monotonic()
    control.expect(rf"worker 1 \(pid {victim}\) stands still: .* is stopped by a signal. It does not tell its stack.")
    told = get_status(url)["workers"]
    assert told[0]["stalled_seconds"] >= 0.5
    assert told[1]["stalled_seconds"] == 0
    control.expect(rf"worker 1 \(pid {victim}\) has stood still for 1\.[5-9] s .*; it is killed")
    control.expect(rf"worker 1 \(pid {victim}\) was killed by SIGKILL; .* another is started at once")
    control.expect(r"worker 1 \(pid \d+\) accepts connections")
    assert 1.5 < time.monotonic() - stopped < 10
    told = get_status(url)["workers"]
    assert (told[0]["stalls"], told[0]["restarts"], told[0]["stalled_seconds"]) == (1, 1, 0)
    assert (told[1]["stalls"], told[1]["restarts"]) == (0, 0)
    assert get_metric(url, "haproxy_py_worker_stalls_total") == 1


@pytest.mark.usefixtures("hasty")
def test_worker_that_is_continued_in_time_is_kept(start: Start) -> None:
    control = start()
    url = control.expect_ready()
    victim = get_status(url)["workers"][0]["pid"]
    os.kill(victim, signal.SIGSTOP)
    control.expect("stands still")
    os.kill(victim, signal.SIGCONT)
    control.expect(rf"worker 1 \(pid {victim}\) goes on after it stood still for")
    time.sleep(2.0)  # longer than `replace`
    assert get_status(url)["workers"][0]["pid"] == victim


@pytest.mark.usefixtures("hasty")
def test_stopping_the_whole_proxy_is_no_stall(start: Start) -> None:
    control = start()
    url = control.expect_ready()
    pids = [control.process.pid, *(worker["pid"] for worker in get_status(url)["workers"])]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3.0)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    time.sleep(1.5)
    assert [worker["pid"] for worker in get_status(url)["workers"]] == pids[1:]
    assert get_metric(url, "haproxy_py_worker_stalls_total") == 0

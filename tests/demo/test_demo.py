"""`haproxy-py demo` as a whole: it starts, says what to try, what it says is true, and nothing outlives it."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.proxy_process import find_free_ports

TIMEOUT = 60.0  # seconds for the demo to be there, or to be gone


class Demo:
    """A running demo and what it has printed."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.port, self.ops_port = find_free_ports(2)
        self._log = folder / "demo.log"
        command = [sys.executable, "-m", "haproxy_py", "demo", *more]
        command += ["--listen", f"127.0.0.1:{self.port}", "--ops", f"127.0.0.1:{self.ops_port}"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert self.process.poll() is None, f"the demo ended before {what}:\n{self.output}"
            assert time.monotonic() < deadline, f"waited {TIMEOUT:.0f} s for {what}:\n{self.output}"
            time.sleep(0.05)

    def wait_ready(self) -> None:
        self.wait_for(lambda: "Ctrl-C ends everything" in self.output, "the guide")
        self.wait_for(lambda: self.ask("/api/hello")[0] == 200, "an answer")

    def ask(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Status, replica id and body; status 0 while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            try:
                connection.request(method, path)
                answer = connection.getresponse()
                return answer.status, answer.getheader("X-HA-Replica", ""), answer.read().decode()
            except OSError:
                return 0, "", ""

    def list_processes(self) -> set[int]:
        """Every process that descends from the demo now."""
        parents = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(ValueError, OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    try:
        running.wait_ready()
        yield running
    finally:
        running.end()


def _are_gone(processes: set[int]) -> bool:
    return not any(_is_running(pid) for pid in processes)


def _is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _wait_until_gone(processes: set[int]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not _are_gone(processes):
        assert time.monotonic() < deadline, f"still there: {[pid for pid in processes if _is_running(pid)]}"
        time.sleep(0.05)


def test_replicas_take_turns_and_the_gate_refuses(demo: Demo) -> None:
    ids = [demo.ask("/api/hello")[1] for _ in range(6)]
    assert len(set(ids)) == 2
    assert ids[0::2] == [ids[0]] * 3
    assert ids[1::2] == [ids[1]] * 3
    assert demo.ask("/flows")[0] == 403
    assert demo.ask("/")[0] == 403
    assert demo.ask("/demo")[0] == 200


def test_live_counts_follow(demo: Demo) -> None:
    for _ in range(4):
        demo.ask("/api/hello")
    demo.wait_for(
        lambda: re.search(r"^replica-1 \(\w+\): [1-9].* \| refused by the gate: 0$", demo.output, re.M), "counts"
    )
    demo.ask("/flows")
    demo.wait_for(lambda: "refused by the gate: 1" in demo.output, "a refusal in the counts")


def test_every_curl_line_of_the_guide_can_be_pasted(demo: Demo) -> None:
    lines = [
        line.strip()
        for line in demo.output.splitlines()
        if line.startswith(("  curl ", "  for ", f"  {sys.executable}"))
    ]
    assert len(lines) >= 8
    for line in lines:
        if "/events" in line:
            line = line.replace("curl -N", "curl -N -m 3")  # it would go on until Ctrl-C
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode in (0, 28), f"{line}\n{done.stdout}{done.stderr}"
        assert done.stdout, line
        if f"{demo.port}/flows" in line or "LOWS" in line:
            assert " 403 " in done.stdout


def test_a_stopped_replica_is_not_noticed(demo: Demo) -> None:
    kill = next(line for line in demo.output.splitlines() if line.startswith("  kill "))
    os.kill(int(shlex.split(kill)[1].rstrip(";")), signal.SIGTERM)
    demo.wait_for(lambda: "STOPPED" in demo.output, "word of the stopped replica")
    assert [demo.ask("/api/hello")[0] for _ in range(6)] == [200] * 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_everything_with_status_0(demo: Demo, number: signal.Signals) -> None:
    processes = demo.list_processes()
    assert len(processes) >= 4  # control, a worker, two replicas
    demo.process.send_signal(number)
    assert demo.process.wait(TIMEOUT) == 0
    _wait_until_gone(processes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_the_thread_of_the_counts_starts_ends_the_demo(tmp_path: Path, number: signal.Signals) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"""
import os, sys, threading
from haproxy_py.cli import main
start = threading.Thread.start
def start_interrupted(thread):
    start(thread)
    os.kill(os.getpid(), {int(number)})
threading.Thread.start = start_interrupted
sys.exit(main(["demo", "--listen", "127.0.0.1:18470", "--ops", "127.0.0.1:19470"]))
""",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_nothing_outlives_a_killed_demo(demo: Demo) -> None:
    processes = demo.list_processes()
    demo.process.kill()
    demo.process.wait()
    _wait_until_gone(processes)


def test_real_node_red_as_replicas(tmp_path: Path) -> None:
    running = Demo(tmp_path, "--node-red")
    try:
        running.wait_ready()
        assert "two Node-RED replicas" in running.output
        assert len({running.ask("/api/hello")[1] for _ in range(2)}) == 2
        assert running.ask("/demo")[0] == 200
        assert running.ask("/flows")[0] == 403
        processes = running.list_processes()
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(TIMEOUT) == 0
        _wait_until_gone(processes)
    finally:
        running.end()

"""New processes take over from running ones under load, one after the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.chaos.conftest import Extent, Figures
from tests.chaos.replicas import START_WITHIN, Replicas, wait_for_all
from tests.chaos.test_processes_die import wait_until
from tests.chaos.test_replica_dies import wait_for_port
from tests.load import Load
from tests.proxy_process import ProxyProcess, describe_instance

RATE = 2000.0
ENDS_WITHIN = 30.0
DRAIN = {"delay": "1s", "deadline": "5s"}


class Successor:
    """`haproxy-py run --takeover` on the configuration of a proxy that runs."""

    def __init__(self, proxy: ProxyProcess, number: int) -> None:
        self._log_file = proxy.log_file.with_name(f"successor-{number}.log")
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "haproxy_py", "run", "--config", str(proxy.config_file), "--takeover"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def wait_until_it_has_taken_over(self) -> None:
        end = time.monotonic() + START_WITHIN
        while "this process has taken over" not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def test_takeovers_under_load_refuse_and_fail_nothing(tmp_path: Path, extent: Extent, figures: Figures) -> None:
    times = extent.choose(2, 10)
    successors: list[Successor] = []
    with Replicas(3) as replicas:
        proxy = ProxyProcess(
            tmp_path, [describe_instance(replicas.urls)], workers=2, extra={"drain": DRAIN, "log": {"access": "off"}}
        )
        proxy.start()
        try:
            with Load(proxy.port, threads=24, pause=0, rate=RATE) as load:
                wait_for_all(load, 3)
                began = time.monotonic()
                for turn in range(times):
                    proxy.config["workers"] = 1 + turn % 3
                    proxy.write_config()
                    if turn % 3 == 2:  # one that never gets so far
                        lost = Successor(proxy, -turn)
                        time.sleep(0.3)
                        lost.kill()
                    successors.append(Successor(proxy, turn))
                    successors[-1].wait_until_it_has_taken_over()
                    load.run_for(500)
                    former = successors[-2].process if turn else proxy.process
                    assert former.wait(ENDS_WITHIN) == 0
                load.run_for(1000)
                failures = load.list_failures(since=began)
                total = load.total
            assert failures == []
            assert proxy.is_ready()
            last = successors[-1].process
            last.send_signal(signal.SIGTERM)
            assert last.wait(ENDS_WITHIN) == 0
        finally:
            for successor in successors:
                successor.kill()
            proxy.kill()
    figures.add(
        f"{times} takeovers by a new process under load, with one to three workers: {total} requests, every fourth client with "
        "a connection for each, 0 refused, 0 failed"
    )


def test_process_that_takes_over_knows_who_fails_its_checks_before_its_first_client(tmp_path: Path) -> None:
    health = {"type": "http", "path": "/api/hello", "body": '"replica-0"'}
    with Replicas(3) as replicas:
        for port in replicas.ports:
            wait_for_port(port)
        proxy = ProxyProcess(tmp_path, [describe_instance(replicas.urls, health=health)], extra={"drain": DRAIN})
        proxy.start()
        successors: list[Successor] = []
        try:
            wait_until(
                lambda: all(f"replica 127.0.0.1:{port} is unhealthy" in proxy.log for port in replicas.ports[1:])
            )
            time.sleep(0.3)  # a table at most every tenth of a second
            with Load(proxy.port, threads=8, pause=0, rate=1000.0) as load:
                load.run_for(50)
                for turn in range(3):
                    successors.append(Successor(proxy, turn))
                    successors[-1].wait_until_it_has_taken_over()
                    load.run_for(200)
                assert load.list_failures() == []
                assert {one.replica for one in load.results} == {"replica-0"}
        finally:
            for successor in successors:
                successor.kill()
            proxy.kill()

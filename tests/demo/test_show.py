"""Ports, guide and counts of the demo."""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import haproxy_py
from haproxy_py.control import supervisor
from haproxy_py.demo import counts, show
from haproxy_py.demo.counts import LiveCounts, describe_counts
from haproxy_py.demo.replicas import DemoError, DemoReplica, find_node_red
from haproxy_py.demo.show import choose_port, show_demo, write_guide

STATUS: dict[str, Any] = {
    "instances": [
        {
            "gate_denied": 2,
            "replicas": [
                {"host": "127.0.0.1", "port": 1880, "id": "ab12", "requests": 5, "active_tunnels": 1},
                {"host": "127.0.0.1", "port": 1881, "id": "cd34", "requests": 4, "active_tunnels": 0},
            ],
        }
    ]
}


def test_taken_port_gives_the_next_free_one_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        port = owner.getsockname()[1]
        chosen = choose_port("127.0.0.1", port, set(), "the proxy")
    assert chosen > port
    assert capsys.readouterr().out == f"Port {port} is taken, so the proxy is on port {chosen}.\n"


def test_no_port_is_given_twice() -> None:
    taken: set[int] = set()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first, second = (choose_port("127.0.0.1", port, taken, "a part") for _ in range(2))
    assert first != second
    assert taken == {first, second}


def test_address_of_another_machine_is_refused_with_its_reason() -> None:
    with pytest.raises(DemoError, match=r"the proxy: 192\.0\.2\.1:8080: Cannot assign"):
        choose_port("192.0.2.1", 8080, set(), "the proxy")


def test_wrong_address_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_demo("nonsense", "127.0.0.1:9090", node_red=False) == 2
    assert "--listen" in capsys.readouterr().err


def test_guide_names_every_place_and_an_admin_path() -> None:
    pair = [SimpleNamespace(url=f"http://127.0.0.1:{port}", pid=port) for port in (1880, 1881)]
    guide = write_guide("http://127.0.0.1:8080", "http://127.0.0.1:9090", cast(list[DemoReplica], pair), "replicas")
    for line in (
        "  curl -i http://127.0.0.1:8080/flows\n",
        "  curl -s http://127.0.0.1:9090/metrics | grep replica_requests_total\n",
        "ws://127.0.0.1:8080/ws/echo hello",
        "  curl -i http://127.0.0.1:1880/flows\n",
    ):
        assert line in guide


def test_counts_are_one_line() -> None:
    pair = [SimpleNamespace(name=f"replica-{n}", port=1879 + n, is_running=n == 1) for n in (1, 2)]
    assert describe_counts(STATUS, cast(list[DemoReplica], pair)) == (
        "replica-1 (ab12): 5 + 1 open | replica-2 (cd34): 4 STOPPED | refused by the gate: 2"
    )


def test_missing_node_red_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(haproxy_py, "__file__", str(tmp_path / "haproxy_py" / "__init__.py"))
    with pytest.raises(DemoError, match="npm install node-red"):
        find_node_red()


def test_reader_that_has_stopped_does_not_keep_the_demo_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    looks = threading.Event()
    monkeypatch.setattr(counts, "INTERVAL", 0.0)
    output = os.fdopen(writing, "w")
    live = LiveCounts("127.0.0.1", 1, [], output)
    numbers = itertools.count()

    def tell(*_: object) -> str:
        number = next(numbers)
        if number == 100:
            looks.set()
        return f"{number} {'x' * 500}"

    monkeypatch.setattr(live, "_read_status", dict)
    monkeypatch.setattr(counts, "describe_counts", tell)
    live._thread.daemon = True  # or a failure of this test would never end
    live.__enter__()
    assert looks.wait(20), "the thread has stopped where nobody reads"
    live.__exit__()
    assert not live._thread.is_alive()
    os.close(reading)
    with contextlib.suppress(BrokenPipeError):
        output.close()


def test_signal_whose_exception_was_lost_ends_the_demo_before_the_proxy_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def lose_signal(*_: object, **__: object) -> Iterator[list[Any]]:
        with contextlib.suppress(KeyboardInterrupt):  # as Python does with what a callback raises
            os.kill(os.getpid(), signal.SIGTERM)
        yield [SimpleNamespace(url="http://a", port=1, pid=1)] * 2

    monkeypatch.setattr(show, "run_replicas", lose_signal)
    monkeypatch.setattr(supervisor, "supervise", lambda *_: pytest.fail("the proxy runs"))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        assert show_demo("127.0.0.1:18480", "127.0.0.1:19480", node_red=False) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_live_counts_print_only_changes_away_from_a_terminal() -> None:
    output = io.StringIO()
    counts = LiveCounts("127.0.0.1", 1, [], output)
    for line in ("a", "a", "b"):
        counts._show(line)
    assert output.getvalue() == "a\nb\n"

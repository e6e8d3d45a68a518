"""load.c: what it counts, and from when."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.load import Generators, LoadError, read_result
from benchmarks.machine import UnavailableError
from benchmarks.scenarios import find_scenario

SMALL = replace(find_scenario("small"), connections=2)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def server(answer: Callable[[socket.socket, int], None]) -> Iterator[int]:
    """A replica that calls `answer` with each request's connection and number, one connection per thread."""
    count = iter(range(10**9))

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            while client.recv(65536):
                answer(client, next(count))

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_a_stall_counts_for_all_requests_that_fell_due_meanwhile(generators: Generators) -> None:
    def stall_once(client: socket.socket, number: int) -> None:
        if number in (50, 51):  # both connections
            time.sleep(0.5)
        client.sendall(ANSWER)

    with server(stall_once) as port:
        load = generators.run_at_rate(SMALL, port, 1, 200)
    assert (load.requests, load.wrong, load.errors) == (200, 0, 0)
    assert load.p50 < 250
    assert load.p99 > 350  # about 100 of 200 fell due while nothing moved; without the correction only two were slow


def test_the_rate_is_kept(generators: Generators, replicas: tuple[int, ...]) -> None:
    load = generators.run_at_rate(SMALL, replicas[0], 0.5, 1000)
    assert (load.requests, load.errors) == (500, 0)


def test_an_answer_that_is_not_2xx_is_wrong(generators: Generators) -> None:
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    with server(lambda client, number: client.sendall(refusal if number % 2 else ANSWER)) as port:
        load = generators.run_at_rate(SMALL, port, 0.5, 100)
    assert (load.requests, load.wrong) == (50, 25)


def test_a_connection_that_breaks_is_an_error(generators: Generators) -> None:
    def hang_up(client: socket.socket, number: int) -> None:
        if number == 10:
            client.shutdown(socket.SHUT_RDWR)
        else:
            client.sendall(ANSWER)

    with server(hang_up) as port:
        load = generators.run_at_rate(SMALL, port, 0.5, 100)
    assert (load.requests, load.errors) == (49, 1)


def test_few_active_connections_rotate_over_all(generators: Generators) -> None:
    used: set[int] = set()

    def note(client: socket.socket, number: int) -> None:
        used.add(client.fileno())
        client.sendall(ANSWER)

    with server(note) as port:
        generators.run(replace(SMALL, connections=20, active=2), port, 0.5)
    assert len(used) == 20


def test_websocket_messages_are_echoed(generators: Generators, replicas: tuple[int, ...]) -> None:
    load = generators.run(replace(find_scenario("websocket"), connections=4), replicas[0], 0.3)
    assert load.requests > 0
    assert (load.wrong, load.errors) == (0, 0)


def test_held_connections_stand_until_the_end(generators: Generators, replicas: tuple[int, ...]) -> None:
    with generators.hold(SMALL, replicas[0], 30):
        pass


def test_nobody_listening_is_said(generators: Generators) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound, so nobody else gets it, but not listening
        with pytest.raises(LoadError, match="0 of 2 connections stand"):
            generators.run_at_rate(SMALL, sock.getsockname()[1], 1, 10)


def test_a_missing_wrk_is_named(generators: Generators, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="wrk is not on this machine"):
        generators.check(SMALL)
    generators.check(find_scenario("websocket"))  # which load.c makes


def test_a_result_is_read_in_milliseconds() -> None:
    load = read_result("RESULT 100 1000000 1 2 1500 2500.5 9000")
    assert (load.requests, load.seconds, load.wrong, load.errors) == (100, 1.0, 1, 2)
    assert (load.p50, load.p99, load.p999) == pytest.approx((1.5, 2.5005, 9.0))


def test_another_line_is_no_result() -> None:
    with pytest.raises(LoadError, match="unable to connect"):
        read_result("unable to connect to 127.0.0.1")

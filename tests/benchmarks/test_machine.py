"""What is said when something is missing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from benchmarks.machine import (
    Cores,
    UnavailableError,
    choose_cores,
    compile_c,
    find_program,
    free_ports,
    is_taken,
    make_certificate,
)


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing is installed."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("empty_path")
def test_a_missing_program_is_named_with_how_to_get_it() -> None:
    with pytest.raises(UnavailableError, match=r"wrk is not on this machine \(Debian: apt-get install wrk\)"):
        find_program("wrk", "Debian: apt-get install wrk")


@pytest.mark.usefixtures("empty_path")
def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="a C compiler is not on this machine"):
        compile_c("replica", tmp_path)


@pytest.mark.usefixtures("empty_path")
def test_a_missing_openssl_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="openssl is not on this machine"):
        make_certificate(tmp_path)


def test_one_core_is_enough_but_not_silently(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert choose_cores() == Cores((), (), ())
    assert "only one core" in capsys.readouterr().err


def test_a_second_worker_gets_the_third_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert choose_cores() == Cores(proxy=(0,), workers=(0, 2), load=(1,))


def test_free_ports_are_all_different_and_free() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert not is_taken(ports[0])


def test_a_port_that_accepts_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert is_taken(server.getsockname()[1])


def test_a_certificate_comes_in_every_form(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    assert made.both.read_text() == made.certificate.read_text() + made.key.read_text()
    assert "BEGIN CERTIFICATE" in made.certificate.read_text()

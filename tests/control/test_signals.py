"""What each signal does in each phase of control's life. The exit status says who ended it: negative would be the kernel."""

from __future__ import annotations

import signal
import threading

import pytest

from tests.control.conftest import Start

HARMLESS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@pytest.mark.parametrize("number", HARMLESS)
def test_harmless_signal_while_it_runs_ends_nothing(start: Start, number: signal.Signals) -> None:
    control = start()
    control.expect_ready()
    control.signal(number)
    control.expect("is in force as" if number is signal.SIGHUP else f"{number.name}: nothing to do")
    control.signal(signal.SIGTERM)
    assert control.wait() == 0


@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("number", HARMLESS)
def test_harmless_signal_at_any_moment_of_a_drain_leaves_status_0(
    start: Start, number: signal.Signals, ends: signal.Signals
) -> None:
    control = start()
    control.expect_ready()
    control.signal(ends)
    ended = threading.Event()

    def keep_signalling() -> None:
        while not ended.wait(0.0005):
            control.signal(number)

    thread = threading.Thread(target=keep_signalling)
    thread.start()
    try:
        assert control.wait() == 0
    finally:
        ended.set()
        thread.join()


def test_signal_that_ends_it_again_and_again_aborts_with_status_0(start: Start) -> None:
    control = start()
    control.expect_ready()
    control.signal(signal.SIGTERM)
    control.expect("SIGTERM: draining")
    while control.process.poll() is None:
        control.signal(signal.SIGTERM)
    assert control.wait() == 0

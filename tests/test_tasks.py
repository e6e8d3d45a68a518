"""A background task that fails is said, counted and started again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os

import pytest

from haproxy_py import tasks
from haproxy_py.tasks import keep_running


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(tasks, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(tasks, "restarts", dict.fromkeys(tasks.TASKS, 0))
    return []


class Failing:
    """Fails so many times, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def work(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


async def test_task_that_fails_is_started_again_until_it_returns(said: list[str]) -> None:
    work = Failing(OSError(errno.EMFILE, os.strerror(errno.EMFILE)), ValueError("odd"))
    await keep_running("token", work.work, lambda level, text: said.append(f"{level} {text}"))
    assert tasks.restarts["token"] == 2
    assert said[0] == "error the background task token has failed: Too many open files; it starts again in 0.001 s"
    assert "a mistake in haproxy_py" in said[1]
    assert "ValueError: odd" in said[1]


async def test_pauses_grow_up_to_a_bound(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "LONGEST_PAUSE", 0.004)
    work = Failing(*(OSError("no") for _ in range(5)))
    await keep_running("token", work.work, lambda level, text: said.append(text.rpartition(" in ")[2]))
    assert said == ["0.001 s", "0.002 s", "0.004 s", "0.004 s", "0.004 s"]


async def test_task_that_is_cancelled_ends(said: list[str]) -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    running = asyncio.create_task(keep_running("token", work, lambda level, text: said.append(text)))
    await asyncio.sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert running.cancelled()
    assert said == []

"""Background tasks of control: one that ends by surprise is logged, counted and started again, here and nowhere else."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable

TASKS = ("certificates", "checks", "names", "notify", "ops", "reflector", "reload", "takeover", "token", "watchdog")
"""What runs in the background, as `haproxy_py_task_restarts_total` names it."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
"""Seconds before a task is started again, twice as many each time: what fails for ever gives two lines of the log a minute."""

SETTLED = 60.0
"""Seconds of work after which the next failure counts as the first again."""

restarts = dict.fromkeys(TASKS, 0)
"""How often each has been started again in this process."""

Say = Callable[[str, str], None]
"""Takes the level and the text of a log line."""


async def keep_running(task: str, work: Callable[[], Awaitable[None]], say: Say) -> None:
    """Do the work until it returns or is cancelled; whatever it raises, begin again."""
    pause = FIRST_PAUSE
    while True:
        began = time.monotonic()
        try:
            return await work()
        except Exception as error:
            restarts[task] += 1
            if time.monotonic() - began >= SETTLED:
                pause = FIRST_PAUSE
            say("error", f"the background task {task} has failed: {_explain(error)}; it starts again in {pause:g} s")
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _explain(error: Exception) -> str:
    """What the system refuses is told in its words; anything else is a mistake of ours, told with its place."""
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return "a mistake in haproxy_py: " + "".join(traceback.format_exception(error)).rstrip()

"""All places for workers: how their number grows and shrinks, and what all of them are told.

- A worker that is added joins when its process is ready; only then does the kernel queue connections for it.
- Those that are taken away are the ones that joined last. They drain; their counters stay, and a number is given again
  only when its process has ended, so no counter ever has two writers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from haproxy_py import channel
from haproxy_py.config import Drain
from haproxy_py.control.log import Log
from haproxy_py.control.segments import Segment, SessionMemory
from haproxy_py.control.workers import Orders, Worker, WorkerFailedError
from haproxy_py.ops.view import WorkerView

KILL_AFTER_DEADLINE = 2.0
"""Seconds that a worker has after the drain deadline to abort what is left and exit."""


class Crew:
    """The workers of one proxy."""

    def __init__(self, count: int, log: Log) -> None:
        self.segments = [Segment(number) for number in range(1, count + 1)]  # grows, never shrinks
        self.cells = [segment.cells for segment in self.segments]
        self.sessions = SessionMemory()
        self.workers: list[Worker] = []  # in the order in which they joined
        self.joining: list[Worker] = []
        self.leaving: list[Worker] = []
        self._deadlines: dict[int, float] = {}  # loop time, by the number of a worker that leaves
        self._log = log
        self._group: asyncio.TaskGroup | None = None

    def __iter__(self) -> Iterator[Worker]:
        """All whose processes may run."""
        yield from (*self.workers, *self.joining, *self.leaving)

    def share_sessions(self, fd: int) -> None:
        """Know what the workers of another process know, from before the first place is made."""
        self.sessions.close()
        self.sessions = SessionMemory(fd)

    def fill(self, orders: Orders) -> None:
        """Make the first places; `run` starts their processes."""
        self.workers = [Worker(segment.worker, segment, self.sessions, orders, self._log) for segment in self.segments]

    async def run(self) -> None:
        """Run the workers until every place is given up. Raises WorkerFailedError."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for worker in self:
                    self._group.create_task(self._run_place(worker))
        except BaseExceptionGroup as group:
            failed, others = group.split(WorkerFailedError)
            if failed is None or others is not None:
                raise
            raise failed.exceptions[0] from None
        finally:
            self._group = None

    async def _run_place(self, worker: Worker) -> None:
        await worker.run()
        if worker in self.leaving:
            self.leaving.remove(worker)
            del self._deadlines[worker.number]

    # --- more and fewer ---

    def choose_numbers(self, count: int) -> list[int]:
        """Numbers for so many further workers."""
        taken = {worker.number for worker in self}
        free = (number for number in range(1, len(taken) + count + 1) if number not in taken)
        return [next(free) for _ in range(count)]

    def add(self, numbers: Sequence[int], orders: Orders) -> None:
        """Start further workers. They join when they are ready, with `join`."""
        for number in numbers:
            while number > len(self.segments):
                self.segments.append(Segment(len(self.segments) + 1))
                self.cells.append(self.segments[-1].cells)
            worker = Worker(number, self.segments[number - 1], self.sessions, orders, self._log, is_needed=False)
            self.joining.append(worker)
            if self._group is not None:
                self._group.create_task(self._run_place(worker))

    def join(self, number: int) -> bool:
        """A worker is ready. Whether it has only now joined."""
        for worker in self.joining:
            if worker.number == number:
                self.joining.remove(worker)
                self.workers.append(worker)
                return True
        return False

    def choose_leaving(self, count: int) -> list[Worker]:
        """So many workers, those that joined last; first of all those that have not joined yet."""
        everybody = [*self.workers, *self.joining]
        return everybody[len(everybody) - count :]

    def dismiss(self, leaving: Sequence[Worker], drain: Drain) -> None:
        """Have these workers accept nobody new, and finish."""
        loop = asyncio.get_running_loop()
        for worker in leaving:
            if worker in self.joining:  # it has nothing to finish
                self.joining.remove(worker)
                self._let_go(worker, loop.time())
                worker.kill()
            else:
                self.workers.remove(worker)
                self._let_go(worker, loop.time() + drain.deadline)
                worker.leave(channel.Drain(drain.delay, drain.deadline, accepting=False))
                loop.call_later(drain.deadline + KILL_AFTER_DEADLINE, worker.kill)

    def _let_go(self, worker: Worker, until: float) -> None:
        self.leaving.append(worker)
        self._deadlines[worker.number] = until
        worker.end_replacing()

    def find_deadline(self, number: int) -> float | None:
        """Until when a worker that leaves may run (loop time); None if it stays."""
        return self._deadlines.get(number)

    # --- what all are told ---

    def publish(self, encoded: bytes) -> None:
        """A message that is encoded already, to all."""
        for worker in self:
            worker.write(encoded)

    def end(self, *, stop: bool) -> None:
        """Replace nobody any more; with `stop`, have them end now."""
        for worker in self:
            worker.end_replacing()
            if stop:
                worker.send(channel.Stop())

    def kill(self) -> None:
        for worker in self:
            worker.kill()

    # --- what there is to see ---

    def list_versions(self) -> list[int]:
        """The versions of the table that are in force, in the workers that accept connections."""
        return [worker.process.table_version for worker in self.workers if worker.process and worker.is_ready]

    def view(self) -> tuple[WorkerView, ...]:
        staying = sorted((*self.workers, *self.joining), key=lambda worker: worker.number)
        return (
            *(_view(worker, leaving=False) for worker in staying),
            *(_view(worker, leaving=True) for worker in self.leaving),
        )

    def release(self) -> None:
        """Give back the shared memory."""
        for segment in self.segments:
            segment.close()
        self.sessions.close()


def _view(worker: Worker, *, leaving: bool) -> WorkerView:
    process = worker.process
    if process is None:
        return WorkerView(worker.number, None, False, worker.restarts, 0, leaving, worker.stalls)
    return WorkerView(
        worker.number,
        process.pid,
        worker.is_ready,
        worker.restarts,
        process.table_version,
        leaving,
        worker.stalls,
        process.watch.reported,
    )

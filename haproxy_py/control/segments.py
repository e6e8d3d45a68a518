"""Shared memory, made by control: the counters of one worker, mapped by whoever fills that place, and the sessions of all.

The memory is sparse, and looking at a page makes it real. So nothing here walks over a whole segment: callers name the
slots that are in use.
"""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Iterable

from haproxy_py import counters, session_table

_ACTIVITY_CELLS = 16
"""The cells at the start of a replica block that move with every exchange, byte or connection."""


class Segment:
    """The counters of one worker. `fd` is what the worker inherits."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.fd = os.memfd_create(f"haproxy_py-counters-{worker}")
        os.ftruncate(self.fd, counters.SEGMENT_BYTES)
        self._map = mmap.mmap(self.fd, counters.SEGMENT_BYTES)
        self.cells: memoryview[int] = memoryview(self._map).cast("Q")

    def zero_gauges(self, instance_slots: Iterable[int], replica_slots: Iterable[int]) -> None:
        """What the gauges counted ended with the worker."""
        self.cells[counters.WORKER_CLIENT_CONNECTIONS] = 0
        for slot in instance_slots:
            self.cells[counters.instance_at(slot) + counters.INSTANCE_QUEUED] = 0
        for slot in replica_slots:
            at = counters.replica_at(slot)
            for gauge in counters.GAUGES:
                self.cells[at + gauge] = 0

    def zero_replica(self, slot: int) -> None:
        """Make the slot as new, for another replica."""
        self._zero(counters.replica_at(slot), counters.REPLICA_CELLS)

    def zero_instance(self, slot: int) -> None:
        """Make the slot as new, for another instance."""
        self._zero(counters.instance_at(slot), counters.INSTANCE_CELLS)

    def is_replica_busy(self, slot: int) -> bool:
        """Whether the worker has an exchange, a tunnel or a connection there now."""
        at = counters.replica_at(slot)
        return any(self.cells[at + gauge] for gauge in counters.GAUGES)

    def read_replica_activity(self, slot: int) -> tuple[int, ...]:
        """A value that changes whenever the replica is used."""
        at = counters.replica_at(slot)
        return tuple(self.cells[at : at + _ACTIVITY_CELLS])

    def read_instance_activity(self, slot: int) -> tuple[int, ...]:
        """A value that changes whenever the proxy answers for the instance."""
        at = counters.instance_at(slot)
        return tuple(self.cells[at : at + counters.INSTANCE_CELLS])

    def close(self) -> None:
        self.cells.release()
        self._map.close()
        os.close(self.fd)

    def _zero(self, at: int, cells: int) -> None:
        start = at * counters.CELL
        self._map[start : start + cells * counters.CELL] = bytes(cells * counters.CELL)


class SessionMemory:
    """Where all workers together remember which replica has which session. `fd` is what they inherit."""

    def __init__(self, fd: int | None = None) -> None:
        """New, or the one that another process has made."""
        if fd is not None:
            self.fd = fd
            return
        self.fd = os.memfd_create("haproxy_py-sessions")
        os.ftruncate(self.fd, session_table.TABLE_BYTES)
        os.pwrite(self.fd, secrets.token_bytes(session_table.SECRET_BYTES), 0)

    def close(self) -> None:
        os.close(self.fd)

"""From what discovery finds to a table in every worker.

- Every change becomes a whole new table at once. If none can be made, the former one stays in use.
- Before everything was found once the proxy is not ready; afterwards readiness never depends on discovery again, not even
  for what a reload adds (WAT-13, WAT-20).
- The lag of a change is taken from its arrival to the moment when the last worker has put its table into force.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from haproxy_py import channel
from haproxy_py.config import Config
from haproxy_py.control.log import Log
from haproxy_py.control.tables import TableBuilder, TableError
from haproxy_py.discovery.discovery import Discovery
from haproxy_py.discovery.found import FoundInstance
from haproxy_py.discovery.merge import IsOwn
from haproxy_py.discovery.reflector import Change
from haproxy_py.table import Table

MAX_LAGGING = 1000
"""Changes whose lag is being taken. A worker that never answers must not make the list grow."""


class Routing:
    """The newest table and where it comes from. `publish` hands an encoded message to every worker."""

    def __init__(
        self, config: Config, tables: TableBuilder, is_own: IsOwn, publish: Callable[[bytes], None], log: Log
    ) -> None:
        self.tables = tables
        self.discovery = Discovery(log.say, is_own, self._take)
        self._config = config
        self._publish = publish
        self._log = log
        self._table: Table | None = None
        self._found: tuple[FoundInstance, ...] = ()  # what the table was made of
        self._complete_since: int | None = None  # version of the first table for which everything had been found
        self._lagging: deque[tuple[int, Change]] = deque(maxlen=MAX_LAGGING)  # tables that are not in force everywhere

    @property
    def table(self) -> Table:
        """The newest."""
        if self._table is None:
            raise RuntimeError("no table yet: build_first() comes before any port is open")
        return self._table

    def build_first(self) -> None:
        """The table to start with: static replicas, and nothing of what must be discovered. Raises TableError."""
        self._found = self.discovery.find(self._config)
        self._table = self.tables.build(self._found)

    def follow(self) -> None:
        """Begin to discover."""
        self.discovery.announce(self._found)
        self.discovery.follow(self._config)
        self._note_complete()

    def change(self, config: Config) -> Table:
        """Route by this configuration from now on. Raises TableError, and then nothing has changed."""
        found = self.discovery.find(config)
        table = self.tables.build(found)
        self._config = config
        self._put(table, found)
        self.discovery.follow(config)
        return table

    def note_applied(self, versions: Sequence[int]) -> None:
        """The versions that are in force in the workers that accept connections."""
        in_force = min(versions, default=0)
        while self._lagging and self._lagging[0][0] <= in_force:
            _, change = self._lagging.popleft()
            self.discovery.record_lag(change)

    def list_waits(self, waiting_for: tuple[str, ...], versions: Iterable[int]) -> tuple[str, ...]:
        """What must be found, and known to the workers, before the first traffic."""
        if self._complete_since is None:
            return waiting_for or ("the replicas that were found are not in a table yet",)
        if any(version < self._complete_since for version in versions):
            return ("the replicas that were found are not known to every worker yet",)
        return ()

    def _take(self, change: Change) -> None:
        """What discovery knows has changed, which may or may not change the table."""
        found = self.discovery.find(self._config)
        if found == self._found:
            self.discovery.announce(found)
        else:
            try:
                table = self.tables.build(found)
            except TableError as error:
                self._log.error(f"the replicas that were found cannot be used: {error}; the former ones stay in use")
                return
            self._lagging.append((table.version, change))
            self._put(table, found)
        self._note_complete()

    def _put(self, table: Table, found: tuple[FoundInstance, ...]) -> None:
        self._table, self._found = table, found
        self._publish(channel.encode(channel.Publish(table)))  # encoded once: a large table takes milliseconds
        self.discovery.announce(found)

    def _note_complete(self) -> None:
        if self._complete_since is None and self.discovery.is_complete():
            self._complete_since = self.table.version

"""The configuration in force, and how another one takes its place while the proxy runs.

- Everything that may fail comes first: sockets are opened, files are read, a table is built. If any of it fails nothing has
  changed. Only then listeners, workers, the operators' port and the table change, without a wait in between.
- What is left (listeners, workers) is closed a moment later, so that whoever waits in a queue is still accepted.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from haproxy_py.config import Config
from haproxy_py.control.certificates import CertificateError
from haproxy_py.control.cpus import count_cpus
from haproxy_py.control.crew import Crew
from haproxy_py.control.listeners import Change, Listeners
from haproxy_py.control.log import Log
from haproxy_py.control.ops_access import OpsAccess, OpsChange
from haproxy_py.control.private_files import find_exposed
from haproxy_py.control.reload import ReloadError
from haproxy_py.control.routing import Routing
from haproxy_py.control.sockets import BindError
from haproxy_py.control.tables import TableError
from haproxy_py.control.token import TokenError
from haproxy_py.control.workers import Orders

CLOSE_AFTER = 1.0
"""Seconds after which a listening socket that is given up is closed here; until then workers accept who waits there."""


class Changing(Orders, Protocol):
    """What a change needs of the supervisor."""

    @property
    def is_ending(self) -> bool:
        """Nothing changes any more."""

    def tell_listeners(self, surviving: frozenset[int] = frozenset()) -> None:
        """Have every worker accept on what is open now. `surviving`: listeners left whose sockets others have."""


class InForce:
    """One proxy's configuration."""

    def __init__(
        self,
        config: Config,
        supervisor: Changing,
        crew: Crew,
        listeners: Listeners,
        routing: Routing,
        access: OpsAccess,
        log: Log,
    ) -> None:
        self.config = config
        self.changing = asyncio.Lock()  # held while what is open changes, or is about to be taken over
        self.own_ports: frozenset[int] = frozenset()
        self._supervisor = supervisor
        self._crew = crew
        self._listeners = listeners
        self._routing = routing
        self._access = access
        self._log = log
        self.exposed: list[str] = []  # files with a secret that others may read, and what to do about each

    def note_own_ports(self) -> None:
        """Everything is open for the first time."""
        self.own_ports = self._listeners.ports | {self._access.number}

    async def warn_of_files(self, config: Config) -> None:
        """Look which files with a secret others may read, and say which those are that were not told."""
        told, self.exposed = self.exposed, await asyncio.to_thread(find_exposed, config)
        for warning in self.exposed:
            if warning not in told:
                self._log.warning(warning)

    async def apply(self, read: Config) -> str:
        """Put a configuration into force; says in words what that is. Raises ReloadError, and then nothing has changed."""
        async with self.changing:
            crew = self._crew
            count = len(crew.workers) + len(crew.joining)
            wanted = count if read.workers == self.config.workers else read.workers or count_cpus()
            numbers = crew.choose_numbers(max(0, wanted - count))
            await self.warn_of_files(read)
            change, ops = await self._prepare(read, numbers)
            return await self._commit(read, change, ops, count, wanted, numbers)

    async def _prepare(self, read: Config, numbers: list[int]) -> tuple[Change, OpsChange]:
        """Open what is new, `numbers` being further workers, and put the table into force. Raises ReloadError."""
        crew, ports = self._crew, self.own_ports
        workers, joining = ([worker.number for worker in some] for some in (crew.workers, crew.joining))
        change = ops = None
        try:
            change = await asyncio.to_thread(self._listeners.prepare, read.listen, workers, joining, numbers)
            ops = await self._access.prepare(read.ops)
            if self._supervisor.is_ending:
                raise ReloadError("the proxy is ending")
            self.own_ports = change.ports | {ops.number}
            self._routing.change(read)
        except (BindError, CertificateError, TokenError, TableError, ReloadError) as error:
            self.own_ports = ports
            if ops is not None:
                await self._access.cancel(ops)
            if change is not None:
                change.cancel()
            listens = {listen.port for listen in read.listen}
            crossing = listens & {self._access.number} | {read.ops.port} & self._listeners.ports
            if crossing and isinstance(error, BindError):
                raise ReloadError(f"{error} This proxy itself has it until the change: make it in two steps.") from None
            raise ReloadError(str(error)) from None
        return change, ops

    async def _commit(
        self, read: Config, change: Change, ops: OpsChange, count: int, wanted: int, numbers: list[int]
    ) -> str:
        crew, table = self._crew, self._routing.table
        self.config = read
        self._log.level = read.log.level
        self._listeners.commit(change)
        leaving = crew.choose_leaving(max(0, count - wanted))
        self._listeners.part(sum(worker in crew.workers for worker in leaving))
        crew.dismiss(leaving, read.drain)
        crew.add(numbers, self._supervisor)
        for worker in crew.workers:
            self._listeners.join(worker.number)  # whoever joined while the change was prepared
        self._supervisor.tell_listeners(change.surviving)
        self._say(change, count, wanted)
        await self._access.commit(ops)
        if change.left or leaving:
            await asyncio.sleep(CLOSE_AFTER)
            self._listeners.close_left(change)
            self._listeners.close([worker.number for worker in leaving])
        replicas = sum(len(instance.replicas) for instance in table.instances)
        return f"table {table.version}, instances: {len(table.instances)}, replicas: {replicas}"

    def _say(self, change: Change, workers: int, wanted: int) -> None:
        deadline = self.config.drain.deadline
        for listener in change.left:
            self._log.info(f"no longer listening on {listener}; its connections and tunnels end within {deadline:g} s")
        for listener in change.added:
            self._log.info(f"listening on {listener}")
        if workers != wanted:
            self._log.info(f"workers: {wanted}, formerly {workers}")
        if change.added or workers != wanted:
            for warning in self._listeners.explain_idle(wanted):
                self._log.warning(warning)

"""The control process: opens the ports, keeps the workers alive, follows discovery, publishes tables, obeys signals.

- SIGTERM or SIGINT drains (DRN-6 to DRN-12); a second one aborts; both end with exit status 0.
- SIGHUP and a changed file have the configuration read again; if anything is wrong with it, everything stays as it was.
- Nothing here touches traffic. If this process dies, its workers see the end of their channels.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import time
import traceback
from collections.abc import Sequence
from typing import Any

import uvloop

from haproxy_py import __version__, channel
from haproxy_py.certificates import Certificate
from haproxy_py.config import Config
from haproxy_py.control import watchdog
from haproxy_py.control.certificates import LOOK_EVERY, CertificateError, find_certificates
from haproxy_py.control.cpus import count_cpus
from haproxy_py.control.limits import raise_file_limit, share_connections
from haproxy_py.control.log import Log
from haproxy_py.control.reload import Reloader, ReloadError, merge_reloaded
from haproxy_py.control.routing import Routing
from haproxy_py.control.segments import Segment
from haproxy_py.control.sockets import BindError, bind_alone, bind_workers, format_address, is_of_this_machine
from haproxy_py.control.tables import TableBuilder, TableError
from haproxy_py.control.token import SHORT, TokenError, TokenFile, find_token_file
from haproxy_py.control.workers import Worker, WorkerFailedError
from haproxy_py.ops.port import OpsPort
from haproxy_py.ops.view import ListenerView, ReplicaSeries, View, WorkerView
from haproxy_py.table import ReplicaEntry

KILL_AFTER_DEADLINE = 2.0
"""Seconds that a worker has after the drain deadline to abort what is left and exit."""

KILL_AFTER_STOP = 1.0
"""Seconds that a worker has after `Stop`."""


def supervise(config: Config, source: str | None) -> int:
    """Run the proxy until a signal ends it. The exit status: 0 ended by a signal, 1 could not start.

    `source` is the file that is read again; None if the configuration came from elsewhere. Blocks. Must be called
    on the main thread, because it owns the signals.
    """
    supervisor = Supervisor(config, source)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(supervisor.run())
    finally:
        supervisor.release()  # only now: a thread of the loop may have been reading the counters


class Supervisor:
    """The life of one proxy."""

    def __init__(self, config: Config, source: str | None) -> None:
        self._config = config
        self._source = source
        self._log = Log(config.log.level)
        self._began = time.monotonic()
        self._via = f"haproxy_py-{secrets.token_hex(4)}"
        count = config.workers or count_cpus()
        self._segments = [Segment(number) for number in range(1, count + 1)]
        self._cells = [segment.cells for segment in self._segments]
        tables = TableBuilder(self._segments, time.monotonic)
        self._routing = Routing(config, tables, self._is_own, self._publish, self._log)
        self._sockets: list[list[socket.socket]] = []  # per listener, per worker
        self._listeners: tuple[ListenerView, ...] = ()
        self._own_ports: frozenset[int] = frozenset()
        self._connections: tuple[int, ...] = ()  # that one worker may have open, per listener
        self._certificate_files = find_certificates(config, source)
        self._certificates: dict[int, Certificate] = {}  # in force, by index of the listener
        self._workers: list[Worker] = []
        self._port = OpsPort(self, self._log.say)
        self._token_file: TokenFile | None = None  # None: calls that change something are off
        self._drain_times: tuple[float, float] | None = None  # once draining: loop times of accept stop and deadline
        self._leaving = asyncio.Event()
        self._aborting = asyncio.Event()
        self._reloader = Reloader(config, source, self._apply, self._log)

    async def run(self) -> int:
        """From the first port to the last. The exit status."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._report_mistake)
        # DRN-6: before any port is open, so that no signal is ever lost.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._obey_end, number)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.ask)
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._open()
            tasks += [
                asyncio.create_task(self._reloader.run()),
                asyncio.create_task(self._watch_certificates()),
                asyncio.create_task(self._watch_workers()),
                asyncio.create_task(self._watch_token()),
            ]
            return await self._serve()
        except (BindError, CertificateError, TableError, TokenError, WorkerFailedError) as error:
            self._log.error(f"{error}; haproxy_py ends")
            return 1
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._routing.close()
            await self._port.close()
            self._close_sockets()

    def release(self) -> None:
        """Give back the shared memory. Nothing may be used afterwards."""
        for segment in self._segments:
            segment.close()

    # --- starting ---

    async def _open(self) -> None:
        """Bind every port and open the operators' one; workers do not run yet."""
        self._log.info(f"haproxy_py {__version__} starts, workers: {len(self._segments)}")
        self._certificates = {index: files.read() for index, files in self._certificate_files.items()}
        self._use_token(*await self._read_token(self._config))
        self._routing.build_first()
        file_limit = raise_file_limit()
        count = len(self._segments)
        for index, listen in enumerate(self._config.listen):
            self._sockets.append(bind_workers(listen.host, listen.port, count, f"listen[{index}].address"))
        ops = bind_alone(self._config.ops.host, self._config.ops.port, "ops.address")
        host, port = ops.getsockname()[:2]
        self._own_ports = frozenset((port, *(sockets[0].getsockname()[1] for sockets in self._sockets)))
        self._routing.follow()
        await self._port.open(ops)
        self._listeners = tuple(
            ListenerView("https" if listen.tls else "http", listen.host, sockets[0].getsockname()[1])
            for listen, sockets in zip(self._config.listen, self._sockets, strict=True)
        )
        self._connections = tuple(
            share_connections(listen.connections, file_limit, len(self._config.listen), count)
            for listen in self._config.listen
        )
        self._workers = [
            Worker(number, segment, [sockets[number - 1] for sockets in self._sockets], self, self._log)
            for number, segment in enumerate(self._segments, 1)
        ]
        for listener in self._listeners:
            self._log.info(f"listening on {listener.scheme}://{format_address(listener.host, listener.port)}")
        self._log.info(f"operators' port on http://{format_address(host, port)}: /metrics, /readyz, / for people")

    async def _serve(self) -> int:
        """Run the workers until a signal has ended them. Raises WorkerFailedError."""
        if self._leaving.is_set():
            self._log.info("haproxy_py ends before it accepted anything")
            return 0
        working = asyncio.create_task(self._run_workers())
        leaving = asyncio.create_task(self._leaving.wait())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                await self._drain(working)
            await working  # without a signal it has raised: no worker may end
        finally:
            for task in (leaving, working):
                task.cancel()
            await asyncio.wait({leaving, working})  # ends: what is cancelled kills its process
        return 0

    async def _run_workers(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self._workers:
                    group.create_task(worker.run())
        except BaseExceptionGroup as group:
            failed, others = group.split(WorkerFailedError)
            if failed is None or others is not None:
                raise
            raise failed.exceptions[0] from None

    # --- ending ---

    def _obey_end(self, number: signal.Signals) -> None:
        if self._leaving.is_set():
            self._log.warning(f"{number.name} again: everything is aborted now")
            self._aborting.set()
        else:
            delay, deadline = self._config.drain.delay, self._config.drain.deadline
            now = asyncio.get_running_loop().time()
            self._drain_times = (now + delay, now + deadline)
            self._leaving.set()
            self._log.info(
                f"{number.name}: draining. Readiness is off; new connections are accepted for {delay:g} s more, what "
                f"runs may go on until {deadline:g} s from now; a second signal aborts"
            )

    async def _drain(self, working: asyncio.Task[None]) -> None:
        """DRN-7 to DRN-11: from the first signal to the last worker."""
        drain = self.make_drain()
        if drain is None or self._drain_times is None:
            raise RuntimeError("draining without a signal: _obey_end sets the times")
        stop_accepting, deadline = self._drain_times
        for worker in self._workers:
            worker.leave(drain)
        aborting = asyncio.create_task(self._aborting.wait())
        try:
            if await self._wait_until(stop_accepting, working, aborting):
                self._close_sockets()
                for worker in self._workers:
                    worker.end_replacing()
                self._log.info("the listening ports are closed; running exchanges and tunnels go on")
                if await self._wait_until(deadline + KILL_AFTER_DEADLINE, working, aborting):
                    self._log.warning("the drain deadline is over and a worker still runs; it is killed")
        finally:
            aborting.cancel()
            await asyncio.wait({aborting})
        await self._end_workers(working, stop=self._aborting.is_set())
        self._log.info("every worker has ended; haproxy_py ends")

    async def _wait_until(self, moment: float, working: asyncio.Task[None], aborting: asyncio.Task[bool]) -> bool:
        """True when the moment has come; False when the workers have ended or everything is to be aborted."""
        seconds = max(0.0, moment - asyncio.get_running_loop().time())
        done, _ = await asyncio.wait({working, aborting}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return not done

    async def _end_workers(self, working: asyncio.Task[None], *, stop: bool) -> None:
        """End the workers that are left: with `stop` they may say so in the access log first."""
        for worker in self._workers:
            worker.end_replacing()
            if stop:
                worker.send(channel.Stop())
        if stop:
            await asyncio.wait({working}, timeout=KILL_AFTER_STOP)
        for worker in self._workers:
            worker.kill()
        await asyncio.wait({working})  # ends: nothing survives SIGKILL

    def _close_sockets(self) -> None:
        for sockets in self._sockets:
            for sock in sockets:
                sock.close()

    async def _watch_workers(self) -> None:
        """Report and replace workers that stand still. Ends by being cancelled."""
        while True:
            await asyncio.sleep(watchdog.LOOK_EVERY)
            for worker in self._workers:
                worker.look(time.monotonic(), self._config.watchdog)

    # --- what a place for a worker asks ---

    def make_start(self, worker: int, fds: Sequence[int]) -> channel.Start:
        """The first message to a worker; `fds` are its sockets, one per listener."""
        return channel.Start(
            worker=worker,
            listeners=tuple(
                channel.Listener(
                    fd, listener.scheme, listener.host, listener.port, connections, self._certificates.get(index)
                )
                for index, (fd, listener, connections) in enumerate(
                    zip(fds, self._listeners, self._connections, strict=True)
                )
            ),
            table=self._routing.table,
            via=self._via,
            deadline=self._config.drain.deadline,
            access_log=self._config.log.access == "json",
            debug=self._config.log.level == "debug",
        )

    def make_drain(self) -> channel.Drain | None:
        """What is left of the drain; None while the proxy is not draining."""
        if self._drain_times is None:
            return None
        now = asyncio.get_running_loop().time()
        delay, deadline = (max(0.0, moment - now) for moment in self._drain_times)
        return channel.Drain(delay, deadline)

    def list_instance_slots(self) -> list[int]:
        """Slots that have or had an instance."""
        return self._routing.tables.instances.list_used()

    def list_replica_slots(self) -> list[int]:
        """Slots that have or had a replica."""
        return self._routing.tables.replicas.list_used()

    def note_applied(self) -> None:
        """A worker has put a table into force; the lag of a change ends with the last one."""
        self._routing.note_applied(self._list_versions())

    # --- what routing asks ---

    def _publish(self, encoded: bytes) -> None:
        for worker in self._workers:
            worker.write(encoded)

    def _is_own(self, host: str, port: int) -> bool:
        return port in self._own_ports and is_of_this_machine(host)

    # --- reading certificates and the configuration again ---

    async def _watch_certificates(self) -> None:
        """Hand every new certificate to the workers. Ends by being cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for index, files in self._certificate_files.items():
                try:
                    found = await asyncio.to_thread(files.look)
                except CertificateError as error:
                    self._log.error(f"{error}; the former certificate stays in force")
                    continue
                if found is None:
                    continue
                self._certificates[index] = found
                for worker in self._workers:
                    worker.send(channel.Renew(index, found))
                self._log.info(
                    f"{files.setting}: the certificate in {files.certificate} has changed; new connections get it"
                )

    async def _watch_token(self) -> None:
        """Follow the file of the token. Ends by being cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            file = self._token_file
            try:
                token = await asyncio.to_thread(file.look) if file is not None else None
            except TokenError as error:
                self._log.error(f"{error}; the former token stays in force")
                continue
            if file is not None and token is not None and file is self._token_file:
                self._use_token(file, token)
                self._log.info(f"ops.token_file: the token in {file.path} has changed; calls need the new one")

    async def _read_token(self, config: Config) -> tuple[TokenFile | None, bytes]:
        """The file that a configuration names, and the token in it. Raises TokenError."""
        file = find_token_file(config, self._source)
        return file, await asyncio.to_thread(file.read) if file is not None else b""

    def _use_token(self, file: TokenFile | None, token: bytes) -> None:
        """From now on calls that change something need this token; without a file they are off."""
        self._token_file = file
        self._port.changes.token = token
        if file is not None and len(token) < SHORT:
            self._log.warning(
                f"ops.token_file: the token in {file.path} has less than {SHORT} characters and could be guessed; "
                "make a longer one, with: openssl rand -hex 32"
            )

    async def _apply(self, read: Config) -> str:
        """Put a configuration into force. Raises ReloadError."""
        config, waiting = merge_reloaded(self._config, read)
        changed = config.ops.token_file != self._config.ops.token_file
        try:
            token_file, token = await self._read_token(config) if changed else (None, b"")
            if self._leaving.is_set():
                raise ReloadError("the proxy is ending")
            table = self._routing.change(config)
        except (TableError, TokenError) as error:
            raise ReloadError(str(error)) from None
        self._config = config
        if changed:
            self._use_token(token_file, token)
        self._log.level = config.log.level
        for setting in waiting:
            self._log.warning(f"the change of {setting} needs a restart; its former value stays in force")
        replicas = sum(len(instance.replicas) for instance in table.instances)
        return f"table {table.version}, instances: {len(table.instances)}, replicas: {replicas}"

    # --- what the operators' port shows ---

    def view(self) -> View:
        """A picture of this moment."""
        table = self._routing.table
        states = {
            (instance.name, replica.name): replica.condition
            for instance in table.instances
            for replica in instance.replicas
        }
        instances, replicas = self._routing.tables.instances, self._routing.tables.replicas
        instances.forget_quiet()
        replicas.forget_quiet()
        discovery = self._routing.discovery.view()
        now = time.monotonic()
        return View(
            uptime=now - self._began,
            now=now,
            draining=self._leaving.is_set(),
            table=table,
            workers=tuple(_view_worker(worker) for worker in self._workers),
            listeners=self._listeners,
            instances=(("", 0), *instances.list_present(), *instances.list_departed()),
            replicas=(
                *(ReplicaSeries(*key, slot, states[key]) for key, slot in replicas.list_present()),
                *(ReplicaSeries(*key, slot, None) for key, slot in replicas.list_departed()),
            ),
            segments=self._cells,
            checks=self._routing.checks.view(),
            waiting_for=self._routing.list_waits(discovery.waiting_for, self._list_versions()),
            discovery=discovery,
            config=self._reloader.view(),
        )

    def drain(self, instance: str, replica: str, *, force: bool) -> ReplicaEntry:
        """An operator takes a replica out. Raises RefusedError."""
        return self._routing.drain(instance, replica, force=force)

    def undrain(self, instance: str, replica: str) -> ReplicaEntry:
        """And lets it back in. Raises RefusedError."""
        return self._routing.undrain(instance, replica)

    def _list_versions(self) -> list[int]:
        """The versions of the table that are in force, in the workers that accept connections."""
        return [worker.process.table_version for worker in self._workers if worker.process and worker.is_ready]

    def _report_mistake(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio could not tell anyone else."""
        error = context.get("exception")
        detail = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
        self._log.error(f"a mistake in haproxy_py: {context.get('message')} {detail}".rstrip())


def _view_worker(worker: Worker) -> WorkerView:
    process = worker.process
    if process is None:
        return WorkerView(worker.number, None, False, worker.restarts, 0, worker.stalls)
    return WorkerView(
        worker.number,
        process.pid,
        worker.is_ready,
        worker.restarts,
        process.table_version,
        worker.stalls,
        process.watch.reported,
    )

"""The control process: opens the ports, keeps the workers alive, follows discovery, publishes tables, obeys signals.

- SIGTERM or SIGINT drains (DRN-6 to DRN-12); a second one aborts; both end with exit status 0.
- SIGHUP and a changed file have the configuration read again; if anything is wrong with it, everything stays as it was.
- Nothing here touches traffic. If this process dies, its workers see the end of their channels.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import uvloop

from haproxy_py import __version__, channel
from haproxy_py.config import Config
from haproxy_py.control import watchdog
from haproxy_py.control.activation import Activation
from haproxy_py.control.certificates import LOOK_EVERY, CertificateError
from haproxy_py.control.cpus import count_cpus
from haproxy_py.control.crew import KILL_AFTER_DEADLINE, Crew
from haproxy_py.control.in_force import CLOSE_AFTER, InForce
from haproxy_py.control.limits import raise_file_limit
from haproxy_py.control.listeners import Change, Listeners
from haproxy_py.control.log import Log
from haproxy_py.control.notify import make_notifier
from haproxy_py.control.ops_access import OpsAccess
from haproxy_py.control.reload import Reloader
from haproxy_py.control.routing import Routing
from haproxy_py.control.sockets import BindError, format_address, is_of_this_machine
from haproxy_py.control.tables import TableBuilder, TableError
from haproxy_py.control.takeover import ANSWER_WITHIN, READY_WITHIN, Estate, ForeignError, Heir, TakeoverError, ask
from haproxy_py.control.token import TokenError
from haproxy_py.control.workers import Worker, WorkerFailedError
from haproxy_py.ops.view import RefusedError, ReplicaSeries, View
from haproxy_py.table import ReplicaEntry
from haproxy_py.tasks import keep_running

_ENDING = (signal.SIGTERM, signal.SIGINT)

_HARMLESS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask for something small, and that the kernel would kill for if nobody handled them."""

NEWS_WITHIN = 0.1
"""Seconds after which a process that takes over looks again whether it is ready, if nothing has told it to."""

CLEAR_TIMES = 60
"""Seconds for which sockets are kept free of what the workers of a process that is gone may do to them."""

MAX_NAMED = 5
"""Reasons that a message lists before it only counts."""

KILL_AFTER_STOP = 1.0
"""Seconds that a worker has after `Stop`."""


def supervise(config: Config, source: str | None, *, takeover: bool = False) -> int:
    """Run the proxy until a signal ends it. The exit status: 0 ended by a signal, 1 could not start.

    `takeover`: on the sockets of a proxy that runs with the same address of the operators' port, if there is one.

    `source` is the file that is read again; None if the configuration came from elsewhere. Blocks. Must be called
    on the main thread, because it owns the signals.
    """
    # Until there is a loop that obeys them they wait: an exception in the middle of the start could be lost, and with it the
    # signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    supervisor = Supervisor(config, source, takeover=takeover)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run_to_end(supervisor))
    finally:
        supervisor.release()  # only now: a thread of the loop may have been reading the counters


async def _run_to_end(supervisor: Supervisor) -> int:
    """Until nothing is left that a signal could change: then they wait, or one would kill a process that has done its work."""
    try:
        return await supervisor.run()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, (*_ENDING, *_HARMLESS))


@dataclass(frozen=True, slots=True)
class Ending:
    """How the drain goes on; loop times."""

    idle_ends: float  # connections without a request end, and nobody new is accepted
    closes: float  # the ports are closed here
    deadline: float
    taken: Sequence[int] | None = None  # by another process, which accepts there: so many sockets of each listener


class Supervisor:
    """The life of one proxy."""

    def __init__(self, config: Config, source: str | None, *, takeover: bool = False) -> None:
        self._log = Log(config.log.level)
        self._began = time.monotonic()
        self._via = f"haproxy_py-{secrets.token_hex(4)}"
        self._crew = Crew(config.workers or count_cpus(), self._log)
        tables = TableBuilder(self._crew.segments, time.monotonic)
        self._routing = Routing(config, tables, self._is_own, self._crew.publish, self._log)
        self._activation = Activation()
        self._listeners = Listeners(self._activation)
        self._access = OpsAccess(config.ops, self, self, self._activation, self._log)
        self._in_force = InForce(config, self, self._crew, self._listeners, self._routing, self._access, self._log)
        self._file_limit = 0
        self._ending: Ending | None = None  # once draining
        self._leaving = asyncio.Event()
        self._aborting = asyncio.Event()
        self._notifier = make_notifier(os.environ, self._log, takeover=takeover)
        self._reloader = Reloader(config, source, self._in_force.apply, self._log, self._notifier.reloading)
        self._takes_over = takeover
        self._is_offered = False  # another process has what it needs to take over, and may do so
        self._heir: Heir | None = None  # until this process accepts: what it got of the one that runs
        self._inherited = Change()
        self._side_tasks: list[asyncio.Task[None]] = []
        self._untimely: list[str] = []  # warnings of certificates that were logged
        self._news = asyncio.Event()  # a worker has become ready, or has put a table into force

    async def run(self) -> int:
        """From the first port to the last. The exit status."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._report_mistake)
        # DRN-6: before any port is open, so that no signal is ever lost.
        for number in _ENDING:
            loop.add_signal_handler(number, self._obey_end, number)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.ask)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            loop.add_signal_handler(number, self._ignore, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)  # before there is a child, which would inherit it
        tasks = self._side_tasks
        try:
            await self._open()
            tasks += [
                asyncio.create_task(keep_running(task, work, self._log.say))
                for task, work in (
                    ("reload", self._reloader.run),
                    ("certificates", self._watch_certificates),
                    ("watchdog", self._watch_workers),
                    ("token", self._access.watch_token),
                    ("notify", self._tell_service_manager),
                )
            ]
            return await self._serve()
        except (BindError, CertificateError, TableError, TakeoverError, TokenError, WorkerFailedError) as error:
            self._log.error(f"{error}; haproxy_py ends")
            return 1
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._access.close()
            await self._routing.close()
            self._listeners.close_all()
            self._activation.close()

    def release(self) -> None:
        """Give back the shared memory. Nothing may be used afterwards."""
        self._crew.release()

    # --- starting ---

    async def _open(self) -> None:
        """Bind every port and open the operators' one; workers do not run yet."""
        workers = [segment.worker for segment in self._crew.segments]
        self._log.info(f"haproxy_py {__version__} starts, workers: {len(workers)}")
        self._activation.take(os.environ)
        await self._access.read_token()
        await self._in_force.warn_of_files(self._in_force.config)
        self._file_limit = raise_file_limit()
        if self._takes_over:
            await self._ask_for_estate()
        self._routing.build_first(self._heir.estate.drained if self._heir is not None else ())
        self._access.take(await self._get_sockets(workers))
        self._in_force.note_own_ports()
        self._routing.follow()
        self._crew.fill(self)
        if self._heir is None:
            await self._show()

    async def _get_sockets(self, workers: Sequence[int]) -> socket.socket:
        """Open every listener, or take it over; the socket of the operators' port."""
        wanted, ops = self._in_force.config.listen, self._in_force.config.ops
        if self._heir is not None:
            await self._in_force.changing.acquire()
            self._inherited = self._listeners.inherit(wanted, workers, self._heir.estate.listeners)
            self._listeners.commit(self._inherited)
            return self._heir.estate.ops
        self._listeners.commit(self._listeners.prepare(wanted, workers))
        sock = self._activation.bind_alone(ops.host, ops.port, "ops.address")
        self._activation.check_all_used()
        return sock

    async def _show(self) -> None:
        """Open the operators' port, say where everything is, and let others take over."""
        await self._access.open()
        for listener in self._listeners:
            self._log.info(f"listening on {listener}")
        for warning in self._listeners.explain_idle(len(self._crew.workers)):
            self._log.warning(warning)
        self._access.say()

    async def _serve(self) -> int:
        """Run the workers until a signal has ended them. Raises WorkerFailedError."""
        if self._leaving.is_set():
            self._log.info("haproxy_py ends before it accepted anything")
            return 0
        working = asyncio.create_task(self._crew.run())
        leaving = asyncio.create_task(self._leaving.wait())
        try:
            if self._heir is not None:
                await self._take_over(self._heir, working, leaving)
                self._in_force.changing.release()
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                await self._drain(working)
            await working  # without a signal it has raised: no worker may end
        finally:
            for task in (leaving, working):
                task.cancel()
            await asyncio.wait({leaving, working})  # ends: what is cancelled kills its process
        return 0

    # --- taking over, and being taken over ---

    async def _ask_for_estate(self) -> None:
        """Get what the process that runs has, if one runs. Raises TakeoverError."""
        ops = self._in_force.config.ops
        try:
            self._heir = await asyncio.to_thread(ask, ops.host, ops.port)
        except ForeignError as error:  # if a process of this user ran beside it, its operators' port would be in use
            self._log.warning(f"nothing to take over: {error}; this process starts as ever")
            return
        if self._heir is None:
            where = format_address(ops.host, ops.port)
            self._log.info(f"no haproxy_py of this user has its operators' port at {where}: nothing to take over")
            return
        if self._activation:
            self._heir.give_up()
            raise TakeoverError(
                f"process {self._heir.process} runs, and the service manager passed sockets to this one: both cannot be "
                "served. With sockets of the service manager, restart its unit in place of --takeover"
            )
        self._log.info(f"taking over from process {self._heir.process}, which goes on until this one is ready")
        if self._heir.estate.sessions is not None:
            self._crew.share_sessions(self._heir.estate.sessions)
        if drained := self._heir.estate.drained:
            names = ", ".join(f"{replica} of {instance}" for instance, replica in drained)
            self._log.info(f"replicas that operators have drained, and that stay so: {names}")

    async def _take_over(self, heir: Heir, *others: asyncio.Task[Any]) -> None:
        """Accept as soon as everything is ready; unless one of `others` ends first. Raises TakeoverError."""
        loop = asyncio.get_running_loop()
        until = loop.time() + READY_WITHIN
        while waits := self._list_waits():
            self._news.clear()
            news = asyncio.create_task(self._news.wait())
            await asyncio.wait({news, *others}, timeout=NEWS_WITHIN, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            if any(other.done() for other in others):
                heir.give_up()
                return
            if loop.time() > until:
                heir.give_up()
                more = f"; and {len(waits) - MAX_NAMED} more" if len(waits) > MAX_NAMED else ""
                raise TakeoverError(
                    f"not ready after {READY_WITHIN:g} s: {'; '.join(waits[:MAX_NAMED])}{more}. Process {heir.process} "
                    "goes on"
                )
        taken = self._listeners.take(self._inherited, [worker.number for worker in self._crew.workers])
        self._heir = None
        self.tell_listeners()
        self._notifier.become_main()  # before the former main process may end: its unit would end with it
        try:
            await asyncio.to_thread(heir.confirm, taken)
            self._log.info(f"this process has taken over from process {heir.process}, which drains")
        except TakeoverError as error:
            self._log.warning(f"{error}; this process goes on without it")
            self._side_tasks.append(asyncio.create_task(self._clear_filters()))
        await self._show()

    def _list_waits(self) -> list[str]:
        """What must be before the first client."""
        waits = [f"worker {worker.number} has not started" for worker in self._crew.workers if not worker.is_ready]
        discovery = self._routing.discovery.view()
        versions = self._crew.list_versions()
        waits += [*self._routing.list_waits(discovery.waiting_for, versions), *self._routing.checks.list_waits()]
        if any(version < self._routing.table.version for version in versions):
            waits.append("not every worker has the newest table")
        return waits

    async def _clear_filters(self) -> None:
        """Have everybody admitted, whatever workers of a process that is gone do in their last moments."""
        for _ in range(CLEAR_TIMES):
            self._listeners.admit_all()
            await asyncio.sleep(CLOSE_AFTER)

    async def offer(self) -> Estate:
        """What another process may take over. Raises TakeoverError."""
        if self._ending is not None:
            raise TakeoverError("it is ending already; start without --takeover when it has ended")
        try:
            async with asyncio.timeout(ANSWER_WITHIN / 2):
                await self._in_force.changing.acquire()
        except TimeoutError:
            raise TakeoverError("its configuration is being changed; try again") from None
        self._is_offered = True
        return Estate(self._listeners.offer(), self._access.sock, self._routing.drained, self._crew.sessions.fd)

    def end_offer(self) -> None:
        """Nobody takes over any more."""
        self._is_offered = False
        self._in_force.changing.release()

    def hand_over(self, process: int, taken: Sequence[int]) -> None:
        """Another process accepts from so many sockets of each listener: drain. Raises TakeoverError."""
        if not self._listeners:
            raise TakeoverError("it was told to end, and has closed its ports")
        drain = self._in_force.config.drain
        self._log.info(
            f"process {process} has taken over: draining. Nobody new is accepted here; what runs may go on until "
            f"{drain.deadline:g} s from now"
        )
        self._notifier.hand_over(process, drain.deadline + KILL_AFTER_DEADLINE + KILL_AFTER_STOP)
        now = asyncio.get_running_loop().time()
        if self._ending is None:
            self._ending = Ending(now + drain.delay, now + CLOSE_AFTER, now + drain.deadline, taken)
            self._leaving.set()
        else:  # a signal came first
            self._ending = replace(self._ending, taken=taken)
            for worker in self._crew:
                if told := self.make_drain(worker.number):
                    worker.send(told)
        self._side_tasks.append(asyncio.create_task(self._access.close_port()))  # the other one answers there

    # --- ending ---

    def _obey_end(self, number: signal.Signals) -> None:
        if self._leaving.is_set():
            self._log.warning(f"{number.name} again: everything is aborted now")
            self._aborting.set()
        else:
            drain = self._in_force.config.drain
            delay, deadline = drain.delay, drain.deadline
            now = asyncio.get_running_loop().time()
            self._ending = Ending(now + delay, now + delay, now + deadline)
            self._leaving.set()
            self._notifier.stop(deadline + KILL_AFTER_DEADLINE + KILL_AFTER_STOP)
            self._log.info(
                f"{number.name}: draining. Readiness is off; new connections are accepted for {delay:g} s more, what "
                f"runs may go on until {deadline:g} s from now; a second signal aborts"
            )

    def _ignore(self, number: signal.Signals) -> None:
        """Meant for programs that open log files again; this one has none, and without a handler would be killed."""
        self._log.info(f"{number.name}: nothing to do, logs go to standard output and error")

    async def _drain(self, working: asyncio.Task[None]) -> None:
        """DRN-7 to DRN-11: from the first signal to the last worker."""
        ending = self._ending
        if ending is None:
            raise RuntimeError("draining without a reason: whoever sets _leaving sets the times")
        for worker in self._crew:
            if drain := self.make_drain(worker.number):
                worker.leave(drain)
        aborting = asyncio.create_task(self._aborting.wait())
        try:
            if await self._wait_until(ending.closes, working, aborting):
                self._listeners.close_all()
                self._crew.end(stop=False)
                self._log.info("the listening ports are closed; running exchanges and tunnels go on")
                if await self._wait_until(ending.deadline + KILL_AFTER_DEADLINE, working, aborting):
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
        self._crew.end(stop=stop)
        if stop:
            await asyncio.wait({working}, timeout=KILL_AFTER_STOP)
        self._crew.kill()
        await asyncio.wait({working})  # ends: nothing survives SIGKILL

    async def _tell_service_manager(self) -> None:
        """Say when the proxy is ready, and what it does. Ends by being cancelled, or because nobody is to be told."""
        while self._notifier.is_on:
            if self._heir is None:  # until then this process is none that anybody should count on
                table = self._routing.table
                replicas = sum(len(instance.replicas) for instance in table.instances)
                status = f"instances: {len(table.instances)}, replicas: {replicas}, workers: {len(self._crew.workers)}"
                if refusal := self._reloader.view().refusal:
                    status = f"{status}; the changed configuration was refused: {refusal}"
                waits = self.view().explain_not_ready() if self._notifier.is_starting else []
                self._notifier.look(waits, status, time.monotonic())
            await asyncio.sleep(self._notifier.pause)

    async def _watch_workers(self) -> None:
        """Report and replace workers that stand still. Ends by being cancelled."""
        while True:
            await asyncio.sleep(watchdog.LOOK_EVERY)
            for worker in self._crew:
                worker.look(time.monotonic(), self._in_force.config.watchdog)

    # --- what a place for a worker asks ---

    def make_start(self, worker: int) -> channel.Start:
        """The first message to a worker."""
        return channel.Start(worker, self._routing.table, self._via)

    def note_ready(self, worker: int) -> None:
        """A process can take listeners: it gets them, and what else it must know."""
        self._news.set()
        deadline = self._crew.find_deadline(worker)
        try:
            if self._crew.join(worker):
                self._listeners.join(worker)
        except BindError as error:
            self._log.error(f"worker {worker} gets no connections: {error}")
        self.tell_listeners()  # all of them: shares change with the number of workers
        for place in self._crew:
            if place.number == worker and place.process is not None:
                self._log.info(f"{place.process} {'accepts connections' if self._heir is None else 'has started'}")
                if deadline is not None:  # it was being replaced when it was told to leave: who waits there is served
                    self.tell_listeners(only=place)
                    left = max(0.0, deadline - asyncio.get_running_loop().time())
                    place.send(channel.Drain(0.0, left, accepting=False))
                elif drain := self.make_drain(worker):
                    place.send(drain)

    def make_drain(self, worker: int) -> channel.Drain | None:
        """What is left of the drain; None while the proxy is not draining."""
        if self._ending is None:
            return None
        now = asyncio.get_running_loop().time()
        delay, deadline = (max(0.0, moment - now) for moment in (self._ending.idle_ends, self._ending.deadline))
        taken = self._ending.taken
        if taken is None:
            return channel.Drain(delay, deadline, True, self._listeners.list_kept(worker))
        surviving = self._listeners.list_surviving(worker, taken) | self._listeners.list_kept(worker)
        return channel.Drain(delay, deadline, False, surviving)

    def list_instance_slots(self) -> list[int]:
        """Slots that have or had an instance."""
        return self._routing.tables.instances.list_used()

    def list_replica_slots(self) -> list[int]:
        """Slots that have or had a replica."""
        return self._routing.tables.replicas.list_used()

    def note_applied(self) -> None:
        """A worker has put a table into force; the lag of a change ends with the last one."""
        self._routing.note_applied(self._crew.list_versions())
        self._news.set()

    # --- what routing asks ---

    def _is_own(self, host: str, port: int) -> bool:
        return port in self._in_force.own_ports and is_of_this_machine(host)

    # --- what a change of the configuration asks ---

    @property
    def is_ending(self) -> bool:
        """A signal has come, or another process has taken over."""
        return self._leaving.is_set()

    def tell_listeners(self, surviving: frozenset[int] = frozenset(), only: Worker | None = None) -> None:
        """Have every worker accept on what is open now. `surviving`: listeners left whose sockets others have."""
        if self._heir is not None:
            return  # nobody accepts before all can
        config = self._in_force.config
        listeners = self._listeners.describe(self._file_limit, len(self._crew.workers))
        message = channel.Listen(
            listeners,
            config.log.access == "json",
            config.drain.delay,
            config.drain.deadline,
            surviving,
        )
        for worker in self._crew.workers if only is None else [only]:
            fds = self._listeners.list_fds(worker.number)
            own = tuple(listener for listener in listeners if listener.number in fds)
            worker.listen(replace(message, listeners=own), fds)

    # --- reading certificates again ---

    async def _watch_certificates(self) -> None:
        """Hand every new certificate to the workers, and warn of those that end and of keys that others may read.

        Ends by being cancelled.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self._in_force.warn_of_files(self._in_force.config)
            self._warn_of_certificates()
            for listener in list(self._listeners):
                files = listener.files
                if files is None:
                    continue
                try:
                    found = await asyncio.to_thread(files.look)
                except CertificateError as error:
                    self._log.error(f"{error}; the former certificate stays in force")
                    continue
                if found is not None:
                    self.tell_listeners()
                    self._log.info(
                        f"{files.setting}: the certificate in {files.certificate} has changed; new connections get it"
                    )

    def _warn_of_certificates(self) -> None:
        """Say of each once a day that it ends or has ended."""
        told, self._untimely = self._untimely, self._listeners.list_untimely()
        for warning in self._untimely:
            if warning not in told:
                self._log.warning(warning)

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
            draining=self.is_ending,
            table=table,
            workers=self._crew.view(),
            listeners=tuple(listener.view() for listener in self._listeners),
            instances=(("", 0), *instances.list_present(), *instances.list_departed()),
            replicas=(
                *(ReplicaSeries(*key, slot, states[key]) for key, slot in replicas.list_present()),
                *(ReplicaSeries(*key, slot, None) for key, slot in replicas.list_departed()),
            ),
            segments=self._crew.cells,
            checks=self._routing.checks.view(),
            waiting_for=self._routing.list_waits(discovery.waiting_for, self._crew.list_versions()),
            discovery=discovery,
            config=self._reloader.view(),
            warnings=(
                *self._in_force.exposed,
                *self._listeners.list_untimely(),
                *self._listeners.explain_idle(len(self._crew.workers)),
            ),
        )

    def drain(self, instance: str, replica: str, *, force: bool) -> ReplicaEntry:
        """An operator takes a replica out. Raises RefusedError."""
        self._refuse_while_offered()
        return self._routing.drain(instance, replica, force=force)

    def undrain(self, instance: str, replica: str) -> ReplicaEntry:
        """And lets it back in. Raises RefusedError."""
        self._refuse_while_offered()
        return self._routing.undrain(instance, replica)

    def _refuse_while_offered(self) -> None:
        if self._is_offered:
            raise RefusedError(
                409,
                "taking_over",
                "another process is taking over from this one, and knows of no change that is made now: try again in a "
                "few seconds, then that process answers",
            )

    def _report_mistake(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio could not tell anyone else."""
        error = context.get("exception")
        detail = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
        self._log.error(f"a mistake in haproxy_py: {context.get('message')} {detail}".rstrip())

"""The addresses that users connect to: their sockets, their certificates, and how they change while the proxy runs.

- A listener is known by its address as configured. What else changes (certificate, limit of connections) is changed in place.
- One that begins or ceases to end TLS becomes another listener on the same sockets: nobody who waits in a queue is lost.
- `[::]` takes IPv4 clients too, unless an IPv4 address with the same port is listed. A socket cannot change that once it
  is bound, so the listener is then replaced by another on new sockets.
- A change is prepared first: everything that may fail is tried, and nothing has changed if it does.
- Sockets that the service manager passed (`activation.py`) come first in the group of their address, and stay there with it.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from haproxy_py import channel
from haproxy_py.config import Listen
from haproxy_py.control.activation import Activation
from haproxy_py.control.certificates import CertificateFiles
from haproxy_py.control.limits import share_connections
from haproxy_py.control.sockets import (
    BindError,
    admit_all,
    bind_another,
    bind_workers,
    format_address,
    listen,
    steer,
    takes_ipv4,
)
from haproxy_py.control.takeover import Offer
from haproxy_py.ops.view import ListenerView

One = TypeVar("One", Listen, Offer)

Address = tuple[str, int, bool, int]
"""Host and port as configured, whether it takes IPv4 clients (asked of `::` only), and which of those that say the same: port 0
may stand there more than once."""


@dataclass(slots=True)
class Listener:
    """One address, opened."""

    number: int  # names it to workers; never used again
    listen: Listen
    sockets: dict[int, socket.socket]  # by worker, in the order in which they began to listen
    waiting: dict[int, socket.socket]  # of workers that have not joined: bound, not listening
    files: CertificateFiles | None  # of a listener that ends TLS
    passed: int = 0  # sockets at the head of the group that the service manager keeps

    @property
    def scheme(self) -> str:
        return "https" if self.files else "http"

    @property
    def port(self) -> int:
        """The one that is open: the kernel's choice if 0 is configured."""
        port: int = self.sample.getsockname()[1]
        return port

    @property
    def sample(self) -> socket.socket:
        """One of its sockets: all have the same address and options."""
        return next(iter(self.sockets.values()))

    def __str__(self) -> str:
        said = f"{self.scheme}://{format_address(self.listen.host, self.port)}"
        if self.listen.host == "::" and self.sample.family == socket.AF_INET:
            return f"{said}, IPv4 only: this machine has no IPv6"
        return said

    def view(self) -> ListenerView:
        validity = self.files.validity if self.files else None
        ends = validity.ends if validity else None
        return ListenerView(self.scheme, self.listen.host, self.port, ends)


@dataclass(slots=True)
class Change:
    """What will be open; made by `Listeners.prepare`, and to be committed or cancelled."""

    listeners: list[Listener] = field(default_factory=list)
    added: list[Listener] = field(default_factory=list)
    left: list[Listener] = field(default_factory=list)
    surviving: frozenset[int] = frozenset()  # numbers of those left whose sockets another listener has now
    inherited: dict[Address, Listener] = field(default_factory=dict)  # on sockets of another process
    offered: list[Address] = field(default_factory=list)  # by that process, in its order
    further: list[tuple[Listener, int, socket.socket]] = field(default_factory=list)  # for workers that will join
    _fresh: list[socket.socket] = field(default_factory=list)

    @property
    def ports(self) -> frozenset[int]:
        return frozenset(listener.port for listener in self.listeners)

    def cancel(self) -> None:
        """Close what was opened for it."""
        _close(self._fresh)

    def keep(self, *sockets: socket.socket) -> None:
        """Close these if the change is cancelled."""
        self._fresh += sockets


class Listeners:
    """The listeners that are open now."""

    def __init__(self, activation: Activation) -> None:
        self._activation = activation
        self._open: list[Listener] = []
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def ports(self) -> frozenset[int]:
        return frozenset(listener.port for listener in self._open)

    def inherit(self, wanted: Sequence[Listen], workers: Sequence[int], offers: Sequence[Offer]) -> Change:
        """As `prepare` at the start, on sockets of another process as far as there are any.

        Workers for whom there are none join when all can accept; until then nobody waits for them. Raises BindError or
        CertificateError.
        """
        change = Change()
        found = dict(zip(_by_address(offers, _offers_ipv4(offers)), offers, strict=True))
        change.offered = list(found)
        held = frozenset(offer.sockets[0].getsockname()[1] for offer in offers)
        try:
            for index, (address, one) in enumerate(_by_address(wanted, _want_ipv4(wanted)).items()):
                setting = f"listen[{index}]"
                if offer := found.pop(address, None):
                    files = self._read_files(setting, one)
                    sockets = dict(zip(workers, offer.sockets, strict=False))
                    listener = Listener(next(self._numbers), one, sockets, {}, files)
                    for worker in workers[len(sockets) :]:
                        sock = bind_another(offer.sockets[0], f"{setting}.address")
                        change.keep(sock)
                        change.further.append((listener, worker, sock))
                    change.inherited[address] = listener
                    change.added.append(listener)
                    _close(offer.sockets[len(sockets) :])
                else:
                    listener = self._open_new(change, setting, one, workers, held, both=address[2])
                change.listeners.append(listener)
        except BaseException:
            change.cancel()
            raise
        for offer in found.values():
            _close(offer.sockets)
        return change

    def take(self, change: Change, workers: Sequence[int]) -> list[int]:
        """Workers accept now: how many sockets of each offer were taken, which are all that get new connections now."""
        taken = {address: len(listener.sockets) for address, listener in change.inherited.items()}
        for worker in workers:
            self.join(worker)
        for listener in change.inherited.values():
            steer(listener.sample, len(listener.sockets))
        return [taken.get(address, 0) for address in change.offered]

    def admit_all(self) -> None:
        """Whoever gave these sockets away may have ended before it knew, and told the kernel to let nobody begin to connect."""
        for listener in self._open:
            for sock in listener.sockets.values():
                admit_all(sock)

    def offer(self) -> list[Offer]:
        """Everything that another process can take."""
        return [
            Offer(listener.listen.host, listener.listen.port, tuple(listener.sockets.values()))
            for listener in self._open
        ]

    def list_kept(self, worker: int) -> frozenset[int]:
        """The numbers of the listeners whose socket of this worker the service manager keeps, with its queue."""
        return frozenset(
            listener.number for listener in self._open if worker in list(listener.sockets)[: listener.passed]
        )

    def list_surviving(self, worker: int, taken: Sequence[int]) -> frozenset[int]:
        """The numbers of the listeners whose socket of this worker is among those that were taken, in the order of `offer`."""
        return frozenset(
            listener.number
            for listener, count in zip(self._open, taken, strict=False)
            if worker in list(listener.sockets)[:count]
        )

    def prepare(
        self, wanted: Sequence[Listen], workers: Sequence[int], joining: Sequence[int] = (), more: Sequence[int] = ()
    ) -> Change:
        """Open what is new: for `workers`; for those that are `joining`; and sockets of all listeners for `more` of them.

        Changes nothing that is open, so it may run beside the loop. Raises BindError or CertificateError, and then nothing
        stays open.
        """
        change = Change()
        try:
            self._prepare(change, wanted, workers, joining, more)
        except BaseException:
            change.cancel()
            raise
        return change

    def _prepare(
        self,
        change: Change,
        wanted: Sequence[Listen],
        workers: Sequence[int],
        joining: Sequence[int],
        more: Sequence[int],
    ) -> None:
        before_now = [listener.listen for listener in self._open]
        now = _by_address(before_now, [_is_both(listener.listen.host, listener.sample) for listener in self._open])
        left = dict(zip(now, self._open, strict=True))
        surviving = set()
        for index, (address, one) in enumerate(_by_address(wanted, _want_ipv4(wanted)).items()):
            setting = f"listen[{index}]"
            before = left.pop(address, None)
            if before is None:
                listener = self._open_new(change, setting, one, workers, self.ports, both=address[2])
            elif before.listen == one:
                listener = before
            elif bool(before.listen.tls) == bool(one.tls):
                files = before.files if before.listen.tls == one.tls else self._read_files(setting, one)
                listener = replace(before, listen=one, files=files)
            else:
                files = self._read_files(setting, one)
                listener = replace(before, number=next(self._numbers), listen=one, files=files)
                change.left.append(before)
                surviving.add(before.number)
                change.added.append(listener)
            change.listeners.append(listener)
            if listener.files is not None:
                listener.files.setting = f"{setting}.tls"
            place = len(listener.sockets) + len(listener.waiting)
            for worker in [*more, *(joining if before is None else ())]:
                sock = self._open_further(listener, place, f"{setting}.address")
                if sock is not None:
                    place += 1
                    change.keep(sock)
                    change.further.append((listener, worker, sock))
        change.left += left.values()
        change.surviving = frozenset(surviving)

    def _open_new(
        self, change: Change, setting: str, one: Listen, workers: Sequence[int], held: frozenset[int], *, both: bool
    ) -> Listener:
        """`held`: the ports that this process has already."""
        files = self._read_files(setting, one)
        if passed := self._activation.find(one.host, one.port, f"{setting}.address"):
            change.keep(*passed)
            if len(passed) > len(workers):  # whoever waits in the queue of one that nobody has would wait for ever
                raise BindError(
                    f"{setting}.address: the service manager passed {len(passed)} sockets for it, and there are workers "
                    f"for {len(workers)}: have as many lines of ListenStream= in its socket unit, or set workers"
                )
            if one.host == "::" and takes_ipv4(passed[0]) != both:  # a bound socket cannot change that
                raise BindError(
                    f"{setting}.address: the socket that the service manager passed for it "
                    + ("takes IPv6 only" if both else "takes IPv4 too, which another listener with this port is for")
                    + f": set BindIPv6Only={'both' if both else 'ipv6-only'} in its socket unit"
                )
            sockets = dict(zip(workers, passed, strict=False))
            listener = Listener(next(self._numbers), one, sockets, {}, files, len(passed))
            for worker in workers[len(passed) :]:
                sock = self._open_further(listener, len(sockets), f"{setting}.address")
                if sock is not None:
                    change.keep(sock)
                    listen(sock, f"{setting}.address")
                    sockets[worker] = sock
            change.added.append(listener)
            return listener
        own = bind_workers(
            one.host, one.port, len(workers), f"{setting}.address", beside_own=one.port in held, both=both
        )
        change.keep(*own)
        listener = Listener(next(self._numbers), one, dict(zip(workers, own, strict=True)), {}, files)
        change.added.append(listener)
        return listener

    def _open_further(self, listener: Listener, place: int, setting: str) -> socket.socket | None:
        """A socket for this place in the group of a listener; None if another user has opened the group. Raises BindError."""
        if place < listener.passed:
            passed = self._activation.find(listener.listen.host, listener.listen.port, setting)
            _close([*passed[:place], *passed[place + 1 :]])
            return passed[place]
        try:
            return bind_another(listener.sample, setting)
        except BindError:
            if listener.passed:
                return None
            raise

    def _read_files(self, setting: str, one: Listen) -> CertificateFiles | None:
        if one.tls is None:
            return None
        files = CertificateFiles(f"{setting}.tls", one.tls)
        files.read()
        return files

    def commit(self, change: Change) -> None:
        """From now on what was prepared is what is open. Those that are left stay open until `close_left`."""
        self._open = change.listeners
        for listener, worker, sock in change.further:
            listener.waiting[worker] = sock
        for listener in change.added:
            if listener.passed:
                steer(listener.sample, len(listener.sockets))

    def list_untimely(self) -> list[str]:
        """Warnings of certificates that are not valid, or not for long any more."""
        return [warning for listener in self._open if listener.files and (warning := listener.files.warn())]

    def explain_idle(self, workers: int) -> list[str]:
        """Which listeners have sockets for some of so many workers only, and what to do about it."""
        return [
            f"{listener}: the service manager passed {listener.passed} of the {workers} sockets that as many workers need, "
            f"so {workers - found} of them have nobody to serve there: have ReusePort=yes and {workers} lines of "
            f"ListenStream= in its socket unit, or set workers: {listener.passed}"
            for listener in self._open
            if listener.passed and (found := len(listener.sockets) + len(listener.waiting)) < workers
        ]

    def close_left(self, change: Change) -> None:
        """Give up the sockets of those that are left; workers have their own copies until nobody waits there."""
        for listener in change.left:
            if listener.number not in change.surviving:
                _close((*listener.sockets.values(), *listener.waiting.values()))

    def join(self, worker: int) -> None:
        """Have the kernel queue connections for a worker from now on. Raises BindError."""
        for index, listener in enumerate(self._open):
            if sock := listener.waiting.get(worker):
                listen(sock, f"listen[{index}].address")
                listener.sockets[worker] = listener.waiting.pop(worker)
                steer(sock, len(listener.sockets))

    def part(self, workers: int) -> None:
        """Have the kernel queue no new connections for so many workers, those that joined last."""
        for listener in self._open if workers else ():
            steer(listener.sample, len(listener.sockets) - workers)

    def close(self, workers: Sequence[int]) -> None:
        """Give up the sockets of these workers."""
        for listener in self._open:
            for worker in workers:
                for sockets in (listener.sockets, listener.waiting):
                    if sock := sockets.pop(worker, None):
                        sock.close()

    def close_all(self) -> None:
        """Give up everything."""
        for listener in self._open:
            _close((*listener.sockets.values(), *listener.waiting.values()))
        self._open = []

    def describe(self, file_limit: int, workers: int) -> tuple[channel.Listener, ...]:
        """What each of so many workers is told; `file_limit`: files that it may open."""
        return tuple(
            channel.Listener(
                listener.number,
                listener.scheme,
                listener.listen.host,
                listener.port,
                share_connections(listener.listen.connections, file_limit, len(self._open), workers),
                listener.files.found if listener.files else None,
            )
            for listener in self._open
        )

    def list_fds(self, worker: int) -> Mapping[int, int]:
        """The sockets of one worker, by the number of their listener."""
        return {
            listener.number: listener.sockets[worker].fileno() for listener in self._open if worker in listener.sockets
        }


def _by_address(some: Sequence[One], both: Iterable[bool]) -> dict[Address, One]:
    found: dict[Address, One] = {}
    for one, ipv4_too in zip(some, both, strict=True):
        kind = (one.host, one.port, ipv4_too)
        turn = sum(address[:3] == kind for address in found)
        found[one.host, one.port, ipv4_too, turn] = one
    return found


def _want_ipv4(wanted: Sequence[Listen]) -> list[bool]:
    """Of each listener whether it is `::` for both families. A name may stand for an IPv4 address."""
    return [
        one.host == "::" and not any(one.port and other.port == one.port and ":" not in other.host for other in wanted)
        for one in wanted
    ]


def _offers_ipv4(offers: Sequence[Offer]) -> list[bool]:
    return [_is_both(offer.host, offer.sockets[0]) for offer in offers]


def _is_both(host: str, sock: socket.socket) -> bool:
    return host == "::" and takes_ipv4(sock)


def _close(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()

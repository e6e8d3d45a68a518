"""How a new process takes the listening sockets of a running one, so that no connection is refused in between.

The running process listens on a UNIX socket in the abstract namespace, named after the address of its operators' port: in
one network namespace there can be only one process with it, as with the port itself, and no file is left behind by anybody.
Only processes of the same user are talked to (SO_PEERCRED), in both directions; they could share the ports anyway.

1. The new process says hello. It gets a list of the listeners and of the replicas that operators have drained, then a message
   with the sockets of each listener, then the operators' port; then the memory of sessions, if both know it in the same
   layout: without it, clients of dashboards that keep no cookie would have to begin anew.
2. It starts its workers on them. If it ends before they can accept, nothing has happened.
3. Its workers accept, beside the former ones: both take from the same queues. It says how many sockets of each listener it took.
4. The running process accepts no more from those, and drains. What was not taken is closed as ever, without losing a queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from haproxy_py import __version__, session_table
from haproxy_py.channel import MAX_SOCKETS
from haproxy_py.control.log import Log
from haproxy_py.control.sockets import format_address
from haproxy_py.control.tables import ReplicaKey
from haproxy_py.tasks import keep_running

PROTOCOL = 1
"""Of these messages. Processes that speak different ones do not understand each other."""

ANSWER_WITHIN = 10.0
"""Seconds for the other side to say the next thing that costs it no work."""

READY_WITHIN = 60.0
"""Seconds from hello until the new process must accept: its workers start, and what must be discovered is found."""

MAX_MESSAGE = 64 * 1024

_CREDENTIALS = struct.Struct("3i")  # unix(7), `struct ucred`: process, user, group


FOREIGN_EVERY = 60.0
"""Seconds between two lines of the log about processes of other users: everybody may connect, as often as they like."""

FOREIGN_PAUSE = 0.1
"""Seconds until the next is heard after one of another user."""


class TakeoverError(Exception):
    """The sockets of the running process could not be had. The text says why, and what to do."""


class ForeignError(TakeoverError):
    """Whoever is on the other side is not a process of this user, which anybody can be: names of sockets are free to all."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One listener of the running process: its address as configured, and its sockets in the order of their group."""

    host: str
    port: int
    sockets: tuple[socket.socket, ...]


@dataclass(frozen=True, slots=True)
class Estate:
    """Everything that a new process gets."""

    listeners: Sequence[Offer]
    ops: socket.socket
    drained: Sequence[ReplicaKey]  # by an operator's word, which the new process keeps
    sessions: (
        int | None
    )  # file descriptor of what its workers know of sessions; None: the running one has another layout


class Giver(Protocol):
    """What the running process must do to be taken over."""

    async def offer(self) -> Estate:
        """Everything that can be taken; nothing of it changes until `end_offer`.

        Raises TakeoverError if nothing can be had now.
        """

    def end_offer(self) -> None:
        """Nobody takes anything any more."""

    def hand_over(self, process: int, taken: Sequence[int]) -> None:
        """Leave so many sockets of each listener to another process, and drain."""


def name_socket(host: str, port: int) -> str:
    """The name in the abstract namespace, for an operators' port."""
    return f"\0haproxy-py/takeover/{format_address(host, port)}"


# --- the new process ---


class Heir:
    """The new process' side, with what it got."""

    def __init__(self, link: socket.socket, process: int, estate: Estate) -> None:
        self.process = process
        self.estate = estate
        self._link = link

    def confirm(self, taken: Sequence[int]) -> None:
        """Say that so many sockets of each listener are accepted from. Blocks. Raises TakeoverError."""
        try:
            _send(self._link, {"taken": list(taken)})
            answer = _receive(self._link)
        except OSError as error:
            raise TakeoverError(f"the process that ran (pid {self.process}) is gone: {error}") from None
        finally:
            self._link.close()
        if answer.get("drains") is not True:
            raise TakeoverError(f"the process that ran (pid {self.process}) does not drain: {answer.get('refused')}")

    def give_up(self) -> None:
        """Take nothing; the running process goes on."""
        self._link.close()


def ask(host: str, port: int) -> Heir | None:
    """Ask the process with this operators' port for its sockets; None if there is none. Blocks.

    Raises TakeoverError; ForeignError if there is only somebody who has taken the name and is no process of this user.
    """
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    received: list[socket.socket] = []
    try:
        link.settimeout(ANSWER_WITHIN)
        try:
            link.connect(name_socket(host, port))
        except ConnectionRefusedError:
            link.close()
            return None
        except TimeoutError:  # whoever has the name does not accept
            raise ForeignError("whoever has the name for takeovers does not answer") from None
        process = _check_user(link)
        _send(link, {"protocol": PROTOCOL, "version": __version__, "sessions": session_table.LAYOUT})
        answer = _receive(link)
        if "refused" in answer:
            raise TakeoverError(f"the process that runs (pid {process}) lets nobody take over: {answer['refused']}")
        offers = []
        for one in answer["listeners"]:
            sockets = _receive_sockets(link, received)
            offers.append(Offer(str(one["host"]), int(one["port"]), tuple(sockets)))
        (ops,) = _receive_sockets(link, received)
        drained = [(str(instance), str(replica)) for instance, replica in answer["drained"]]
        sessions = _receive_sessions(link) if answer.get("sessions") is True else None
        return Heir(link, process, Estate(offers, ops, drained, sessions))
    except (OSError, KeyError, TypeError, ValueError) as error:
        _close(link, *received)
        what = "it did not answer" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
        raise TakeoverError(f"the sockets of the process that runs could not be had: {what}") from None
    except TakeoverError:
        _close(link, *received)
        raise


# --- the running process ---


class Handover:
    """The running process' side: waits for one that takes over."""

    def __init__(self, giver: Giver, log: Log) -> None:
        self._giver = giver
        self._log = log
        self._socket: socket.socket | None = None
        self._foreign = 0  # processes of other users that the log has not told yet
        self._foreign_told: float | None = None  # loop time
        self._running: asyncio.Task[None] | None = None

    def open(self, host: str, port: int) -> None:
        """Wait for a process that asks by the address of this operators' port."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.bind(name_socket(host, port))
            sock.listen(1)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            self._log.warning(f"no other process can take over from this one: {error.strerror or error}")
            return
        self._socket = sock
        self._running = asyncio.create_task(keep_running("takeover", partial(self._run, sock), self._log.say))

    async def close(self) -> None:
        """Wait for nobody any more."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _run(self, sock: socket.socket) -> None:
        """One after the other, until one has taken over. Ends by being cancelled, too."""
        loop = asyncio.get_running_loop()
        while True:
            link, _ = await loop.sock_accept(sock)
            with link:
                try:
                    if await self._talk(link):
                        return
                except ForeignError as error:
                    self._note_foreign(error, loop.time())
                    await asyncio.sleep(FOREIGN_PAUSE)
                except (OSError, KeyError, TypeError, ValueError, TakeoverError) as error:
                    self._log.warning(f"another process has asked for the sockets and got none: {error}")
                    with contextlib.suppress(OSError):
                        _send(link, {"refused": str(error)})

    def _note_foreign(self, error: ForeignError, now: float) -> None:
        """Say so at most once in `FOREIGN_EVERY`."""
        self._foreign += 1
        if self._foreign_told is None or now - self._foreign_told >= FOREIGN_EVERY:
            more = f"; as {self._foreign - 1} others did since this was said last" if self._foreign > 1 else ""
            self._log.warning(f"another process has asked for the sockets and got none: {error}{more}")
            self._foreign, self._foreign_told = 0, now

    async def _talk(self, link: socket.socket) -> bool:
        """Whether the other process has taken over. Raises OSError, ValueError or TakeoverError."""
        loop = asyncio.get_running_loop()
        link.setblocking(False)
        process = _check_user(link)
        async with asyncio.timeout(ANSWER_WITHIN):
            hello = _read(await loop.sock_recv(link, MAX_MESSAGE))
        if hello.get("protocol") != PROTOCOL:
            raise TakeoverError(
                f"version {hello.get('version')} speaks another protocol than this one, version {__version__}. Stop this "
                "one, then start the other: clients are refused for that moment"
            )
        estate = await self._giver.offer()
        try:
            listeners = [{"host": offer.host, "port": offer.port} for offer in estate.listeners]
            sessions = estate.sessions if hello.get("sessions") == session_table.LAYOUT else None
            _send(link, {"listeners": listeners, "drained": estate.drained, "sessions": sessions is not None})
            for sockets in (*(offer.sockets for offer in estate.listeners), (estate.ops,)):
                socket.send_fds(link, [b"s"], [sock.fileno() for sock in sockets])
            if sessions is not None:
                socket.send_fds(link, [b"m"], [sessions])
            self._log.info(
                f"process {process} has the listening sockets and starts; this one goes on until it is ready"
            )
            try:
                async with asyncio.timeout(READY_WITHIN + ANSWER_WITHIN):
                    data = await loop.sock_recv(link, MAX_MESSAGE)
            except (TimeoutError, ConnectionResetError):  # reset: it was killed before it had read all of it
                data = b""
            if not data:
                self._log.warning(f"process {process} did not become ready; nothing has changed")
                return False
            taken = [int(number) for number in _read(data)["taken"]]
            self._close_socket()  # the other one wants the name
            self._giver.hand_over(process, taken)
            _send(link, {"drains": True})
            return True
        finally:
            self._giver.end_offer()


# --- messages ---


def _check_user(link: socket.socket) -> int:
    """The process on the other side. Raises TakeoverError if it is another user's."""
    process, user, _ = _CREDENTIALS.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if user != os.geteuid():
        raise ForeignError(f"process {process} belongs to another user ({user} instead of {os.geteuid()})")
    return int(process)


def _send(link: socket.socket, message: dict[str, Any]) -> None:
    link.send(json.dumps(message).encode())


def _receive(link: socket.socket) -> dict[str, Any]:
    return _read(link.recv(MAX_MESSAGE))


def _read(data: bytes) -> dict[str, Any]:
    """Raises OSError if the other side has hung up, ValueError if it talks nonsense."""
    if not data:
        raise ConnectionResetError("it has hung up")
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError(f"no message: {data[:80]!r}")
    return message


def _receive_sockets(link: socket.socket, received: list[socket.socket]) -> list[socket.socket]:
    """The sockets of one message, which are added to `received` as well. Raises OSError."""
    data, fds, flags, _ = socket.recv_fds(link, 1, MAX_SOCKETS, socket.MSG_CMSG_CLOEXEC)
    sockets = [socket.socket(fileno=fd) for fd in fds]
    received += sockets
    if not data or not sockets or flags & socket.MSG_CTRUNC:
        raise ConnectionResetError("not all sockets have come")
    return sockets


def _receive_sessions(link: socket.socket) -> int:
    """The memory of sessions. Raises OSError, ValueError if it is none: reading beyond its end would kill a worker."""
    _, fds, _, _ = socket.recv_fds(link, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if not fds:
        raise ConnectionResetError("the memory of sessions has not come")
    if (size := os.fstat(fds[0]).st_size) != session_table.TABLE_BYTES:
        os.close(fds[0])
        raise ValueError(f"the memory of sessions has {size} octets instead of {session_table.TABLE_BYTES}")
    return fds[0]


def _close(*sockets: socket.socket) -> None:
    for sock in sockets:
        sock.close()

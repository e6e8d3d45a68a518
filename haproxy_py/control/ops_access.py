"""How this process is reached by those who run it: the operators' port, the token for calls that change something, and the socket
on which a process that takes over asks.

The address and the file of the token may change while the proxy runs. A change is prepared first: everything that may fail is
tried, and nothing has changed if it does.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from haproxy_py.config import Ops
from haproxy_py.control.activation import Activation
from haproxy_py.control.log import Log
from haproxy_py.control.sockets import format_address
from haproxy_py.control.takeover import Giver, Handover
from haproxy_py.control.token import SHORT, TokenError, TokenFile, find_token_file
from haproxy_py.ops.port import OpsPort
from haproxy_py.ops.view import Proxy

LOOK_EVERY = 1.0
"""Seconds between two looks at the file of the token."""


@dataclass(frozen=True, slots=True)
class OpsChange:
    """What will be in force; made by `OpsAccess.prepare`, and to be committed or cancelled."""

    ops: Ops
    port: OpsPort
    sock: socket.socket
    number: int  # of the port; the kernel's choice if 0 is configured
    token_file: TokenFile | None
    token: bytes


class OpsAccess:
    """What is in force of it."""

    def __init__(self, ops: Ops, proxy: Proxy, giver: Giver, activation: Activation, log: Log) -> None:
        self._activation = activation
        self._proxy = proxy
        self._log = log
        self._ops = ops
        self._port = OpsPort(proxy, log.say)
        self._port.hosts = ops.hosts
        self._socket: socket.socket | None = None  # until `take`
        self.number = 0  # of the port that is open
        self._token_file: TokenFile | None = None  # None: calls that change something are off
        self._handover = Handover(giver, log)

    @property
    def sock(self) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("no operators' port yet: take() comes first")
        return self._socket

    # --- at the start ---

    async def read_token(self) -> None:
        """Learn the first token. Raises TokenError."""
        self._use_token(*await _read_token(self._ops))

    def take(self, sock: socket.socket) -> None:
        """This is the listening socket of the port."""
        self._socket, self.number = sock, sock.getsockname()[1]

    async def open(self) -> None:
        """Answer, and let others take over."""
        await self._port.open(self.sock)
        self._handover.open(self._ops.host, self.number)

    def say(self) -> None:
        """One line that tells where the port is."""
        host, port = self.sock.getsockname()[:2]
        self._log.info(f"operators' port on http://{format_address(host, port)}: /metrics, /readyz, / for people")

    # --- another configuration ---

    async def prepare(self, ops: Ops) -> OpsChange:
        """Open and read what is new in it. Raises BindError or TokenError, and then nothing stays open."""
        token_file, token = self._token_file, self._port.changes.token
        if ops.token_file != self._ops.token_file:
            token_file, token = await _read_token(ops)
        if (ops.host, ops.port) == (self._ops.host, self._ops.port):
            return OpsChange(ops, self._port, self.sock, self.number, token_file, token)
        sock = await asyncio.to_thread(self._activation.bind_alone, ops.host, ops.port, "ops.address")
        port = OpsPort(self._proxy, self._log.say)
        port.hosts = ops.hosts
        await port.open(sock)
        return OpsChange(ops, port, sock, sock.getsockname()[1], token_file, token)

    async def cancel(self, change: OpsChange) -> None:
        """Close what was opened for it."""
        if change.port is not self._port:
            await change.port.close()

    async def commit(self, change: OpsChange) -> None:
        """From now on what was prepared is what is open."""
        former, self._port = self._port, change.port
        self._port.hosts = change.ops.hosts
        self._ops, self._socket, self.number = change.ops, change.sock, change.number
        if change.token_file is not self._token_file or former is not self._port:
            self._use_token(change.token_file, change.token)
        if former is not self._port:
            self.say()
            await former.close()
            await self._handover.close()
            self._handover.open(self._ops.host, self.number)

    # --- while it runs, and at the end ---

    async def watch_token(self) -> None:
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

    async def close_port(self) -> None:
        """Answer no more; a process that has taken over answers on the same socket."""
        await self._port.close()

    async def close(self) -> None:
        """Answer no more, and let nobody take over."""
        await self._handover.close()
        await self._port.close()

    def _use_token(self, file: TokenFile | None, token: bytes) -> None:
        """From now on calls that change something need this token; without a file they are off."""
        self._token_file = file
        self._port.changes.token = token
        if file is not None and len(token) < SHORT:
            self._log.warning(
                f"ops.token_file: the token in {file.path} has less than {SHORT} characters and could be guessed; "
                "make a longer one, with: openssl rand -hex 32"
            )


async def _read_token(ops: Ops) -> tuple[TokenFile | None, bytes]:
    """The file that a configuration names, and the token in it. Raises TokenError."""
    file = find_token_file(ops)
    return file, await asyncio.to_thread(file.read) if file is not None else b""

"""One check of one replica: connect, and for HTTP send one request and judge the answer.

The connection is ended by a reset, so that thousands of checks leave no connection in TIME_WAIT. A check that fails for want of
something here, or because this process had no time to look, says nothing of the replica.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from typing import Any

from haproxy_py import __version__
from haproxy_py.config import Health
from haproxy_py.config_values import spell_address, spell_duration
from haproxy_py.control.probe_answer import Answer, Finding, Outcome

READ_SIZE = 16384

LATE = 0.25
"""Seconds behind its timeout at which a check was not looked after."""

_OWN_FAULTS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


async def probe(host: str, port: int, kind: str, health: Health) -> tuple[Finding, float]:
    """What came of it, and the seconds it took. `kind` is tcp or http. Never raises OSError."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(health.timeout):
            finding = await _probe(host, port, kind, health)
    except TimeoutError:
        missing = "connection" if kind == "tcp" else "answer"
        finding = Finding(Outcome.TIMEOUT, f"no {missing} within {spell_duration(health.timeout)}")
    seconds = time.monotonic() - began
    if seconds > health.timeout + LATE:
        finding = Finding(Outcome.OWN_FAULT, "the control process was too busy to look at the answer in time")
    return finding, seconds


async def _probe(host: str, port: int, kind: str, health: Health) -> Finding:
    try:
        with await _connect(host, port) as sock:
            if kind == "tcp":
                return Finding(Outcome.OK, "it accepts connections")
            try:
                return await _ask(sock, write_request(host, port, health), Answer(health))
            except OSError as error:
                return Finding(Outcome.CLOSED, f"the connection broke: {_explain(error)}")
    except socket.gaierror as error:
        return Finding(Outcome.UNRESOLVED, f"its name cannot be looked up: {_explain(error)}")
    except ConnectionRefusedError:
        return Finding(Outcome.REFUSED, "connection refused")
    except OSError as error:
        if error.errno in _OWN_FAULTS:
            return Finding(Outcome.OWN_FAULT, f"this machine: {_explain(error)}")
        return Finding(Outcome.UNREACHABLE, _explain(error))


async def _connect(host: str, port: int) -> socket.socket:
    """A connection to the first address that accepts one. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # a name
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    problem: OSError = socket.gaierror(socket.EAI_NONAME, "there is no address")
    for family, _, _, _, address in found:
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            await _connect_to(sock, address)
        except OSError as error:
            problem = error
            if sock is not None:
                sock.close()
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        else:
            return sock
    raise problem


async def _connect_to(sock: socket.socket, address: tuple[Any, ...]) -> None:
    """Connect to an address in digits. The loop's own sock_connect costs twice the CPU with uvloop. Raises OSError."""
    try:
        sock.connect(address)
    except BlockingIOError:
        pass
    else:
        return
    loop = asyncio.get_running_loop()
    connected = asyncio.Event()
    loop.add_writer(sock, connected.set)
    try:
        await connected.wait()
    finally:
        loop.remove_writer(sock)
    problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if problem:
        raise OSError(problem, os.strerror(problem))


async def _ask(sock: socket.socket, request: bytes, answer: Answer) -> Finding:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, request)
    while data := await loop.sock_recv(sock, READ_SIZE):
        finding = answer.feed(data)
        if finding is not None:
            return finding
    return answer.end()


def write_request(host: str, port: int, health: Health) -> bytes:
    """The request of a check. The connection is for it alone."""
    return (
        f"{health.method} {health.path} HTTP/1.1\r\n"
        f"Host: {health.host or spell_address(host, port)}\r\n"
        f"User-Agent: haproxy_py/{__version__} (check)\r\n"
        "Accept: */*\r\n"
        "Accept-Encoding: identity\r\n"
        "Connection: close\r\n\r\n"
    ).encode("ascii")


def _explain(error: OSError) -> str:
    return error.strerror or (os.strerror(error.errno) if error.errno else "") or type(error).__name__

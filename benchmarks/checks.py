"""Whether a proxy does the job that all are measured at: asked of each once, before any load."""

from __future__ import annotations

import http.client
import socket
import ssl

from benchmarks.machine import UnavailableError
from benchmarks.proxies import RunningProxy
from benchmarks.scenarios import UPGRADE, Ability

FORWARDING = (
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Real-IP",
    "X-Request-Id",
    "Via",
)
"""Fields that the replica must get to see."""

ECHO = b"\x81\x82\x00\x00\x00\x00hi", b"\x81\x02hi"
"""A masked text frame and what comes back."""

REQUESTS = 20
"""Requests in a row that must not cost a connection to a replica each."""

SECONDS = 5.0
"""The longest wait for any octet of a check."""


def find_abilities(running: RunningProxy, replicas: tuple[int, ...], *, tls: bool) -> tuple[set[Ability], list[str]]:
    """What it can do, and what it leaves out of the common job. Raises UnavailableError if it passes no request."""
    try:
        status, fields, body = ask(running.port, "/head", tls=tls)
    except (OSError, http.client.HTTPException) as problem:
        raise UnavailableError(f"it answers no request: {problem!r}") from problem
    if status != 200:
        raise UnavailableError(f"it answers {status} where the replica answers 200")
    abilities = {Ability.TLS} if tls else set()
    missing: list[str] = []
    if running.proxy.is_floor:
        return abilities | ({Ability.WEBSOCKET} if echoes(running.port) else set()), missing
    seen = {line.partition(":")[0].lower() for line in body.splitlines()}
    missing += [f"no {name} to the replica" for name in FORWARDING if name.lower() not in seen]
    if "x-ha-replica" not in fields:
        missing.append("no X-HA-Replica to the client")
    if ask(running.port, "/flows", tls=tls)[0] == 403 and ask(running.port, "/Flows/x", tls=tls)[0] == 403:
        abilities.add(Ability.GATE)
    else:
        missing.append("no 403 on admin paths")
    opened = count_opened(running.port, replicas, tls=tls)
    if opened <= 2 * len(replicas):
        abilities.add(Ability.CLOSE)
    else:
        missing.append(f"no keep-alive to replicas: {opened} connections for {REQUESTS} requests")
    if not tls and echoes(running.port):
        abilities.add(Ability.WEBSOCKET)
    return abilities, missing


def ask(port: int, path: str, *, tls: bool = False) -> tuple[int, dict[str, str], str]:
    """Status, fields (names in lower case) and body of one GET on a connection of its own."""
    connection: http.client.HTTPConnection
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


def count_opened(port: int, replicas: tuple[int, ...], *, tls: bool) -> int:
    """Connections that the replicas accept while a client makes `REQUESTS` requests, each on a new connection."""
    before = int(ask(replicas[0], "/accepted")[2])
    for _ in range(REQUESTS):
        ask(port, "/api/hello", tls=tls)
    return int(ask(replicas[0], "/accepted")[2]) - before - 1


def echoes(port: int) -> bool:
    """Whether a WebSocket opens and a message comes back."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
    try:
        with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
            sock.sendall(f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n".encode())
            head = read_until(sock, b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101"):
                return False
            sock.sendall(ECHO[0])
            return read_until(sock, ECHO[1]) == ECHO[1]
    except OSError:
        return False


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """What comes up to and with `end`. Raises OSError if the connection ends before."""
    held = b""
    while not held.endswith(end):
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError("the connection ended early")
        held += piece
    return held

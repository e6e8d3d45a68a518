"""Binds the ports: one listening socket per worker and listen address, so that the kernel spreads the connections.

Control keeps every socket open. A worker gets a copy, and connections that arrive while it is being replaced wait in the
queue of the socket for its successor.

The sockets of one address are a group, in the order in which they began to listen. Only the last ones ever leave it, so
that `steer` can name those that stay.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct

BACKLOG = 4096
"""Connections waiting to be accepted, per socket. The kernel lowers it to net.core.somaxconn, whose default this is."""

_SO_DETACH_FILTER = 27
_SO_ATTACH_REUSEPORT_CBPF = 51  # linux/asm-generic/socket.h
_RANDOM_NUMBER = 0xFFFFF000 + 56  # linux/filter.h: SKF_AD_OFF + SKF_AD_RANDOM


class BindError(Exception):
    """A port cannot be opened. The text says which, why, and what to do."""


def bind_workers(
    host: str, port: int, workers: int, setting: str, *, beside_own: bool = False, both: bool = True
) -> list[socket.socket]:
    """One listening socket per worker, all on the same address. Port 0: the kernel picks one, the same for all.

    `setting` names the part of the configuration that asked for it. `beside_own`: this process has the port already, on an
    address that may overlap. `both`: `::` takes IPv4 too. Raises BindError; then nothing stays open.
    """
    family, address = resolve(host, port, setting)
    both = both and host == "::"
    if both and not _has_ipv6():
        family, address = resolve("0.0.0.0", port, setting)
    if port and not beside_own:
        # Two programs of one user that both set SO_REUSEPORT share the port in silence. Without it, binding fails.
        _bind(family, address, setting, share=False, both=both).close()
    sockets: list[socket.socket] = []
    try:
        for _ in range(workers):
            sock = _bind(family, address, setting, share=True, both=both)
            sockets.append(sock)
            address = sock.getsockname()
        for sock in sockets:
            _listen(sock, address, setting)
    except BindError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def bind_another(like: socket.socket, setting: str) -> socket.socket:
    """One more socket for the address of another. It joins the group when it listens (`listen`). Raises BindError."""
    return _bind(like.family, like.getsockname(), setting, share=True, both=takes_ipv4(like))


def listen(sock: socket.socket, setting: str) -> None:
    """Have the kernel queue connections for it. Raises BindError."""
    _listen(sock, sock.getsockname(), setting)


def steer(sock: socket.socket, first: int) -> None:
    """Have the kernel give new connections to the first sockets of the group of `sock` only, evenly.

    Those that have begun to connect stay with the socket that they have. Without it, whoever comes new just then waits a
    second, until its next attempt.
    """
    program = array.array(
        "B",
        b"".join(
            struct.pack("HBBI", *instruction)
            for instruction in (
                (0x20, 0, 0, _RANDOM_NUMBER),  # load a random number,
                (0x94, 0, 0, first),  # modulo the number of sockets
                (0x16, 0, 0, 0),  # is the socket to take
            )
        ),
    )
    address, size = program.buffer_info()
    with contextlib.suppress(OSError):  # a kernel without it
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, struct.pack("HL", size // 8, address))


def admit_all(sock: socket.socket) -> None:
    """Take away the filter with which a worker that stops has let nobody new begin to connect."""
    with contextlib.suppress(OSError):  # there is none
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def bind_alone(host: str, port: int, setting: str) -> socket.socket:
    """One listening socket that is not shared; `::` takes IPv4 too. Raises BindError."""
    if host == "::" and not _has_ipv6():
        host = "0.0.0.0"
    family, address = resolve(host, port, setting)
    sock = _bind(family, address, setting, share=False, both=host == "::")
    try:
        _listen(sock, address, setting)
    except BindError:
        sock.close()
        raise
    return sock


def takes_ipv4(sock: socket.socket) -> bool:
    """Whether IPv4 clients can connect to it: always, if it is no IPv6 socket."""
    return sock.family == socket.AF_INET or not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def is_of_this_machine(host: str) -> bool:
    """Whether an IP address belongs to this network namespace (in a pod: to this pod). Asks the kernel."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True


def format_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _has_ipv6() -> bool:
    """Whether the kernel knows IPv6 at all."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


def resolve(host: str, port: int, setting: str) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    """The address to bind. A name that has both families is taken as IPv4."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise BindError(f"{setting}: {host} cannot be resolved: {text}. Give an IP address of this machine.") from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def _bind(family: int, address: tuple[object, ...], setting: str, *, share: bool, both: bool) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _explain(error, address, setting) from None
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # Said either way: what the kernel does by itself depends on net.ipv6.bindv6only.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _explain(error, address, setting) from None
    return sock


def _listen(sock: socket.socket, address: tuple[object, ...], setting: str) -> None:
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        raise _explain(error, address, setting) from None


def _explain(error: OSError, address: tuple[object, ...], setting: str) -> BindError:
    where = format_address(str(address[0]), int(str(address[1])))
    advice = {
        errno.EADDRINUSE: "another program uses this port. Stop it, or choose another port.",
        errno.EACCES: "this user may not open this port. Choose a port from 1024 up, or give the process "
        "CAP_NET_BIND_SERVICE.",
        errno.EADDRNOTAVAIL: "this machine has no such address. Choose one of its own, or 0.0.0.0 for all.",
        errno.EAFNOSUPPORT: "this machine has no IPv6. Choose an IPv4 address.",
    }
    number = error.errno or 0
    return BindError(f"{setting}: cannot listen on {where}: {advice.get(number, os.strerror(number))}")

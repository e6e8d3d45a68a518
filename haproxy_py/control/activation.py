"""Listening sockets that the service manager has opened and passed (systemd's sd_listen_fds(3)).

- A socket whose address is that of a configured listener, or of the operators' port, is used in place of one of our own; of
  several with one address (ReusePort=) each worker gets one. One that fits nothing is an error: somebody counts on it.
- The service manager keeps them open, so whoever comes while no process runs waits in their queues. So a drain must not do to
  them what makes a closing port lose nobody: the next process would have them with it.
- Sockets of our own cannot join a group that another user has opened. A worker that gets none has nobody to serve there.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass

from haproxy_py.control.sockets import BindError, admit_all, bind_alone, format_address, resolve

FIRST = 3
"""The first descriptor that is passed: SD_LISTEN_FDS_START."""

MAX_PASSED = 1024
"""Descriptors; 64 listeners and some workers need less."""


@dataclass(slots=True)
class _Passed:
    """One of them."""

    sock: socket.socket
    name: str  # of LISTEN_FDNAMES; empty: it has none
    is_used: bool = False

    @property
    def address(self) -> tuple[int, str, int] | None:
        """Family, host and port of a TCP socket that listens; None of any other."""
        sock = self.sock
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            return None
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return None
        host, port = sock.getsockname()[:2]
        return sock.family, host, port

    def __str__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"the socket{name} (descriptor {self.sock.fileno()})"


class Activation:
    """What was passed. It stays open for as long as this process lives, to be used again after a change of the configuration."""

    def __init__(self) -> None:
        self._passed: list[_Passed] = []

    def __bool__(self) -> bool:
        return bool(self._passed)

    def take(self, environment: MutableMapping[str, str]) -> None:
        """Own what the environment speaks of, if it speaks to this process. It is taken out there: no child has it.

        Raises BindError if there are no sockets where some should be.
        """
        count, process, names, _ = (
            environment.pop(name, "") for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
        )
        if process != str(os.getpid()) or not count:
            return
        if not re.fullmatch("[0-9]{1,6}", count) or int(count) > MAX_PASSED:
            raise BindError(f"LISTEN_FDS is {count[:100]!r}: expected the number of sockets, at most {MAX_PASSED}")
        called = names.split(":") if names else []
        for index in range(int(count)):
            fd = FIRST + index
            try:
                os.set_inheritable(fd, False)
                sock = socket.socket(fileno=fd)
            except OSError as error:
                raise BindError(f"LISTEN_FDS is {count}, but descriptor {fd} is no socket: {error.strerror}") from None
            sock.setblocking(False)
            self._passed.append(_Passed(sock, called[index] if index < len(called) else ""))

    def find(self, host: str, port: int, setting: str) -> list[socket.socket]:
        """Copies of the sockets for a configured address, in the order of their group. Raises BindError."""
        if not self._passed:
            return []
        family, address = resolve(host, port, setting)
        wanted = (family, address[0], address[1])
        found = [one for one in self._passed if one.address == wanted]
        for one in found:
            one.is_used = True
            admit_all(one.sock)
        return [one.sock.dup() for one in found]

    def bind_alone(self, host: str, port: int, setting: str) -> socket.socket:
        """The one that was passed for an address, or one of our own. Raises BindError."""
        found = self.find(host, port, setting)
        if not found:
            return bind_alone(host, port, setting)
        if len(found) > 1:
            for sock in found:
                sock.close()
            raise BindError(f"{setting}: the service manager passed {len(found)} sockets for it, and it takes one")
        return found[0]

    def check_all_used(self) -> None:
        """Raises BindError that names every socket that no address of the configuration has."""
        complaints = [_explain(one) for one in self._passed if not one.is_used]
        if complaints:
            raise BindError("; ".join(complaints))

    def close(self) -> None:
        for one in self._passed:
            one.sock.close()


def _explain(one: _Passed) -> str:
    address = one.address
    if address is None:
        return f"{one} that the service manager passed is no TCP socket that listens: use ListenStream= with HOST:PORT"
    where = format_address(address[1], address[2])
    return (
        f"{one} that the service manager passed is bound to {where}, which is neither in listen[].address nor "
        f"ops.address: write the same address in ListenStream= and in the configuration"
    )

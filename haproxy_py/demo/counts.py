"""The live counts of the demo: what each replica has answered, read from the proxy's own operators' port."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from haproxy_py.demo.replicas import DemoReplica

INTERVAL = 1.0  # seconds between two looks
TIMEOUT = 2.0  # seconds for one look
MAX_LINE = 1000  # octets; a pipe that takes anything takes 4,096


def describe_counts(status: dict[str, Any], replicas: Sequence[DemoReplica]) -> str:
    """One line from the answer of `/api/v1/status`."""
    instance = status["instances"][0]
    own = {replica.port: replica for replica in replicas}
    parts = []
    for told in instance["replicas"]:
        replica = own[told["port"]]
        open_tunnels = f" + {told['active_tunnels']} open" if told["active_tunnels"] else ""
        stopped = "" if replica.is_running else " STOPPED"
        parts.append(f"{replica.name} ({told['id']}): {told['requests']}{open_tunnels}{stopped}")
    parts.append(f"refused by the gate: {instance['gate_denied']}")
    return " | ".join(parts)


class LiveCounts:
    """Shows the counts beside the proxy, from a thread of its own; a context manager.

    On a terminal one line is drawn again and again; elsewhere a line is printed only when something has changed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        replicas: Sequence[DemoReplica],
        output: TextIO,
        give_up: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGTERM),
    ) -> None:
        """`give_up` is called when nobody can read the output any more: the terminal is gone."""
        self._host, self._port = host, port
        self._replicas = replicas
        self._output = output
        self._give_up = give_up
        self._is_terminal = output.isatty()
        self._shown = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show_until_ended, name="live counts")

    def __enter__(self) -> LiveCounts:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._is_terminal and self._shown:
            with contextlib.suppress(OSError):
                self._output.write("\n")

    def _show_until_ended(self) -> None:
        while not self._ended.wait(INTERVAL):
            status = self._read_status()
            if status is None:
                continue
            try:
                self._show(describe_counts(status, self._replicas))
            except OSError:
                self._give_up()
                return

    def _show(self, line: str) -> None:
        if not self._takes_more():
            return
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self._output.write(f"\r\x1b[K{line[:width]}")
        elif line != self._shown:
            self._output.write(f"{line[:MAX_LINE]}\n")
        self._output.flush()
        self._shown = line

    def _takes_more(self) -> bool:
        """Whether a line can be written without waiting: a reader that has stopped must not keep the demo from its end."""
        try:
            fd = self._output.fileno()
        except OSError:  # no file: io.UnsupportedOperation is one
            return True
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        return bool(poll.poll(0))

    def _read_status(self) -> dict[str, Any] | None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            connection.request("GET", "/api/v1/status")
            answer = connection.getresponse()
            if answer.status == 200:
                status: dict[str, Any] = json.loads(answer.read())
                return status
        return None  # not open yet, or closed already

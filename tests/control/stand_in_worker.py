"""A worker that carries no traffic: it speaks the channel, counts something, and obeys the mode in STAND_IN_MODE.

Modes: `normal`; `stubborn` ignores Drain and Stop; `broken` ends at once with status 3; `mute` never says Ready; `deaf`
closes its channel when it is ready and lives on.
"""

from __future__ import annotations

import argparse
import faulthandler
import mmap
import os
import select
import signal
import socket
import time
from typing import Any

from haproxy_py import channel, counters

TICK = 0.1


class StandIn:
    def __init__(self, fd: int, sockets_fd: int, counters_fd: int) -> None:
        self.mode = os.environ.get("STAND_IN_MODE", "normal")
        self.sock = socket.socket(fileno=fd)
        self.way = socket.socket(fileno=sockets_fd)
        self.listening: dict[int, socket.socket] = {}
        self.decoder = channel.Decoder()
        self.map = mmap.mmap(counters_fd, counters.SEGMENT_BYTES)
        self.cells = memoryview(self.map).cast("Q")
        self.ends_at: float | None = None

    def run(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.mode == "broken" or os.path.exists(os.environ["STAND_IN_BROKEN"]):
            raise SystemExit(3)
        while True:
            wait = None if self.ends_at is None else max(0.0, self.ends_at - time.monotonic())
            readable, _, _ = select.select([self.sock], [], [], TICK if wait is None else min(wait, TICK))
            self.cells[counters.WORKER_TICKS] += 1
            if not readable:
                if wait is not None and wait <= TICK:
                    raise SystemExit(0)
                continue
            data = self.sock.recv(65536)
            if not data:
                raise SystemExit(0)
            for message in self.decoder.feed(data):
                self.obey(message)

    def obey(self, message: Any) -> None:
        match message:
            case channel.Start():
                self.begin(message)
            case channel.Publish(table):
                names = ",".join(replica.name for entry in table.instances for replica in entry.replicas)
                self.say(channel.Applied(table.version), channel.Notice("info", f"got table {table.version}: {names}"))
            case channel.Listen():
                self.listen(message)
            case channel.Drain(delay) if self.mode != "stubborn":
                self.say(channel.Notice("info", f"got Drain {delay:.1f}"))
                self.ends_at = time.monotonic() + delay
            case channel.Stop() if self.mode != "stubborn":
                self.say(channel.Notice("info", "got Stop"))
                raise SystemExit(0)

    def begin(self, start: channel.Start) -> None:
        if self.mode == "mute":
            return
        slot = start.table.instances[0].replicas[0].slot
        at = counters.replica_at(slot)
        self.cells[counters.WORKER_CLIENT_CONNECTIONS] += 7
        self.cells[counters.WORKER_CLIENT_CONNECTIONS_TOTAL] += 7
        self.cells[at + counters.REPLICA_ACTIVE_REQUESTS] += 5
        self.cells[at + counters.REPLICA_SENT_BYTES] += 100
        self.say(channel.Ready(start.worker, os.getpid()))
        if self.mode == "deaf":
            self.sock.close()
            signal.alarm(5)  # the end of a process that nobody can tell to end
            signal.pause()

    def listen(self, message: channel.Listen) -> None:
        new = [listener for listener in message.listeners if listener.number not in self.listening]
        for listener, fd in zip(new, channel.receive_sockets(self.way, len(new)), strict=True):
            sock = self.listening[listener.number] = socket.socket(fileno=fd)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), "a socket that is handed over must listen"
        for number in set(self.listening) - {listener.number for listener in message.listeners}:
            self.listening.pop(number).close()
        ports = ", ".join(f"{one.scheme}:{one.port}*{one.connections}" for one in message.listeners)
        self.say(channel.Notice("info", f"listens on {ports}; access log {message.access_log}"))

    def say(self, *messages: channel.Message) -> None:
        for message in messages:
            self.sock.sendall(channel.encode(message))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("channel", type=int)
    parser.add_argument("sockets", type=int)
    parser.add_argument("counters", type=int)
    parser.add_argument("sessions", type=int)
    parser.add_argument("stacks", type=int)
    arguments = parser.parse_args()
    faulthandler.register(signal.SIGUSR1, arguments.stacks, all_threads=False)
    StandIn(arguments.channel, arguments.sockets, arguments.counters).run()

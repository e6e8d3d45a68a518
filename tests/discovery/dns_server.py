"""A small DNS server on loopback, over UDP and TCP, that answers what a test says and misbehaves on command."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

UDP_SIZE = 1232
"""Octets of an answer over UDP; a larger one is truncated."""


class DnsServer:
    """A context manager. `set_records` says what there is; `mode` what is wrong: one of MODES, or nothing."""

    MODES = ("servfail", "refused", "silent", "garbage", "wrong_id", "cname_loop", "truncated")

    def __init__(self) -> None:
        self.mode = ""
        self.tcp_answers = 0
        self.asked: list[tuple[float, str, str]] = []  # when, name, type
        self._records: dict[tuple[str, str], dns.rrset.RRset] = {}
        self._additional: list[dns.rrset.RRset] = []
        self._udp, self._tcp = _bind()
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)

    @property
    def port(self) -> int:
        port: int = self._udp.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join()
        for sock in (self._udp, self._tcp, self._stopped):
            sock.close()

    def set_records(self, name: str, kind: str, values: Iterable[str], ttl: int = 1) -> None:
        """All records of a name and type. No values: the name stays, without records of that type."""
        self._records[name, kind] = dns.rrset.from_text_list(f"{name}.", ttl, "IN", kind, list(values))

    def add_to_answers(self, name: str, kind: str, values: Iterable[str], ttl: int = 1) -> None:
        """Comes along with every answer (additional section)."""
        self._additional.append(dns.rrset.from_text_list(f"{name}.", ttl, "IN", kind, list(values)))

    def remove(self, name: str) -> None:
        """From now on there is no such name."""
        self._records = {key: records for key, records in self._records.items() if key[0] != name}

    def count(self, name: str, since: float) -> int:
        return sum(one == name and moment >= since for moment, one, _ in list(self.asked))

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._udp, self._tcp, self._stopped):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._stopped:
                        return
                    with contextlib.suppress(OSError):
                        if key.fileobj is self._udp:
                            question, asker = self._udp.recvfrom(4096)
                            for answer in self._answer(question, over_tcp=False):
                                self._udp.sendto(answer, asker)
                        else:
                            self._talk()

    def _talk(self) -> None:
        connection, _ = self._tcp.accept()
        with connection:
            connection.settimeout(1)
            (size,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
            for answer in self._answer(connection.recv(size, socket.MSG_WAITALL), over_tcp=True):
                self.tcp_answers += 1
                connection.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, octets: bytes, *, over_tcp: bool) -> list[bytes]:
        query = dns.message.from_wire(octets)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((time.monotonic(), name, kind))
        if self.mode == "silent":
            return []
        if self.mode == "garbage":
            return [b"\xff" * 40, b"", octets[:11]]
        answer = dns.message.make_response(query)
        if self.mode in ("servfail", "refused"):
            answer.set_rcode(dns.rcode.SERVFAIL if self.mode == "servfail" else dns.rcode.REFUSED)
        elif self.mode == "cname_loop":
            for one, other in ((f"{name}.", f"b.{name}."), (f"b.{name}.", f"{name}.")):
                answer.answer.append(dns.rrset.from_text(one, 1, "IN", "CNAME", other))
        else:
            self._fill(answer, name, kind)
        if self.mode == "wrong_id":
            answer.id ^= 1
        wire = answer.to_wire(max_size=65535)
        if not over_tcp and (len(wire) > UDP_SIZE or self.mode == "truncated"):
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC
            return [short.to_wire()]
        return [wire]

    def _fill(self, answer: dns.message.Message, name: str, kind: str) -> None:
        for _ in range(8):
            alias = self._records.get((name, "CNAME"))
            if alias is None:
                break
            answer.answer.append(alias)
            name = alias[0].target.to_text(omit_final_dot=True)
        records = self._records.get((name, kind))
        if records is not None:
            if len(records):
                answer.answer.append(records)
            answer.additional += self._additional
        elif not any(there == name for there, _ in self._records):
            answer.set_rcode(dns.rcode.NXDOMAIN)


def _bind() -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on the same free port."""
    for _ in range(100):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        try:
            return udp, socket.create_server(udp.getsockname())
        except OSError:  # somebody has this port of TCP
            udp.close()
    raise OSError("no port is free for both UDP and TCP")

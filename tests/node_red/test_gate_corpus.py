"""Every row of the gate corpus over real sockets: the running proxy, and a replica that records what arrives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.gate_corpus import ADMIN_ROOTS, Row, read_rows
from tests.proxy_process import ProxyProcess, describe_instance
from tests.recording_replica import MARK, RecordingReplica

REFUSALS = frozenset((400, 403, 405, 414, 421, 431, 501, 505))
"""What may stand in place of Node-RED's answer: the gate's 403 or a refusal of the message itself."""

ROW_FIELD = "X-Corpus-Row"
"""Added to every row that is not raw, so that the replica knows which row it sees."""

OPEN_TARGET = "/api/hello"
CONNECTIONS = 16
ANSWER_TIMEOUT = 10.0
"""Seconds for one answer, or the end of the connection. The proxy and the replica take about a millisecond."""

RAW_TIMEOUT = 2.0
"""Seconds of reading for a raw row, as in the measurement: where a connection is kept open nothing else ends it."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    marked: bool  # the replica made it
    is_last: bool  # the connection ends behind it

    @property
    def is_refusal(self) -> bool:
        return self.status in REFUSALS and not self.marked

    def __str__(self) -> str:
        return f"{self.status} of {'the replica' if self.marked else 'the proxy'}"


@dataclass(slots=True)
class Outcome:
    """What became of one row."""

    row: Row
    answers: list[Answer] = field(default_factory=list)  # final ones
    ended: bool = True  # the answer or the end of the connection came in time
    garbled: bytes = b""  # bytes in place of an answer

    @property
    def leaves_connection_open(self) -> bool:
        return bool(self.answers) and not self.answers[-1].is_last

    def find_faults(self, seen: frozenset[int]) -> Iterator[str]:
        """What is wrong, given the rows that the replica saw."""
        row, given = self.row, ", ".join(map(str, self.answers)) or "no answer"
        if self.garbled:
            yield f"{row}: bytes that are no answer: {self.garbled[:80]!r}"
        if not self.ended:
            yield f"{row}: neither an answer nor the end of the connection in {ANSWER_TIMEOUT:.0f} s"
        refused = self.answers[1:] if row.behind_open else self.answers
        if (row.behind_open or row.must_be_denied) and not all(answer.is_refusal for answer in refused):
            yield f"{row}: not refused: {given}"
        if row.must_be_denied and row.number in seen:
            yield f"{row}: the replica saw it ({given})"
        if row.is_user_request and [(answer.status, answer.marked) for answer in self.answers] != [(200, True)]:
            yield f"{row}: a user's request did not get through: {given}"


class Connection:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def exchange(self, row: Row) -> Outcome:
        """Sends one row and reads its answer."""
        outcome = Outcome(row)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                self._writer.write(row.spell({ROW_FIELD: str(row.number)}))
                answer = await read_answer(self._reader, row.method)
            outcome.answers = [answer] if answer else []
        except TimeoutError:
            outcome.ended = False
        except GarbledError as error:
            outcome.garbled = error.octets
        except OSError:
            pass  # reset: the connection ended without an answer
        return outcome

    async def exchange_raw(self, row: Row) -> Outcome:
        """Sends the octets of a raw row and reads what comes until the end, or until the time is over."""
        received = asyncio.StreamReader()
        try:
            async with asyncio.timeout(RAW_TIMEOUT):
                self._writer.write(row.raw)
                while octets := await self._reader.read(65536):
                    received.feed_data(octets)
        except (TimeoutError, OSError):
            pass
        received.feed_eof()
        outcome = Outcome(row)
        try:
            while (answer := await read_answer(received, row.method)) is not None:
                outcome.answers.append(answer)
        except GarbledError as error:
            outcome.garbled = error.octets
        return outcome

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):  # the proxy was faster
            await self._writer.wait_closed()


class GarbledError(Exception):
    """What came is no answer."""

    def __init__(self, octets: bytes) -> None:
        super().__init__(octets)
        self.octets = octets


async def read_answer(reader: asyncio.StreamReader, method: str) -> Answer | None:
    """The next final answer, or None if the connection ended before one began. Raises GarbledError."""
    while True:
        try:
            octets = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise GarbledError(error.partial) from None
            return None
        start, *lines = octets.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 ([1-9][0-9]{2})( .*)?", start)
        if match is None:
            raise GarbledError(octets)
        status = int(match[1])
        if status >= 200 or status == 101:
            break
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    is_last = "close" in fields.get("connection", "").lower() or status == 101
    has_body = method != "HEAD" and status not in (101, 204, 304)
    try:
        if has_body and "chunked" in fields.get("transfer-encoding", ""):
            while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
                await reader.readexactly(size + 2)
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        elif has_body and "content-length" in fields:
            await reader.readexactly(int(fields["content-length"]))
        elif has_body:
            await reader.read()
            is_last = True
    except asyncio.IncompleteReadError:
        raise GarbledError(octets) from None
    return Answer(status, MARK.lower() in fields, is_last)


async def replay_on_shared_connections(port: int, rows: Iterable[Row]) -> list[Outcome]:
    """One row after the other on each of several connections; a new one whenever the proxy closes."""
    left = iter(rows)
    outcomes: list[Outcome] = []

    async def use_one_after_the_other() -> None:
        connection: Connection | None = None
        for row in left:
            outcome = Outcome(row)
            if connection is not None:
                outcome = await connection.exchange(row)
            if connection is None or (outcome.ended and not outcome.answers and not outcome.garbled):
                # Without an answer on a used connection nobody knows whether the row or the one before it closed it.
                connection = await Connection.open(port)
                outcome = await connection.exchange(row)
            outcomes.append(outcome)
            if not outcome.leaves_connection_open:
                await connection.close()
                connection = None
        if connection is not None:
            await connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(use_one_after_the_other())
    return outcomes


async def replay_on_own_connections(port: int, rows: Iterable[Row]) -> list[Outcome]:
    """A connection for each row, all at once: raw rows take their whole time of reading."""

    async def use_once(row: Row) -> Outcome:
        connection = await Connection.open(port)
        try:
            return await connection.exchange_raw(row) if row.raw else await connection.exchange(row)
        finally:
            await connection.close()

    return await asyncio.gather(*map(use_once, rows))


async def replay(port: int, replica: RecordingReplica, rows: list[Row]) -> list[str]:
    """Sends every row and returns the faults: those of the rows, then what the replica saw and should not have."""
    shared = [row for row in rows if row.may_share_connection]
    own = [row for row in rows if not row.may_share_connection and not row.raw]
    raw = [row for row in rows if row.raw]

    outcomes = await replay_on_shared_connections(port, shared) + await replay_on_own_connections(port, own)
    numbers = [head.get(ROW_FIELD) for head in replica.heads]
    faults = [f"the replica saw a request that no row is: {h}" for h in replica.heads if h.get(ROW_FIELD) is None]
    faults += [f"the replica saw row {number} {count} times" for number, count in Counter(numbers).items() if count > 1]
    seen = frozenset(int(number) for number in numbers if number is not None)

    # Raw rows cannot be marked, but none of them may bring anything but its open request to a replica, and that once.
    before = len(replica.heads)
    outcomes += await replay_on_own_connections(port, raw)
    arrived = replica.heads[before:]
    faults += [f"the replica saw from a raw row: {head}" for head in arrived if head.target != OPEN_TARGET]
    if len(arrived) > sum(row.behind_open for row in raw):
        faults.append(f"the replica saw {len(arrived)} requests from raw rows, more than begin with an open one")

    faults += [f"the replica received what is no request: {octets[:200]!r}" for octets in replica.garbled]
    assert len(outcomes) == len(rows)
    return [fault for outcome in outcomes for fault in outcome.find_faults(seen)] + faults


@pytest.mark.parametrize("mode", ["deny", "strict"])
@pytest.mark.parametrize("name", ADMIN_ROOTS)
async def test_nothing_that_reached_the_admin_side_reaches_a_replica(name: str, mode: str, tmp_path: Path) -> None:
    async with RecordingReplica() as replica:
        gate: dict[str, Any] = {"admin_root": ADMIN_ROOTS[name], "mode": mode}
        if mode == "strict":
            flows = [
                {"id": method, "type": "http in", "url": "/api/hello", "method": method}
                for method in ("get", "post", "put", "delete")
            ]
            (tmp_path / "flows.json").write_text(json.dumps(flows))
            gate["flows"] = {"file": str(tmp_path / "flows.json")}
        instance = describe_instance([replica.url], gate=gate)
        proxy = ProxyProcess(tmp_path, [instance])
        await asyncio.to_thread(proxy.start)
        try:
            faults = await replay(proxy.port, replica, read_rows(name))
        except BaseException:
            proxy.kill()
            raise
        await asyncio.to_thread(proxy.stop)
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults[:200])

"""What the flows of strict instances declare: read from a flows file, or asked of the replicas' admin API.

- Each strict instance has a task that looks every `gate.flows.interval`. What cannot be read or understood changes nothing:
  what was learnt last stays in force, and the fault is logged once for as long as it is the same.
- Before anything was learnt the instance has no routes: workers answer 503, and the proxy is not ready.
- Control asks, never a worker; a ready replica, the next one if it does not answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp

from haproxy_py.config import Gate
from haproxy_py.config_values import spell_address
from haproxy_py.control.log import Log
from haproxy_py.control.settled_file import SettledFile
from haproxy_py.discovery.found import FoundInstance
from haproxy_py.node_red.routes import MAX_BYTES, FlowsError, Learnt, learn, read_flows
from haproxy_py.table import ReplicaState

MOST_ASKED = 3
"""Replicas that are asked in one look."""

ANSWER_WITHIN = 30.0
"""Seconds for the whole answer of a replica."""

MAX_TOKEN = 4096
"""Bytes of the file of the token."""

MAX_NAMED = 5
"""Nodes that a message names before it only counts."""


class _LookError(Exception):
    """Nothing could be learnt. The text says why."""


@dataclass(eq=False, slots=True)
class _Source:
    """Where the routes of one instance come from."""

    name: str
    gate: Gate
    found: FoundInstance
    learnt: Learnt | None = None
    task: asyncio.Task[None] | None = None
    digest: bytes = b""  # of the flows that were learnt from
    fault: str = ""  # that was logged last
    file: SettledFile | None = field(default=None)


class Declared:
    """The routes of all strict instances. `notify` is called, on the loop, after `mark` would say something else."""

    def __init__(self, log: Log, notify: Callable[[], None]) -> None:
        self._log = log
        self._notify = notify
        self._sources: dict[str, _Source] = {}
        self._ended: set[asyncio.Task[None]] = set()  # that are being cancelled

    def follow(self, found: Iterable[FoundInstance]) -> None:
        """From now on learn for these instances, and for no others."""
        before = self._sources
        self._sources = {}
        for one in found:
            gate = one.settings.gate
            if gate.mode != "strict":
                continue
            source = before.pop(one.settings.name, None)
            if source is None or source.gate != gate:
                kept = source.learnt if source is not None and source.gate.node_root == gate.node_root else None
                if source is not None:
                    self._end(source)
                source = _Source(one.settings.name, gate, one, kept)
                source.task = asyncio.create_task(self._look_often(source))
            source.found = one
            self._sources[source.name] = source
        for source in before.values():
            self._end(source)

    def mark(self, found: tuple[FoundInstance, ...]) -> tuple[FoundInstance, ...]:
        """The same, with what the flows of the strict ones declare."""
        if not self._sources:
            return found
        return tuple(self._mark_one(one) for one in found)

    def list_waits(self) -> list[str]:
        """What is still to be learnt before an instance can serve."""
        return [
            f"instance {name}: what its flows declare is not known yet" + (f": {source.fault}" if source.fault else "")
            for name, source in self._sources.items()
            if source.learnt is None and source.found.ha
        ]

    async def close(self) -> None:
        """Learn no more. What was learnt last stays in the table."""
        for source in self._sources.values():
            self._end(source)
        if self._ended:
            await asyncio.wait(self._ended)

    def _mark_one(self, one: FoundInstance) -> FoundInstance:
        source = self._sources.get(one.settings.name)
        if source is None or source.learnt is None:
            return one
        return replace(one, routes=source.learnt.routes)

    def _end(self, source: _Source) -> None:
        if source.task is not None and not source.task.done():
            source.task.cancel()
            self._ended.add(source.task)
            source.task.add_done_callback(self._ended.discard)

    async def _look_often(self, source: _Source) -> None:
        while True:
            try:
                await self._look(source)
            except (_LookError, FlowsError) as error:
                self._note_fault(source, str(error))
            except Exception:  # a mistake of ours must not end the learning for ever
                self._note_fault(source, "a mistake in haproxy_py, please report it: " + traceback.format_exc())
            interval = source.gate.flows.interval
            await asyncio.sleep(interval if source.learnt is not None else min(interval, 1.0))

    async def _look(self, source: _Source) -> None:
        data = await (self._read_file(source) if source.gate.flows.file else self._ask(source))
        if data is None:
            return
        digest, learnt = await asyncio.to_thread(_learn, data, source)
        is_new = source.learnt is None or source.learnt.routes != learnt.routes
        unclear = source.learnt is None or source.learnt.unclear != learnt.unclear
        source.learnt, source.digest = learnt, digest
        if source.fault:
            self._log.info(f"instance {source.name}: its flows can be read again")
        source.fault = ""
        if is_new:
            self._log.info(
                f"instance {source.name}: its flows declare {len(learnt.routes)} routes; all else is refused"
            )
            self._notify()
        if learnt.unclear and unclear:
            named = "; ".join(learnt.unclear[:MAX_NAMED])
            more = f"; and {len(learnt.unclear) - MAX_NAMED} more" if len(learnt.unclear) > MAX_NAMED else ""
            self._log.warning(
                f"instance {source.name}: cannot be learnt, so it stays closed unless gate.allow opens it: {named}{more}"
            )

    async def _read_file(self, source: _Source) -> bytes | None:
        path = source.gate.flows.file
        try:
            if source.file is None:
                file = SettledFile(path, MAX_BYTES)
                data: bytes | None = await asyncio.to_thread(file.read)
                source.file = file
                return data
            return await asyncio.to_thread(source.file.look)
        except OSError as error:
            raise _LookError(f"{path}: {error.strerror or error}") from None

    async def _ask(self, source: _Source) -> bytes:
        flows = source.gate.flows
        headers = {"Node-RED-API-Version": "v2", "Accept": "application/json"}
        if flows.token_file:
            headers["Authorization"] = f"Bearer {await asyncio.to_thread(_read_token, flows.token_file)}"
        root = source.gate.admin_root.rstrip("/")
        urls = [flows.admin] if flows.admin != "replicas" else [
            f"http://{spell_address(one.host, one.port)}{root}"
            for one in source.found.replicas
            if one.state is ReplicaState.READY and not one.drained
        ][:MOST_ASKED]  # fmt: skip
        said = "no replica is ready"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN)) as session:
            for url in urls:
                try:
                    return await _get(session, f"{url.rstrip('/')}/flows", headers)
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError, _LookError) as error:
                    said = f"{url.rstrip('/')}/flows: {error or type(error).__name__}"
        raise _LookError(said)

    def _note_fault(self, source: _Source, fault: str) -> None:
        if fault != source.fault:
            kept = "what was learnt last stays in force" if source.learnt else "until then it answers 503"
            self._log.warning(f"instance {source.name}: what its flows declare cannot be learnt: {fault}; {kept}")
        source.fault = fault


def _learn(data: bytes, source: _Source) -> tuple[bytes, Learnt]:
    """What these flows declare, beside their digest: the same flows are not read again."""
    digest = hashlib.sha256(data).digest()
    if digest == source.digest and source.learnt is not None:
        return digest, source.learnt
    return digest, learn(read_flows(data), source.gate.node_root, source.gate.admin_root)


def _read_token(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            token = file.read(MAX_TOKEN + 1).strip()
    except OSError as error:
        raise _LookError(f"{path}: {error.strerror or error}") from None
    if not token or len(token) > MAX_TOKEN or not all(0x21 <= octet <= 0x7E for octet in token):
        raise _LookError(f"{path}: expected a token on one line")
    return token.decode("ascii")


async def _get(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> bytes:
    """The whole answer, if it is a 200 of bearable size."""
    async with session.get(url, headers=headers, allow_redirects=False) as answer:
        if answer.status in (401, 403):
            raise _LookError(f"{answer.status}: gate.flows.token_file needs a token with flows.read")
        if answer.status != 200:
            raise _LookError(f"status {answer.status}")
        data = bytearray()
        async for piece in answer.content.iter_any():
            data += piece
            if len(data) > MAX_BYTES:
                raise _LookError(f"larger than {MAX_BYTES // 1024 // 1024} MiB")
        return bytes(data)

"""What strict instances learn from files and from admin APIs, and what stands while nothing can be learnt."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from haproxy_py.config import Flows, Gate, Instance
from haproxy_py.control.declared import Declared
from haproxy_py.control.log import Log
from haproxy_py.datapath.gate import Gate as CompiledGate
from haproxy_py.discovery.found import FoundInstance, FoundReplica
from haproxy_py.table import GateRules, ReplicaState
from tests.wire.scripted import eventually

QUICK = 0.02
"""Seconds between two looks."""

TOKEN = "a-token-with-flows.read"


def declare(*paths: str) -> list[dict[str, Any]]:
    tab: dict[str, Any] = {"id": "t", "type": "tab"}
    return [tab] + [{"id": f"n{path}", "type": "http in", "z": "t", "url": path, "method": "get"} for path in paths]


class AdminApi:
    """The /flows of a replica. `answers` is what it says next; None: it never answers."""

    def __init__(self, token: str = "") -> None:
        self.flows: list[Any] = declare("/a")
        self.status: int | None = 200
        self.token = token
        self.asked = 0
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401)
        if self.status is None:
            await asyncio.sleep(3600)
        return web.json_response({"rev": "1", "flows": self.flows}, status=self.status or 500)


@contextlib.asynccontextmanager
async def serve(*apis: AdminApi) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for api in apis:
            app = web.Application()
            app.router.add_get("/flows", api.answer)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            api.port = runner.addresses[0][1]
        yield


class World:
    """A strict instance that learns; `said` is the log."""

    def __init__(self, flows: Flows) -> None:
        self.said: list[str] = []
        self.notified = asyncio.Event()
        self.declared = Declared(Log("info", write=self.said.append), self.notified.set)
        self.settings = Instance("one", (), True, gate=Gate(mode="strict", flows=flows))
        self.found: tuple[FoundInstance, ...] = ()

    def follow(self, *replicas: FoundReplica) -> None:
        self.found = (FoundInstance(self.settings, True, replicas),)
        self.declared.follow(self.found)

    def may_pass(self, path: str) -> bool | None:
        """Whether the strict gate lets a GET of the path pass; None: nothing is known."""
        (one,) = self.declared.mark(self.found)
        if one.routes is None:
            return None
        gate = CompiledGate(GateRules((), frozenset(), frozenset(), (), (), strict=True, routes=one.routes))
        return gate.strict_rule_for(path.encode(), b"GET", False) is None

    def has_said(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.said)


@contextlib.asynccontextmanager
async def learning(flows: Flows, *replicas: FoundReplica) -> AsyncIterator[World]:
    world = World(flows)
    world.follow(*replicas)
    try:
        yield world
    finally:
        await world.declared.close()


def at(api: AdminApi, state: ReplicaState = ReplicaState.READY) -> FoundReplica:
    return FoundReplica(f"r{api.port}", "127.0.0.1", api.port, state)


async def test_nothing_is_known_and_the_proxy_waits_until_something_was_learnt() -> None:
    api = AdminApi()
    api.status = 500
    async with serve(api), learning(Flows(admin="replicas", interval=QUICK), at(api)) as world:
        await eventually(lambda: api.asked > 2)
        assert world.may_pass("/a") is None
        (wait,) = world.declared.list_waits()
        assert "instance one: what its flows declare is not known yet" in wait
        assert "status 500" in wait
        api.status = 200
        await eventually(lambda: world.may_pass("/a"))
        assert world.notified.is_set()
        assert world.declared.list_waits() == []
        assert world.may_pass("/b") is False


async def test_new_flows_are_learnt_and_replace_the_old() -> None:
    api = AdminApi()
    async with serve(api), learning(Flows(admin="replicas", interval=QUICK), at(api)) as world:
        await eventually(lambda: world.may_pass("/a"))
        api.flows = declare("/b")
        await eventually(lambda: world.may_pass("/b"))
        assert world.may_pass("/a") is False


@pytest.mark.parametrize("fault", ["status", "no flows", "gone"])
async def test_what_was_learnt_last_stays_in_force_while_nothing_can_be_learnt(fault: str) -> None:
    api = AdminApi()
    async with serve(api), learning(Flows(admin="replicas", interval=QUICK), at(api)) as world:
        await eventually(lambda: world.may_pass("/a"))
        if fault == "status":
            api.status = 500
        elif fault == "no flows":
            api.flows = ["no node"]
        else:
            world.follow(at(api, ReplicaState.DRAINING))
        await eventually(lambda: world.has_said("cannot be learnt", "what was learnt last stays in force"))
        before = api.asked
        if fault != "gone":
            await eventually(lambda: api.asked > before + 3)
        assert world.may_pass("/a") is True
        assert sum("cannot be learnt" in line for line in world.said) == 1
        api.status, api.flows = 200, declare("/a", "/c")
        world.follow(at(api))
        await eventually(lambda: world.may_pass("/c"))
        assert world.has_said("its flows can be read again")


async def test_next_replica_is_asked_if_one_fails() -> None:
    broken, works = AdminApi(), AdminApi()
    broken.status = 503
    async with serve(broken, works), learning(Flows(admin="replicas", interval=QUICK), at(broken), at(works)) as world:
        await eventually(lambda: world.may_pass("/a"))
        assert broken.asked >= 1


async def test_token_of_the_file_is_read_for_each_look(tmp_path: Path) -> None:
    api, token = AdminApi(TOKEN), tmp_path / "token"
    flows = Flows(admin="replicas", token_file=str(token), interval=QUICK)
    async with serve(api), learning(flows, at(api)) as world:
        await eventually(lambda: world.has_said(str(token), "No such file"))
        token.write_text("another\n")
        await eventually(lambda: world.has_said("401", "gate.flows.token_file needs a token with flows.read"))
        token.write_text("two\nlines\n")
        await eventually(lambda: world.has_said(str(token), "expected a token on one line"))
        assert world.may_pass("/a") is None
        token.write_text(TOKEN + "\n")
        await eventually(lambda: world.may_pass("/a"))
        assert not any(TOKEN in line for line in world.said)


async def test_flows_file_that_goes_away_or_has_a_mistake_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "flows.json"
    file.write_text(json.dumps(declare("/a")))
    async with learning(Flows(file=str(file), interval=QUICK)) as world:
        await eventually(lambda: world.may_pass("/a"))
        file.write_text("[{")
        await eventually(lambda: world.has_said("cannot be learnt"))
        file.unlink()
        await eventually(lambda: world.has_said(str(file), "No such file"))
        assert world.may_pass("/a") is True
        file.write_text(json.dumps(declare("/b")))
        await eventually(lambda: world.may_pass("/b"))


async def test_other_source_of_the_same_instance_keeps_what_was_learnt(tmp_path: Path) -> None:
    api = AdminApi()
    async with serve(api), learning(Flows(admin="replicas", interval=QUICK), at(api)) as world:
        await eventually(lambda: world.may_pass("/a"))
        world.settings = Instance("one", (), True, gate=Gate(mode="strict", flows=Flows(file=str(tmp_path / "none"))))
        world.follow(at(api))
        await eventually(lambda: world.has_said("No such file"))
        assert world.may_pass("/a") is True


async def test_answer_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haproxy_py.control.declared.ANSWER_WITHIN", 0.2)
    api = AdminApi()
    api.status = None
    async with serve(api), learning(Flows(admin="replicas", interval=QUICK), at(api)) as world:
        await eventually(lambda: world.has_said("cannot be learnt", "until then it answers 503"))


async def test_answer_that_is_too_large_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haproxy_py.control.declared.MAX_BYTES", 1000)
    api = AdminApi()
    api.flows = declare(*(f"/long/{number}" for number in range(100)))
    async with serve(api), learning(Flows(admin="replicas", interval=QUICK), at(api)) as world:
        await eventually(lambda: world.has_said("larger than"))
        assert world.may_pass("/long/1") is None

"""An API server whose etcd was restored from a backup: its versions are lower than those that the proxy knows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from haproxy_py.config import Cluster
from haproxy_py.discovery import api as api_module
from haproxy_py.discovery import reflector as reflector_module
from haproxy_py.discovery.api import Api, Collection
from haproxy_py.discovery.pace import Pace
from haproxy_py.discovery.records import Records
from haproxy_py.discovery.reflector import Clock, Reflector
from tests.discovery.api_server import ApiServer
from tests.discovery.things import make_endpoint, make_slice

SILENCE = 0.3


class Followed:
    """The slices of a server, followed over HTTP. A context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        self.api = Api(Cluster(str(kubeconfig)))
        self.changed = asyncio.Event()
        self.is_away = asyncio.Event()
        self.reflector: Reflector[Any] = Reflector(
            self.api,
            Collection("endpointslices", "discovery.k8s.io", "v1", "node-red"),
            dict,
            lambda change: self.changed.set(),
            self._take_word,
            Records(),
            Pace(),
            Clock(),
        )

    def _take_word(self, level: str, text: str) -> None:
        if "cannot be reached" in text:
            self.is_away.set()

    async def __aenter__(self) -> Followed:
        self.task = asyncio.create_task(self.reflector.run())
        return self

    async def __aexit__(self, *error: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.api.close()
        # A transport that was closed lets go of its socket some turns of the loop later; aiohttp tells nobody when.
        await asyncio.sleep(0.05)

    async def wait_for(self, *names: str) -> None:
        async with asyncio.timeout(20):
            while sorted(self.reflector.objects) != sorted(names):
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture(autouse=True)
def be_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "SILENCE", SILENCE)
    monkeypatch.setattr(reflector_module, "QUIET", 2 * SILENCE)


async def test_what_only_existed_after_the_backup_is_forgotten(api: ApiServer) -> None:
    api.put("endpointslices", "node-red", make_slice(make_endpoint("a"), name="kept"))
    backup = api.back_up()
    async with Followed(api.write_kubeconfig()) as followed:
        api.put("endpointslices", "node-red", make_slice(make_endpoint("b"), name="ghost"))
        await followed.wait_for("kept", "ghost")
        api.restore(backup)
        await followed.wait_for("kept")


async def test_what_happens_after_the_restore_is_followed(api: ApiServer) -> None:
    backup = api.back_up()
    async with Followed(api.write_kubeconfig()) as followed:
        for name in ("one", "two", "three"):
            api.put("endpointslices", "node-red", make_slice(make_endpoint("a"), name=name))
        await followed.wait_for("one", "two", "three")
        api.restore(backup)
        api.put("endpointslices", "node-red", make_slice(make_endpoint("b"), name="new"))
        await followed.wait_for("new")


async def test_a_server_that_has_caught_up_with_the_version_hides_nothing(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector_module, "QUIET", 3600.0)
    api.put("endpointslices", "node-red", make_slice(make_endpoint("a"), name="kept"))
    backup = api.back_up()
    async with Followed(api.write_kubeconfig()) as followed:
        api.put("endpointslices", "node-red", make_slice(make_endpoint("b"), name="ghost"))
        await followed.wait_for("kept", "ghost")
        api.vanish()
        async with asyncio.timeout(20):
            await followed.is_away.wait()
        api.restore(backup)
        for number in range(5):
            api.put("endpointslices", "elsewhere", make_slice(name=f"s{number}"))
        api.open()
        await followed.wait_for("kept")

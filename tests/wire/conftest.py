"""One proxy before one scripted replica, for all tests that need no other; and the loop of workers for async tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.proxy_process import ProxyProcess, describe_instance
from tests.wire.replica import ScriptedReplica
from tests.wire.talk import Wire

REPOSITORY = Path(__file__).parents[2]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def replica() -> Iterator[ScriptedReplica]:
    with ScriptedReplica() as replica:
        yield replica


@pytest.fixture(scope="session")
def proxy(replica: ScriptedReplica, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """Instances by host: `trusting.test` believes proxies and is open, `small.test` limits bodies; any other is HA.

    Without checks: the replica is in this process, and some tests take its file descriptors.
    """
    settings: dict[str, Any] = {
        "health": {"type": "off"},
        "half_close": "serve",
    }  # tests say by a FIN that this was all
    instances = [
        describe_instance([replica.url], **settings),
        describe_instance(
            [replica.url],
            name="trusting",
            ha=False,
            hosts=["trusting.test"],
            trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"],
            **settings,
        ),
        describe_instance(
            [replica.url], name="small", hosts=["small.test"], limits={"request_body": "10B"}, **settings
        ),
    ]
    folder = tmp_path_factory.mktemp("wire")
    with ProxyProcess(folder, instances, environment={"PYTHONPATH": str(REPOSITORY)}) as proxy:
        yield proxy
        # Nothing that a client sends may be a mistake of ours.
        assert "internal error" not in proxy.log


@pytest.fixture(scope="session")
def wire(proxy: ProxyProcess, replica: ScriptedReplica) -> Wire:
    return Wire(proxy.port, replica)

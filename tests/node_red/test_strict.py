"""The strict gate in front of real Node-REDs: what their flows declare passes, and nothing else."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yarl

from tests.node_red.replicas import FLOWS, NodeRedReplica
from tests.proxy_process import ProxyProcess, describe_instance

ROUTES = [
    ("get", "/s/a"), ("post", "/s/a"), ("get", "/s/item/:id"), ("put", "/s/item/:id/"), ("delete", "/s/item/:id/part/:part"),
    ("get", "/s/opt/:x?"), ("get", "/s/files/*"), ("patch", "/s/Case"), ("get", "/s/exp/:name.csv"), ("get", "/s/num/:n(\\d+)"),
    ("get", "/s/two/:a-:b"), ("get", "/s/colou?r"), ("get", "/s/mid/*/end"), ("get", "/s/off"), ("get", "/s/many/:x*"),
    ("get", "/:tenant/report"), ("get", "/flowsy"), ("post", "/s/ab+c"),
]  # fmt: skip
PIECES = ["a", "item", "1", "12", "x.csv", "part", "opt", "files", "Case", "case", "exp", "num", "two", "p-q", "colour", "color",
          "mid", "end", "off", "many", "report", "abbc", "ac", "..", ".", "%2e%2e", "x%2fy", "a;b", "%41", "flows", "settings",
          "red",
          "comms", "icons", "nodes", "x%20y", ""]  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")
ADMIN_PATHS = tuple(f"/{name}/" for name in ("flows", "settings", "red", "comms", "icons", "nodes"))
MARK = "X-From-Flow"


def make_flows() -> list[dict[str, Any]]:
    flows: list[dict[str, Any]] = json.loads(FLOWS.read_text())
    flows += [
        {"id": "st", "type": "tab", "label": "strict"},
        {"id": "sf", "type": "function", "z": "st", "func": f"msg.headers = {{'{MARK}': '1'}}; msg.payload = 'ok'; return msg",
         "outputs": 1, "x": 1, "y": 1, "wires": [["sr"]]},
        {"id": "sr", "type": "http response", "z": "st", "statusCode": "", "headers": {}, "x": 1, "y": 1, "wires": []},
    ]  # fmt: skip
    for number, (method, url) in enumerate(ROUTES):
        node = {"id": f"s{number}", "type": "http in", "z": "st", "url": url, "method": method, "upload": False, "x": 1, "y": 1,
                "wires": [["sf"]]}  # fmt: skip
        flows.append(node | ({"d": True} if url == "/s/off" else {}))
    return flows


@pytest.fixture(scope="module")
def replica(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeRedReplica]:
    folder = tmp_path_factory.mktemp("strict")
    (folder / "flows.json").write_text(json.dumps(make_flows()))
    one = NodeRedReplica(version, "r1", folder, flows=folder / "flows.json")
    one.start()
    try:
        one.wait_ready()
        yield one
    finally:
        one.stop()


def put_strict_proxy(replica: NodeRedReplica, folder: Path, flows: dict[str, Any], **gate: Any) -> ProxyProcess:
    settings = {"mode": "strict", "flows": flows, **gate}
    extra = {"drain": {"delay": "0s", "deadline": "1s"}, "log": {"access": "off"}}
    return ProxyProcess(folder, [describe_instance([replica.url], gate=settings)], extra=extra)


def make_requests() -> list[tuple[str, str]]:
    source = random.Random(5)
    paths = {url.replace(":", "").replace("?", "").replace("(\\d+)", "") for _, url in ROUTES}
    paths |= {"/s/" + "/".join(source.choices(PIECES, k=source.randint(1, 4))) for _ in range(300)}
    paths |= {"/" + "/".join(source.choices(PIECES, k=source.randint(1, 3))) for _ in range(120)}
    paths |= {path + "/" for path in list(paths)[:60]}
    paths = {path for path in paths if not path.startswith("//")}
    asked = [(method, path) for path in sorted(paths) for method in source.sample(METHODS, 2)]
    for method, url in ROUTES:
        for _ in range(15):
            path = re.sub(r":\w+(\(.*?\))?\??|\*", lambda _: source.choice(PIECES), url).replace("?", "")
            path = path.swapcase() if source.random() < 0.2 else path
            asked.append((method.upper(), path + source.choice(("", "", "/", "?a=/flows", "//", "/x"))))
    return asked


async def ask(session: aiohttp.ClientSession, base: str, method: str, path: str) -> tuple[int, bool]:
    async with session.request(method, yarl.URL(base + path, encoded=True), allow_redirects=False) as answer:
        await answer.read()
        return answer.status, MARK in answer.headers


async def test_exactly_what_a_replica_routes_to_a_flow_passes(
    replica: NodeRedReplica, tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    wrong, counted = [], {"passed": 0, "refused": 0}
    with put_strict_proxy(replica, tmp_path, {"file": str(replica.user_dir / "flows.json")}) as proxy:
        for method, path in make_requests():
            direct, routed = await ask(client, replica.url, method, path)
            status, passed = await ask(client, proxy.url, method, path)
            counted["passed" if passed else "refused"] += 1
            if routed and not passed and (".." in path or "%2e" in path or path.lower().startswith(ADMIN_PATHS)):
                continue  # refused knowingly: it goes back, or its first segment belongs to the admin side
            if routed and not passed:
                wrong.append(("refused", method, path, direct, status))
            elif not routed and status not in (400, 403):
                wrong.append(("leaked", method, path, direct, status))
    assert not wrong, (len(wrong), wrong[:20])
    assert min(counted.values()) > 100, counted


async def test_routes_are_learnt_from_the_admin_api_and_follow_a_deploy(
    replica: NodeRedReplica, tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    flows = make_flows()
    with put_strict_proxy(replica, tmp_path, {"admin": True, "interval": "1s"}) as proxy:
        assert (await ask(client, proxy.url, "GET", "/s/a"))[1]
        assert (await ask(client, proxy.url, "GET", "/s/new"))[0] == 403
        node = next(one for one in flows if one["id"] == "s0")
        async with client.post(f"{replica.url}/flows", json=[*flows, node | {"id": "new", "url": "/s/new"}]) as answer:
            assert answer.status in (200, 204)
        deadline = time.monotonic() + 30
        while not (await ask(client, proxy.url, "GET", "/s/new"))[1]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

"""The Compose example: whole in itself, and its proxy in front of real Node-REDs with its settings and flows.

There is no container engine where the tests run. A name server and addresses of loopback stand for the network of Compose.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from haproxy_py.config_file import load
from tests.browser import Page
from tests.discovery.dns_server import DnsServer
from tests.node_red.replicas import find_node_red
from tests.proxy_process import ProxyProcess, find_free_ports

FOLDER = Path(__file__).parents[2] / "config" / "compose"
DASHBOARD = FOLDER / "monitoring" / "dashboards" / "haproxy-py.json"
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
WITHIN = 90.0


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return read


def list_mounts(compose: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Service and what it mounts: a path, or the name of a volume."""
    for name, service in compose["services"].items():
        for mount in service.get("volumes", ()):
            yield name, mount.partition(":")[0]


def test_everything_that_is_mounted_or_built_is_there(compose: dict[str, Any]) -> None:
    for service, source in list_mounts(compose):
        assert source in compose["volumes"] or (FOLDER / source).exists(), (service, source)
    builds = [service["build"] for service in compose["services"].values() if "build" in service]
    assert len(builds) == 2
    for folder in builds:
        assert (FOLDER / folder / "Dockerfile").is_file()


def test_all_that_is_for_operators_is_published_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == ["8080:8080"]


def test_replicas_share_nothing_that_can_be_written(compose: dict[str, Any]) -> None:
    assert all(mount.endswith(":ro") for mount in compose["services"]["node-red"]["volumes"])


def test_names_and_ports_agree(compose: dict[str, Any]) -> None:
    config = load(FOLDER / "haproxy-py.yaml")
    [instance] = config.instances
    assert instance.dns is not None
    assert instance.dns.name.rstrip(".") in compose["services"]
    assert instance.dns.port == 1880
    assert [listen.port for listen in config.listen] == [8080]
    [job] = yaml.safe_load((FOLDER / "monitoring" / "prometheus.yaml").read_text())["scrape_configs"]
    [static] = job["static_configs"]
    [target] = static["targets"]
    assert target == f"haproxy-py:{config.ops.port}"
    assert compose["services"]["haproxy-py"]["stop_grace_period"] == "45s"
    assert config.drain.deadline < 45


def test_panels_of_the_dashboard_use_the_data_source_that_is_provisioned() -> None:
    source = yaml.safe_load((FOLDER / "monitoring" / "datasource.yaml").read_text())["datasources"][0]["uid"]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source}


@contextlib.contextmanager
def run_node_red(host: str, port: int, folder: Path) -> Iterator[None]:
    """One Node-RED as Compose starts it, but for its address."""
    node, red = find_node_red("v4")
    folder.mkdir()
    (folder / "flows.json").write_bytes((FOLDER / "node-red" / "flows.json").read_bytes())
    settings = folder / "settings.js"
    settings.write_text(
        f"module.exports = {{...require({json.dumps(str(FOLDER / 'node-red/settings.js'))}), uiHost: {host!r}}}\n"
    )
    environment = {**os.environ, "PORT": str(port), "HOSTNAME": host}
    with (folder / "console.log").open("wb") as log:
        process = subprocess.Popen(
            [str(node), str(red), "-u", str(folder), "-s", str(settings)],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + WITHIN
        while True:
            try:
                urllib.request.urlopen(f"http://{host}:{port}/healthz", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "console.log").read_text()
                assert time.monotonic() < deadline, (folder / "console.log").read_text()
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[ProxyProcess, DnsServer]]:
    """The proxy with the configuration of the example; only its addresses and its name server are others."""
    [port] = find_free_ports(1)
    config = yaml.safe_load((FOLDER / "haproxy-py.yaml").read_text())
    with contextlib.ExitStack() as stack:
        for host in HOSTS:
            stack.enter_context(run_node_red(host, port, tmp_path / host))
        server = stack.enter_context(DnsServer())
        server.set_records("node-red", "A", list(HOSTS[:2]))
        [instance] = config["instances"]
        instance["replicas"]["dns"] |= {"port": port, "servers": [server.address]}
        proxy = ProxyProcess(tmp_path, [instance], extra={"drain": {"delay": "0s", "deadline": "1s"}})
        yield stack.enter_context(proxy), server


async def ask(client: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    async with client.get(url) as answer:
        return answer.status, await answer.text()


async def test_requests_are_spread_the_editor_is_closed_and_the_dashboard_works(
    proxy: tuple[ProxyProcess, DnsServer], page: Page
) -> None:
    front, server = proxy
    async with aiohttp.ClientSession() as client:
        for path in ("/admin", "/admin/flows", "/admin/comms"):
            assert (await ask(client, front.url + path))[0] == 403
        said = {(await ask(client, f"{front.url}/hello"))[1] for _ in range(8)}
        assert said == {json.dumps({"replica": host}, separators=(",", ":")) for host in HOSTS[:2]}
        server.set_records("node-red", "A", list(HOSTS))  # --scale node-red=3
        deadline = time.monotonic() + WITHIN
        while len(said) < 3:
            assert time.monotonic() < deadline
            said.add((await ask(client, f"{front.url}/hello"))[1])
    asked = set(re.findall(r"haproxy_py_\w+", DASHBOARD.read_text()))
    told = set(re.findall(r"^(haproxy_py_\w+)\{", front.get_ops("/metrics")[1], re.MULTILINE))
    assert asked <= told
    assert await page.open(f"{front.url}/dashboard/page1") == 200
    await page.wait_for("document.body.textContent.includes(' from 127.0.0.')")

"""The whole proxy with replicas from the DNS: a real server, real look-ups, real requests."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.discovery.dns_server import DnsServer
from tests.proxy_process import ProxyProcess, find_free_ports

WITHIN = 20.0
NAME = "nr.example.com"
SRV = "_http._tcp.nr.example.com"


class Handler(BaseHTTPRequestHandler):
    """Tells the address that it was reached at; `/slow` waits until `released`."""

    protocol_version = "HTTP/1.1"
    released = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.released.wait(WITHIN)
        body = self.connection.getsockname()[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *args: object) -> None:
        pass  # checks reset their connections


@pytest.fixture
def port() -> Iterator[int]:
    """Of a replica on each of 127.0.0.1 to 127.0.0.3."""
    Handler.released.clear()
    with contextlib.ExitStack() as stack:
        (number,) = find_free_ports(1)
        for last in (1, 2, 3):
            server = stack.enter_context(Server((f"127.0.0.{last}", number), Handler))
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield number


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as one:
        yield one


def describe(server: DnsServer, name: str, **dns: Any) -> dict[str, Any]:
    return {
        "name": "test",
        "ha": True,
        "replicas": {"dns": {"name": f"{name}.", "interval": "1s", "servers": [server.address], **dns}},
    }


def ask(proxy: ProxyProcess, path: str = "/api") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=WITHIN)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def read_status(proxy: ProxyProcess) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(proxy.get_ops("/api/v1/status")[1])
    return status


def list_replicas(proxy: ProxyProcess) -> list[str]:
    return [replica["name"] for replica in read_status(proxy)["instances"][0]["replicas"]]


def wait_until(is_so: Callable[[], bool], proxy: ProxyProcess) -> None:
    end = time.monotonic() + WITHIN
    while not is_so():
        assert time.monotonic() < end, proxy.log
        time.sleep(0.02)


def test_replicas_come_and_go_with_the_name_and_what_runs_ends(tmp_path: Path, server: DnsServer, port: int) -> None:
    server.set_records(NAME, "A", ["127.0.0.1"])
    with ProxyProcess(tmp_path, [describe(server, NAME, port=port)]) as proxy:
        assert ask(proxy) == (200, "127.0.0.1")
        server.set_records(NAME, "A", ["127.0.0.1", "127.0.0.2", "127.0.0.3"])
        wait_until(lambda: len(list_replicas(proxy)) == 3, proxy)
        assert Counter(ask(proxy)[1] for _ in range(6)) == {f"127.0.0.{last}": 2 for last in (1, 2, 3)}
        slow: list[tuple[int, str]] = []
        threads = [threading.Thread(target=lambda: slow.append(ask(proxy, "/slow"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(
            lambda: sum(one["active_requests"] for one in read_status(proxy)["instances"][0]["replicas"]) == 3, proxy
        )
        server.set_records(NAME, "A", ["127.0.0.2"])
        wait_until(lambda: list_replicas(proxy) == [f"127.0.0.2:{port}"], proxy)
        assert {ask(proxy)[1] for _ in range(6)} == {"127.0.0.2"}
        Handler.released.set()
        for thread in threads:
            thread.join()
        assert sorted(slow) == [(200, f"127.0.0.{last}") for last in (1, 2, 3)]
        assert "new: 127.0.0.2" in proxy.log


@pytest.mark.parametrize("mode", ["servfail", "silent", "garbage", "cname_loop"])
def test_a_dns_that_fails_changes_nothing_and_is_shown(tmp_path: Path, server: DnsServer, port: int, mode: str) -> None:
    server.set_records(NAME, "A", ["127.0.0.1", "127.0.0.2"])
    with ProxyProcess(tmp_path, [describe(server, NAME, port=port)]) as proxy:
        server.mode = mode
        wait_until(lambda: read_status(proxy)["discovery"]["followed"][0]["failure"] is not None, proxy)
        assert {ask(proxy)[1] for _ in range(4)} == {"127.0.0.1", "127.0.0.2"}
        assert proxy.is_ready()
        assert "the replicas that were found last stay in use" in proxy.log
        assert (
            f'haproxy_py_discovery_failing{{cluster="{server.address}",kind="dns",namespace="{NAME}."}} 1.0'
            in (proxy.get_ops("/metrics")[1])
        )
        server.mode = ""
        wait_until(lambda: f"{NAME}. is found again" in proxy.log, proxy)


def test_a_name_that_is_gone_keeps_the_replicas_that_answer(tmp_path: Path, server: DnsServer, port: int) -> None:
    server.set_records(NAME, "A", ["127.0.0.1", "127.0.0.9"])  # nobody listens at the second
    with ProxyProcess(tmp_path, [describe(server, NAME, port=port)]) as proxy:
        server.remove(NAME)
        wait_until(lambda: "an empty answer is not believed" in proxy.log, proxy)
        wait_until(
            lambda: [one["state"] for one in read_status(proxy)["instances"][0]["replicas"]] == ["ready", "unhealthy"],
            proxy,
        )
        assert {ask(proxy) for _ in range(4)} == {(200, "127.0.0.1")}


def test_a_start_without_dns_is_not_ready_and_says_why_until_there_is_one(
    tmp_path: Path, server: DnsServer, port: int
) -> None:
    server.mode = "servfail"
    server.set_records(NAME, "A", ["127.0.0.1"])
    proxy = ProxyProcess(tmp_path, [describe(server, NAME, port=port)])
    proxy.spawn()
    try:
        wait_until(lambda: "nothing is known yet, so the proxy is not ready" in proxy.log, proxy)
        wait_until(lambda: "accepts connections" in proxy.log, proxy)
        status, body = proxy.get_ops("/readyz")
        assert status == 503
        assert f"{NAME}. cannot be looked up: no name server answers {NAME}. A" in body
        assert ask(proxy)[0] == 503
        began = time.monotonic()
        time.sleep(3)
        assert server.count(NAME, began) <= 4
        server.mode = ""
        wait_until(proxy.is_ready, proxy)
        assert ask(proxy) == (200, "127.0.0.1")
    except BaseException:
        proxy.kill()
        raise
    proxy.stop()


def test_a_name_that_does_not_exist_yet_leaves_the_instance_without_a_replica(
    tmp_path: Path, server: DnsServer, port: int
) -> None:
    with ProxyProcess(tmp_path, [describe(server, NAME, port=port)]) as proxy:
        assert ask(proxy)[0] == 503
        assert "there is no replica until it is found" in proxy.log
        server.set_records(NAME, "A", ["127.0.0.1"])
        wait_until(lambda: ask(proxy)[0] == 200, proxy)


def test_srv_records_name_the_replicas(tmp_path: Path, server: DnsServer, port: int) -> None:
    server.set_records(SRV, "SRV", [f"0 0 {port} nr-{last}.example.com." for last in (1, 2)])
    for last in (1, 2):
        server.set_records(f"nr-{last}.example.com", "A", [f"127.0.0.{last}"])
    with ProxyProcess(tmp_path, [describe(server, SRV)]) as proxy:
        assert list_replicas(proxy) == ["nr-1.example.com", "nr-2.example.com"]
        assert {ask(proxy)[1] for _ in range(4)} == {"127.0.0.1", "127.0.0.2"}


def test_the_proxy_itself_is_never_a_replica(tmp_path: Path, server: DnsServer, port: int) -> None:
    """DSC-13."""
    server.set_records(SRV, "SRV", [])
    proxy = ProxyProcess(tmp_path, [describe(server, SRV)])
    server.set_records(SRV, "SRV", [f"0 0 {proxy.port} me.example.com.", f"0 0 {port} other.example.com."])
    server.set_records("me.example.com", "A", ["127.0.0.1"])
    server.set_records("other.example.com", "A", ["127.0.0.2"])
    with proxy:
        assert list_replicas(proxy) == ["other.example.com"]
        assert "is this proxy itself, and requests would go in a circle" in proxy.log
        assert 'haproxy_py_discovery_ignored{why="own"} 1.0' in proxy.get_ops("/metrics")[1]


def test_a_thousand_addresses_are_followed(tmp_path: Path, server: DnsServer, port: int) -> None:
    server.set_records(NAME, "A", [f"127.0.{number // 250}.{number % 250 + 1}" for number in range(1000)])
    off = describe(server, NAME, port=port) | {"health": {"type": "off"}}  # nobody listens at most of them
    with ProxyProcess(tmp_path, [off]) as proxy:
        assert len(list_replicas(proxy)) == 1000


def test_dnspython_is_imported_only_where_a_name_is_followed() -> None:
    code = "import sys, haproxy_py.control.supervisor; sys.exit('dns' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

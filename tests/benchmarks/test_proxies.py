"""How proxies are described and started."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from benchmarks import proxies
from benchmarks.machine import FOLDER, UnavailableError, free_ports
from benchmarks.proxies import Job, Proxy, choose_lines, fill, list_proxies

SERVER = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
LISTENER = Proxy("listener", (sys.executable, "-c", SERVER, "{listen}"))


def test_a_missing_peer_is_named_with_how_to_get_it(tmp_path: Path) -> None:
    missing = Proxy("haproxy-9", ("/nowhere/haproxy",), hint="build it")
    with pytest.raises(UnavailableError, match=r"/nowhere/haproxy is not on this machine \(build it\)"):
        missing.start(Job(tmp_path, (1, 2), ()))


def test_a_proxy_that_ends_at_the_start_is_quoted(tmp_path: Path) -> None:
    broken = Proxy("broken", (sys.executable, "-c", "import sys; sys.exit('line 3: no such key')"))
    with pytest.raises(UnavailableError, match=r"it ended with status 1 at the start: line 3: no such key"):
        broken.start(Job(tmp_path, (1, 2), ()))


def test_another_port_is_tried_when_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        mine = free_ports(2)
        offered = iter([[taken.getsockname()[1], 1], mine])
        monkeypatch.setattr(proxies, "free_ports", lambda _: next(offered))
        running = LISTENER.start(Job(tmp_path, (1, 2), ()))
        running.stop()
    assert running.port == mine[0]


def test_a_stopped_proxy_has_gone(tmp_path: Path) -> None:
    running = LISTENER.start(Job(tmp_path, (1, 2), ()))
    assert running.cpu() > 0
    running.stop()
    assert running.process.returncode is not None


def test_another_build_of_a_peer_takes_part_under_its_own_name(tmp_path: Path) -> None:
    builds = [proxy for proxy in list_proxies(tmp_path, {"nginx-new": "/opt/nginx", "hap": "/opt/hap"}) if proxy.newest]
    assert [(proxy.name, proxy.family, proxy.command[0]) for proxy in builds] == [
        ("nginx-new", "nginx", "/opt/nginx"),
        ("hap", "haproxy", "/opt/hap"),
    ]


def test_the_version_is_a_number() -> None:
    said = Proxy("x", (), version_command=(sys.executable, "-c", "print('x  version: 9e5580/1.40.0/Clean')"))
    assert said.read_version() == "1.40.0"


def test_lines_for_tls_count_only_with_tls() -> None:
    config = "bind 1 # plain\nbind 2 ssl # tls\nmode http\n"
    assert choose_lines(config, tls=False) == "bind 1 # plain\nmode http\n"
    assert choose_lines(config, tls=True) == "bind 2 ssl # tls\nmode http\n"


def test_unknown_braces_stay() -> None:
    assert fill("{listen} {other} {}", {"listen": 80}) == "80 {other} {}"


@pytest.mark.parametrize("proxy", [p for p in list_proxies(Path("/x"), {}) if p.config], ids=lambda proxy: proxy.name)
def test_every_configuration_can_end_tls(proxy: Proxy) -> None:
    text = choose_lines((FOLDER / "peers" / proxy.config).read_text(), tls=True)
    assert "{certificate" in text

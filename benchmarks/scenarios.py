"""What is measured: each scenario is one kind of load, the same for every proxy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    "Accept": "application/json, text/plain, */*",
    "Accept-Language": "en-US,en;q=0.9,de;q=0.8",
    "Accept-Encoding": "gzip, deflate, br",
    "Cache-Control": "no-cache",
    "Content-Type": "application/json",
    "Cookie": "session=abcdef0123456789abcdef; theme=dark; lang=en",
    "Origin": "https://instance.example.com",
    "Referer": "https://instance.example.com/dashboard/page1",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
}
"""Twelve fields as a browser sends them with a request of a page's script."""

JSON = '{"sensor":"t-17","value":21.5,"unit":"C","at":1790000000000}'

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""Asks for a WebSocket; the key is the example of RFC 6455 section 1.3, whose answer `load.c` knows."""


class Ability(Enum):
    """What a scenario asks of a proxy beyond passing bytes on. A proxy that lacks it is left out of that scenario."""

    GATE = auto()  # answers 403 on admin paths
    CLOSE = auto()  # ends the client's connection when asked to, and keeps the replica's
    WEBSOCKET = auto()
    TLS = auto()  # ends TLS 1.3


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load: a request, or a WebSocket message, that is repeated on a number of connections."""

    name: str
    about: str
    path: str
    limit: float  # CPU per request against the better of HAProxy and nginx, at most
    aim: float
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    body: str = ""
    connections: int = 64
    active: int | None = None  # connections with a request under way at a time; None: all
    status: int = 200
    needs: frozenset[Ability] = frozenset()
    full_handshakes: bool = False  # a new connection and a full TLS handshake per request
    floor_limit: float | None = None  # CPU per request against the raw relay, at most
    floor_aim: float | None = None

    @property
    def by_wrk(self) -> bool:
        """Whether wrk can make this load; `load.c` makes the rest."""
        return self.active is None and Ability.WEBSOCKET not in self.needs


SCENARIOS = (
    Scenario("small", "small GET, keep-alive, 64 connections", "/api/hello", 0.9, 0.75),
    Scenario(
        "realistic", "POST with 12 browser fields and JSON; answer with 10 fields", "/api/hello", 0.9, 0.75,
        method="POST", fields=tuple(BROWSER.items()), body=JSON, floor_limit=1.35, floor_aim=1.2,
    ),
    Scenario("answer-64k", "64 KiB answer", "/size/65536", 0.75, 0.65),
    Scenario("answer-1m", "1 MiB answer", "/size/1048576", 0.6, 0.5, connections=16),
    Scenario("upload-1m", "1 MiB upload", "/upload", 0.8, 0.6, method="POST", body="a" * 1048576, connections=16),
    Scenario("chunked", "chunked answer of 16 x 1 KiB", "/chunked/16/1024", 1.0, 0.8),
    Scenario(
        "close", "a connection per request, closed by the client's wish", "/api/hello", 1.2, 1.0,
        fields=(("Connection", "close"),), needs=frozenset({Ability.CLOSE}),
    ),
    Scenario("denied", "403 by the gate", "/flows", 0.8, 0.6, status=403, needs=frozenset({Ability.GATE})),
    Scenario(
        "websocket", "WebSocket echo through a tunnel, 64-byte messages", "/ws", 1.0, 0.85,
        fields=tuple(UPGRADE.items()), needs=frozenset({Ability.WEBSOCKET}),
    ),
    Scenario("tls", "small GET over TLS, keep-alive", "/api/hello", 1.0, 0.8, needs=frozenset({Ability.TLS})),
    Scenario(
        "handshake", "a TLS connection per request, full handshake", "/api/hello", 1.1, 1.0,
        fields=(("Connection", "close"),), needs=frozenset({Ability.TLS}), full_handshakes=True,
    ),
    Scenario("sparse", "small GET, 1,000 connections, 10 active at a time", "/api/hello", 0.9, 0.8,
             connections=1000, active=10),
)  # fmt: skip


def find_scenario(name: str) -> Scenario:
    """The scenario of that name."""
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


def host_name(number: int) -> str:
    """The host of one of many instances."""
    return f"instance-{number}.example.com"


def write_request(scenario: Scenario, port: int) -> str:
    """The request as it goes over the wire."""
    lines = [f"{scenario.method} {scenario.path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in scenario.fields]
    if scenario.body:
        lines.append(f"Content-Length: {len(scenario.body)}")
    return "\r\n".join([*lines, "", scenario.body])


def write_script(scenario: Scenario, hosts: int = 0) -> str:
    """wrk's script (Lua) for a scenario, with `hosts` in turn in Host where there are any. It prints the line `load` reads."""
    lines = [f'wrk.method = "{scenario.method}"']
    if scenario.body:
        lines.append(f"wrk.body = [[{scenario.body}]]")
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in scenario.fields]
    if hosts:
        lines += [
            "local requests, turn = {}, 0",
            "function init(args)",
            f"  for number = 0, {hosts - 1} do",
            f'    wrk.headers["Host"] = string.gsub("{host_name(0)}", "0", number, 1)',
            "    requests[number] = wrk.format()",
            "  end",
            "end",
            "function request()",
            f"  turn = (turn + 1) % {hosts}",
            "  return requests[turn]",
            "end",
        ]
    lines += [
        "function done(summary, latency, requests)",
        "  local errors = summary.errors",
        '  io.write(string.format("RESULT %d %d %d %d %d %d %d\\n", summary.requests, summary.duration, errors.status,',
        "    errors.connect + errors.read + errors.write + errors.timeout, latency:percentile(50),",
        "    latency:percentile(99), latency:percentile(99.9)))",
        "end",
    ]
    return "\n".join(lines) + "\n"

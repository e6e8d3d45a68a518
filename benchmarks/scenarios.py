"""What is measured: each scenario is one kind of load, the same for every proxy."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load: a request that is repeated on a number of connections."""

    name: str
    about: str
    path: str
    limit: float  # CPU per request against the better of HAProxy and nginx, at most
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    body: str = ""  # Lua expression
    connections: int = 64
    status: int = 200
    plain: bool = True  # the raw relay can take part: it looks at nothing


SCENARIOS = (
    Scenario("small", "small GET, keep-alive, 64 connections", "/api/hello", 0.9),
    Scenario(
        "realistic",
        "POST with 12 browser fields and JSON; answer with 10 fields",
        "/api/hello",
        0.9,
        method="POST",
        fields=tuple(BROWSER.items()),
        body=f"[[{JSON}]]",
    ),
    Scenario("answer-64k", "64 KiB answer", "/size/65536", 0.75),
    Scenario("answer-1m", "1 MiB answer", "/size/1048576", 0.6, connections=16),
    Scenario(
        "upload-1m", "1 MiB upload", "/upload", 0.8, method="POST", body='string.rep("a", 1048576)', connections=16
    ),
    Scenario("chunked", "chunked answer of 16 x 1 KiB", "/chunked/16/1024", 1.0),
    Scenario(
        "close", "a connection per request, closed by the client's wish", "/api/hello", 1.2,
        fields=(("Connection", "close"),), plain=False,
    ),
    Scenario("denied", "403 by the gate", "/flows", 0.8, status=403, plain=False),
)  # fmt: skip


def write_script(scenario: Scenario) -> str:
    """The load generator's script (Lua) for a scenario. It prints one line that `load` reads."""
    lines = [f'wrk.method = "{scenario.method}"']
    if scenario.body:
        lines.append(f"wrk.body = {scenario.body}")
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in scenario.fields]
    lines += [
        "function done(summary, latency, requests)",
        "  local errors = summary.errors",
        '  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration, errors.status,',
        "    errors.connect + errors.read + errors.write + errors.timeout, latency:percentile(50),",
        "    latency:percentile(99)))",
        "end",
    ]
    return "\n".join(lines) + "\n"

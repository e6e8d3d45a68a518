"""The flows and the settings of a real Node-RED in the demo: the same routes as the embedded replica has."""

from __future__ import annotations

import json
from typing import Any

from haproxy_py.demo.page import PAGE

SETTINGS = """\
module.exports = {
  uiHost: '127.0.0.1', uiPort: Number(process.env.DEMO_PORT), flowFile: 'flows.json', credentialSecret: false,
  telemetry: { enabled: false }, editorTheme: { tours: false },
  logging: { console: { level: 'info', metrics: false, audit: false } }
}
"""

_NAMED = "msg.headers = {'X-Replica': env.get('REPLICA')}\n"

_HELLO = (
    _NAMED
    + """\
msg.payload = {replica: env.get('REPLICA'), method: msg.req.method, query: msg.req.query, body: msg.payload}
return msg
"""
)

_ECHO = (
    _NAMED
    + """\
msg.headers['Content-Type'] = msg.req.headers['content-type'] || 'text/plain'
return msg
"""
)

_EVENTS = """\
const answer = msg.res._res
answer.writeHead(200, {'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store'})
let number = 0
const send = () => answer.write(`data: event ${++number} of ${env.get('REPLICA')}\\n\\n`)
const timer = setInterval(send, 1000)
answer.on('close', () => clearInterval(timer))
send()
"""

_WHO = "if (msg.payload === 'who?') msg.payload = env.get('REPLICA')\nreturn msg\n"


def build_flows() -> str:
    """The flows file."""
    nodes: list[dict[str, Any]] = [{"id": "demo", "type": "tab", "label": "Demo", "disabled": False, "info": ""}]

    def add(id: str, type: str, row: int, column: int, wires: list[str], **more: Any) -> None:
        place = {"x": 120 + 220 * column, "y": 60 * row}
        nodes.append({"id": id, "type": type, "z": "demo", "name": "", "wires": [wires]} | place | more)

    def add_route(id: str, row: int, method: str, url: str, next: str) -> None:
        add(id, "http in", row, 0, [next], method=method, url=url, upload=False)

    for row, method in enumerate(("get", "post", "put", "delete"), 1):
        add_route(f"hello-{method}", row, method, "/api/hello", "hello")
    add("hello", "function", 2, 2, ["answer"], func=_HELLO, outputs=1)
    add_route("slow", 5, "get", "/api/slow", "wait")
    add("wait", "delay", 5, 1, ["hello"], pauseType="delay", timeout="2", timeoutUnits="seconds", outputs=1)
    add_route("echo", 6, "post", "/api/echo", "echo-body")
    add("echo-body", "function", 6, 1, ["answer"], func=_ECHO, outputs=1)
    add_route("events", 7, "get", "/events", "events-send")
    add("events-send", "function", 7, 1, [], func=_EVENTS, outputs=1)
    add_route("page", 8, "get", "/demo", "page-text")
    add("page-text", "template", 8, 1, ["answer"], field="payload", fieldType="msg", syntax="plain", template=PAGE)
    add("answer", "http response", 5, 3, [], statusCode="", headers={})
    nodes.append({"id": "ws", "type": "websocket-listener", "path": "/ws/echo", "wholemsg": "false"})
    add("ws-in", "websocket in", 9, 0, ["ws-who"], server="ws", client="")
    add("ws-who", "function", 9, 1, ["ws-out"], func=_WHO, outputs=1)
    add("ws-out", "websocket out", 9, 3, [], server="ws", client="")
    return json.dumps(nodes, indent=2)

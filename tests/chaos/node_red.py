"""Node-RED replicas that stop slowly: for a while each answers 404 on every route of its flows, as real ones do (DRN-5)."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from pathlib import Path
from threading import Thread

from tests.load_clients import BODY, METHODS
from tests.node_red.replicas import NodeRedReplica

CLOSES_FOR = 1.5
"""Seconds that the slowest node of the flows needs to close."""

_ANSWER = f"""
const known = JSON.stringify(msg.payload) === JSON.stringify({BODY.decode()})
msg.payload = {{
    replica: env.get('REPLICA'), method: msg.req.method, query: msg.req.query, body: known ? '{BODY.decode()}' : '',
}}
return msg
""".strip()

_CLOSE_SLOWLY = f"node.on('close', (removed, done) => {{ setTimeout(done, {CLOSES_FOR * 1000:.0f}) }})"


def write_flows(folder: Path) -> Path:
    """Flows that answer what `tests.load` asks, and one node that takes its time to close."""
    methods = [method.lower() for method in METHODS if method != "HEAD"]
    place = {"z": "tab", "x": 100, "y": 100}
    flows = [
        {"id": "tab", "type": "tab", "label": "Load"},
        *(
            {"id": method, "type": "http in", "url": "/api/hello", "method": method, "wires": [["answer"]], **place}
            for method in methods
        ),
        {"id": "answer", "type": "function", "func": _ANSWER, "outputs": 1, "wires": [["out"]], **place},
        {"id": "out", "type": "http response", "statusCode": "", "headers": {}, "wires": [], **place},
        {"id": "begin", "type": "inject", "once": True, "onceDelay": 0, "props": [], "wires": [["slow"]], **place},
        {"id": "slow", "type": "function", "func": _CLOSE_SLOWLY, "outputs": 0, "wires": [], **place},
    ]
    file = folder / "load-flows.json"
    file.write_text(json.dumps(flows))
    return file


def stop_and_watch(replica: NodeRedReplica) -> int:
    """SIGTERM; returns when the process has ended: how many 404 it answered meanwhile to those who asked it directly."""
    ending = Thread(target=replica.stop)
    ending.start()
    refusals = 0
    while ending.is_alive():
        refusals += ask(replica) == 404
        time.sleep(0.02)
    ending.join()
    return refusals


def ask(replica: NodeRedReplica) -> int:
    """The status of one GET, around the proxy; 0 without an answer."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", replica.port, timeout=5)) as connection:
        try:
            connection.request("GET", "/api/hello")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0

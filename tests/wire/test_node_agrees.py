"""Requests mutated at random, through the proxy to a real Node: both must find the same requests with the same bodies.

A request that Node sees and the proxy did not forward as such is request smuggling. The proxy's own view is its access
log: one line per exchange. A request that Node cannot parse is a pooled connection that any client could tear down (principle 2).
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.proxy_process import ProxyProcess, describe_instance
from tests.wire.conftest import REPOSITORY
from tests.wire.forms import BAD_REQUESTS, GOOD_REQUESTS
from tests.wire.replica import dechunk
from tests.wire.talk import put_tag

SEED = 20261122
MESSAGES = 20_000
AT_ONCE = 64
MAX_SIZE = 1500
"""Octets of a form that is mutated; the long ones test limits and are slow."""

PIECES = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b",", b";", b"0", b"00", b"5", b"-", b"+", b"\x0b", b"\xa0", b"\r\n\r\n",
    b"0\r\n\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:\tchunked, identity\r\n", b"Connection: close\r\n", b"Connection: content-length\r\n",
    b"Expect: 100-continue\r\n", b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"chunked",
    b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"ffffffffffffffff", b"\r\n X", b"a=b", b'"', b"\\",
)  # fmt: skip


def mutate(message: bytes, random_: random.Random) -> bytes:
    data = bytearray(message)
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        at = random_.randrange(len(data) + 1)
        match random_.randrange(5):
            case 0:
                data[at:at] = random_.choice(PIECES)
            case 1:
                del data[at : at + random_.choice((1, 1, 2, 5))]
            case 2:
                data[at : at + 1] = bytes([random_.randrange(256)])
            case 3:
                end = at + random_.randrange(1, 30)
                data[at:at] = data[at:end]
            case _:  # at the start of a line, where it is most likely to be a field
                line = data.rfind(b"\r\n", 0, at) + 2 if b"\r\n" in data[:at] else 0
                data[line:line] = random_.choice(PIECES)
    return bytes(data)


@pytest.fixture(scope="module")
def node() -> Iterator[int]:
    program = Path(__file__).parents[1] / "node_red" / "v5" / "node_modules" / ".bin" / "node"
    assert program.exists(), "Node.js is missing: run tests/install, which gets it together with Node-RED"
    with subprocess.Popen(
        [program, str(Path(__file__).with_name("node_replica.js"))], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def front(node: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    instances = [describe_instance([f"http://127.0.0.1:{node}"], ha=False, half_close="serve")]
    environment = {"PYTHONPATH": str(REPOSITORY)}
    with ProxyProcess(tmp_path_factory.mktemp("node"), instances, environment=environment) as proxy:
        yield proxy


async def talk(port: int, data: bytes) -> bytes:
    """Everything that the proxy answers to a message and its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    except TimeoutError:
        raise AssertionError(f"no end of the connection for {data!r}") from None
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


async def get_recorded(port: int) -> Any:
    answer = await talk(port, b"GET /recorded HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    return json.loads(dechunk(body) if b"chunked" in head.lower() else body)


async def test_node_sees_the_requests_that_the_proxy_sees_and_no_other(front: ProxyProcess, node: int) -> None:
    random_ = random.Random(SEED)
    forms = [form.message for form in (GOOD_REQUESTS | BAD_REQUESTS).values() if len(form.message) <= MAX_SIZE]
    messages = iter([mutate(put_tag(random_.choice(forms), index), random_) for index in range(MESSAGES)])

    async def send_some() -> None:
        for message in messages:
            await talk(front.port, message)

    await asyncio.gather(*(send_some() for _ in range(AT_ONCE)))
    recorded = await get_recorded(node)
    front.stop()  # the access log is written out
    lines = [json.loads(line) for line in front.log.splitlines() if '"request_id"' in line]
    forwarded = {line["request_id"]: line for line in lines if line["replica"]}
    assert recorded["errors"] == []
    assert len(recorded["seen"]) > MESSAGES // 20
    ids = [request_id for request_id, *_ in recorded["seen"]]
    assert len(set(ids)) == len(ids)
    strange = [
        (request_id, method, target)
        for request_id, method, target, _ in recorded["seen"]
        if request_id not in forwarded
        or (forwarded[request_id]["method"], forwarded[request_id]["target"]) != (method, target.partition("?")[0])
    ]
    assert strange == []
    # Whatever was forwarded was in order for Node too; it refuses expectations that it does not know.
    assert {line["status"] for line in lines if line["replica"] and line["term"] == "--"} == {200, 417}
    # Both ways: had Node found a shorter body, its rest would be an error or a request more; had it found a longer one, it
    # would still wait for it, or have taken the next request for it.
    complete = {line["request_id"] for line in lines if line["replica"] and line["status"] == 200}
    assert complete - set(ids) == set()
    front.start()

"""What users of real Node-RED replicas send through the proxy arrives, comes back, and is spread evenly (HA mode)."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.node_red.replicas import Replicas
from tests.proxy_process import ProxyProcess

LARGE = 200 * 1024 * 1024
PIECE = 256 * 1024


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_noise(size: int) -> bytes:
    """Bytes of which no two blocks are equal: a lost, doubled or moved block changes the digest."""
    block = os.urandom(65521)  # a prime: blocks never line up with buffers
    pieces = (at.to_bytes(8, "big") + block[8:] for at in range(0, size, len(block)))
    return b"".join(pieces)[:size]


# --- HTTP In ---


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_json_travels_both_ways_with_every_method(
    client: aiohttp.ClientSession, proxy: ProxyProcess, replicas: Replicas, method: str
) -> None:
    sent: dict[str, Any] | None = None if method == "GET" else {"text": "Grüße, 世界", "list": [1, 2.5, None, True]}
    async with client.request(method, f"{proxy.url}/api/hello?a=1&b=%20x", json=sent) as answer:
        assert answer.status == 200
        told = await answer.json()
        assert told["replica"] == answer.headers["X-Replica"]
        assert "X-HA-Replica" in answer.headers
    assert told["replica"] in replicas.names
    assert told["method"] == method
    assert told["query"] == {"a": "1", "b": " x"}
    assert told["body"] == sent


async def test_head_has_the_fields_of_get_and_no_body(client: aiohttp.ClientSession, proxy: ProxyProcess) -> None:
    async with client.head(f"{proxy.url}/api/hello") as answer:
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) > 0
        assert await answer.read() == b""


async def test_multipart_fields_and_files_arrive_whole(client: aiohttp.ClientSession, proxy: ProxyProcess) -> None:
    small, large = b"first line\r\n--not-a-boundary\r\n", make_noise(3 * 1024 * 1024)
    form = aiohttp.FormData()
    form.add_field("title", "Grüße")
    form.add_field("one", io.BytesIO(small), filename="one.txt", content_type="text/plain")
    form.add_field("two", io.BytesIO(large), filename="two.bin", content_type="application/octet-stream")
    async with client.post(f"{proxy.url}/api/form", data=form) as answer:
        assert answer.status == 200
        told = await answer.json()
    assert told["fields"] == {"title": "Grüße"}
    assert told["files"] == [
        {"field": "one", "name": "one.txt", "size": len(small), "sha256": digest(small)},
        {"field": "two", "name": "two.bin", "size": len(large), "sha256": digest(large)},
    ]


async def test_unknown_path_is_answered_by_the_replica(client: aiohttp.ClientSession, proxy: ProxyProcess) -> None:
    async with client.get(f"{proxy.url}/api/nothing-here") as answer:
        assert answer.status == 404
        assert "Cannot GET /api/nothing-here" in await answer.text()


async def test_slow_answers_wait_side_by_side(client: aiohttp.ClientSession, proxy: ProxyProcess) -> None:
    async def ask() -> int:
        async with client.get(f"{proxy.url}/api/slow") as answer:
            await answer.read()
            return answer.status

    started = time.monotonic()
    assert await asyncio.gather(*(ask() for _ in range(8))) == [200] * 8
    assert time.monotonic() - started < 8  # one after the other they would take 16 s


# --- large bodies ---


async def test_upload_of_200_mb_to_a_http_in_node_keeps_its_digest(
    client: aiohttp.ClientSession, proxy: ProxyProcess
) -> None:
    body = await asyncio.to_thread(make_noise, LARGE)
    async with client.post(
        f"{proxy.url}/api/large", data=_in_pieces(body), headers=_octets() | {"Content-Length": str(LARGE)}
    ) as answer:
        assert answer.status == 200
        told = await answer.json()
    assert (told["size"], told["sha256"]) == (LARGE, await asyncio.to_thread(digest, body))


async def test_chunked_upload_of_200_mb_keeps_its_digest(client: aiohttp.ClientSession, proxy: ProxyProcess) -> None:
    body = await asyncio.to_thread(make_noise, LARGE)
    async with client.put(f"{proxy.url}/stream/upload", data=_in_pieces(body), headers=_octets()) as answer:
        assert answer.status == 200
        told = await answer.json()
    assert (told["size"], told["sha256"]) == (LARGE, await asyncio.to_thread(digest, body))


async def test_download_of_200_mb_from_a_flow_keeps_its_digest(
    client: aiohttp.ClientSession, proxy: ProxyProcess
) -> None:
    async with client.get(f"{proxy.url}/api/large?size={LARGE}") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Length"] == str(LARGE)
        assert await _digest_of(answer) == (LARGE, answer.headers["X-Sha256"])


async def test_download_of_a_200_mb_static_file_keeps_its_digest(
    client: aiohttp.ClientSession, proxy: ProxyProcess, replicas: Replicas
) -> None:
    body = await asyncio.to_thread(make_noise, LARGE)
    _put_static(replicas, "large.bin", body)
    try:
        async with client.get(f"{proxy.url}/static/large.bin") as answer:
            assert answer.status == 200
            assert await _digest_of(answer) == (LARGE, await asyncio.to_thread(digest, body))
    finally:
        _remove_static(replicas, "large.bin")


# --- static files ---


async def test_static_files_with_types_ranges_and_validators(
    client: aiohttp.ClientSession, proxy: ProxyProcess, replicas: Replicas
) -> None:
    _put_static(replicas, "page.html", b"<h1>static</h1>")
    url = f"{proxy.url}/static/page.html"
    async with client.get(url) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/html"
        assert await answer.read() == b"<h1>static</h1>"
        changed = answer.headers["Last-Modified"]
    async with client.get(url, headers={"Range": "bytes=4-9"}) as answer:
        assert answer.status == 206
        assert answer.headers["Content-Range"] == "bytes 4-9/15"
        assert await answer.read() == b"static"
    async with client.get(url, headers={"If-Modified-Since": changed}) as answer:
        assert answer.status == 304
        assert await answer.read() == b""


# --- WebSocket In and Out ---


async def test_web_socket_echoes_text_and_binary_of_all_frame_sizes(
    client: aiohttp.ClientSession, proxy: ProxyProcess
) -> None:
    async with client.ws_connect(f"{proxy.url}/ws/echo", max_msg_size=0) as socket:
        for size in (1, 125, 126, 65535, 65536, 1_000_000):
            text = "é" * size
            await socket.send_str(text)
            assert digest((await socket.receive_str(timeout=20)).encode()) == digest(text.encode())
        # Node-RED hands a binary message to the flow as a buffer and sends a buffer out as a binary message.
        data = make_noise(300_000) + b"\xff\xfe"
        await socket.send_bytes(data)
        assert digest(await socket.receive_bytes(timeout=20)) == digest(data)


async def test_web_sockets_are_spread_and_stay_on_their_replica(
    client: aiohttp.ClientSession, proxy: ProxyProcess, replicas: Replicas
) -> None:
    sockets = [await client.ws_connect(f"{proxy.url}/ws/echo") for _ in range(10)]
    rounds = []
    for _ in range(3):
        for socket in sockets:
            await socket.send_str("who?")
        rounds.append([await socket.receive_str(timeout=20) for socket in sockets])
    for socket in sockets:
        assert await socket.close()
    assert rounds[0] == rounds[1] == rounds[2]
    assert Counter(rounds[0]) == dict.fromkeys(replicas.names, 5)


# --- balancing ---


async def test_10000_requests_are_split_exactly_evenly(
    client: aiohttp.ClientSession, proxy: ProxyProcess, replicas: Replicas
) -> None:
    by_replica: Counter[str] = Counter()
    by_id: Counter[str] = Counter()
    pairs = set()
    todo = iter(range(10_000))

    async def ask() -> None:
        for number in todo:
            async with client.get(f"{proxy.url}/api/hello?n={number}") as answer:
                assert answer.status == 200
                assert (await answer.json())["query"] == {"n": str(number)}
                by_replica[answer.headers["X-Replica"]] += 1
                by_id[answer.headers["X-HA-Replica"]] += 1
                pairs.add((answer.headers["X-Replica"], answer.headers["X-HA-Replica"]))

    await asyncio.gather(*(ask() for _ in range(32)))
    assert by_replica == dict.fromkeys(replicas.names, 5_000)
    assert sorted(by_id.values()) == [5_000, 5_000]
    assert len(pairs) == 2  # one id per replica, always the same


# --- what HA mode refuses, on the same listener ---


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/flows"),
        ("POST", "/flows"),
        ("GET", "/nodes"),
        ("GET", "/settings"),
        ("GET", "/red/red.min.js"),
        ("POST", "/inject/work-inject"),
        ("GET", "/comms"),
    ],
)
async def test_admin_surface_is_refused(
    client: aiohttp.ClientSession, proxy: ProxyProcess, method: str, path: str
) -> None:
    async with client.request(method, f"{proxy.url}{path}", json=[] if method == "POST" else None) as answer:
        assert answer.status == 403
        assert "X-Replica" not in answer.headers
        assert (await answer.json())["reason"] == "gate_denied"


async def test_editor_web_socket_is_refused(client: aiohttp.ClientSession, proxy: ProxyProcess) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.ws_connect(f"{proxy.url}/comms")
    assert refused.value.status == 403


# --- parts of the tests ---


def _octets() -> dict[str, str]:
    return {"Content-Type": "application/octet-stream"}


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    view = memoryview(body)
    for at in range(0, len(body), PIECE):
        yield bytes(view[at : at + PIECE])


async def _digest_of(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    total, found = 0, hashlib.sha256()
    async for piece in answer.content.iter_any():
        total += len(piece)
        found.update(piece)
    return total, found.hexdigest()


def _put_static(replicas: Replicas, name: str, body: bytes) -> None:
    """The same file, of the same time, in the static folder of every replica."""
    for replica in replicas.members:
        path = Path(replica.static_dir, name)
        path.write_bytes(body)
        os.utime(path, (1_700_000_000, 1_700_000_000))


def _remove_static(replicas: Replicas, name: str) -> None:
    for replica in replicas.members:
        (replica.static_dir / name).unlink()

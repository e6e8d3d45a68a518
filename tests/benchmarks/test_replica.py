"""replica.c: what it answers, and what it echoes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from benchmarks.checks import ask, echoes, read_until

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MASK = b"\x01\x02\x03\x04"


def masked(first: int, payload: bytes) -> bytes:
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2)
    return bytes([first]) + size + MASK + bytes(octet ^ MASK[at % 4] for at, octet in enumerate(payload))


@pytest.fixture
def tunnel(replicas: tuple[int, ...]) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", replicas[1]), 5) as sock:
        sock.sendall(UPGRADE)
        head = read_until(sock, b"\r\n\r\n")
        assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head  # RFC 6455 section 1.3
        yield sock


def test_a_masked_message_comes_back_unmasked(tunnel: socket.socket) -> None:
    tunnel.sendall(masked(0x81, b"x" * 64))
    assert read_until(tunnel, b"x" * 64) == b"\x81\x40" + b"x" * 64


def test_a_message_of_middle_length_comes_back(tunnel: socket.socket) -> None:
    tunnel.sendall(masked(0x82, b"y" * 1000 + b"z"))
    assert read_until(tunnel, b"z") == b"\x82\x7e\x03\xe9" + b"y" * 1000 + b"z"


def test_a_frame_may_come_octet_by_octet(tunnel: socket.socket) -> None:
    for octet in masked(0x81, b"slow"):
        tunnel.sendall(bytes([octet]))
    assert read_until(tunnel, b"slow") == b"\x81\x04slow"


def test_messages_that_come_together_are_all_answered(tunnel: socket.socket) -> None:
    tunnel.sendall(masked(0x81, b"one") + masked(0x89, b"ping") + masked(0x81, b"two"))
    assert read_until(tunnel, b"two") == b"\x81\x03one\x8a\x04ping\x81\x03two"


def test_a_close_ends_the_connection(tunnel: socket.socket) -> None:
    tunnel.sendall(masked(0x88, b""))
    assert tunnel.recv(100) == b""


def test_every_port_answers(replicas: tuple[int, ...]) -> None:
    assert [ask(port, "/api/hello")[0] for port in (replicas[0], replicas[100], replicas[-1])] == [200] * 3


def test_sizes_and_chunks_are_as_asked(replicas: tuple[int, ...]) -> None:
    assert len(ask(replicas[0], "/size/65536")[2]) == 65536
    assert len(ask(replicas[0], "/chunked/16/1024")[2]) == 16384


def test_connections_are_counted(replicas: tuple[int, ...]) -> None:
    before = int(ask(replicas[0], "/accepted")[2])
    ask(replicas[1], "/api/hello")
    assert int(ask(replicas[0], "/accepted")[2]) == before + 2


def test_a_head_is_shown(replicas: tuple[int, ...]) -> None:
    assert "\r\nConnection: close\r\n" in ask(replicas[0], "/head")[2]


def test_a_websocket_is_recognised(replicas: tuple[int, ...]) -> None:
    assert echoes(replicas[0])

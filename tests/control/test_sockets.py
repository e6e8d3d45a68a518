"""Ports that control opens."""

from __future__ import annotations

import errno
import socket

import pytest

from haproxy_py.control.sockets import (
    BindError,
    bind_alone,
    bind_another,
    bind_workers,
    format_address,
    listen,
    steer,
    takes_ipv4,
)


def test_workers_share_one_port_that_the_kernel_picked() -> None:
    sockets = bind_workers("127.0.0.1", 0, 3, "listen[0].address")
    try:
        assert len({sock.getsockname() for sock in sockets}) == 1
        for sock in sockets:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    finally:
        for sock in sockets:
            sock.close()


def test_new_connections_are_steered_to_the_first_sockets_only() -> None:
    sockets = bind_workers("127.0.0.1", 0, 4, "listen[0].address")
    clients = []
    try:
        steer(sockets[0], 2)
        for _ in range(100):
            clients.append(socket.create_connection(sockets[0].getsockname()))
        assert [count_waiting(sock) > 20 for sock in sockets] == [True, True, False, False]
        for sock in sockets[2:]:
            sock.close()
        sockets[2:] = [bind_another(sockets[0], "listen[0].address")]
        assert not sockets[2].getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        listen(sockets[2], "listen[0].address")
        steer(sockets[2], 3)
        for _ in range(100):
            clients.append(socket.create_connection(sockets[0].getsockname()))
        assert [count_waiting(sock) > 10 for sock in sockets] == [True] * 3
    finally:
        for sock in (*sockets, *clients):
            sock.close()


def count_waiting(sock: socket.socket) -> int:
    """Accept all that wait."""
    count = 0
    while True:
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_port_of_another_program_is_refused_even_if_that_program_would_share_it() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            BindError, match=rf"listen\[0\].address: cannot listen on 127.0.0.1:{port}: another program"
        ):
            bind_workers("127.0.0.1", port, 2, "listen[0].address")


def test_port_can_be_bound_again_at_once() -> None:
    (first,) = bind_workers("127.0.0.1", 0, 1, "listen[0].address")
    port = first.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        accepted, _ = first.accept()
        accepted.close()  # leaves the port in TIME_WAIT
    first.close()
    bind_alone("127.0.0.1", port, "ops.address").close()


def test_address_of_another_machine_is_an_error_with_advice() -> None:
    with pytest.raises(BindError, match="this machine has no such address"):
        bind_alone("192.0.2.1", 0, "ops.address")


def test_name_without_an_address_is_an_error_with_advice() -> None:
    with pytest.raises(BindError, match="cannot be resolved"):
        bind_alone("name.invalid", 0, "ops.address")


@pytest.mark.parametrize(("host", "text"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")])
def test_addresses_are_written_as_in_a_url(host: str, text: str) -> None:
    assert format_address(host, 80) == text


@pytest.mark.parametrize("both", [True, False])
def test_every_address_of_ipv6_takes_ipv4_clients_if_both_are_wanted(both: bool) -> None:
    (sock,) = bind_workers("::", 0, 1, "listen[0].address", both=both)
    another = bind_another(sock, "listen[0].address")
    with sock, another:
        assert [takes_ipv4(one) for one in (sock, another)] == [both, both]
        with socket.socket() as client:
            assert (client.connect_ex(("127.0.0.1", sock.getsockname()[1])) == 0) is both


def test_every_address_of_ipv6_is_every_address_of_ipv4_on_a_machine_without_ipv6(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class WithoutIpv6(socket.socket):
        def __init__(self, family: int = -1, kind: int = -1, protocol: int = -1, fileno: int | None = None) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, kind, protocol, fileno)

    monkeypatch.setattr(socket, "socket", WithoutIpv6)
    (sock,) = bind_workers("::", 0, 1, "listen[0].address")
    with sock, bind_alone("::", 0, "ops.address") as ops:
        assert [one.getsockname()[0] for one in (sock, ops)] == ["0.0.0.0"] * 2
    with pytest.raises(BindError, match="this machine has no IPv6"):
        bind_workers("::1", 0, 1, "listen[0].address")

"""Look-ups against a real DNS server that behaves and misbehaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import dns.resolver
import pytest

from haproxy_py.discovery import lookup as module
from haproxy_py.discovery.lookup import Looked, LookupFailedError, Member, Outcome, Question, look_up
from tests.discovery.dns_server import DnsServer

NAME = "nr.example.com"
SRV = "_http._tcp.nr.example.com"


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as one:
        yield one


async def ask(server: DnsServer, name: str = NAME, *, is_srv: bool = False, family: str = "ipv4") -> Looked:
    return await look_up(Question(f"{name}.", is_srv, family, (("127.0.0.1", server.port),)))


async def fail(server: DnsServer, name: str = NAME, *, is_srv: bool = False) -> LookupFailedError:
    with pytest.raises(LookupFailedError) as raised:
        await ask(server, name, is_srv=is_srv)
    return raised.value


async def test_addresses_come_sorted_with_their_ttl(server: DnsServer) -> None:
    server.set_records(NAME, "A", ["10.0.0.2", "10.0.0.1"], ttl=30)
    assert await ask(server) == Looked((Member("10.0.0.1"), Member("10.0.0.2")), 30)
    assert [kind for _, _, kind in server.asked] == ["A"]


async def test_the_family_says_what_is_asked_for(server: DnsServer) -> None:
    server.set_records(NAME, "A", ["10.0.0.1"])
    server.set_records(NAME, "AAAA", ["fd00::1"])
    assert (await ask(server, family="ipv6")).members == (Member("fd00::1"),)
    assert [kind for _, _, kind in server.asked] == ["AAAA"]


async def test_a_ttl_of_zero_and_the_shortest_of_a_chain_are_told(server: DnsServer) -> None:
    server.set_records(NAME, "A", ["10.0.0.1"], ttl=0)
    assert (await ask(server)).ttl == 0
    server.set_records("alias.example.com", "CNAME", ["end.example.com."], ttl=7)
    server.set_records("end.example.com", "A", ["10.0.0.3"], ttl=60)
    assert await ask(server, "alias.example.com") == Looked((Member("10.0.0.3"),), 7)


async def test_a_thousand_addresses_come_over_tcp(server: DnsServer) -> None:
    addresses = [f"10.0.{number // 250}.{number % 250}" for number in range(1000)]
    server.set_records(NAME, "A", addresses)
    assert {member.address for member in (await ask(server)).members} == set(addresses)
    assert server.tcp_answers == 1


async def test_a_truncated_answer_is_asked_for_over_tcp(server: DnsServer) -> None:
    server.set_records(NAME, "A", ["10.0.0.1"])
    server.mode = "truncated"
    assert (await ask(server)).members == (Member("10.0.0.1"),)
    assert server.tcp_answers == 1


async def test_srv_records_name_targets_and_ports(server: DnsServer) -> None:
    server.set_records(
        SRV, "SRV", ["0 1 1880 B.nr.example.com.", "0 9 1881 a.nr.example.com.", "5 0 1 c.nr.example.com."], ttl=20
    )
    server.set_records("a.nr.example.com", "A", ["10.0.0.9", "10.0.0.10"], ttl=3)
    server.set_records("b.nr.example.com", "A", ["10.0.0.2"], ttl=9)
    found = await ask(server, SRV, is_srv=True)
    assert found.members == (Member("10.0.0.2", 1880, "b.nr.example.com"), Member("10.0.0.9", 1881, "a.nr.example.com"))
    assert found.ttl == 3
    assert server.count("c.nr.example.com", 0) == 0, "of another priority"


async def test_addresses_that_come_along_are_not_asked_for(server: DnsServer) -> None:
    server.set_records(SRV, "SRV", ["0 0 1880 a.example.com."])
    server.add_to_answers("a.example.com", "A", ["10.0.0.1"])
    assert (await ask(server, SRV, is_srv=True)).members == (Member("10.0.0.1", 1880, "a.example.com"),)
    assert len(server.asked) == 1


async def test_an_answer_is_used_only_whole(server: DnsServer) -> None:
    server.set_records(SRV, "SRV", ["0 0 1880 a.example.com.", "0 0 1880 gone.example.com."])
    server.set_records("a.example.com", "A", ["10.0.0.1"])
    error = await fail(server, SRV, is_srv=True)
    assert error.outcome is Outcome.SERVER
    assert "there is no name gone.example.com" in str(error)


async def test_many_targets_are_asked_for_a_few_at_a_time(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    running = most = 0
    original = module._ask_addresses

    async def count(*args: object) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await original(*args)  # type: ignore[arg-type]
        finally:
            running -= 1

    monkeypatch.setattr(module, "_ask_addresses", count)
    targets = [f"t{number}.example.com" for number in range(100)]
    server.set_records(SRV, "SRV", [f"0 0 1880 {target}." for target in targets])
    for number, target in enumerate(targets):
        server.set_records(target, "A", [f"10.0.1.{number}"])
    assert len((await ask(server, SRV, is_srv=True)).members) == 100
    assert most <= module.AT_ONCE


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (["0 0 0 ."], Outcome.NO_RECORDS),
        ([], Outcome.NO_RECORDS),
        ([r"0 0 1880 a\032b.example.com."], Outcome.SERVER),
        (["0 0 1880 -a.example.com."], Outcome.SERVER),
    ],
)
async def test_srv_records_that_name_nobody(server: DnsServer, records: list[str], expected: Outcome) -> None:
    server.set_records(SRV, "SRV", records)
    assert (await fail(server, SRV, is_srv=True)).outcome is expected


async def test_an_answer_that_there_is_nothing_is_told_apart_from_a_failure(server: DnsServer) -> None:
    error = await fail(server)
    assert (error.outcome, error.is_answer) == (Outcome.NO_NAME, True)
    server.set_records(NAME, "TXT", ["x"])
    error = await fail(server)
    assert (error.outcome, error.is_answer) == (Outcome.NO_RECORDS, True)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("servfail", Outcome.SERVER),
        ("refused", Outcome.SERVER),
        ("cname_loop", Outcome.SERVER),
        ("silent", Outcome.TIMEOUT),
        ("garbage", Outcome.TIMEOUT),
        ("wrong_id", Outcome.TIMEOUT),
    ],
)
async def test_a_server_that_misbehaves_makes_the_lookup_fail(
    server: DnsServer, mode: str, expected: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WITHIN", 0.6)
    monkeypatch.setattr(module, "ONE_SERVER", 0.4)
    server.set_records(NAME, "A", ["10.0.0.1"])
    server.mode = mode
    began = time.monotonic()
    error = await fail(server)
    assert (error.outcome, error.is_answer) == (expected, False)
    assert time.monotonic() - began < 2.0
    assert len(server.asked) <= 2


async def test_nobody_there_is_a_failure(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WITHIN", 0.6)
    with pytest.raises(LookupFailedError) as raised:
        await look_up(Question(f"{NAME}.", False, "ipv4", (("127.0.0.1", 9),)))
    assert not raised.value.is_answer


async def test_the_next_server_is_asked_if_one_fails(server: DnsServer) -> None:
    server.set_records(NAME, "A", ["10.0.0.1"])
    with DnsServer() as broken:
        broken.mode = "servfail"
        servers = (("127.0.0.1", broken.port), ("127.0.0.1", server.port))
        assert (await look_up(Question(f"{NAME}.", False, "ipv4", servers))).members == (Member("10.0.0.1"),)


async def test_search_domains_complete_a_name_without_a_dot_at_its_end(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch example.com\n")
    read = dns.resolver.BaseResolver.read_resolv_conf

    def read_own(resolver: dns.resolver.BaseResolver, file: str) -> None:
        resolver.port = server.port
        read(resolver, str(tmp_path / "resolv.conf"))

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", read_own)
    server.set_records(NAME, "A", ["10.0.0.1"])
    assert (await look_up(Question("nr", False, "ipv4", ()))).members == (Member("10.0.0.1"),)
    with pytest.raises(LookupFailedError):
        await look_up(Question("nr.", False, "ipv4", ()))


async def test_a_lookup_can_be_cancelled(server: DnsServer) -> None:
    server.mode = "silent"
    task = asyncio.create_task(ask(server))
    while not server.asked:  # noqa: ASYNC110 - another thread answers
        await asyncio.sleep(0.01)
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)

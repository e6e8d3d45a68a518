"""From a configuration to a table."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from haproxy_py import counters
from haproxy_py.config import Balance, Config, Gate, Instance, Listen, StaticReplica
from haproxy_py.control.segments import Segment
from haproxy_py.control.slots import LINGER
from haproxy_py.control.tables import TableBuilder, TableError, choose_ids, make_token, name_cookie
from haproxy_py.discovery.found import FoundInstance, FoundReplica, find_static
from haproxy_py.node_red.admin_surface import DENIED_NAMES, DENIED_PAIRS
from haproxy_py.table import ReplicaState, Table


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def segments() -> Iterator[list[Segment]]:
    made = [Segment(1), Segment(2)]
    yield made
    for segment in made:
        segment.close()


@pytest.fixture
def builder(segments: list[Segment], clock: Clock) -> TableBuilder:
    return TableBuilder(segments, clock)


def make_config(*instances: Instance) -> Config:
    return Config(listen=(Listen("127.0.0.1", 0),), instances=instances)


def build(builder: TableBuilder, config: Config) -> Table:
    return builder.build([find_static(instance) for instance in config.instances])


def make_instance(name: str = "one", *ports: int, gate: Gate | None = None) -> Instance:
    return Instance(
        name=name,
        hosts=(f"{name}.example.com",),
        ha=True,
        static=tuple(StaticReplica("127.0.0.1", port) for port in ports),
        balance=Balance("random-two", "all"),
        gate=gate or Gate(),
        trusted_proxies=("10.0.0.0/8",),
    )


def test_every_setting_of_an_instance_is_in_its_entry(builder: TableBuilder) -> None:
    instance = make_instance("one", 1881, 1880)
    (entry,) = build(builder, make_config(instance)).instances
    assert (entry.name, entry.slot, entry.hosts, entry.ha) == ("one", 1, ("one.example.com",), True)
    assert (entry.policy, entry.affinity, entry.trusted_proxies) == ("random-two", "all", ("10.0.0.0/8",))
    assert (entry.timeouts, entry.limits) == (instance.timeouts, instance.limits)
    assert entry.gate.names == DENIED_NAMES
    assert entry.gate.pairs == DENIED_PAIRS
    assert [(r.name, r.host, r.port) for r in entry.replicas] == [
        ("127.0.0.1:1880", "127.0.0.1", 1880),
        ("127.0.0.1:1881", "127.0.0.1", 1881),
    ]


def test_versions_ascend(builder: TableBuilder) -> None:
    config = make_config(make_instance("one", 1880))
    assert [build(builder, config).version for _ in range(3)] == [1, 2, 3]


def test_replica_keeps_its_slot_when_others_come_and_go(builder: TableBuilder) -> None:
    first = build(builder, make_config(make_instance("one", 1880, 1881), make_instance("two", 1880)))
    second = build(builder, make_config(make_instance("two", 1879, 1880), make_instance("one", 1881)))
    before = {(i.name, r.name): r.slot for i in first.instances for r in i.replicas}
    after = {(i.name, r.name): r.slot for i in second.instances for r in i.replicas}
    assert after["two", "127.0.0.1:1880"] == before["two", "127.0.0.1:1880"]
    assert after["one", "127.0.0.1:1881"] == before["one", "127.0.0.1:1881"]
    assert after["two", "127.0.0.1:1879"] not in before.values()
    assert {i.name: i.slot for i in second.instances} == {i.name: i.slot for i in first.instances}


def test_counters_of_a_replica_that_left_are_zeroed_after_ten_minutes(
    builder: TableBuilder, segments: list[Segment], clock: Clock
) -> None:
    build(builder, make_config(make_instance("one", 1880, 1881)))
    cell = counters.replica_at(1) + counters.REPLICA_REQUESTS + 800
    for segment in segments:
        segment.cells[cell] = 9
    build(builder, make_config(make_instance("one", 1880)))
    clock.now = LINGER - 1
    builder.replicas.forget_quiet()
    assert segments[1].cells[cell] == 9
    clock.now = LINGER
    builder.replicas.forget_quiet()
    assert [segment.cells[cell] for segment in segments] == [0, 0]


def test_replica_with_an_open_tunnel_is_not_forgotten(
    builder: TableBuilder, segments: list[Segment], clock: Clock
) -> None:
    build(builder, make_config(make_instance("one", 1880, 1881)))
    segments[1].cells[counters.replica_at(1) + counters.REPLICA_ACTIVE_TUNNELS] = 1
    build(builder, make_config(make_instance("one", 1880)))
    clock.now = 10 * LINGER
    builder.replicas.forget_quiet()
    assert list(builder.replicas.list_departed()) == [(("one", "127.0.0.1:1881"), 1)]


def test_more_replicas_than_slots_is_an_error_that_changes_nothing(builder: TableBuilder) -> None:
    build(builder, make_config(make_instance("one", 1880)))
    with pytest.raises(TableError, match="at most 2048"):
        build(builder, make_config(make_instance("one", *range(1, counters.MAX_REPLICAS + 2))))
    assert list(builder.replicas.list_present()) == [(("one", "127.0.0.1:1880"), 0)]


def test_short_ids_have_four_digits() -> None:
    assert choose_ids(["a", "b"]) == {"a": "ca97", "b": "3e23"}


def test_ids_that_would_be_equal_get_more_digits() -> None:
    names = [f"pod-{number}" for number in range(2000)]  # a birthday among 65,536
    ids = choose_ids(names)
    assert len(set(ids.values())) == len(names)
    lengths = {len(one) for one in ids.values()}
    assert min(lengths) == 4
    assert max(lengths) > 4


def test_id_of_a_replica_does_not_depend_on_the_order() -> None:
    names = [f"pod-{number}" for number in range(2000)]
    assert choose_ids(names) == choose_ids(reversed(names))


def test_affinity_tokens_are_the_same_in_every_proxy_and_differ_between_instances() -> None:
    assert make_token("one", "pod-a") == "d9fb7f2da2dc8e23"
    assert make_token("one", "pod-a") != make_token("onepod", "-a")
    assert make_token("one", "pod-a") != make_token("two", "pod-a")


def test_cookie_name_tells_instances_apart() -> None:
    assert name_cookie("one") == "ha_replica_7692c3"
    assert name_cookie("one") != name_cookie("two")


def test_ipv6_replica_is_named_with_brackets(builder: TableBuilder) -> None:
    instance = Instance(name="six", hosts=(), ha=False, static=(StaticReplica("::1", 1880),))
    assert build(builder, make_config(instance)).instances[0].replicas[0].name == "[::1]:1880"


def test_table_survives_the_channel(builder: TableBuilder) -> None:
    gate = Gate(admin_root="/Admin/x", allow=("GET,HEAD /flows",), deny=("/secret",))
    table = build(builder, make_config(make_instance("one", 1880, gate=gate)))
    assert pickle.loads(pickle.dumps(table)) == table
    assert table.instances[0].gate.admin_root == ("admin", "x")


def test_what_was_found_is_in_the_entry(builder: TableBuilder) -> None:
    replicas = (FoundReplica("pod-a", "10.0.0.1", 1880), FoundReplica("pod-b", "fd00::1", 1, ReplicaState.DRAINING))
    (entry,) = builder.build([FoundInstance(make_instance(), False, replicas, discovered=False)]).instances
    assert (entry.ha, entry.discovered) == (False, False)
    assert [(one.name, one.host, one.port, one.state) for one in entry.replicas] == [
        ("pod-a", "10.0.0.1", 1880, ReplicaState.READY),
        ("pod-b", "fd00::1", 1, ReplicaState.DRAINING),
    ]


def test_an_instance_that_did_not_change_keeps_its_entry(builder: TableBuilder) -> None:
    first = build(builder, make_config(make_instance("one", 1880), make_instance("two", 1880)))
    second = build(builder, make_config(make_instance("one", 1881), make_instance("two", 1880)))
    assert second.instances[1] is first.instances[1]
    assert [replica.port for replica in second.instances[0].replicas] == [1881]


def test_an_entry_is_not_kept_beyond_a_table_without_it(builder: TableBuilder, clock: Clock) -> None:
    build(builder, make_config(make_instance("one", 1880)))
    build(builder, make_config(make_instance("two", 1881)))
    clock.now = 10 * LINGER
    builder.replicas.forget_quiet()
    (three, one) = build(builder, make_config(make_instance("six", 1882), make_instance("one", 1880))).instances
    assert three.replicas[0].slot != one.replicas[0].slot

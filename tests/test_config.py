"""The reading of a configuration: what is accepted, and what every error says about what and where."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

from haproxy_py import config_file, config_tree, counters
from haproxy_py.config import (
    Balance,
    Cluster,
    Config,
    DnsName,
    Drain,
    Eject,
    Flows,
    Gate,
    Health,
    Instance,
    InstancesFrom,
    KubernetesSelector,
    KubernetesService,
    Limits,
    Listen,
    Log,
    Ops,
    Retries,
    StaticReplica,
    Timeouts,
    Tls,
    Watchdog,
)
from haproxy_py.config_error import Problems
from haproxy_py.config_file import ConfigError, from_flags, load, parse

EXAMPLE = Path(__file__).parents[1] / "config" / "example.yaml"
KUBERNETES_EXAMPLE = EXAMPLE.with_name("example-kubernetes.yaml")


def write(
    *,
    address: str = "127.0.0.1:8080",
    listen: str = "",
    instance: str = "",
    replicas: str = "static: ['http://10.0.0.1:1880']",
    ha: str = "true",
    top: str = "",
) -> str:
    """A correct file of few lines, with something more or else at a place."""
    return (
        f"listen:\n  - address: {address}\n    {listen}\n"
        f"instances:\n  - name: one\n    ha: {ha}\n    replicas: {{{replicas}}}\n    {instance}\n"
        f"{top}\n"
    )


def read_one(text: str) -> Instance:
    (instance,) = parse(text, "c.yaml").instances
    return instance


def find_errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text, "c.yaml")
    return [str(problem) for problem in raised.value.problems]


def find_error(text: str) -> str:
    errors = find_errors(text)
    assert len(errors) == 1, errors
    return errors[0]


# --- the model and the example ---


def test_the_smallest_file_gives_the_defaults_of_the_model() -> None:
    expected = Instance(name="one", hosts=(), ha=True, static=(StaticReplica("10.0.0.1", 1880),))
    assert parse(write(), "c.yaml") == Config(listen=(Listen("127.0.0.1", 8080),), instances=(expected,))


def test_the_example_holds_the_defaults_of_the_model() -> None:
    expected = Instance(
        name="my-instance",
        hosts=("my-instance.example.com",),
        ha=True,
        static=(StaticReplica("127.0.0.1", 1880), StaticReplica("127.0.0.1", 1881)),
    )
    assert load(EXAMPLE) == Config(listen=(Listen("0.0.0.0", 8080),), instances=(expected,))


@pytest.mark.parametrize(
    ("section", "model"),
    [
        ("timeouts", Timeouts),
        ("limits", Limits),
        ("retries", Retries),
        ("eject", Eject),
        ("balance", Balance),
        ("gate", Gate),
        ("health", Health),
        ("drain", Drain),
        ("watchdog", Watchdog),
        ("log", Log),
        ("instances", Instance),
        ("listen", Listen),
        ("ops", Ops),
        ("", Config),
    ],
)
def test_the_example_has_every_key_of_the_model(section: str, model: type) -> None:
    elsewhere = {"static": "replicas"} | ({} if section == "health" else {"host": "address", "port": "address"})
    keys = {elsewhere.get(field.name, field.name) for field in dataclasses.fields(model)}
    keys -= {"kubernetes", "instances_from"}  # they stand in an example of their own
    optional = set(re.findall(r"^ +# (\w+): ", EXAMPLE.read_text(), re.MULTILINE))  # without a default
    assert example_keys(section) | (keys & optional) == keys


def example_keys(section: str) -> set[str]:
    node = config_tree.read_tree(EXAMPLE.read_text(), "example", Problems())
    assert isinstance(node, config_tree.Mapping)
    if not section:
        return set(node.values)
    found = find_mapping(node, section)
    assert found is not None
    return set(found.values)


def find_mapping(node: config_tree.Node, key: str) -> config_tree.Mapping | None:
    if isinstance(node, config_tree.Sequence):
        return find_mapping(node.items[0], key) if node.items else None
    if not isinstance(node, config_tree.Mapping):
        return None
    if key in node.values:
        value = node.values[key]
        value = value.items[0] if isinstance(value, config_tree.Sequence) else value
        assert isinstance(value, config_tree.Mapping)
        return value
    found = (find_mapping(value, key) for value in node.values.values())
    return next((mapping for mapping in found if mapping), None)


@pytest.mark.parametrize("example", [EXAMPLE, KUBERNETES_EXAMPLE])
def test_the_example_has_exactly_one_comment_for_each_key(example: Path) -> None:
    key_line = re.compile(r"\s*(- )?(# )?[a-z_]+:( \S.*?)?  # \S[^#]*")
    lines = [line for line in example.read_text().splitlines() if line and not line.startswith("# ")]
    assert [line for line in lines if not key_line.fullmatch(line)] == []


def test_the_kubernetes_example_holds_the_defaults_of_the_model() -> None:
    config = load(KUBERNETES_EXAMPLE)
    service = KubernetesService("my-instance", "node-red", "http")
    assert config.instances == (Instance("my-instance", ("my-instance.example.com",), ha=None, kubernetes=service),)
    assert config.instances_from == InstancesFrom(KubernetesSelector(namespaces=("node-red",)))


@pytest.mark.parametrize(
    ("section", "model"),
    [("replicas", KubernetesService), ("instances_from", KubernetesSelector), ("", InstancesFrom)],
)
def test_the_kubernetes_example_has_every_key_of_the_model(section: str, model: type) -> None:
    tree = config_tree.read_tree(
        KUBERNETES_EXAMPLE.read_text().replace("# kube", "kube").replace("# cont", "cont"), "", Problems()
    )
    found = find_mapping(tree, section or "instances_from")
    assert found is not None
    found = find_mapping(found, "kubernetes") if section else found
    assert found is not None
    keys = {field.name for field in dataclasses.fields(model)} - {"cluster"}
    assert set(found.values) == keys | ({"kubeconfig", "context"} if section else set())


def test_what_the_example_has_as_a_comment_is_right_too() -> None:
    text = re.sub(r"^( +)static: .*\n", "", EXAMPLE.read_text(), count=1, flags=re.MULTILINE)
    text = re.sub(r"^( +)# (?!kubernetes)(\w+: )", r"\1\2", text, flags=re.MULTILINE).replace(
        "type: auto", "type: http"
    )
    text = text.replace("mode: deny", "mode: strict")
    config = parse(text, "example.yaml")
    (instance,) = config.instances
    assert instance.dns == DnsName("my-instance.example.com.", 1880, servers=(("127.0.0.1", 8600),))
    names = find_mapping(config_tree.read_tree(text, "", Problems()), "dns")
    assert names is not None
    assert set(names.values) == {field.name for field in dataclasses.fields(DnsName)}
    assert (config.listen[0].tls, config.ops.token_file) == (Tls("tls.crt", "tls.key"), "ops-token")
    assert instance.gate.flows == Flows(admin="replicas", token_file="/etc/haproxy-py/node-red-token")
    assert instance.health == Health("http", path="/api/ready", host="my-instance.example.com", body="ready")


# --- every error at once, each with its place ---

TEN_MISTAKES = """\
listen:
  - address: 127.0.0.1
instances:
  - name: one
    ha: maybe
    hosts: [a.example.com]
    replicas:
      static: [ftp://10.0.0.1]
    timeouts: {conect: 2s, client_body: 30}
    limits: {request_head: 1MiB}
    gate: {admin_root: admin}
  - name: two
    hosts: [A.example.com]
    replicas:
      static: [http://10.0.0.2:2880]
    ha: true
drain: {delay: 30s}
"""


def test_a_file_with_ten_mistakes_gives_ten_errors_each_with_its_place() -> None:
    places = [error.split(": ")[:2] for error in find_errors(TEN_MISTAKES)]
    assert places == [
        ["c.yaml:2:14", "listen[0].address"],
        ["c.yaml:5:9", "instances[0].ha"],
        ["c.yaml:8:16", "instances[0].replicas.static[0]"],
        ["c.yaml:9:16", "instances[0].timeouts"],
        ["c.yaml:9:41", "instances[0].timeouts.client_body"],
        ["c.yaml:10:28", "instances[0].limits.request_head"],
        ["c.yaml:11:24", "instances[0].gate.admin_root"],
        ["c.yaml:13:13", "instances[1].hosts[0]"],
        ["c.yaml:15:16", "instances[1].replicas.static[0]"],
        ["c.yaml:17:8", "drain"],
    ]


def test_an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() -> None:
    assert find_error(write(instance="timeouts: {conect: 5s}")) == (
        'c.yaml:8:16: instances[0].timeouts: unknown key "conect", did you mean "connect"?'
    )


def test_an_unknown_key_that_is_like_no_other_is_refused_with_the_list_of_the_known() -> None:
    assert find_error(write(top="zzz: 1")).endswith(
        "known here: listen, ops, workers, instances, instances_from, drain, watchdog, log"
    )


@pytest.mark.parametrize(
    "text",
    [
        write(top="servers: 1"),
        write(listen="adress: x"),
        write(top="ops: {port: 1}"),
        write(instance="host: x"),
        write(replicas="static: [http://a], fixed: []"),
        write(instance="balance: {weights: 1}"),
        write(instance="gate: {modes: deny}"),
        write(instance="limits: {request_heads: 1KiB}"),
        write(top="drain: {timeout: 5s}"),
        write(top="log: {format: json}"),
    ],
)
def test_an_unknown_key_is_refused_in_every_section(text: str) -> None:
    assert "unknown key" in find_error(text)


@pytest.mark.parametrize("key", ["listen", "instances"])
def test_a_missing_section_is_named(key: str) -> None:
    text = write().replace(f"{key}:", "other_key:")
    assert f'c.yaml:1:1: key "{key}" is missing' in find_errors(text)


@pytest.mark.parametrize("line", ["    ha: true\n", "    replicas: {static: ['http://10.0.0.1:1880']}\n"])
def test_a_missing_key_of_an_instance_is_named(line: str) -> None:
    assert find_error(write().replace(line, "")).startswith("c.yaml:5:5: instances[0]: key ")


# --- the language ---


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "c.yaml: the file is empty"),
        ("a: b: c", "c.yaml:1:5: not readable as YAML: mapping values are not allowed here"),
        ("- a", "c.yaml:1:1: expected a mapping of keys to values, found a list"),
        ("a: *b", "c.yaml:1:4: not readable as YAML: found undefined alias 'b'"),
        ("a: b\n---\nc: d\n", "c.yaml:2:1: not readable as YAML: expected a single document"),
        ("a: '\x07'", "c.yaml:1:5: a character that YAML does not allow: U+0007"),
    ],
)
def test_text_that_cannot_be_read_is_refused_with_its_place(text: str, error: str) -> None:
    assert find_error(text).startswith(error)


def test_a_duplicate_key_is_refused() -> None:
    assert find_error(write(top="log: {level: info, level: debug}")).endswith(
        'log: key "level" is there twice, first in line 9'
    )


@pytest.mark.parametrize("value", ["!secret x", "!!python/name:os.system x", "!!set {a}", "!!binary aGk="])
def test_a_tag_is_refused(value: str) -> None:
    assert any("tags are not accepted" in error for error in find_errors(write(top=f"log: {{level: {value}}}")))


def test_a_key_that_is_a_list_is_refused() -> None:
    assert find_error(write(top="? [a]\n: b")).endswith("a key must be a word, not a list or a mapping")


def test_a_merge_key_is_refused() -> None:
    assert 'unknown key "<<"' in find_error(write(top="<<: {log: {}}"))


def test_an_alias_repeats_what_its_anchor_names() -> None:
    second = "  - {name: two, ha: false, replicas: {static: ['http://b']}, timeouts: *slow}\n"
    text = write(instance="hosts: [a]\n    timeouts: &slow {connect: 4s}").rstrip() + "\n" + second
    assert [instance.timeouts.connect for instance in parse(text, "c.yaml").instances] == [4.0, 4.0]


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "more than 200,000 keys and values" in find_error("\n".join(lines))


def test_an_alias_that_contains_itself_is_refused() -> None:
    assert "an alias contains itself" in find_error("a: &a [*a]")


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "{a: " * 5000, "- " * 5000])
def test_deep_nesting_is_refused(text: str) -> None:
    assert "nested deeper than 16 levels" in find_error(text)


def test_a_file_of_more_than_a_mebibyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than 1MiB"):
        load(path)


def test_a_text_of_a_mebibyte_is_read() -> None:
    text = write()
    assert parse(text + "#" * (1024 * 1024 - len(text)), "c.yaml")


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "absent.yaml")


def test_a_directory_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_file_that_is_not_utf_8_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"listen:\n  - \xff\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:2:5: the file is not UTF-8"):
        load(path)


def test_control_characters_of_a_file_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in find_error(write(top='"\\e[2J": {a: 1}'))


# --- durations, sizes, numbers, words ---


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("5s", 5.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1.5s", 1.5),
        ("'5s'", 5.0),
        ("0", 0.0),
        ("24h", 86400.0),
    ],
)
def test_a_duration_is_read_in_seconds(written: str, seconds: float) -> None:
    assert read_one(write(instance=f"timeouts: {{client_idle: {written}}}")).timeouts.client_idle == seconds


@pytest.mark.parametrize("written", ["5", "30", "1.5", "'5'"])
def test_a_duration_without_unit_is_refused_and_told_to_add_one(written: str) -> None:
    bare = written.strip("'")
    assert f"{bare} has no unit: write {bare}s" in find_error(write(instance=f"timeouts: {{client_idle: {written}}}"))


@pytest.mark.parametrize("written", ["5 s", "1m30s", "-5s", "5S", "5sec", "s", "1:30", "1e3s", "5d", "yes", "", "[5s]"])
def test_a_duration_of_another_shape_is_refused(written: str) -> None:
    assert "expected a duration like" in find_error(write(instance=f"timeouts: {{client_idle: {written}}}"))


@pytest.mark.parametrize("written", ["25h", "0.5ms", "999999999h"])
def test_a_duration_out_of_range_is_refused(written: str) -> None:
    assert "is outside 1ms to 24h" in find_error(write(instance=f"timeouts: {{client_idle: {written}}}"))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Timeouts)])
def test_every_timeout_but_three_may_be_switched_off(name: str) -> None:
    text = write(instance=f"timeouts: {{{name}: 0s}}")
    if name in ("client_head", "connect", "queue"):
        assert "may not be 0" in find_error(text)
        return
    assert getattr(read_one(text).timeouts, name) == 0.0


@pytest.mark.parametrize(("written", "octets"), [("4096B", 4096), ("16KiB", 16384), ("1MiB", 1048576)])
def test_a_size_is_read_in_bytes(written: str, octets: int) -> None:
    assert read_one(write(instance=f"limits: {{buffer: {written}}}")).limits.buffer == octets


@pytest.mark.parametrize("written", ["16KB", "16k", "16 KiB", "1.5MiB", "KiB", "-1KiB", "off"])
def test_a_size_of_another_shape_is_refused(written: str) -> None:
    assert "expected a size like" in find_error(write(instance=f"limits: {{buffer: {written}}}"))


def test_a_size_without_unit_is_refused_and_told_to_add_one() -> None:
    assert "65536 has no unit: write 65536B or 65536KiB" in find_error(write(instance="limits: {buffer: 65536}"))


def test_a_body_limit_of_zero_is_no_limit() -> None:
    assert read_one(write(instance="limits: {request_body: 0}")).limits.request_body == 0


RANGES = [
    ("request_line", "512B", "511B"),
    ("request_line", "8KiB", "33KiB"),
    ("request_head", "64KiB", "65537B"),
    ("request_head", "8KiB", "1023B"),
    ("request_fields", "200", "201"),
    ("request_fields", "10", "9"),
    ("response_head", "256KiB", "257KiB"),
    ("response_head", "1KiB", "1B"),
    ("response_fields", "500", "501"),
    ("response_fields", "10", "0"),
    ("request_body", "1GiB", "1025GiB"),
    ("gather", "1MiB", "2MiB"),
    ("body_rate", "1MiB", "2MiB"),
    ("buffer", "16MiB", "17MiB"),
    ("buffer", "4KiB", "0"),
    ("exchanges", "1", "0"),
    ("exchanges", "65536", "65537"),
    ("queue", "0", "65537"),
    ("idle_connections", "0", "65537"),
    ("client_connections", "0", "65537"),
    ("client_exchanges", "0", "65537"),
    ("client_rate", "0", "65537"),
    ("client_burst", "1", "0"),
    ("connect_attempts", "1", "0"),
    ("connect_attempts", "16", "17"),
]


@pytest.mark.parametrize(("name", "last", "beyond"), RANGES)
def test_a_limit_has_a_range(name: str, last: str, beyond: str) -> None:
    assert read_one(write(instance=f"limits: {{{name}: {last}}}"))
    assert "is outside" in find_error(write(instance=f"limits: {{{name}: {beyond}}}"))


def test_retries_and_ejection_are_read() -> None:
    retries = "retries: {resend: false, budget: 100%, budget_min: 0}"
    eject = "eject: {failures: 0, first: 250ms, longest: 250ms, slow_start: 0}"
    instance = read_one(write(instance=f"{retries}\n    {eject}"))
    assert instance.retries == Retries(resend=False, budget=100, budget_min=0)
    assert instance.eject == Eject(failures=0, first=0.25, longest=0.25, slow_start=0)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("retries: {budget: 101%}", "expected a share from 0% to 100%"),
        ("retries: {budget: 20}", "expected a share from 0% to 100%"),
        ("retries: {budget: 0.2%}", "expected a share from 0% to 100%"),
        ("retries: {budget: [1]}", "expected a share like 20%"),
        ("retries: {budget_min: 1001}", "is outside 0 to 1000"),
        ("retries: {resend: 1}", "expected true or false"),
        ("retries: {attempts: 2}", 'unknown key "attempts"'),
        ("eject: {failures: 1001}", "is outside 0 to 1000"),
        ("eject: {first: 0}", "may not be 0"),
        ("eject: {first: 2s, longest: 1s}", "longest (1s) must not be below first (2s)"),
        ("eject: {first: 40s}", "longest (30s) must not be below first (40s)"),
    ],
)
def test_wrong_retries_and_ejection(written: str, message: str) -> None:
    assert message in find_error(write(instance=written))


def test_a_static_replica_may_have_a_weight() -> None:
    text = write(replicas="static: [{url: 'http://a:1880', weight: 3}, http://b, {url: 'http://c', weight: 0}]")
    assert read_one(text).static == (StaticReplica("a", 1880, 3), StaticReplica("b", 80), StaticReplica("c", 80, 0))


@pytest.mark.parametrize(
    ("static", "message"),
    [
        ("[{url: 'http://a', weight: 257}]", "is outside 0 to 256"),
        ("[{url: 'http://a', weight: -1}]", "expected a number from 0 to 256"),
        ("[{weight: 3}]", 'key "url" is missing'),
        ("[{url: 'http://a', wait: 3}]", 'unknown key "wait", did you mean "weight"?'),
        ("[{url: 'http://a', weight: 0}]", "every replica has weight 0"),
        ("[{url: 'http://a'}, {url: 'http://a', weight: 2}]", "is already there"),
        ("[http://a, {url: 'http://a', weight: 2}]", "is already there"),
        ("[{url: 'http://127.0.0.1:8080', weight: 2}]", "a replica cannot be the proxy itself"),
        ("[[http://a]]", "expected a URL like"),
    ],
)
def test_wrong_static_replicas(static: str, message: str) -> None:
    assert message in find_error(write(replicas=f"static: {static}"))


def test_every_limit_has_a_range() -> None:
    assert {name for name, _, _ in RANGES} == {field.name for field in dataclasses.fields(Limits)}


def test_the_largest_request_line_and_head_fit_the_buffer_of_the_data_path() -> None:
    limits = read_one(write(instance="limits: {request_line: 32KiB, request_head: 64KiB}")).limits
    assert limits.request_line + limits.request_head <= config_file.HEAD_SCRATCH


def test_a_request_line_longer_than_the_head_is_refused() -> None:
    error = find_error(write(instance="limits: {request_line: 16KiB}"))
    assert error.endswith(
        "instances[0].limits: request_line (16KiB) must not exceed request_head (15KiB), which it is part of"
    )


def test_all_attempts_to_connect_may_not_take_less_than_one() -> None:
    assert "must not be below connect" in find_error(write(instance="timeouts: {connect: 6s}"))


@pytest.mark.parametrize("written", ["0", "129", "-1", "1.5", "many", "0x10"])
def test_a_bad_number_of_workers_is_refused(written: str) -> None:
    assert find_error(write(top=f"workers: {written}")).startswith("c.yaml:9:10: workers: ")


@pytest.mark.parametrize(("written", "workers"), [("auto", 0), ("1", 1), ("128", 128)])
def test_workers_are_a_number_or_auto(written: str, workers: int) -> None:
    assert parse(write(top=f"workers: {written}"), "c.yaml").workers == workers


@pytest.mark.parametrize(("written", "connections"), [("auto", 0), ("500", 500)])
def test_connections_are_a_number_or_auto(written: str, connections: int) -> None:
    assert parse(write(listen=f"connections: {written}"), "c.yaml").listen[0].connections == connections


@pytest.mark.parametrize(
    ("written", "ha"), [("true", True), ("false", False), ("on", True), ("no", False), ("Yes", True)]
)
def test_ha_is_a_boolean_of_yaml(written: str, ha: bool) -> None:
    assert read_one(write(ha=written)).ha is ha


@pytest.mark.parametrize("written", ["1", "'true'", "", "[true]"])
def test_ha_is_nothing_else(written: str) -> None:
    assert "expected true, false or auto" in find_error(write(ha=written))


@pytest.mark.parametrize("written", ["off", "'off'", "false"])
def test_off_is_a_word_although_yaml_makes_a_boolean_of_it(written: str) -> None:
    config = parse(write(instance=f"replica_header: {written}", top=f"log: {{access: {written}}}"), "c.yaml")
    assert (config.instances[0].replica_header, config.log.access) == ("off", "off")


def test_on_is_no_word_where_off_is_one() -> None:
    assert find_error(write(top="log: {access: on}")).endswith("expected json or off, found the boolean on")


def test_a_word_that_is_not_known_is_refused_with_the_nearest() -> None:
    assert find_error(write(instance="balance: {policy: roundrobin}")).endswith(
        'expected round-robin, least-connections or random-two, found "roundrobin", did you mean "round-robin"?'
    )


@pytest.mark.parametrize("section", ["balance", "gate", "timeouts", "limits", "replicas"])
@pytest.mark.parametrize("written", ["", "[]", "5"])
def test_a_section_that_is_no_mapping_is_refused(section: str, written: str) -> None:
    text = write(instance=f"{section}: {written}")
    text = text.replace("    replicas: {static: ['http://10.0.0.1:1880']}\n", "") if section == "replicas" else text
    assert "expected a mapping of keys to values" in find_error(text)


# --- addresses ---


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("0.0.0.0:8080", ("0.0.0.0", 8080)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("'[::]:8080'", ("::", 8080)),
        ("'[0:0::1]:443'", ("::1", 443)),
        ("localhost:80", ("localhost", 80)),
    ],
)
def test_an_address_is_host_and_port(written: str, address: tuple[str, int]) -> None:
    (listen,) = parse(write(address=written), "c.yaml").listen
    assert (listen.host, listen.port) == address


@pytest.mark.parametrize(
    "written",
    [
        "8080",
        "':8080'",
        "127.0.0.1",
        "'127.0.0.1:'",
        "127.0.0.1:65536",
        "127.0.0.1:http",
        "'::1:8080'",
        "'[::1'",
        "'[1]:80'",
        "256.0.0.1:80",
        "127.1:80",
        "'[fe80::1%eth0]:80'",
        "'a b:80'",
        "-a:80",
        "a..b:80",
        "http://a:80",
        "127.0.0.1:+80",
    ],
)
def test_a_bad_address_is_refused(written: str) -> None:
    assert find_error(write(address=written)).startswith("c.yaml:2:14: listen[0].address: ")


@pytest.mark.parametrize(
    ("listen", "ops"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("127.0.0.1:8080", "0.0.0.0:8080"),
        ("localhost:8080", "127.0.0.1:8080"),
    ],
)
def test_the_ops_port_may_not_be_a_listener(listen: str, ops: str) -> None:
    error = find_error(write(address=listen, top=f"ops: {{address: '{ops}'}}"))
    assert error.endswith("is already taken: c.yaml:2:14: listen[0].address")


def test_a_listener_may_not_be_the_default_of_the_ops_port() -> None:
    assert "is already taken: the default of ops.address" in find_error(write(address="0.0.0.0:9090"))


def test_two_listeners_may_not_be_the_same() -> None:
    assert "already taken" in find_error(write().replace("listen:\n", "listen:\n  - address: 127.0.0.1:8080\n"))


@pytest.mark.parametrize("four", ["0.0.0.0", "127.0.0.1"])
def test_both_families_may_listen_on_one_port(four: str) -> None:
    written = write(address="'[::]:8080'").replace("listen:\n", f"listen:\n  - address: {four}:8080\n")
    assert [one.host for one in parse(written, "c.yaml").listen] == [four, "::"]


def test_addresses_with_port_zero_never_collide() -> None:
    assert parse(write(address="127.0.0.1:0", top="ops: {address: '127.0.0.1:0'}"), "c.yaml").ops.port == 0


# --- instances ---


@pytest.mark.parametrize("written", ["", "5", "yes", "2024-01-01", "'a b'", "-a", "a-", "a/b", "x" * 64, "'ä'"])
def test_a_bad_instance_name_is_refused(written: str) -> None:
    assert "instances[0].name: " in find_error(write().replace("name: one", f"name: {written}"))


def test_two_instances_may_not_have_one_name() -> None:
    text = write(instance="hosts: [a]")
    second = "  - {name: one, hosts: [b], ha: true, replicas: {static: ['http://b']}}\n"
    assert find_error(text.rstrip("\n") + "\n" + second).endswith(
        '"one" is already there: c.yaml:5:11: instances[0].name'
    )


def test_two_instances_may_not_have_one_host_in_any_case() -> None:
    text = write(instance="hosts: [a.example.com]").rstrip("\n") + "\n"
    second = "  - {name: two, hosts: [A.Example.com], ha: true, replicas: {static: ['http://b']}}\n"
    assert "instances[1].hosts[0]: " in find_error(text + second)


def test_only_one_instance_may_take_any_host() -> None:
    second = "  - {name: two, ha: true, replicas: {static: ['http://b']}}\n"
    assert "only one may take any host" in find_error(write().rstrip() + "\n" + second)


def test_hosts_are_lower_case_in_the_model() -> None:
    assert read_one(write(instance="hosts: [A.Example.COM, '[::0001]']")).hosts == ("a.example.com", "[::1]")


@pytest.mark.parametrize(
    "written",
    ["'*.a'", "a:80", "http://a", "a/b", "a.", "''", "bücher.example", "1.2.3", "'[::1'", "'a,b'", "5", "'_.-'"],
)
def test_a_bad_host_is_refused(written: str) -> None:
    assert "instances[0].hosts[0]: " in find_error(write(instance=f"hosts: [{written}]"))


@pytest.mark.parametrize("written", ["", "{}", "a.example.com"])
def test_hosts_are_a_list(written: str) -> None:
    assert "instances[0].hosts: expected a list" in find_error(write(instance=f"hosts: {written}"))


@pytest.mark.parametrize(
    "text",
    [
        write(instance="hosts: []"),
        write(replicas="static: []"),
        re.sub(r"(?s)listen:.*instances:", "listen: []\ninstances:", write()),
        re.sub(r"(?s)instances:.*", "instances: []", write()),
    ],
)
def test_an_empty_list_is_refused_where_something_is_needed(text: str) -> None:
    assert "expected at least one entry, found an empty list" in find_error(text)


def test_there_may_be_1024_instances_and_no_more() -> None:
    def many(number: int) -> str:
        item = "  - {{name: i{0}, hosts: [h{0}], ha: true, replicas: {{static: ['http://a']}}}}\n"
        return "listen: [{address: '127.0.0.1:0'}]\ninstances:\n" + "".join(item.format(n) for n in range(number))

    assert len(parse(many(counters.MAX_INSTANCES - 1), "c.yaml").instances) == 1024
    assert "1025 entries are too many: at most 1024" in find_error(many(counters.MAX_INSTANCES))


# --- replicas ---


def with_urls(*urls: str, address: str = "127.0.0.1:8080", top: str = "") -> str:
    return write(replicas="static: [" + ", ".join(f"'{url}'" for url in urls) + "]", address=address, top=top)


@pytest.mark.parametrize(
    ("url", "replica"),
    [
        ("http://10.0.0.1:1880", ("10.0.0.1", 1880)),
        ("http://10.0.0.1", ("10.0.0.1", 80)),
        ("http://10.0.0.1/", ("10.0.0.1", 80)),
        ("HTTP://Node-A.ns.svc:1880", ("node-a.ns.svc", 1880)),
        ("http://[FD00::1]:1880", ("fd00::1", 1880)),
        ("http://[::1]", ("::1", 80)),
    ],
)
def test_a_replica_is_a_url_of_host_and_port(url: str, replica: tuple[str, int]) -> None:
    assert read_one(with_urls(url)).static == (StaticReplica(*replica),)


@pytest.mark.parametrize(
    "url",
    [
        "10.0.0.1:1880",
        "https://a",
        "ftp://a",
        "http:///x",
        "http://",
        "http://a/x",
        "http://a?x",
        "http://a#x",
        "http://u@a",
        "http://u:p@a",
        "http://a:0",
        "http://a:65536",
        "http://a:",
        "http://a:x",
        "http://::1",
        "http://[::1",
        "http://a b",
        "http://10.0.0.256",
        "http://0x7f.1",
        "http://0.0.0.0:1880",
        "http://[::]:1880",
        "",
        "http://a\\b",
        " http://a",
    ],
)
def test_a_bad_replica_url_is_refused(url: str) -> None:
    assert "instances[0].replicas.static[0]: " in find_error(with_urls(url))


@pytest.mark.parametrize("url", ["http://10.0.0.1:2880", "http://[::1]:2880", "http://a:02880"])
def test_the_management_port_of_flowfuse_is_refused(url: str) -> None:
    assert "port 2880 is FlowFuse's management port" in find_error(with_urls(url))


def test_a_replica_may_be_there_only_once() -> None:
    assert "static[1]: " in find_error(with_urls("http://a", "http://A:80/"))


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("127.0.0.1:8080", "http://localhost:8080"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("'[::]:8080'", "http://[::1]:8080"),
        ("10.0.0.1:8080", "http://10.0.0.1:8080"),
        ("127.0.0.1:8080", "http://127.0.0.1:9090"),
    ],
)
def test_a_replica_that_is_the_proxy_itself_is_refused(address: str, url: str) -> None:
    assert "a replica cannot be the proxy itself" in find_error(with_urls(url, address=address))


def test_a_replica_that_is_an_own_address_is_refused_also_when_that_stands_below() -> None:
    assert "ops.address" in find_error(with_urls("http://10.0.0.1:9", top="ops: {address: '10.0.0.1:9'}"))


def test_an_instance_may_have_1024_replicas_and_no_more() -> None:
    urls = [f"http://r{n}" for n in range(1025)]
    assert len(read_one(with_urls(*urls[:1024])).static) == 1024
    assert "1025 entries are too many" in find_error(with_urls(*urls))


def test_all_instances_together_may_not_have_more_replicas_than_there_are_counters() -> None:
    static = ", ".join(f"http://r{n}" for n in range(1000))
    item = "  - {{name: i{0}, hosts: [h{0}], ha: true, replicas: {{static: [{1}]}}}}\n"
    text = "listen: [{address: '127.0.0.1:0'}]\ninstances:\n" + "".join(item.format(n, static) for n in range(3))
    assert "3000 replicas in all are too many: at most 2048" in find_error(text)


@pytest.mark.parametrize("replicas", ["", "static: ['http://a'], dns: {name: a}"])
def test_replicas_have_exactly_one_source(replicas: str) -> None:
    assert any(
        "expected exactly one of static, dns and kubernetes" in error for error in find_errors(write(replicas=replicas))
    )


# --- gate, proxies, drain ---


@pytest.mark.parametrize(
    ("written", "root"), [("/", "/"), ("/admin", "/admin"), ("/a/b/", "/a/b"), ("/a.b~c-d_e", "/a.b~c-d_e")]
)
def test_an_admin_root_is_a_plain_path(written: str, root: str) -> None:
    assert read_one(write(instance=f"gate: {{admin_root: {written}}}")).gate.admin_root == root


@pytest.mark.parametrize(
    "written",
    ["admin", "''", "'/a?b'", "/a#b", "/a%20b", "/../a", "/./a", "/a//b", "//", "'/a b'", "/ä", "false", "'/a\\b'"],
)
def test_a_bad_admin_root_is_refused(written: str) -> None:
    assert "instances[0].gate.admin_root: " in find_error(write(instance=f'gate: {{"admin_root": {written}}}'))


@pytest.mark.parametrize(
    "written",
    ["/path", "GET /path", "GET,HEAD /path", "/", "/a/", "M-SEARCH /x", "/a/*", "/*", "PUT /a/:name", "/:a/b/:c2/*"],
)
@pytest.mark.parametrize("key", ["allow", "deny"])
def test_a_rule_of_the_gate_is_a_path_with_or_without_methods(key: str, written: str) -> None:
    assert getattr(read_one(write(instance=f"gate: {{{key}: ['{written}']}}")).gate, key) == (written,)


@pytest.mark.parametrize(
    "written",
    [
        "path",
        "GET",
        "GET path",
        "get /x",
        "GETT /x",
        "GET,,HEAD /x",
        "GET, HEAD /x",
        "GET  /x",
        " /x",
        "CONNECT /x",
        "/x y z",
        "/a?b",
        "/a#b",
        "/a%41",
        "/../a",
        "/a/./b",
        "/a//b",
        "/ä",
        "/a\\b",
        "",
    ],
)
@pytest.mark.parametrize("key", ["allow", "deny"])
def test_a_bad_rule_of_the_gate_is_refused(key: str, written: str) -> None:
    assert f"instances[0].gate.{key}[0]: " in find_error(write(instance=f"gate: {{{key}: ['{written}']}}"))


@pytest.mark.parametrize(
    "written",
    [
        "/**", "/a/**", "/a/*/b", "*", "/a*", "/*.js", "/a?", "/(a|b)", "/a(b)?", "/[ab]", "/a{1}", "/a+", "/^a$", "/a|b",
        "/:", "/a/:/b", "/:a-:b", "/a:b", "/:1", "/:a?", "/:a(.*)", "/:a*", "/a;b", "/*/", "/a/../*",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["allow", "deny"])
def test_what_is_no_pattern_of_the_gate_is_an_error_with_its_place(key: str, written: str) -> None:
    assert f"instances[0].gate.{key}[0]: " in find_error(write(instance=f"gate: {{{key}: ['{written}']}}"))


def test_a_pattern_that_is_not_understood_is_told_what_would_be() -> None:
    assert "write :name for one segment" in find_error(write(instance="gate: {deny: ['/a/*/b']}"))
    assert "* at the end for everything below" in find_error(write(instance="gate: {deny: ['/a/**']}"))


def test_a_rule_may_be_there_only_once() -> None:
    assert "gate.deny[1]: " in find_error(write(instance="gate: {deny: [/a, /a]}"))


@pytest.mark.parametrize(
    ("written", "network"),
    [("10.0.0.0/8", "10.0.0.0/8"), ("10.1.2.3", "10.1.2.3/32"), ("fd00::/8", "fd00::/8"), ("FD00:0::1", "fd00::1/128")],
)
def test_a_trusted_proxy_is_a_network_in_normal_form(written: str, network: str) -> None:
    assert read_one(write(instance=f"trusted_proxies: ['{written}']")).trusted_proxies == (network,)


@pytest.mark.parametrize(
    "written",
    ["10.0.0.1/8", "10.0.0.0/33", "10.0.0/8", "ingress", "", "::ffff:10.0.0.0/104", "fe80::%eth0/64", "10.0.0.0/-1"],
)
def test_a_bad_network_is_refused(written: str) -> None:
    assert "instances[0].trusted_proxies[0]: " in find_error(write(instance=f"trusted_proxies: ['{written}']"))


@pytest.mark.parametrize("written", ["{delay: 25s}", "{deadline: 5s}", "{delay: 10s, deadline: 10s}", "{delay: 1h}"])
def test_the_deadline_of_draining_must_exceed_its_delay(written: str) -> None:
    assert "c.yaml:9:8: drain: deadline (" in find_error(write(top=f"drain: {written}"))


@pytest.mark.parametrize("written", ["{report: 2s, replace: 2s}", "{report: 1s, replace: 1400ms}", "{replace: 1s}"])
def test_a_stalled_worker_is_reported_before_it_is_replaced(written: str) -> None:
    assert "c.yaml:9:11: watchdog: replace (" in find_error(write(top=f"watchdog: {written}"))


def test_the_watchdog_can_be_switched_off_by_halves() -> None:
    assert parse(write(top="watchdog: {report: 0}"), "c.yaml").watchdog == Watchdog(report=0.0)
    assert parse(write(top="watchdog: {report: 60s, replace: 0}"), "c.yaml").watchdog == Watchdog(60.0, 0.0)


def test_the_watchdog_does_not_take_a_busy_worker_for_a_stalled_one() -> None:
    assert "100ms is outside 500ms to 24h" in find_error(write(top="watchdog: {report: 100ms}"))


def test_draining_may_begin_without_delay() -> None:
    assert parse(write(top="drain: {delay: 0}"), "c.yaml").drain == Drain(delay=0.0)


def test_a_section_with_a_wrong_value_is_not_also_compared_with_a_default() -> None:
    assert "drain.deadline: 40 has no unit" in find_error(write(top="drain: {delay: 30s, deadline: 40}"))


# --- Kubernetes ---


def read_kubernetes(keys: str, ha: str = "true") -> Instance:
    return read_one(write(replicas=f"kubernetes: {{{keys}}}", ha=ha))


def test_a_service_alone_gives_the_defaults() -> None:
    instance = read_kubernetes("service: my-instance")
    assert instance.kubernetes == KubernetesService("my-instance")
    assert instance.static == ()


def test_every_key_of_a_service_is_read() -> None:
    keys = "service: a, namespace: b, port: http, source: endpoints, family: ipv6, kubeconfig: ~/c, context: 'd e'"
    assert read_kubernetes(keys).kubernetes == KubernetesService(
        "a", "b", "http", "endpoints", "ipv6", Cluster(os.path.expanduser("~/c"), "d e")
    )


@pytest.mark.parametrize(("written", "port"), [("1880", "1880"), ("'01880'", "1880"), ("node-red", "node-red")])
def test_the_port_is_a_name_or_a_number(written: str, port: str) -> None:
    service = read_kubernetes(f"service: a, port: {written}").kubernetes
    assert service is not None
    assert service.port == port


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("namespace: b", 'key "service" is missing'),
        ("service: A", "lower-case letters"),
        ("service: a.b", "lower-case letters"),
        (f"service: {'a' * 64}", "1 to 63"),
        ("service: a, namespace: ../b", "lower-case letters"),
        ("service: a, port: 0", "1 to 65535"),
        ("service: a, port: 70000", "1 to 65535"),
        ("service: a, port: 2880", "management port"),
        ("service: a, source: slices", "expected endpointslices or endpoints"),
        ("service: a, sources: endpoints", 'did you mean "source"'),
        ("service: a, family: IPv4", "expected ipv4 or ipv6"),
        ("service: a, context: c", 'name its file under "kubeconfig"'),
        ("service: a, kubeconfig: ''", "the path of a file"),
    ],
)
def test_a_service_that_cannot_be_is_refused(keys: str, expected: str) -> None:
    assert expected in find_error(write(replicas=f"kubernetes: {{{keys}}}"))


def test_static_and_kubernetes_replicas_exclude_each_other() -> None:
    both = "static: ['http://a'], kubernetes: {service: a}"
    assert "expected exactly one of static, dns and kubernetes" in find_error(write(replicas=both))


def test_ha_auto_is_left_to_the_service() -> None:
    assert read_kubernetes("service: a", ha="auto").ha is None


def test_ha_auto_needs_a_service() -> None:
    assert "instances[0].ha: auto takes the mode from an annotation" in find_error(write(ha="auto"))


def test_instances_may_come_from_kubernetes_alone() -> None:
    keys = "namespaces: [a, b], selector: 'x in (y, z),!w', source: endpoints, family: ipv6, kubeconfig: c, context: d"
    config = parse(f"listen: [{{address: 'a:1'}}]\ninstances_from: {{kubernetes: {{{keys}}}}}", "c.yaml")
    assert config.instances == ()
    expected = KubernetesSelector(("a", "b"), "x in (y, z),!w", "endpoints", "ipv6", Cluster("c", "d"))
    assert config.instances_from == InstancesFrom(expected)


def test_settings_of_an_instance_can_be_given_to_all_that_come_from_kubernetes() -> None:
    more = "instances_from: {kubernetes: {}, trusted_proxies: [10.0.0.0/8], balance: {affinity: all}}"
    found = parse(write(top=more), "c.yaml").instances_from
    assert found == InstancesFrom(balance=Balance(affinity="all"), trusted_proxies=("10.0.0.0/8",))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", 'key "kubernetes" is missing'),
        ("kubernetes: {namespaces: []}", "at least one entry"),
        ("kubernetes: {namespaces: [a, a]}", "already there"),
        ("kubernetes: {selector: 'a=b,'}", "label selector"),
        ("kubernetes: {selector: 'a b'}", "label selector"),
        ("kubernetes: {selector: 'a in ()b'}", "label selector"),
        (f"kubernetes: {{selector: '{'a,' * 600}a'}}", "label selector"),
        ("kubernetes: {}, name: a", "unknown key"),
        ("kubernetes: {}, health: {path: /}", 'only with "type: http"'),
    ],
)
def test_a_selection_that_cannot_be_is_refused(keys: str, expected: str) -> None:
    assert expected in find_error(write(top=f"instances_from: {{{keys}}}"))


# --- health ---


def read_health(text: str) -> Health:
    return read_one(write(instance=f"health: {{{text}}}")).health


def test_static_replicas_are_checked_by_tcp_unless_told_otherwise_and_those_of_kubernetes_not() -> None:
    assert read_one(write()).health == Health()
    assert Health().choose_type(is_kubernetes=False) == "tcp"
    assert Health().choose_type(is_kubernetes=True) == "off"
    assert Health(type="http").choose_type(is_kubernetes=True) == "http"
    assert read_health("type: off").choose_type(is_kubernetes=False) == "off"


def test_health_is_read() -> None:
    assert read_health(
        "type: http, path: '/api/ready?now', method: HEAD, host: 'a:81', status: [204, '301-302'], interval: 500ms, "
        "timeout: 0.25s, rise: 2, fall: 5"
    ) == Health("http", 0.5, 0.25, 2, 5, "/api/ready?now", "HEAD", "a:81", ((204, 204), (301, 302)))
    assert read_health("type: http, path: /, body: ready, status: 200") == Health(
        "http", path="/", body="ready", status=((200, 200),)
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("type: ping", "expected auto, tcp, http or off"),
        ("type: http", 'key "path" is missing: name a route of the flows'),
        ("path: /a, body: b", 'path and body can be checked only with "type: http", found "type: auto"'),
        ("type: tcp, status: 200", "status can be checked only"),
        ("type: http, path: a", "expected a path like /api/ready"),
        ("type: http, path: '/a b'", "expected a path like /api/ready"),
        ("type: http, path: '/a#b'", "expected a path like /api/ready"),
        (f"type: http, path: '/{'a' * 2048}'", "at most 2048"),
        ("type: http, path: /, method: POST", "expected GET, HEAD or OPTIONS"),
        ("type: http, path: /, method: HEAD, body: a", "the answer to HEAD has no body"),
        ("type: http, path: /, body: ''", "a text of 1 to 1024 characters, found 0"),
        (f"type: http, path: /, body: '{'a' * 1025}'", "a text of 1 to 1024 characters, found 1025"),
        ("type: http, path: /, host: 'a/b'", "expected a host like"),
        (r'type: http, path: /, host: "a\r\nb"', "expected a host like"),
        ("type: http, path: /, status: 2xx", "expected a status like 200 or a range like 200-399"),
        ("type: http, path: /, status: 399-200", "the lower first"),
        ("type: http, path: /, status: 100-200", "from 200 to 599"),
        ("type: http, path: /, status: []", "at least one entry"),
        (f"type: http, path: /, status: [{'200,' * 17}]", "at most 16"),
        ("interval: 99ms", "outside 100ms to 24h"),
        ("interval: 0", "may not be 0: at least 100ms"),
        ("timeout: 0", "may not be 0: at least 10ms"),
        ("timeout: 3s", "timeout (3s, of one check) must not exceed interval (2s, from one check to the next)"),
        ("rise: 0", "outside 1 to 100"),
        ("fall: 101", "outside 1 to 100"),
        ("tpye: tcp", 'did you mean "type"?'),
    ],
)
def test_wrong_health(keys: str, expected: str) -> None:
    assert expected in find_error(write(instance=f"health: {{{keys}}}"))


# --- DNS ---


def read_dns(text: str) -> DnsName | None:
    return read_one(write(replicas=f"dns: {{{text}}}")).dns


def test_a_name_in_the_dns_is_read() -> None:
    assert read_dns("name: NR.Example.com., port: 1880") == DnsName("nr.example.com.", 1880)
    assert read_dns("name: _http._tcp.nr") == DnsName("_http._tcp.nr")
    assert read_dns(
        "name: nr, interval: 30s, family: ipv6, servers: [10.0.0.10, '127.0.0.1:8600', '[::1]:53']"
    ) == DnsName("nr", 0, 30.0, "ipv6", (("10.0.0.10", 53), ("127.0.0.1", 8600), ("::1", 53)))
    found = read_one(write(replicas="dns: {name: nr}"))
    assert (found.static, found.kubernetes) == ((), None)
    assert found.health.choose_type(is_kubernetes=False) == "tcp"


def test_instances_may_share_a_name_server_and_a_file_may_be_read_again() -> None:
    one = "ha: true, replicas: {dns: {name: nr, servers: [10.0.0.53]}}"
    text = f"listen: [{{address: '127.0.0.1:8080'}}]\ninstances: [{{name: a, hosts: [a], {one}}}, {{name: b, {one}}}]"
    for _ in range(2):
        assert [each.dns and each.dns.servers for each in parse(text, "x").instances] == [(("10.0.0.53", 53),)] * 2
    assert "is already there" in find_error(write(replicas="dns: {name: nr, servers: [10.0.0.53, '10.0.0.53:53']}"))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", 'key "name" is missing'),
        ("port: 1880", 'key "name" is missing'),
        ("name: 10.0.0.1", 'list it under "static"'),
        ("name: '::1'", 'list it under "static"'),
        ("name: 'a b'", "expected a name like"),
        ("name: a..b", "expected a name like"),
        ("name: 'http://a'", "expected a name like"),
        (f"name: {'a' * 64}", "expected a name like"),
        (f"name: {'a.' * 127}", "expected a name like"),
        ("name: _http._tcp.a, port: 1880", "say the port themselves: remove port"),
        ("name: a, port: 2880", "management port"),
        ("name: a, port: 0", "outside 1 to 65535"),
        ("name: a, interval: 500ms", "outside 1s to 24h"),
        ("name: a, family: ip", "expected ipv4 or ipv6"),
        ("name: a, servers: [ns.example.com]", "expected an IP address"),
        ("name: a, servers: ['10.0.0.1:0']", "expected a port from 1 to 65535"),
        ("name: a, servers: [10.0.0.1, 10.0.0.1]", "already there"),
        ("name: a, servers: [10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4]", "at most 3"),
    ],
)
def test_wrong_dns(keys: str, expected: str) -> None:
    assert expected in find_error(write(replicas=f"dns: {{{keys}}}"))


def test_dns_says_nothing_of_the_mode() -> None:
    assert "needs replicas.kubernetes" in find_error(write(ha="auto", replicas="dns: {name: a}"))


# --- TLS ---


def test_tls_names_files_and_the_key_may_lie_in_the_first() -> None:
    assert parse(write(listen="tls: {certificate: a.crt, key: a.key}"), "x").listen[0].tls == Tls("a.crt", "a.key")
    assert parse(write(listen="tls: {certificate: both.pem}"), "x").listen[0].tls == Tls("both.pem")


def test_relative_paths_of_files_count_from_the_configuration_file_and_home_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    cluster = "kubernetes: {kubeconfig: ~/.kube/config}"
    written = write(
        listen="tls: {certificate: tls/a.crt, key: /keys/a.key}",
        top=f"ops: {{token_file: ../token}}\ninstances_from: {{{cluster}}}",
    )
    config = parse(written, "/etc/haproxy-py/proxy.yaml")
    assert config.listen[0].tls == Tls("/etc/haproxy-py/tls/a.crt", "/keys/a.key")
    assert config.ops.token_file == "/etc/haproxy-py/../token"
    assert config.instances_from is not None
    assert config.instances_from.kubernetes.cluster.kubeconfig == "/home/me/.kube/config"


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        ("{key: a.key}", 'key "certificate" is missing'),
        ("{certificate: ''}", "expected the path of a file"),
        ("{certificate: 1}", "text needs quotes here"),
        ("{certificate: a, cert: b}", 'unknown key "cert"'),
        ("a.pem", "expected a mapping of keys to values"),
    ],
)
def test_wrong_tls(tls: str, message: str) -> None:
    assert message in find_error(write(listen=f"tls: {tls}"))


# --- the operators' port ---


def test_token_file_is_a_path_beside_the_address() -> None:
    found = parse(write(top="ops: {address: 'a:1', token_file: keys/token}"), "x").ops
    assert found == Ops("a", 1, "keys/token")
    assert parse(write(top="ops: {token_file: token}"), "x").ops == Ops(token_file="token")


def test_names_of_the_operators_port_are_host_names() -> None:
    assert parse(write(top="ops: {hosts: [Ops.example.com, ops-2]}"), "x").ops == Ops(
        hosts=("ops.example.com", "ops-2")
    )
    assert "there are no wildcards" in find_error(write(top="ops: {hosts: ['*']}"))
    assert "already there" in find_error(write(top="ops: {hosts: [a, A]}"))


def test_token_file_needs_a_name() -> None:
    assert "expected the path of a file" in find_error(write(top="ops: {token_file: ''}"))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{mode: strict}", "flows: {file: PATH}"),
        ("{mode: strict, flows: {}}", "exactly one of file and admin"),
        ("{mode: strict, flows: {admin: false}}", "exactly one of file and admin"),
        ("{mode: strict, flows: {file: a, admin: true}}", "exactly one of file and admin"),
        ("{mode: strict, flows: {file: a, token_file: b}}", "token_file is for admin"),
        ("{mode: strict, flows: {admin: 'ftp://a'}}", "gate.flows.admin: expected a URL"),
        ("{mode: strict, flows: {admin: 'http://u:p@a/'}}", "gate.flows.admin: expected a URL"),
        ("{mode: strict, flows: {file: a, interval: 0}}", "may not be 0"),
        ("{flows: {file: a}}", "mode strict only"),
        ("{mode: strict, node_root: '/a?', flows: {file: a}}", "gate.node_root: "),
    ],
)
def test_a_strict_gate_needs_one_source_of_the_flows(written: str, said: str) -> None:
    assert said in find_error(write(instance=f"gate: {written}"))


# --- flags ---


def test_flags_give_one_instance_for_any_host() -> None:
    config = from_flags("127.0.0.1:8080", ["http://a:1880", "http://b:1880"], ha=True, ops="127.0.0.1:9", workers="2")
    assert config == Config(
        listen=(Listen("127.0.0.1", 8080),),
        instances=(
            Instance(name="default", hosts=(), ha=True, static=(StaticReplica("a", 1880), StaticReplica("b", 1880))),
        ),
        ops=Ops("127.0.0.1", 9),
        workers=2,
    )


def test_flags_not_given_leave_the_defaults() -> None:
    config = from_flags("127.0.0.1:8080", ["http://a"])
    assert (config.instances[0].ha, config.ops, config.workers) == (False, Ops(), 0)


def test_https_replica_is_said_to_come_later_and_what_to_do_until_then() -> None:
    with pytest.raises(
        ConfigError, match=r"HTTPS replicas are not available yet.*until then.*http://.*listen\[\]\.tls"
    ):
        from_flags("127.0.0.1:8080", ["https://a:1880"])


def test_every_wrong_flag_is_named() -> None:
    with pytest.raises(ConfigError) as raised:
        from_flags("here", ["http://a:2880", "https://b"], ops="there", workers="many")
    assert {str(problem).split(":")[0] for problem in raised.value.problems} == {
        "--listen",
        "--replica",
        "--ops",
        "--workers",
    }
    assert len(raised.value.problems) == 5


def test_a_replica_flag_that_is_the_proxy_itself_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="--replica: a replica cannot be the proxy itself, which listens there: --listen"
    ):
        from_flags("127.0.0.1:8080", ["http://127.0.0.1:8080"])


# --- the affinity cookie ---


@pytest.mark.parametrize(
    ("cookie", "complaint"),
    [
        ("{name: 'a b'}", "expected the name of a cookie, up to 64 letters, digits, '_', '-' and '.', found \"a b\""),
        ("{name: __Host-a}", '"__Host-a": browsers take such a cookie over https only; use another name'),
        ("{same_site: maybe}", 'expected lax, strict or none, found "maybe"'),
        ("{domain: localhost}", 'expected a domain like example.com, found "localhost": browsers take no other'),
        ("{domain: 10.0.0.1}", 'expected a domain like example.com, found "10.0.0.1": browsers take no other'),
        ("{domain: 'a.b;Path=/'}", "expected a host name only"),
        ("mine", "expected"),
    ],
)
def test_what_browsers_would_not_take_as_a_cookie_is_refused(cookie: str, complaint: str) -> None:
    error = find_error(write(instance=f"balance: {{cookie: {cookie}}}"))
    assert "instances[0].balance.cookie" in error
    assert complaint in error

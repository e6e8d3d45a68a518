"""`haproxy-py gate test`: the verdict, the rule and the exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from haproxy_py.cli import main

CONFIG = """
listen: [{address: "127.0.0.1:8080"}]
instances:
  - name: shop
    hosts: [shop.example.com]
    ha: true
    replicas: {static: ["http://127.0.0.1:1880"]}
    gate: {deny: ["GET /private/*"]}
  - name: lab
    hosts: [lab.example.com]
    ha: false
    replicas: {static: ["http://127.0.0.1:1881"]}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["GET", "/hello?x=/flows", "--instance", "shop"], 0, "passes: GET /hello of instance shop"),
        (["GET", "/flows", "--instance", "shop"], 1, "denied by admin_route: GET /flows of instance shop"),
        (["GET", "/a/%2e%2e/flows", "--host", "SHOP.example.com"], 1, "denied by admin_route"),
        (["GET", "http://shop.example.com/flows?a=b"], 1, "denied by admin_route: GET /flows"),
        (["GET", "http://shop.example.com"], 1, "denied by editor_page: GET / of"),
        (["GET", "/private/x", "--instance", "shop"], 1, "denied by deny_list"),
        (["POST", "/private/x", "--instance", "shop"], 0, "passes"),
        (["GET", "//a@b/comms", "--instance", "shop"], 1, "denied by bad_target"),
        (["GET", "/flows", "--instance", "lab"], 0, "not in HA mode; in HA mode: denied by admin_route"),
    ],
)
def test_the_verdict_is_said_with_its_rule(
    file: str, arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gate", "test", file, *arguments]) == code
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["GET", "/flows"], "several instances"),
        (["get", "/flows", "--instance", "shop"], "capitals"),
        (["GET", "/flows", "--instance", "none"], "there are: shop, lab"),
        (["GET", "/flows", "--host", "other.example.com"], "no instance with the host"),
        (["GET", "flows", "--instance", "shop"], "expected a path"),
        (["GET", "/flows#a", "--instance", "shop"], "fragment"),
        (["GET", "http://[/", "--instance", "shop"], "expected a path"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(
    file: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gate", "test", file, *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_wrong_configuration_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.replace("/private/*", "/private/**"))
    assert main(["gate", "test", str(path), "GET", "/"]) == 2
    assert "instances[0].gate.deny[0]" in capsys.readouterr().err

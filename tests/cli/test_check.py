"""`haproxy-py check`: errors to standard error with exit code 2, else a summary and 0; and nothing heavy is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from haproxy_py.cli import main
from tests.test_config import EXAMPLE, TEN_MISTAKES, write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "haproxy.yaml"
    path.write_text(write())
    return path


def test_a_right_file_gives_one_paragraph_that_says_what_would_run(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out == (
        f"{file} is right. It would listen on 127.0.0.1:8080 with one worker per CPU, have the operators' port on "
        "127.0.0.1:9090, and serve 1 instance: one for any host, in HA mode (editor and admin API: 403), over "
        "1 replica (10.0.0.1:1880) by round-robin. On SIGTERM it would go on accepting for 5s and end 25s after the "
        "signal at the latest.\n"
    )


def test_the_summary_counts_what_is_too_much_to_name(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    urls = ", ".join(f"http://r{n}" for n in range(30))
    file.write_text(write(replicas=f"static: [{urls}]"))
    assert main(["check", str(file)]) == 0
    assert "over 30 replicas (r0:80, " in (summary := capsys.readouterr().out)
    assert "r9:80, and 20 more)" in summary


def test_the_summary_says_what_is_followed_on_kubernetes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = "instances_from: {kubernetes: {namespaces: [a, b], selector: tier=prod}}"
    file.write_text(write(ha="auto", replicas="kubernetes: {service: nr, namespace: a, port: http}", top=more))
    assert main(["check", str(file)]) == 0
    assert (
        "serve 1 instance: one for any host, in HA mode if its Service says so, over endpointslices (port http) of "
        "Service a/nr by round-robin; and every Service that tier=prod selects in a, b. On SIGTERM"
    ) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("dns", "expected"),
    [
        ("name: nr.example.com, port: 1880", "its A records at port 1880"),
        ("name: nr.example.com, port: 1880, family: ipv6", "its AAAA records at port 1880"),
        ("name: nr.example.com", "its SRV records"),
    ],
)
def test_the_summary_says_what_is_looked_up(
    file: Path, capsys: pytest.CaptureFixture[str], dns: str, expected: str
) -> None:
    file.write_text(write(replicas=f"dns: {{{dns}}}"))
    assert main(["check", str(file)]) == 0
    assert f"over what nr.example.com stands for in the DNS ({expected}) by" in capsys.readouterr().out


def test_instances_may_all_be_followed_on_kubernetes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("listen: [{address: '127.0.0.1:8080'}]\ninstances_from: {kubernetes: {}}\n")
    assert main(["check", str(file)]) == 0
    expected = "and serve every Service that haproxy-py.dev/instance selects in the own namespace. On SIGTERM"
    assert expected in capsys.readouterr().out


def test_ten_mistakes_give_ten_lines_on_standard_error_and_exit_code_2(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(TEN_MISTAKES)
    assert main(["check", str(file)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 10
    assert all(line.startswith(f"{file}:") for line in printed.err.splitlines())


def test_a_missing_file_gives_a_message_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "absent.yaml")]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/absent.yaml: cannot be read: No such file or directory\n"


def test_a_directory_gives_a_message_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path}: cannot be read: Is a directory\n"


def test_a_file_that_is_not_utf_8_gives_a_message_and_exit_code_2(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(b"listen: \xe4\n")
    assert main(["check", str(file)]) == 2
    assert capsys.readouterr().err == f"{file}:1:9: the file is not UTF-8\n"


def test_check_imports_neither_aiohttp_nor_kubernetes_nor_uvloop() -> None:
    program = (
        "import sys; from haproxy_py.cli import main; code = main(['check', sys.argv[1]]); "
        "print(sorted({'aiohttp', 'kubernetes', 'uvloop', 'asyncio'} & sys.modules.keys())); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(EXAMPLE)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_gate_that_has_to_know_every_admin_route_is_a_warning_and_no_error(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(file)]) == 0
    warning = capsys.readouterr().err
    assert warning.startswith("warning: instance one: gate.admin_root is /: ")
    assert "httpAdminRoot: '/admin'" in warning
    assert "gate.admin_root: /admin" in warning


@pytest.mark.parametrize("text", [write(instance="gate: {admin_root: /admin}"), write(ha="false")])
def test_there_is_no_warning_where_the_admin_side_is_behind_a_prefix_or_open_anyhow(
    text: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text)
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().err == ""


def test_every_missing_file_is_named_at_once_with_its_place(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = file.parent
    file.write_text(
        "listen:\n"
        "- {address: '127.0.0.1:8443', tls: {certificate: no.crt, key: no.key}}\n"
        "- {address: '127.0.0.1:8444', tls: {certificate: other.pem}}\n"
        "ops: {token_file: no-token}\n"
        "instances_from: {kubernetes: {kubeconfig: no-kubeconfig}}\n"
    )
    assert main(["check", str(file)]) == 2
    absent = "cannot be read: No such file or directory"
    assert capsys.readouterr().err.splitlines() == [
        f"{file}: listen[0].tls: {folder}/no.crt {absent}; {folder}/no.key {absent}",
        f"{file}: listen[1].tls: {folder}/other.pem {absent}",
        f"{file}: ops.token_file: {folder}/no-token {absent}",
        f"{file}: instances_from.kubernetes.kubeconfig: {folder}/no-kubeconfig does not exist",
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("listen: [{address: '::1:8080'}]", "an IPv6 address stands in brackets, [::1]:8080"),
        ("listen: [{address: 'fd00::1:8080'}]", "an IPv6 address stands in brackets, [fd00::1]:8080"),
        (
            "instances: [{name: a, retries: {resend: 'true'}}]",
            'expected true or false, found "true" in quotes: write it without',
        ),
        ("ops: {token_file: '${HOME}/token'}", 'environment variables are not expanded, found "${HOME}/token"'),
    ],
)
def test_the_advice_of_an_error_is_right(file: Path, capsys: pytest.CaptureFixture[str], entry: str, said: str) -> None:
    file.write_text(f"{entry}\n")
    assert main(["check", str(file)]) == 2
    assert said in capsys.readouterr().err

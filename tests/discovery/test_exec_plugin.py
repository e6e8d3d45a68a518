"""A kubeconfig whose user is an exec plugin: what it says when it fails, its end when it hangs, where it is looked for."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from haproxy_py.config import Cluster
from haproxy_py.discovery import exec_plugin
from haproxy_py.discovery.credentials import Credentials, CredentialsError
from tests.wire.scripted import eventually

VERSION = "client.authentication.k8s.io/v1"


def write_kubeconfig(folder: Path, script: str, **described: Any) -> Path:
    """With a plugin `plugin.sh` beside it."""
    plugin = folder / "plugin.sh"
    plugin.write_text(f"#!/bin/sh\n{script}\n")
    plugin.chmod(0o700)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "test", "user": {"exec": {"apiVersion": VERSION, "command": "./plugin.sh"} | described}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


def spell_credential(**status: str) -> str:
    return json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": status})


async def read_authorization(kubeconfig: Path) -> str:
    return (await Credentials(Cluster(str(kubeconfig), "")).read()).authorization


async def fail(kubeconfig: Path) -> str:
    with pytest.raises(CredentialsError) as raised:
        await read_authorization(kubeconfig)
    return str(raised.value)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_plugin_beside_the_kubeconfig_gives_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    kubeconfig = write_kubeconfig(tmp_path, f"echo '{spell_credential(token='from-plugin')}'")
    assert await read_authorization(kubeconfig) == "Bearer from-plugin"


async def test_plugin_without_a_slash_is_found_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    kubeconfig = write_kubeconfig(tmp_path, f"echo '{spell_credential(token='found')}'", command="plugin.sh")
    assert await read_authorization(kubeconfig) == "Bearer found"


async def test_plugin_gets_its_arguments_and_environment(tmp_path: Path) -> None:
    script = f"echo '{spell_credential(token='@')}' | sed \"s/@/$1-$WHO/\""
    kubeconfig = write_kubeconfig(tmp_path, script, args=["one"], env=[{"name": "WHO", "value": "me"}])
    assert await read_authorization(kubeconfig) == "Bearer one-me"


async def test_what_a_failing_plugin_says_is_in_the_error_on_one_line(tmp_path: Path) -> None:
    text = await fail(write_kubeconfig(tmp_path, "printf 'session\\nexpired:\\tlog in\\033[0m\\n' >&2; exit 3"))
    assert "plugin.sh ended with status 3: session expired: log in?[0m" in text
    assert str(tmp_path / "kubeconfig") in text


async def test_what_a_failing_plugin_says_is_bounded(tmp_path: Path) -> None:
    text = await fail(write_kubeconfig(tmp_path, "head -c 5000000 /dev/zero | tr '\\0' x >&2; exit 1"))
    assert len(text) < 1000
    assert text.endswith("x…")


async def test_plugin_that_does_not_exist_is_named(tmp_path: Path) -> None:
    text = await fail(write_kubeconfig(tmp_path, "", command="./other"))
    assert f"{tmp_path}/./other cannot be run: No such file or directory" in text


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("no json", "printed no JSON: no json"),
        ("[]", "printed no ExecCredential, and said nothing"),
        (spell_credential(), "printed neither a token nor a client certificate with its key"),
        (spell_credential(clientCertificateData="x"), "printed neither a token nor a client certificate with its key"),
        (spell_credential(token="x").replace("/v1", "/v1beta1"), "but the kubeconfig says client.authentication"),
    ],
)
async def test_output_that_is_no_credential_is_an_error(tmp_path: Path, output: str, said: str) -> None:
    assert said in await fail(write_kubeconfig(tmp_path, f"echo '{output}'"))


async def test_plugin_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_plugin, "WITHIN", 0.5)
    text = await fail(write_kubeconfig(tmp_path, f"sleep 600 & echo $! $$ > {tmp_path}/pids; wait"))
    assert "had not ended after 0.5 s and was killed" in text
    await wait_for_end(tmp_path / "pids")


async def test_plugin_ends_with_the_attempt_that_ran_it(tmp_path: Path) -> None:
    """A reload or the end of the proxy cancels an attempt."""
    pids = tmp_path / "pids"
    task = asyncio.create_task(read_authorization(write_kubeconfig(tmp_path, f"echo $$ > {pids}; sleep 600")))
    await eventually(lambda: pids.exists() and pids.read_text().endswith("\n"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_for_end(pids)


async def test_requests_that_come_together_run_the_plugin_once(tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/runs; echo '{spell_credential(token='one')}'"
    credentials = Credentials(Cluster(str(write_kubeconfig(tmp_path, script)), ""))
    await asyncio.gather(*(credentials.read() for _ in range(5)))
    assert (tmp_path / "runs").read_text() == "x\n"


async def wait_for_end(pids: Path) -> None:
    await eventually(lambda: not any(is_running(int(pid)) for pid in pids.read_text().split()))

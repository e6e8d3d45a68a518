"""`drain`, `undrain` and `status` against a running proxy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from haproxy_py.cli import main
from haproxy_py.control.takeover import MAX_MESSAGE, PROTOCOL, name_socket
from tests.chaos.test_takeover import Successor
from tests.proxy_process import ProxyProcess, describe_instance
from tests.wire.inner_worker import find_workers
from tests.wire.scripted import WITHIN, ScriptedReplica, answer_each, eventually, open_wire
from tests.wire.test_tunnels import hold, switching, upgrade

TOKEN = "0123456789abcdef0123"
GET = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"

pytestmark = pytest.mark.timeout(120)


class Drained(ProxyProcess):
    """A proxy with a token, and commands that know it."""

    def __init__(self, folder: Path, urls: list[str], **extra: Any) -> None:
        super().__init__(folder, [describe_instance(urls)], extra={"log": {"access": "off"}, **extra})
        self.config["ops"]["token_file"] = "token"
        (folder / "token").write_text(f"{TOKEN}\n")
        self.names = [url.removeprefix("http://") for url in urls]

    async def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "haproxy_py", *words, "--config", str(self.config_file)]
        return await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, timeout=60, check=False)

    async def states(self) -> list[str]:
        """Of the replicas in the order of their names, once every worker knows."""
        while True:
            status = json.loads((await asyncio.to_thread(self.get_ops, "/api/v1/status"))[1])
            if all(worker["table_version"] == status["table_version"] for worker in status["workers"]):
                return [replica["state"] for replica in status["instances"][0]["replicas"]]
            await asyncio.sleep(0.02)

    async def ask(self) -> int:
        async with await open_wire(self.port) as client:
            return (await client.ask(GET))[0]


@pytest.fixture
async def urls() -> AsyncIterator[list[str]]:
    async with ScriptedReplica(answer_each()) as one, ScriptedReplica(answer_each()) as two:
        yield sorted([one.url, two.url])


@pytest.fixture
def proxy(tmp_path: Path, urls: list[str]) -> Iterator[Drained]:
    with Drained(tmp_path, urls) as running:
        yield running


async def test_drained_replica_is_shown_everywhere_and_undrained_again(proxy: Drained) -> None:
    done = await proxy.command("drain", "test", proxy.names[0])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        f"{proxy.names[0]} drains: running requests: 0, open tunnels: 0, seconds to the deadl"
    )
    assert await proxy.states() == ["draining", "ready"]
    metrics = (await asyncio.to_thread(proxy.get_ops, "/metrics"))[1]
    series = f'haproxy_py_replica_state{{instance="test",replica="{proxy.names[0]}",state="draining"}} 1.0'
    assert series in metrics
    shown = await proxy.command("status", "test")
    assert shown.returncode == 0
    assert re.search(rf"{proxy.names[0]} .* drained by operator +0 +0 +0 +0\n", shown.stdout)
    assert re.search(rf"{proxy.names[1]} .* ready +0 +0 +0 +0\n", shown.stdout)
    done = await proxy.command("undrain", "test", proxy.names[0])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{proxy.names[0]} is ready\n", "")
    assert await proxy.states() == ["ready", "ready"]
    assert "is drained by an operator" in proxy.log
    assert "is no longer drained" in proxy.log


async def test_short_id_and_repetition_are_fine(proxy: Drained) -> None:
    status = json.loads((await asyncio.to_thread(proxy.get_ops, "/api/v1/status"))[1])
    short = status["instances"][0]["replicas"][1]["id"]
    for _ in range(2):
        done = await proxy.command("drain", "test", short, "--wait")
        assert (done.returncode, done.stdout) == (0, f"{proxy.names[1]} is drained: nothing runs on it any more\n")
    assert await proxy.states() == ["ready", "draining"]
    for _ in range(2):
        assert (await proxy.command("undrain", "test", short)).returncode == 0
    assert await proxy.states() == ["ready", "ready"]


async def test_last_ready_replica_is_drained_only_by_force_and_then_nothing_answers(proxy: Drained) -> None:
    await proxy.command("drain", "test", proxy.names[0])
    done = await proxy.command("drain", "test", proxy.names[1])
    assert done.returncode == 1
    assert "is the last ready replica" in done.stderr
    assert "--force" in done.stderr
    assert await proxy.states() == ["draining", "ready"]
    assert await proxy.ask() == 200
    done = await proxy.command("drain", "test", proxy.names[1], "--force")
    assert done.returncode == 0
    assert await proxy.states() == ["draining", "draining"]
    assert await proxy.ask() == 503
    assert "no replica is ready any more" in proxy.log
    await proxy.command("undrain", "test", proxy.names[0])
    assert await proxy.states() == ["ready", "draining"]
    assert await proxy.ask() == 200


async def test_replica_whose_checks_fail_is_not_another_ready_one(tmp_path: Path) -> None:
    async with ScriptedReplica(answer_each()) as one:
        proxy = Drained(tmp_path, [one.url, "http://127.0.0.1:9"])  # nothing listens there
        proxy.config["instances"][0]["health"] = {"interval": "1s", "fall": 1}
        with proxy:
            await eventually(lambda: f"replica {proxy.names[1]} is unhealthy" in proxy.log)
            done = await proxy.command("drain", "test", proxy.names[0])
            assert done.returncode == 1
            assert "is the last ready replica" in done.stderr
            assert (await proxy.command("drain", "test", proxy.names[1])).returncode == 0
            assert await proxy.ask() == 200


async def test_drain_outlives_reloads_and_workers(proxy: Drained) -> None:
    await proxy.command("drain", "test", proxy.names[0])
    proxy.config["instances"][0]["limits"] = {"connect_attempts": 2}
    proxy.write_config()
    proxy.signal(signal.SIGHUP)
    await eventually(lambda: "is in force as table" in proxy.log)
    assert await proxy.states() == ["draining", "ready"]
    [worker] = find_workers(proxy.pid)
    os.kill(worker, signal.SIGKILL)
    await eventually(lambda: proxy.log.count("accepts connections") == 2)
    assert await proxy.states() == ["draining", "ready"]
    before = await proxy.command("status")
    for _ in range(4):
        assert await proxy.ask() == 200
    after = await proxy.command("status")
    for said in (before.stdout, after.stdout):
        assert re.search(rf"{proxy.names[0]} .* drained by operator +0 +0 +0 +0\n", said)
    proxy.config["instances"][0]["replicas"]["static"] = [f"http://{proxy.names[1]}"]
    proxy.write_config()
    proxy.signal(signal.SIGHUP)
    await eventually(lambda: "has left; with it ends its drain" in proxy.log)


async def test_wait_shows_progress_and_ends_when_the_last_tunnel_has(tmp_path: Path) -> None:
    async with ScriptedReplica(switching(hold)) as one:
        with Drained(tmp_path, [one.url], drain={"delay": "0s", "deadline": "2s"}) as proxy:
            async with await open_wire(proxy.port) as client:
                await upgrade(client)
                began = time.monotonic()
                done = await proxy.command("drain", "test", proxy.names[0], "--force", "--wait")
                assert time.monotonic() - began > 1.0
                assert done.returncode == 0
                first = r"\S+ drains: running requests: 0, open tunnels: 1, seconds to the deadline: [12]\n"
                assert re.match(first, done.stderr)
                assert done.stdout.endswith("is drained: nothing runs on it any more\n")
                assert await client.wait_end() == "fin"


async def test_running_request_after_the_deadline_is_exit_code_1(tmp_path: Path) -> None:
    async def never(wire: Any, number: int) -> None:
        await wire.read_head()
        await wire.reader.read()

    async with ScriptedReplica(never) as one:
        with Drained(tmp_path, [one.url], drain={"delay": "0s", "deadline": "500ms"}) as proxy:
            async with await open_wire(proxy.port) as client:
                client.send(GET)
                await eventually(lambda: one.accepted)
                done = await proxy.command("drain", "test", proxy.names[0], "--force", "--wait")
                assert done.returncode == 1
                assert "after the deadline there are still running requests: 1, open tunnels: 0" in done.stdout
            await asyncio.to_thread(proxy.stop)


def listen_to_interrupts() -> None:
    """In the command: a shell that starts the tests in the background has interrupts ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_ctrl_c_ends_the_waiting_and_not_the_drain(tmp_path: Path) -> None:
    async with ScriptedReplica(switching(hold)) as one:
        with Drained(tmp_path, [one.url], drain={"delay": "0s", "deadline": "30s"}) as proxy:
            async with await open_wire(proxy.port) as client:
                await upgrade(client)
                line = [sys.executable, "-m", "haproxy_py", "drain", "test", proxy.names[0], "--force", "--wait"]
                line += ["--config", str(proxy.config_file)]
                waiting = await asyncio.create_subprocess_exec(
                    *line, stderr=subprocess.PIPE, preexec_fn=listen_to_interrupts
                )
                assert waiting.stderr is not None
                assert b"open tunnels: 1" in await waiting.stderr.readline()
                waiting.send_signal(signal.SIGINT)
                said = (await waiting.stderr.read()).decode()
                assert await waiting.wait() == 1
                assert f"stays drained. Back with: haproxy-py undrain test {proxy.names[0]}" in said
                assert await proxy.states() == ["draining"]
            await asyncio.to_thread(proxy.stop)  # not on this loop, which has connections to close


async def test_wrong_names_are_told_with_those_that_there_are(proxy: Drained) -> None:
    done = await proxy.command("drain", "other", proxy.names[0])
    assert (done.returncode, done.stderr) == (
        1,
        "haproxy-py: there is no instance of this name; there are: test.\n",
    )
    done = await proxy.command("undrain", "test", "r9")
    assert done.returncode == 1
    assert f"has no replica of this name or id; it has: {proxy.names[0]} (" in done.stderr
    done = await proxy.command("status", "other")
    assert (done.returncode, done.stderr) == (1, "haproxy-py: there is no instance other; there are: test\n")


async def test_token_is_followed_and_a_bad_file_leaves_the_former_one(proxy: Drained, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("fedcba98765432100123")
    line = ("drain", "test", proxy.names[0], "--token-file", str(other))
    done = await proxy.command(*line)
    assert done.returncode == 1
    assert "with the token in the file that ops.token_file names" in done.stderr
    (tmp_path / "token").write_text("")
    await eventually(lambda: "token is empty" in proxy.log)
    assert "the former token stays in force" in proxy.log
    other.write_text(TOKEN)
    assert (await proxy.command(*line)).returncode == 0
    (tmp_path / "new").write_text("fedcba98765432100123")
    (tmp_path / "new").rename(tmp_path / "token")
    await eventually(lambda: "has changed; calls need the new one" in proxy.log)
    assert (await proxy.command("undrain", "test", proxy.names[0])).returncode == 0
    (tmp_path / "token").write_text("short")
    await eventually(lambda: proxy.log.count("calls need the new one") == 2)
    assert (await proxy.command("undrain", "test", proxy.names[0])).returncode == 0
    assert TOKEN not in proxy.log


async def test_reload_switches_the_calls_off_and_on(proxy: Drained) -> None:
    async def reload(wait_for: str) -> None:
        count = proxy.log.count(wait_for)
        proxy.write_config()
        proxy.signal(signal.SIGHUP)
        await eventually(lambda: proxy.log.count(wait_for) > count)

    proxy.config["ops"]["token_file"] = "missing"
    await reload("missing cannot be read: No such file")
    assert "was not applied" in proxy.log
    del proxy.config["ops"]["token_file"]
    await reload("is in force as table")
    done = await proxy.command("drain", "test", proxy.names[0])
    assert done.returncode == 1
    assert "Name a file with a token under ops.token_file" in done.stderr
    proxy.config["ops"]["token_file"] = "token"
    await reload("is in force as table")
    assert (await proxy.command("drain", "test", proxy.names[0])).returncode == 0


def test_token_file_that_is_missing_at_the_start_ends_the_proxy_with_status_1(tmp_path: Path) -> None:
    proxy = Drained(tmp_path, ["http://127.0.0.1:9"])
    (tmp_path / "token").unlink()
    assert proxy.spawn().wait(30) == 1
    assert f"ops.token_file: {tmp_path}/token cannot be read: No such file or directory" in proxy.log
    line = [sys.executable, "-m", "haproxy_py", "check", str(proxy.config_file)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "ops.token_file" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--ops", "127.0.0.1:1"], 1, "http://127.0.0.1:1 does not answer: [Errno 111] Connection refused. Does"),
        (["--ops", "ftp://a"], 2, "--ops: expected a URL like http://127.0.0.1:9090, found 'ftp://a'"),
        (["--ops", "http://:1"], 2, "--ops: expected a URL"),
        (["--ops", "http://a:99999"], 2, "--ops: expected a URL"),
        (["--config", "/nothing.yaml"], 2, "/nothing.yaml: cannot be read"),
        (["--token-file", "/nothing"], 2, "/nothing cannot be read"),
        (["--ops", "a", "--config", "b"], 2, "not allowed with argument"),
        (["--wait=yes"], 2, "ignored explicit argument"),
    ],
)
def test_wrong_usage_and_no_proxy_have_their_exit_codes(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drain", "one", "a", *words]) == code
    assert said in capsys.readouterr().err


async def test_commands_reach_the_proxy_although_its_file_has_a_mistake_elsewhere(proxy: Drained) -> None:
    proxy.config["drain"] = {"delay": "soon", "nothing": 1}
    proxy.config["log"] = {"access": "${ACCESS}"}
    proxy.write_config()
    assert (await proxy.command("status")).returncode == 0
    done = await proxy.command("drain", "test", proxy.names[0])
    assert done.returncode == 0, done.stderr


async def test_commands_refuse_a_mistake_in_what_they_read_of_the_file(proxy: Drained) -> None:
    proxy.config["ops"]["address"] = "${OPS}"
    proxy.write_config()
    done = await proxy.command("status")
    assert done.returncode == 2
    assert "ops.address: environment variables are not expanded" in done.stderr


async def test_status_of_a_proxy_that_is_not_ready_is_exit_code_1(proxy: Drained) -> None:
    async with await open_wire(proxy.port) as client:  # keeps the proxy from ending at once
        client.send(b"GET /x HT")
        proxy.signal(signal.SIGTERM)
        await eventually(lambda: "SIGTERM" in proxy.log)
        done = await proxy.command("status")
        assert done.returncode == 1
        assert "not ready: draining" in done.stdout


async def test_process_that_takes_over_keeps_the_word_of_the_operator(tmp_path: Path, urls: list[str]) -> None:
    proxy = Drained(tmp_path, urls)
    with contextlib.ExitStack() as stack:
        proxy.start()
        stack.callback(proxy.kill)
        assert (await proxy.command("drain", "test", proxy.names[0])).returncode == 0
        successor = Successor(proxy, 1)
        stack.callback(successor.kill)
        await asyncio.to_thread(successor.wait_until_it_has_taken_over)
        assert f"replicas that operators have drained, and that stay so: {proxy.names[0]} of test" in successor.log
        await eventually(proxy.is_ready)
        assert await proxy.states() == ["draining", "ready"]
        assert (await proxy.command("undrain", "test", proxy.names[0])).returncode == 0
        assert await proxy.states() == ["ready", "ready"]


async def test_nothing_is_drained_while_another_process_takes_over(proxy: Drained) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(WITHIN)
        link.connect(name_socket("127.0.0.1", proxy.ops_port))
        link.send(json.dumps({"protocol": PROTOCOL}).encode())
        assert json.loads(link.recv(MAX_MESSAGE))["drained"] == []
        for _ in range(2):
            link.recv(MAX_MESSAGE)  # the sockets of the listener, and that of the operators' port
        for command in ("drain", "undrain"):
            done = await proxy.command(command, "test", proxy.names[0])
            assert done.returncode == 1
            assert "another process is taking over from this one" in done.stderr
    await eventually(lambda: "did not become ready; nothing has changed" in proxy.log)
    assert (await proxy.command("drain", "test", proxy.names[0])).returncode == 0

"""Runs the exec plugin of a kubeconfig user: a program that prints a credential (client.authentication.k8s.io).

- What the plugin says when it fails is what the operator must read, so it is part of the error: one line, bounded.
- It gets `WITHIN` seconds, then its process group is killed: a plugin that hangs, or waits for a login, must not leave a process
  per attempt.
- A command with a slash that is not absolute is relative to the kubeconfig's folder, as for kubectl; one without is looked up in
  PATH.

Of what it prints only a token or a client certificate with its key is used. That one runs at a time is the caller's affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping
from typing import Any

WITHIN = 30.0
"""Seconds for one run. Plugins of cloud providers ask over the network and take a few; a person who logs in is not there."""

MAX_OUTPUT = 1024 * 1024
"""Bytes of its output that are kept. A credential has a few KiB."""

MAX_SAID = 300
"""Characters of its standard error that a message repeats."""

_END_WITHIN = 1.0
"""Seconds from the kill to the end. A child that left the group may hold the pipes open; nobody waits for it."""


class PluginError(Exception):
    """It gave no credential. The text says which command, why, and what it said itself."""


async def run_plugin(described: Any, folder: str) -> Mapping[str, Any]:
    """The `status` of the ExecCredential that the plugin prints. `described` is the `exec` of the user. Raises PluginError."""
    command, arguments, environment, version = _read(described, folder)
    starting = asyncio.create_task(_start(command, arguments, environment))
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # Cancelled itself, it would kill the plugin but not what that has started, and wait for it.
        with contextlib.suppress(OSError, ValueError):
            await _kill(await starting)
        raise
    except (OSError, ValueError) as error:
        raise PluginError(f"the exec plugin {command} cannot be run: {_describe(error)}") from error
    reading = asyncio.gather(_read_all(process.stdout), _read_all(process.stderr))
    try:
        async with asyncio.timeout(WITHIN):
            output, said = await asyncio.shield(reading)
            status = await process.wait()
    except TimeoutError:
        raise PluginError(
            f"the exec plugin {command} had not ended after {WITHIN:g} s and was killed: does it wait for a login?"
        ) from None
    finally:
        # Also when this task is cancelled; and what a plugin that ended has left running.
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        await _kill(process)
    if status != 0:
        ended = f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"
        raise PluginError(f"the exec plugin {command} {ended}{_quote(said)}")
    return _find_status(output, said, command, version)


def _read(described: Any, folder: str) -> tuple[str, list[str], dict[str, str], str]:
    command, version = described.get("command"), described.get("apiVersion")
    arguments, variables = described.get("args") or [], described.get("env") or []
    if not isinstance(command, str) or not command:
        raise PluginError("the user's exec has no command")
    if not isinstance(version, str):
        raise PluginError("the user's exec has no apiVersion, like client.authentication.k8s.io/v1")
    if "/" in command:
        command = os.path.join(folder, command)
    environment = dict(os.environ)
    try:
        environment |= {str(one["name"]): str(one["value"]) for one in variables}
    except (TypeError, KeyError) as error:
        raise PluginError("an entry of the user's exec.env is no pair of name and value") from error
    environment["KUBERNETES_EXEC_INFO"] = json.dumps(
        {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    )
    return command, [str(argument) for argument in arguments], environment, version


async def _start(command: str, arguments: list[str], environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        command,
        *arguments,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # its own process group, so that what it starts ends with it
    )


async def _kill(process: asyncio.subprocess.Process) -> None:
    """It and what it started, and wait until its pipes are closed."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_WITHIN):
            await process.communicate()


async def _read_all(stream: asyncio.StreamReader | None) -> bytes:
    """What comes until the end: the first `MAX_OUTPUT` bytes; the rest is read, so that nobody waits, and forgotten."""
    if stream is None:
        raise RuntimeError("the plugin was started with pipes")
    kept = bytearray()
    while data := await stream.read(65536):
        kept += data[: MAX_OUTPUT - len(kept)]
    return bytes(kept)


def _find_status(output: bytes, said: bytes, command: str, version: str) -> Mapping[str, Any]:
    try:
        credential = json.loads(output)
    except ValueError:
        raise PluginError(f"the exec plugin {command} printed no JSON{_quote(said or output)}") from None
    if not isinstance(credential, Mapping) or credential.get("kind") != "ExecCredential":
        raise PluginError(f"the exec plugin {command} printed no ExecCredential{_quote(said)}")
    if credential.get("apiVersion") != version:
        found = str(credential.get("apiVersion"))[:MAX_SAID]
        raise PluginError(f"the exec plugin {command} printed apiVersion {found!r}, but the kubeconfig says {version}")
    status = credential.get("status")
    if not isinstance(status, Mapping):
        raise PluginError(f"the exec plugin {command} printed no status{_quote(said)}")
    has_pair = status.get("clientCertificateData") and status.get("clientKeyData")
    if not status.get("token") and not has_pair:
        raise PluginError(
            f"the exec plugin {command} printed neither a token nor a client certificate with its key{_quote(said)}"
        )
    return status


def _quote(said: bytes) -> str:
    """What it said, on one line of printable characters."""
    line = " ".join(said.decode(errors="replace").split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    if not line:
        return ", and said nothing"
    return f": {line[:MAX_SAID]}{'…' if len(line) > MAX_SAID else ''}"


def _describe(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)

"""How a command talks to the operators' port of a running proxy."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from haproxy_py.config_file import ConfigError, load_ops
from haproxy_py.config_values import spell_address
from haproxy_py.control.token import TokenError, read_token

DEFAULT_URL = "http://127.0.0.1:9090"

ANSWER_WITHIN = 10.0
"""Seconds that the operators' port has to answer: as long as it gives itself."""

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer. A status of 2,000 replicas has one megabyte."""


class CallError(Exception):
    """The call came to nothing. The text says what happened and what to do; `code` is the exit code."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def add_options(parser: argparse.ArgumentParser, *, changes: bool) -> None:
    """The options of every command that calls; `changes`: it needs the token."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--ops", metavar="URL", help=f"the operators' port of the proxy (default: {DEFAULT_URL})")
    named = "that and ops.token_file are" if changes else "that is"
    where.add_argument("--config", metavar="FILE", help=f"the configuration file of the proxy: {named} read from it")
    if changes:
        parser.add_argument("--token-file", metavar="FILE", type=Path, help="the file with the token of the proxy")


@dataclass(frozen=True)
class Caller:
    """Calls one proxy."""

    url: str
    token: str = ""

    def get(self, path: str) -> Any:
        """What a GET answers, as JSON. Raises CallError."""
        return self._call("GET", path)

    def post(self, path: str) -> Any:
        """What a POST answers, as JSON. Raises CallError."""
        return self._call("POST", path)

    def _call(self, method: str, path: str) -> Any:
        parts = urlsplit(self.url)
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        fields = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        try:
            with contextlib.closing(make(parts.hostname or "", parts.port, timeout=ANSWER_WITHIN)) as connection:
                connection.request(method, parts.path.rstrip("/") + path, headers=fields)
                answer = connection.getresponse()
                body = answer.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise CallError(
                f"{self.url} does not answer: {error or type(error).__name__}. Does the proxy run, and is this its "
                "operators' port (ops.address)? --ops URL names another one"
            ) from None
        try:
            told = json.loads(body)
        except ValueError:
            raise CallError(f"{self.url} answered {answer.status} without JSON: it is not an operators' port") from None
        if answer.status != 200:
            raise CallError(_explain(answer.status, told))
        return told


def find_caller(args: argparse.Namespace) -> Caller:
    """The proxy that the options name. Raises CallError with exit code 2."""
    url, token_file = args.ops or DEFAULT_URL, getattr(args, "token_file", None)
    if args.config is not None:
        try:
            ops = load_ops(args.config)
        except ConfigError as error:
            raise CallError(str(error), 2) from None
        url = f"http://{spell_address(_reach(ops.host), ops.port)}"
        if token_file is None and ops.token_file:
            token_file = Path(ops.token_file)
    try:
        token = read_token(token_file).decode("ascii") if token_file is not None and "token_file" in args else ""
    except TokenError as error:
        raise CallError(str(error), 2) from None
    return Caller(_check_url(url), token)


def spell_replica_path(instance: str, replica: str, verb: str) -> str:
    return f"/api/v1/instances/{quote(instance, safe='')}/replicas/{quote(replica, safe='')}/{verb}"


def find_instance(status: Any, name: str) -> Any:
    """An instance in a status. Raises CallError."""
    for instance in status["instances"]:
        if instance["name"] == name:
            return instance
    names = ", ".join(instance["name"] for instance in status["instances"][:20]) or "none"
    raise CallError(f"there is no instance {name}; there are: {names}")


def fail(error: CallError) -> int:
    """Say it, and give the exit code."""
    print(f"haproxy-py: {error}", file=sys.stderr)
    return error.code


def _reach(host: str) -> str:
    """Where a port that listens on every address is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(host, host)


def _check_url(url: str) -> str:
    """`http://HOST:PORT`, also written without the scheme. Raises CallError."""
    full = url if "://" in url else f"http://{url}"
    with contextlib.suppress(ValueError):
        parts = urlsplit(full)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            return full.rstrip("/")
    raise CallError(f"--ops: expected a URL like {DEFAULT_URL}, found {url!r}", 2)


def _explain(status: int, told: Any) -> str:
    text = str(told.get("message", "")) if isinstance(told, dict) else ""
    if status == 401:
        return f"{text} --token-file FILE names it here, or --config FILE the configuration that does."
    return text or f"the proxy answered {status}"

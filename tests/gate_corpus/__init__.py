"""The rows of the gate corpus; the README beside this file says what they are."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ADMIN_ROOTS = {"root": "/", "admin-root": "/admin", "disable-editor": "/", "node-red-4": "/"}
"""The files, with the admin root of the gate that they are replayed against."""

RESOURCE = re.compile(r"(?i:https?://[^/]+)?(?i:/admin)?/resources(?:/[^/.;%\\?][^/;%\\?]*){2,}/?(?:\?|$)")
"""The one way to write the address of a package's static file that the gate opens."""

DEFAULT_FIELDS = {"Host": "127.0.0.1"}
HANDSHAKE_FIELDS = {
    "Host": "127.0.0.1",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One request, and what Node-RED did with it."""

    number: int  # line in its file, from 1
    spelling: str
    method: str
    target: str
    reaches_admin: bool
    status: int | None
    version: str = "HTTP/1.1"
    headers: dict[str, str | None] = field(default_factory=dict)
    body: str = ""
    websocket_upgrade: bool = False
    raw: bytes = b""
    behind_open: bool = False
    statuses: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"row {self.number} ({self.spelling}): {self.method} {self.target!r}"

    @property
    def must_be_denied(self) -> bool:
        """Whether it reached the admin side, but for the static files of packages, which are for everybody (GATE-11)."""
        return self.reaches_admin and not (self.method in ("GET", "HEAD") and RESOURCE.match(self.target))

    @property
    def may_share_connection(self) -> bool:
        """Whether other rows may be sent before and after this one on a keep-alive connection."""
        if self.raw or self.websocket_upgrade or self.version != "HTTP/1.1":
            return False
        return not {"connection", "upgrade"} & {name.lower() for name in self.headers}

    @property
    def is_user_request(self) -> bool:
        """Whether users rely on it: a route of the flows answered, and no rule of HTTP forbids the target."""
        return (
            not self.reaches_admin
            and not self.raw
            and self.status == 200
            and self.target.startswith("/api/hello")
            and "#" not in self.target
        )

    def spell(self, extra: dict[str, str]) -> bytes:
        """The octets of a row without `raw`, with more fields behind its own."""
        fields: dict[str, str | None] = dict(HANDSHAKE_FIELDS if self.websocket_upgrade else DEFAULT_FIELDS)
        if not self.may_share_connection:
            fields.setdefault("Connection", "close")
        fields |= self.headers | extra
        if self.body:
            fields["Content-Length"] = str(len(self.body))
        lines = [f"{self.method} {self.target} {self.version}"]
        lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
        return "\r\n".join([*lines, "", self.body]).encode("latin-1")


def read_rows(name: str) -> list[Row]:
    """All rows of one file."""
    with gzip.open(Path(__file__).with_name(f"{name}.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [_read_row(number, json.loads(line)) for number, line in enumerate(lines, 1)]


def _read_row(number: int, fields: dict[str, Any]) -> Row:
    fields["raw"] = base64.b64decode(fields.get("raw", ""))
    fields["statuses"] = tuple(fields.get("statuses", ()))
    return Row(number=number, **fields)

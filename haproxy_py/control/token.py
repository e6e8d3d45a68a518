"""The token that a call must show to change something, and the file it stands in.

- The file holds the token on one line: printable ASCII without blanks, so that it fits into a field (RFC 6750 section 2.1). White
  space around it does not count.
- The file is followed (`settled_file.py`). One that cannot be used changes nothing: the former token stays.
"""

from __future__ import annotations

import re
from pathlib import Path

from haproxy_py.config import Ops
from haproxy_py.control.settled_file import SettledFile

MAX_BYTES = 4096
"""Of the file: the token must fit into a field at the operators' port. 64 random characters are plenty."""

SHORT = 16
"""Characters below which a token could be guessed."""

_TOKEN = re.compile(rb"[!-~]+")


class TokenError(Exception):
    """The file holds no token that can be used. The text says which file, why, and what to do."""


def read_token(path: Path) -> bytes:
    """The token in a file. Raises TokenError."""
    return TokenFile(path).read()


class TokenFile:
    """The file of the token."""

    def __init__(self, path: Path, setting: str = "") -> None:
        """`setting` names the part of the configuration in messages, if there is one."""
        self.path = path
        self._named = f"{setting}: {path}" if setting else str(path)
        self._file = SettledFile(str(path), MAX_BYTES)

    def read(self) -> bytes:
        """The token as it is now. Raises TokenError."""
        try:
            return self._find(self._file.read())
        except OSError as error:
            raise self._complain(error) from None

    def look(self) -> bytes | None:
        """The token if the file has changed; None if there is nothing new. Raises TokenError once per change."""
        try:
            data = self._file.look()
        except OSError as error:
            raise self._complain(error) from None
        return None if data is None else self._find(data)

    def _complain(self, error: OSError) -> TokenError:
        return TokenError(f"{self._named} cannot be read: {error.strerror or error}")

    def _find(self, data: bytes) -> bytes:
        token = data.strip(b" \t\r\n")
        if len(data) > MAX_BYTES:
            raise TokenError(f"{self._named} is larger than {MAX_BYTES} bytes; it must hold one token on one line")
        if not token:
            raise TokenError(f"{self._named} is empty; write a token into it, with: openssl rand -hex 32 > {self.path}")
        if not _TOKEN.fullmatch(token):
            raise TokenError(
                f"{self._named} must hold one token on one line: printable ASCII characters without blanks"
            )
        return token


def find_token_file(ops: Ops) -> TokenFile | None:
    """The file that the configuration names, if it names one."""
    return TokenFile(Path(ops.token_file), "ops.token_file") if ops.token_file else None

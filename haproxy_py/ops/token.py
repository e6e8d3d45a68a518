"""The token that a call must show to change something, and the file it stands in.

- The file holds the token on one line: printable ASCII without blanks, so that it fits into a field (RFC 6750 section 2.1). White
  space around it does not count.
- The file is looked at again and again, by what identifies it and its contents, so that an edited file, a replaced one and the
  symlink swap of a Kubernetes Secret are all seen. One that cannot be used changes nothing: the former token stays.
"""

from __future__ import annotations

import hmac
import re
from pathlib import Path

from haproxy_py.config import Config

MAX_BYTES = 4096
"""Of the file. A token in a field must fit into `MAX_LINE` of the port; 64 random characters are plenty."""

SHORT = 16
"""Characters below which the log says that a token could be guessed."""

_TOKEN = re.compile(rb"[!-~]+")


class TokenError(Exception):
    """The file holds no token that can be used. The text says which file, why, and what to do."""


def read_token(path: Path) -> bytes:
    """The token in a file. Raises TokenError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TokenError(f"{path} cannot be read: {error.strerror or error}") from None
    token = data.strip(b" \t\r\n")
    if len(data) > MAX_BYTES:
        raise TokenError(f"{path} is larger than {MAX_BYTES} bytes; it must hold one token on one line")
    if not token:
        raise TokenError(f"{path} is empty; write a token into it, for example: openssl rand -hex 32 > {path}")
    if not _TOKEN.fullmatch(token):
        raise TokenError(f"{path} must hold one token on one line: printable ASCII characters without blanks")
    return token


def find_token(config: Config, source: str | None) -> TokenFile | None:
    """The file of this configuration, if it names one, and its token. Raises TokenError. `source`: the configuration file."""
    if not config.ops.token_file:
        return None
    folder = Path(source).parent if source else Path()
    found = TokenFile(folder / config.ops.token_file)
    found.read()
    return found


class TokenFile:
    """The token in force, and its file."""

    def __init__(self, path: Path) -> None:
        """Nothing is in force until `read`."""
        self.path = path
        self._token = b""
        self._seen: object = None

    def read(self) -> None:
        """Put what is in the file into force. Raises TokenError, and then the former token stays."""
        self._seen = self._identify()
        try:
            self._token = read_token(self.path)
        except TokenError as error:
            raise TokenError(f"ops.token_file: {error}") from None

    def look(self) -> bool:
        """Read the file if it is another one than before; whether it was. Raises TokenError once per change."""
        if self._identify() == self._seen:
            return False
        self.read()
        return True

    @property
    def is_short(self) -> bool:
        return len(self._token) < SHORT

    def matches(self, shown: str) -> bool:
        """Whether this is the token. The time it takes says nothing about how much of it is right."""
        return bool(self._token) and hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self._token)

    def _identify(self) -> object:
        try:
            status = self.path.stat()
        except OSError as error:
            return error.errno
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

"""Splits the stream of a watch into lines, however the network cut it, and bounds each (WAT-16)."""

from __future__ import annotations

MAX_LINE = 8 * 1024 * 1024
"""Bytes. The API server itself refuses objects above 1.5 MiB (etcd's limit); JSON of it may be larger."""


class LineTooLongError(Exception):
    """A line without end."""


class Lines:
    """Bytes in, complete lines out."""

    def __init__(self, most: int = MAX_LINE) -> None:
        self._held = bytearray()
        self._most = most

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends; empty ones are left out. Raises LineTooLongError."""
        searched = len(self._held)
        self._held += data
        end = self._held.find(b"\n", searched)
        if end < 0:
            if len(self._held) > self._most:
                raise LineTooLongError(f"a line of more than {self._most} bytes")
            return []
        *complete, rest = bytes(self._held).split(b"\n")
        self._held = bytearray(rest)
        if max(map(len, (*complete, rest))) > self._most:
            raise LineTooLongError(f"a line of more than {self._most} bytes")
        return [line for line in complete if line.strip()]

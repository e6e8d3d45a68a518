"""Tells when a file has new content that nobody is still writing.

The file is looked at now and then, because a change is not announced everywhere: inotify knows nothing of what another
machine writes on a network volume, and a Kubernetes ConfigMap is not written at all, but exchanged by a symbolic link two
directories up.

- What counts is the content. A file that is touched, or replaced by an equal one, has not changed.
- Content that is different is taken once it was the same in two looks: an editor or a copy may be in the middle of it.
- A file that is not there is waited for: editors write another one and rename it. After `PATIENCE` looks it is an error.
"""

from __future__ import annotations

import hashlib
import os
import stat

PATIENCE = 3
"""Looks that find no file before that is an error."""


class SettledFile:
    """One file; of a pipe or a device nothing is ever new, because reading it would take what is meant for others."""

    def __init__(self, path: str, max_bytes: int) -> None:
        """Of a larger file, `max_bytes` and one more are read."""
        self._path = path
        self._max_bytes = max_bytes
        self._known = b""  # digest of the content that was given last
        self._settled: object = None  # what identified the file when nothing was new in it
        self._unsettled: object = None  # the same with a digest, in a look that found something different
        self._failed_looks = 0

    def read(self) -> bytes:
        """The content as it is now, settled or not; it is not new any more. Raises OSError."""
        with open(self._path, "rb") as file:
            data = file.read(self._max_bytes + 1)
        self._known = _digest(data)
        return data

    def look(self) -> bytes | None:
        """Content that is new and has settled; None if there is none.

        Raises OSError once, when the file could not be read in `PATIENCE` looks; whatever comes afterwards is new.
        """
        try:
            status = os.stat(self._path)
            identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if identity == self._settled or not stat.S_ISREG(status.st_mode):
                self._failed_looks = 0
                return None
            with open(self._path, "rb") as file:
                data = file.read(self._max_bytes + 1)
        except OSError:
            self._failed_looks += 1
            self._settled = self._unsettled = None
            if self._failed_looks == PATIENCE:
                self._known = b""
                raise
            return None
        self._failed_looks = 0
        digest = _digest(data)
        if (identity, digest) != self._unsettled:
            self._unsettled = (identity, digest)
            return None
        self._settled = identity
        if digest == self._known:
            return None
        self._known = digest
        return data


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()

"""Keeps the certificates of the listeners as new as their files.

Files are looked at once a second, by what identifies a file and its contents, so that a replaced file, an edited one and the
symlink swap of a Kubernetes Secret are all seen. What cannot be used changes nothing: the former certificate stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from haproxy_py.certificates import Certificate, CertificateError, read_certificate
from haproxy_py.config import Config, Tls
from haproxy_py.control.log import Log

LOOK_EVERY = 1.0
"""Seconds between two looks at the files."""

PATIENCE = 3
"""Looks before a pair that does not fit is complained of: its two files are replaced one after the other."""


class CertificateFiles:
    """The two files of one listener."""

    def __init__(self, setting: str, tls: Tls, folder: Path) -> None:
        """`setting` names the part of the configuration; relative paths count from `folder`."""
        self.setting = setting
        self.certificate = folder / tls.certificate
        self.key = folder / (tls.key or tls.certificate)
        self._seen: object = None
        self._bad_looks = 0

    def read(self) -> Certificate:
        """The certificate as it is now. Raises CertificateError."""
        self._seen = self._identify()
        try:
            return read_certificate(self.certificate, self.key)
        except CertificateError as error:
            raise CertificateError(f"{self.setting}: {error}") from None

    def look(self) -> Certificate | None:
        """The new certificate if the files have changed and can be used; None if there is nothing new.

        Raises CertificateError once, when new files have been unusable for `PATIENCE` looks.
        """
        now = self._identify()
        if now == self._seen and self._bad_looks == 0:
            return None
        if now != self._seen:
            self._bad_looks = 0
        try:
            found = self.read()
        except CertificateError:
            self._bad_looks += 1
            if self._bad_looks == PATIENCE:
                raise
            return None
        self._bad_looks = 0
        return found

    def _identify(self) -> object:
        facts: list[object] = []
        for path in (self.certificate, self.key):
            try:
                status = path.stat()
            except OSError as error:
                facts.append(error.errno)
            else:
                facts.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        return facts


def find_certificates(config: Config, source: str | None) -> dict[int, CertificateFiles]:
    """The files of every listener that ends TLS, by its index. `source`: the configuration file, if there is one."""
    folder = Path(source).parent if source else Path()
    return {
        index: CertificateFiles(f"listen[{index}].tls", listen.tls, folder)
        for index, listen in enumerate(config.listen)
        if listen.tls is not None
    }


async def watch_certificates(
    files: dict[int, CertificateFiles], publish: Callable[[int, Certificate], None], log: Log
) -> None:
    """Publish every new certificate, by the index of its listener. Ends by being cancelled."""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        for index, pair in files.items():
            try:
                found = await asyncio.to_thread(pair.look)
            except CertificateError as error:
                log.error(f"{error}; the former certificate stays in force")
                continue
            if found is not None:
                publish(index, found)
                log.info(f"{pair.setting}: the certificate in {pair.certificate} has changed; new connections get it")

"""Reads the certificates of the listeners, checks them, and keeps them as new as their files.

Workers get the contents, never the paths, so that a pair is checked once and all workers use the same, even where files are
replaced one after the other.

Files are looked at once a second, by what identifies a file and its contents, so that a replaced file, an edited one and the
symlink swap of a Kubernetes Secret are all seen. What cannot be used changes nothing: the former certificate stays.
"""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from haproxy_py.certificates import Certificate, make_context
from haproxy_py.config import Config, Tls
from haproxy_py.control.validity import Validity, read_validity

LOOK_EVERY = 1.0
"""Seconds between two looks at the files."""

PATIENCE = 3
"""Looks before a pair that does not fit is complained of: its two files are replaced one after the other."""


MAX_BYTES = 1024 * 1024
"""Of one file. A chain of four certificates has about 8 KiB."""


class CertificateError(Exception):
    """A certificate cannot be used. The text says which file, why, and what to do."""


class CertificateFiles:
    """The two files of one listener."""

    def __init__(self, setting: str, tls: Tls) -> None:
        """`setting` names the part of the configuration."""
        self.setting = setting
        self.certificate = Path(tls.certificate)
        self.key = Path(tls.key or tls.certificate)
        self.found: Certificate | None = None  # as last read
        self.validity: Validity | None = None  # of `found`, where that can be read
        self._seen: object = None
        self._bad_looks = 0

    def read(self) -> Certificate:
        """The certificate as it is now. Raises CertificateError."""
        self._seen = self._identify()
        try:
            self.found = _read_pair(self.certificate, self.key)
        except CertificateError as error:
            raise CertificateError(f"{self.setting}: {error}") from None
        self.validity = read_validity(self.found.pem)
        return self.found

    def warn(self) -> str:
        """What is to be said of the time in which the certificate in use is valid; empty: nothing."""
        warning = self.validity.warn(time.time()) if self.validity else ""
        return f"{self.setting}: the certificate in {self.certificate} {warning}" if warning else ""

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


def check_certificates(config: Config) -> list[str]:
    """Read those of all listeners. What is wrong with each, with its place."""
    complaints = []
    for files in _list_files(config):
        try:
            files.read()
        except CertificateError as error:
            complaints.append(str(error))
    return complaints


def find_untimely(config: Config) -> list[str]:
    """Which certificates of listeners are not valid yet, or not for long any more, or have expired.

    No mistake of the configuration: an old certificate must neither keep a proxy from starting nor a right change from being
    applied.
    """
    warnings = []
    for files in _list_files(config):
        try:
            files.read()
        except CertificateError:
            continue  # `check_certificates` says so
        if warning := files.warn():
            warnings.append(warning)
    return warnings


def _list_files(config: Config) -> list[CertificateFiles]:
    return [
        CertificateFiles(f"listen[{index}].tls", listen.tls)
        for index, listen in enumerate(config.listen)
        if listen.tls is not None
    ]


def _read_pair(certificate: Path, key: Path) -> Certificate:
    """Both files, checked to belong together. Raises CertificateError."""
    parts, complaints = [], []
    for path in dict.fromkeys((certificate, key)):
        try:
            parts.append(_read(path))
        except CertificateError as error:
            complaints.append(str(error))
    if complaints:
        raise CertificateError("; ".join(complaints))
    if b"ENCRYPTED" in parts[-1]:
        raise CertificateError(
            f"the private key in {key} is encrypted: store it without a password, readable by this user only"
        )
    found = Certificate(b"\n".join(parts))
    try:
        make_context(found)
    except ssl.SSLError as error:
        raise CertificateError(_explain(error, certificate, key)) from None
    except OSError as error:  # no file descriptor left, say
        raise CertificateError(f"{certificate} cannot be tried now: {error.strerror or error}") from None
    return found


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise CertificateError(f"{path} is larger than 1 MiB: is it a certificate?")
    return data


def _explain(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    match error.reason:
        case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH":
            return f"the private key in {key} does not belong to the certificate in {certificate}"
        case "NO_START_LINE" | None:
            return (
                f"{certificate} and {key} do not hold a certificate and a private key in PEM form "
                "(-----BEGIN CERTIFICATE-----, -----BEGIN PRIVATE KEY-----)"
            )
        case reason:
            return f"{certificate} and {key} cannot be used: {reason.replace('_', ' ').lower()}"

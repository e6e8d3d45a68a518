"""Certificates of listeners that end TLS: how they are read and checked, and the settings they are used with.

Control reads the files and hands their contents to the workers, so that a pair is checked once and all workers use the same,
even where files are replaced one after the other.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

MAX_BYTES = 1024 * 1024
"""Of one file. A chain of four certificates has about 8 KiB."""

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has no others."""


class CertificateError(Exception):
    """A certificate cannot be used. The text says which file, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its chain, and its private key."""

    pem: bytes = field(repr=False)


def read_certificate(certificate: Path, key: Path) -> Certificate:
    """Both files, checked to belong together. Raises CertificateError."""
    parts = [_read(certificate)]
    if key != certificate:
        parts.append(_read(key))
    if b"ENCRYPTED" in parts[-1]:
        raise CertificateError(
            f"the private key in {key} is encrypted: store it without a password, readable by this user only"
        )
    found = Certificate(b"\n".join(parts))
    try:
        make_context(found)
    except ssl.SSLError as error:
        raise CertificateError(_explain(error, certificate, key)) from None
    return found


def make_context(certificate: Certificate) -> ssl.SSLContext:
    """What every connection of a listener is made from. Raises ssl.SSLError.

    TLS 1.2 and 1.3, HTTP/1.1 by ALPN, no compression, no renegotiation (RFC 9325).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 1  # a browser that resumes needs one; each costs a piece of every full handshake
    # OpenSSL reads files only. This one is in memory, so the key is on no disk.
    memory = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(memory, certificate.pem)
        context.load_cert_chain(f"/proc/self/fd/{memory}", password=lambda: b"")  # or OpenSSL asks on the terminal
    finally:
        os.close(memory)
    return context


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

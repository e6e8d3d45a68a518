"""Certificates of listeners that end TLS, and the settings they are used with. `control/certificates.py` reads the files."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has no others."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its chain, and its private key."""

    pem: bytes = field(repr=False)


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

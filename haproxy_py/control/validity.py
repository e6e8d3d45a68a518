"""From when until when certificates are valid (RFC 5280, 4.1.2.5), read from the PEM text that a listener uses.

The `ssl` module tells this only of a peer that it has verified, so the few fields before it are stepped over here. What cannot be
read says nothing: OpenSSL has taken the certificate already, and decides.
"""

from __future__ import annotations

import calendar
import math
import re
import ssl
import time
from dataclasses import dataclass

WARN_WITHIN = 14 * 86400.0
"""Seconds before the end from which on a certificate is warned of. What renews them by itself does so after two thirds of the
90 or 47 days that they have."""

_DAY = 86400.0
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_MOST = 32  # certificates of one chain that are looked at
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


@dataclass(frozen=True, slots=True)
class Validity:
    """The time in which the whole chain is valid, in Unix seconds."""

    begins: float
    ends: float

    def warn(self, now: float) -> str:
        """What is wrong at this moment, or will be soon; empty if nothing is. It says another thing each day, not more often."""
        if now < self.begins:
            return f"is not valid before {_spell(self.begins)}: clients refuse it. Is the clock of this machine right?"
        if now >= self.ends:
            return f"has expired at {_spell(self.ends)}: clients refuse it. Renew it; the new file is used as soon as it is there"
        if self.ends - now <= WARN_WITHIN:
            days = math.ceil((self.ends - now) / _DAY)
            left = f"{days} days" if days > 1 else "a day"
            return (
                f"expires within {left}, at {_spell(self.ends)}. Renew it; the new file is used as soon as it is there"
            )
        return ""


def read_validity(pem: bytes) -> Validity | None:
    """Of all certificates in it together: from the last that begins to the first that ends. None if that cannot be read."""
    found = []
    for text in _PEM.findall(pem)[:_MOST]:
        try:
            found.append(_read_one(ssl.PEM_cert_to_DER_cert(text.decode("ascii"))))
        except (ValueError, IndexError):
            return None
    if not found:
        return None
    return Validity(max(begins for begins, _ in found), min(ends for _, ends in found))


def _read_one(der: bytes) -> tuple[float, float]:
    """Raises ValueError or IndexError."""
    certificate, _ = _take(der, 0, _SEQUENCE)
    signed, _ = _take(certificate, 0, _SEQUENCE)
    at = 0
    if signed[at] == _VERSION:
        at = _take(signed, at)[1]
    for _ in range(3):  # serialNumber, signature, issuer
        at = _take(signed, at)[1]
    validity, _ = _take(signed, at, _SEQUENCE)
    begins, at = _take_time(validity, 0)
    ends, _ = _take_time(validity, at)
    return begins, ends


def _take(data: bytes, at: int, tag: int | None = None) -> tuple[bytes, int]:
    """The contents of the value that begins there, and where it ends."""
    if tag is not None and data[at] != tag:
        raise ValueError(f"tag {data[at]:#x} where {tag:#x} was expected")
    size = data[at + 1]
    at += 2
    if size >= 0x80:
        octets = size & 0x7F
        if not 1 <= octets <= 4:
            raise ValueError("no such length in DER")
        size = int.from_bytes(data[at : at + octets])
        at += octets
    if at + size > len(data):
        raise ValueError("cut off")
    return data[at : at + size], at + size


def _take_time(data: bytes, at: int) -> tuple[float, int]:
    kind = data[at]
    contents, end = _take(data, at)
    text = contents.decode("ascii")
    if kind == _UTC_TIME:  # 2050 and later are in the other form
        text = ("19" if text >= "5" else "20") + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError("no time")
    return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))), end


def _spell(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))

"""What a single value of the configuration may look like: each function gives the meaning of a text as it was written.

Every one of them raises `UnacceptableError`, whose text says what was expected. None knows where the text was written.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import json
import re
from collections.abc import Iterable

METHODS = (
    "ACL", "BIND", "CHECKOUT", "COPY", "DELETE", "GET", "HEAD", "LINK", "LOCK", "M-SEARCH", "MERGE", "MKACTIVITY",
    "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "OPTIONS", "PATCH", "POST", "PROPFIND", "PROPPATCH", "PURGE", "PUT",
    "QUERY", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE",
)  # fmt: skip
"""Methods that can reach a replica (REQ-8): those of Node 20 less CONNECT and TRACE. Any other in a rule is a slip."""

MANAGEMENT_PORT = 2880
"""FlowFuse's launcher: starts and stops Node-RED without asking who calls (DSC-12)."""

_IPV4_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_DURATION_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SIZE_UNITS = {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024, "B": 1}

# Digits are bounded so that no number from a file is large enough to slow arithmetic down.
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")
_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)")
_PERCENT = re.compile(r"([0-9]{1,3})%")
_NUMBER = re.compile(r"[0-9]{1,12}")
_BARE_NUMBER = re.compile(r"[0-9][0-9_.]*")
_PORT = re.compile(r"[0-9]{1,5}")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(.*))?", re.DOTALL)
_URL = re.compile(r"http://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?", re.DOTALL)
_INSTANCE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_ROOT_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")
_PATH = re.compile(r"/[!-~]*")
_ADMIN_URL = re.compile(r"https?://([^/?#\s]+)(/[^?#\s]*)?")
_PARAMETER = re.compile(r":[A-Za-z_][A-Za-z0-9_]*")
_LITERAL_SEGMENT = re.compile(r"[^:*?#%\\;()\[\]{}^$|+]+")


class UnacceptableError(ValueError):
    """A value that cannot be used; the text says what was expected."""


def quote(text: str) -> str:
    """Text of a file as it may be shown on a terminal: in quotes, control characters escaped, bounded."""
    return json.dumps(text if len(text) <= 80 else text[:77] + "...")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant, if any is close."""
    words = list(known)
    for spelling in (word[:80], word[:80].lower().replace("-", "_")):
        found = difflib.get_close_matches(spelling, words, n=1)
        if found:
            return found[0]
    return None


def duration(text: str) -> float:
    """Seconds of a duration like `250ms`, `5s`, `2m`, `1h`. Only `0` needs no unit."""
    if text == "0":
        return 0.0
    match = _DURATION.fullmatch(text)
    if match:
        return float(match[1]) * _DURATION_UNITS[match[2]]
    if _BARE_NUMBER.fullmatch(text):
        raise UnacceptableError(f"{text[:20]} has no unit: write {text[:20]}s or {text[:20]}ms, whichever is meant")
    raise UnacceptableError(f"expected a duration like 250ms, 5s, 2m or 1h, found {quote(text)}")


def size(text: str) -> int:
    """Bytes of a size like `512B`, `16KiB`, `1MiB`. Only `0` needs no unit."""
    if text == "0":
        return 0
    match = _SIZE.fullmatch(text)
    if match:
        return int(match[1]) * _SIZE_UNITS[match[2]]
    if _BARE_NUMBER.fullmatch(text):
        raise UnacceptableError(f"{text[:20]} has no unit: write {text[:20]}B or {text[:20]}KiB, whichever is meant")
    raise UnacceptableError(f"expected a size like 512B, 16KiB or 1MiB, found {quote(text)}")


def number(text: str) -> int:
    """A whole number in decimal digits."""
    if not _NUMBER.fullmatch(text):
        raise UnacceptableError(f"expected a whole number, found {quote(text)}")
    return int(text)


def percent(text: str) -> int:
    """The number of a share like `20%`."""
    match = _PERCENT.fullmatch(text)
    if not match or int(match[1]) > 100:
        raise UnacceptableError(f"expected a share from 0% to 100%, found {quote(text)}")
    return int(match[1])


def spell_duration(seconds: float) -> str:
    """A duration as it is written in a file, in the largest unit that keeps it whole."""
    for unit, length in _DURATION_UNITS.items():
        if seconds >= length and (seconds / length).is_integer():
            return f"{int(seconds / length)}{unit}"
    return f"{seconds:g}s" if seconds else "0"


def spell_size(octets: int) -> str:
    """A size as it is written in a file, in the largest unit that keeps it whole."""
    for unit, length in _SIZE_UNITS.items():
        if octets >= length and octets % length == 0:
            return f"{octets // length}{unit}"
    return "0"


def spell_address(host: str, port: int) -> str:
    """HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address(text: str) -> tuple[str, int]:
    """Host and port of an own listener; port 0 lets the system choose. The host is without brackets."""
    host, port = _split_authority(text, "HOST:PORT")
    if port is None:
        raise UnacceptableError(f"expected HOST:PORT, found {quote(text)} without a port")
    if not host:
        raise UnacceptableError(
            f"expected HOST:PORT, found {quote(text)}: write 0.0.0.0{text[:20]} for every interface"
        )
    return _host(host), _port(port, least=0)


def replica_url(text: str) -> tuple[str, int]:
    """Host and port of a replica from `http://HOST[:PORT]`; the port is 80 unless given. The host is without brackets.

    An empty path and `/` are the same (RFC 9110 4.2.3), so a slash at the end passes.
    """
    match = _URL.fullmatch(text)
    if not match:
        if text.lower().startswith("https://"):
            raise UnacceptableError(
                f"HTTPS replicas are not available yet, a later version brings them, found {quote(text)}: until then "
                "switch off `https` in Node-RED's settings.js and write http://, and end TLS at the proxy (listen[].tls)"
            )
        raise UnacceptableError(f"expected a URL like http://127.0.0.1:1880, found {quote(text)}")
    authority, rest = match[1], match[2]
    if "@" in authority:
        raise UnacceptableError("a replica URL has no user or password: requests carry their own")
    if rest not in ("", "/"):
        raise UnacceptableError(
            f"a replica URL ends after the port, found {quote(rest)}: paths are forwarded unchanged"
        )
    written, port = _split_authority(authority, "http://HOST:PORT")
    if not written:
        raise UnacceptableError(f"{quote(text)} names no host")
    host = _host(written)
    if _is_unspecified(host):
        raise UnacceptableError(f"{host} is no address to connect to: write 127.0.0.1 for this machine")
    number = 80 if port is None else _port(port, least=1)
    if number == MANAGEMENT_PORT:
        raise UnacceptableError(
            f"port {MANAGEMENT_PORT} is FlowFuse's management port, which asks nobody for a password: "
            "name the port of Node-RED, usually 1880"
        )
    return host, number


def file_path(text: str) -> str:
    """A path of a file; whether there is one is seen when it is read."""
    if not text or "\0" in text or len(text) > 4096:
        raise UnacceptableError(f"expected the path of a file, found {quote(text)}")
    return text


def host_name(text: str) -> str:
    """A host as users see it in the address bar, in the form it is compared: lower-case, IPv6 in brackets, no port."""
    if "*" in text:
        raise UnacceptableError(
            f"{quote(text)}: there are no wildcards; name each host, or leave hosts out for any host"
        )
    if "/" in text:
        raise UnacceptableError(f"{quote(text)}: expected a host name only, without http:// and path")
    host, port = _split_authority(text, "a host name")
    if port is not None:
        raise UnacceptableError(f"{quote(text)}: leave the port out; a host matches on every port")
    if host.endswith("."):
        raise UnacceptableError(f"{quote(text)}: leave out the dot at the end")
    name = _host(host)
    return f"[{name}]" if ":" in name else name


def cookie_name(text: str) -> str:
    """The name of a cookie: a token (RFC 6265 section 4.1.1), without the prefixes that mean something to browsers."""
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", text):
        raise UnacceptableError(
            f"expected the name of a cookie, up to 64 letters, digits, '_', '-' and '.', found {quote(text)}"
        )
    if text.lower().startswith(("__host-", "__secure-")):
        raise UnacceptableError(f"{quote(text)}: browsers take such a cookie over https only; use another name")
    return text


def cookie_domain(text: str) -> str:
    """The Domain of a cookie (RFC 6265 section 4.1.2.3): a name with a dot in it, and no address."""
    name = host_name(text.removeprefix("."))
    if "." not in name or name.startswith("[") or _ENDS_IN_NUMBER.fullmatch(name):
        raise UnacceptableError(f"expected a domain like example.com, found {quote(text)}: browsers take no other")
    return name


def network(text: str) -> str:
    """A network in CIDR notation, or one address, in normal form."""
    try:
        found = ipaddress.ip_network(text if "%" not in text else "", strict=False)
    except ValueError:
        raise UnacceptableError(f"expected a network like 10.0.0.0/8 or fd00::/8, found {quote(text)}") from None
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_IPV4_MAPPED):
        # Addresses of clients are compared in their IPv4 form, so this network would never match.
        raise UnacceptableError(f"{quote(text)}: write an IPv4-mapped network as the IPv4 network that it is")
    if ipaddress.ip_address(text.partition("/")[0]) != found.network_address:
        raise UnacceptableError(f"{quote(text)} has bits set after its prefix: write {found}, or the address alone")
    return str(found)


def instance_name(text: str) -> str:
    """The name of an instance; it appears in URLs of the ops port and in metrics."""
    if not _INSTANCE_NAME.fullmatch(text):
        raise UnacceptableError(
            "expected 1 to 63 letters, digits, '.', '_' or '-', with a letter or digit at both ends, "
            f"found {quote(text)}"
        )
    return text


def admin_root(text: str) -> str:
    """The path under which the replicas' editor lives (Node-RED's `httpAdminRoot`), without a slash at the end."""
    if not text.startswith("/"):
        raise UnacceptableError(f"expected a path that begins with '/', found {quote(text)}")
    if text == "/":
        return text
    path = text.removesuffix("/")
    for segment in path[1:].split("/"):
        if segment in ("", ".", "..") or not _ROOT_SEGMENT.fullmatch(segment):
            raise UnacceptableError(
                f"expected a plain path like /admin, found {quote(text)}: "
                "no query, no '%', no empty or dot segments, nothing but letters, digits, '-', '.', '_' and '~'"
            )
    return path


def admin_url(text: str) -> str:
    """The URL of a Node-RED's admin root, without a slash at the end."""
    match = _ADMIN_URL.fullmatch(text)
    if not match or "@" in match[1]:
        raise UnacceptableError(f"expected a URL like http://HOST:1880/admin, found {quote(text)}")
    return text.rstrip("/")


def gate_rule(text: str) -> tuple[frozenset[str], str]:
    """Methods and pattern of an entry of `gate.allow` or `gate.deny`; no methods means every method.

    A segment of a pattern is literal, or `:name`, which stands for any one segment; the last may be `*`, which stands
    for everything below. Nothing else means anything, and what looks as if it did is refused: an entry that is taken
    for something else than it says closes nothing.
    """
    words = text.split(" ")
    if len(words) > 2 or not words[-1].startswith("/"):
        raise UnacceptableError(f'expected "/path", "GET /path" or "GET,HEAD /path", found {quote(text)}')
    path = words[-1]
    if not _PATH.fullmatch(path) or any(sign in path for sign in "?#%\\"):
        raise UnacceptableError(
            f"{quote(path)}: a path in a rule is plain visible ASCII without '?', '#', '%' and '\\'"
        )
    segments = path[1:].split("/")
    for index, segment in enumerate(segments):
        if segment == "*" and index + 1 < len(segments):
            raise UnacceptableError(
                f"{quote(path)}: '*' stands only at the end, for everything below; write :name for one segment"
            )
        if segment not in ("", "*") and not _PARAMETER.fullmatch(segment) and not _LITERAL_SEGMENT.fullmatch(segment):
            raise UnacceptableError(
                f"{quote(path)}: {quote(segment)} is not understood: a segment is literal, without any of "
                ": * ; ( ) [ ] { } ^ $ | +, or :name for any one segment, or * at the end for everything below"
            )
    # Such segments have several spellings that mean the same to a replica; a rule must not depend on which is used.
    if any(segment in (".", "..") for segment in path.split("/")) or "//" in path:
        raise UnacceptableError(f"{quote(path)}: a path in a rule has no empty and no dot segments")
    methods = words[0].split(",") if len(words) == 2 else []
    for method in methods:
        if method not in METHODS:
            meant = nearest(method, METHODS) or nearest(method.upper(), METHODS)
            hint = f", did you mean {quote(meant)}?" if meant else ""
            raise UnacceptableError(f"unknown method {quote(method)}{hint}")
    return frozenset(methods), path


def may_be_same(own: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether a connection to `other` could end at the listener `own`. Says no where only the system could know."""
    if own[1] != other[1] or own[1] == 0:
        return False
    own_host, other_host = own[0], other[0]
    if own_host == other_host:
        return True
    if _is_unspecified(own_host):
        return _is_loopback(other_host) or _is_unspecified(other_host)
    if _is_unspecified(other_host):
        return _is_loopback(own_host)
    return "localhost" in (own_host, other_host) and _is_loopback(own_host) and _is_loopback(other_host)


def are_of_two_families(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether one listens on IPv6 and the other on IPv4, which a name may stand for."""
    return (":" in one[0]) != (":" in other[0])


def _split_authority(text: str, expected: str) -> tuple[str, str | None]:
    """Host (IPv6 still in brackets) and port as written."""
    match = _AUTHORITY.fullmatch(text)
    if match and not _is_bare_ipv6(text):
        return match[1], match[2]
    if text.count(":") > 1:
        raise UnacceptableError(f"expected {expected}, found {quote(text)}: {_advise_brackets(text)}")
    raise UnacceptableError(f"expected {expected}, found {quote(text)}")


def _is_bare_ipv6(text: str) -> bool:
    """An address and a port without brackets, like `::1:8080`: an address as it stands, but meant to have a port."""
    host, _, port = text.rpartition(":")
    with contextlib.suppress(ValueError):
        ipaddress.IPv6Address(host)
        return port.isascii() and port.isdigit()
    return False


def _advise_brackets(text: str) -> str:
    host, _, port = text.rpartition(":")
    example = f"[{host}]:{port}" if _is_bare_ipv6(text) else "[::1]"
    return f"an IPv6 address stands in brackets, {example}"


def _host(text: str) -> str:
    """An IP address in normal form without brackets, or a host name in lower case."""
    if text.startswith("["):
        inner = text[1:-1]
        try:
            return str(ipaddress.IPv6Address(inner if "%" not in inner else ""))
        except ValueError:
            raise UnacceptableError(f"{quote(text)} is no IPv6 address") from None
    if _ENDS_IN_NUMBER.fullmatch(text):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            # Resolvers read 127.1 and 0x7f.1 as addresses too, each in its own way.
            raise UnacceptableError(f"{quote(text)} is no IPv4 address") from None
    if not text.isascii():
        raise UnacceptableError(f"{quote(text)}: write a name outside ASCII in its xn-- form")
    labels = text.removesuffix(".").split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UnacceptableError(f"{quote(text)} is no host name")
    return text.lower()


def _port(text: str, least: int) -> int:
    if not _PORT.fullmatch(text) or not least <= int(text) <= 65535:
        raise UnacceptableError(f"expected a port from {least} to 65535, found {quote(text)}")
    return int(text)


def _is_unspecified(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

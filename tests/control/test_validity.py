"""Certificates that are not valid yet, expire soon or have expired: told everywhere, and no reason not to serve."""

from __future__ import annotations

import http.client
import json
import random
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from haproxy_py.control.validity import Validity, read_validity
from tests.proxy_process import ProxyProcess, describe_instance, find_free_ports

DAY = 86400.0
NOW = 1.8e9


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def issue(authority: trustme.CA, *, days: float, age: float = 100) -> trustme.LeafCert:
    now = datetime.now(UTC)
    return authority.issue_cert("test", not_before=now - timedelta(days=age), not_after=now + timedelta(days=days))


def wait_for(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def store(folder: Path, issued: trustme.LeafCert) -> None:
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "tls.pem"))
    (folder / "tls.pem").chmod(0o600)


@pytest.mark.parametrize("end", [datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC), datetime(2051, 1, 1, tzinfo=UTC)])
@pytest.mark.parametrize("key_type", [trustme.KeyType.RSA, trustme.KeyType.ECDSA])
def test_validity_is_read_as_a_library_reads_it(
    authority: trustme.CA, end: datetime, key_type: trustme.KeyType
) -> None:
    pem = authority.issue_cert("test", not_after=end, key_type=key_type).cert_chain_pems[0].bytes()
    known = x509.load_pem_x509_certificate(pem)
    read = read_validity(pem)
    assert read == Validity(known.not_valid_before_utc.timestamp(), known.not_valid_after_utc.timestamp())


def test_chain_is_valid_only_while_all_of_it_is(authority: trustme.CA) -> None:
    short, long = issue(authority, days=3, age=50), issue(authority, days=30, age=10)
    one, other = (read_validity(each.cert_chain_pems[0].bytes()) for each in (short, long))
    assert one is not None
    assert other is not None
    both = long.cert_chain_pems[0].bytes() + short.cert_chain_pems[0].bytes()
    assert read_validity(both) == Validity(other.begins, one.ends)


def test_what_cannot_be_read_says_nothing_and_raises_nothing(authority: trustme.CA) -> None:
    der = ssl.PEM_cert_to_DER_cert(authority.issue_cert("test").cert_chain_pems[0].bytes().decode())
    source = random.Random(3)
    for _ in range(3000):
        spoilt = bytearray(der[: source.randrange(len(der))] if source.random() < 0.5 else der)
        for _ in range(source.randint(1, 4)):
            if spoilt:
                spoilt[source.randrange(min(len(spoilt), 200))] = source.randrange(256)
        read_validity(ssl.DER_cert_to_PEM_cert(bytes(spoilt)).encode())
    assert read_validity(b"") is None
    assert read_validity(b"-----BEGIN CERTIFICATE-----\n\xff\n-----END CERTIFICATE-----") is None


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [
        (-30, 60, ""),
        (-30, 14.5, ""),
        (-30, 13.5, "expires within 14 days"),
        (-30, 1.5, "expires within 2 days"),
        (-30, 0.5, "expires within a day"),
        (-30, 0, "has expired at 2027-01-15 08:00 UTC"),
        (0.1, 60, "is not valid before 2027-01-15 10:24 UTC"),
    ],
)
def test_warning_says_what_is_wrong_and_when(begins: float, ends: float, said: str) -> None:
    warning = Validity(NOW + begins * DAY, NOW + ends * DAY).warn(NOW)
    assert said in warning
    assert bool(warning) == bool(said)


def test_warning_changes_once_a_day() -> None:
    validity = Validity(0, NOW + 20 * DAY)
    said = {validity.warn(NOW + hour * 3600) for hour in range(25 * 24)}
    assert len(said - {""}) == 15  # 14 days to one, and expired
    assert "has expired" in validity.warn(NOW + 400 * DAY)


def test_check_warns_and_finds_the_file_right(authority: trustme.CA, tmp_path: Path) -> None:
    store(tmp_path, issue(authority, days=-1))
    file = tmp_path / "haproxy-py.yaml"
    file.write_text(
        "listen: [{address: '127.0.0.1:8443', tls: {certificate: tls.pem}}]\n"
        "instances: [{name: one, ha: false, replicas: {static: [http://127.0.0.1:1880]}}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "haproxy_py", "check", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert f"warning: listen[0].tls: the certificate in {tmp_path}/tls.pem has expired at" in done.stderr


def test_running_proxy_tells_it_in_log_status_and_metric_and_serves(authority: trustme.CA, tmp_path: Path) -> None:
    store(tmp_path, issue(authority, days=-1))
    [port] = find_free_ports(1)
    listen = [{"address": f"127.0.0.1:{port}", "tls": {"certificate": str(tmp_path / "tls.pem")}}]
    proxy = ProxyProcess(tmp_path, [describe_instance(["http://127.0.0.1:9"])], extra={"listen": listen})
    proxy.port = port
    with proxy:
        wait_for(lambda: "has expired at" in proxy.log)
        status = json.loads(proxy.get_ops("/api/v1/status")[1])
        [listener] = status["listeners"]
        ends = datetime.fromisoformat(listener["certificate_ends"]).timestamp()
        assert abs(ends - (time.time() - DAY)) < 3600
        assert any("has expired at" in warning for warning in status["warnings"])
        assert (
            f'haproxy_py_certificate_not_after_timestamp_seconds{{listener="127.0.0.1:{port}"}} '
            in proxy.get_ops("/metrics")[1]
        )
        context = ssl._create_unverified_context()
        client = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
        client.request("GET", "/flows")
        assert client.getresponse().status == 403
        client.close()
        store(tmp_path, issue(authority, days=60))
        wait_for(lambda: json.loads(proxy.get_ops("/api/v1/status")[1])["warnings"] == [])
        assert proxy.log.count("has expired at") == 1

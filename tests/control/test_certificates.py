"""Certificates in files: checked before they are used, followed when they change."""

from __future__ import annotations

import errno
import http.client
import http.server
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from haproxy_py.config import Tls
from haproxy_py.control.certificates import MAX_BYTES, PATIENCE, CertificateError, CertificateFiles
from tests.proxy_process import ProxyFailedError, ProxyProcess, describe_instance, find_free_ports


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def store(folder: Path, issued: trustme.LeafCert) -> None:
    (folder / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (folder / "tls.key").write_bytes(issued.private_key_pem.bytes())


def make_files(folder: Path) -> CertificateFiles:
    return CertificateFiles("listen[0].tls", Tls(f"{folder}/tls.crt", f"{folder}/tls.key"))


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> CertificateFiles:
    store(tmp_path, authority.issue_cert("test"))
    return make_files(tmp_path)


def test_certificate_and_key_in_one_file(tmp_path: Path, authority: trustme.CA) -> None:
    authority.issue_cert("test").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    assert CertificateFiles("x", Tls(f"{tmp_path}/both.pem")).read().pem


def test_the_key_is_not_shown(files: CertificateFiles) -> None:
    assert "PRIVATE" not in repr(files.read())


def spoil_missing(folder: Path, authority: trustme.CA) -> None:
    (folder / "tls.key").unlink()


def spoil_empty(folder: Path, authority: trustme.CA) -> None:
    (folder / "tls.crt").write_bytes(b"")


def spoil_other_key(folder: Path, authority: trustme.CA) -> None:
    (folder / "tls.key").write_bytes(authority.issue_cert("test").private_key_pem.bytes())


def spoil_garbage(folder: Path, authority: trustme.CA) -> None:
    (folder / "tls.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def spoil_size(folder: Path, authority: trustme.CA) -> None:
    (folder / "tls.crt").write_bytes(b"#" * (MAX_BYTES + 1))


def spoil_password(folder: Path, authority: trustme.CA) -> None:
    subprocess.run(
        ["openssl", "pkey", "-in", "tls.key", "-aes128", "-passout", "pass:secret", "-out", "locked.key"],
        cwd=folder,
        check=True,
    )
    os.replace(folder / "locked.key", folder / "tls.key")


def spoil_folder(folder: Path, authority: trustme.CA) -> None:
    (folder / "tls.key").unlink()
    (folder / "tls.key").mkdir()


SPOILED = [
    (spoil_missing, "tls.key cannot be read: No such file"),
    (spoil_empty, "do not hold a certificate and a private key in PEM form"),
    (spoil_other_key, "does not belong to the certificate in"),
    (spoil_garbage, "do not hold a certificate and a private key in PEM form"),
    (spoil_size, "larger than 1 MiB"),
    (spoil_password, "is encrypted: store it without a password"),
    (spoil_folder, "cannot be read: Is a directory"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILED)
def test_what_is_wrong_with_files(
    files: CertificateFiles, tmp_path: Path, authority: trustme.CA, spoil: object, message: str
) -> None:
    assert callable(spoil)
    spoil(tmp_path, authority)
    with pytest.raises(CertificateError, match=r"listen\[0\]\.tls: ") as raised:
        files.read()
    assert message in str(raised.value)


def test_nothing_new_is_nothing(files: CertificateFiles) -> None:
    files.read()
    assert files.look() is None


def test_pair_that_is_replaced_one_file_after_the_other(
    files: CertificateFiles, tmp_path: Path, authority: trustme.CA
) -> None:
    before = files.read()
    (tmp_path / "next").mkdir()
    store(tmp_path / "next", authority.issue_cert("test"))
    os.replace(tmp_path / "next/tls.crt", tmp_path / "tls.crt")
    assert files.look() is None
    os.replace(tmp_path / "next/tls.key", tmp_path / "tls.key")
    found = files.look()
    assert found is not None
    assert found != before
    assert files.look() is None


def test_files_that_stay_unusable_are_complained_of_once(
    files: CertificateFiles, tmp_path: Path, authority: trustme.CA
) -> None:
    files.read()
    good = (tmp_path / "tls.key").read_bytes()
    (tmp_path / "tls.key").unlink()
    for _ in range(PATIENCE - 1):
        assert files.look() is None
    with pytest.raises(CertificateError):
        files.look()
    for _ in range(3):
        assert files.look() is None
    (tmp_path / "tls.key").write_bytes(good)
    assert files.look() is not None


def test_symlink_swap_as_kubernetes_does_it(tmp_path: Path, authority: trustme.CA) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        store(tmp_path / name, authority.issue_cert("test"))
    (tmp_path / "..data").symlink_to("one")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    files = make_files(tmp_path)
    before = files.read()
    (tmp_path / "..next").symlink_to("two")
    os.replace(tmp_path / "..next", tmp_path / "..data")
    found = files.look()
    assert found is not None
    assert found != before


# --- the whole proxy ---


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *facts: object) -> None:
        pass


@pytest.fixture
def proxy(tmp_path: Path, authority: trustme.CA) -> Iterator[ProxyProcess]:
    store(tmp_path, authority.issue_cert("localhost"))
    (port,) = find_free_ports(1)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as replica:
        threading.Thread(target=replica.serve_forever, daemon=True).start()
        listen = [{"address": f"127.0.0.1:{port}", "tls": {"certificate": "tls.crt", "key": "tls.key"}}]
        proxy = ProxyProcess(
            tmp_path,
            [describe_instance([f"http://127.0.0.1:{replica.server_port}"])],
            workers=2,
            extra={"listen": listen},
        )
        proxy.port = port
        with proxy:
            yield proxy
        replica.shutdown()


def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def open_client(proxy: ProxyProcess, authority: trustme.CA) -> http.client.HTTPSConnection:
    client = http.client.HTTPSConnection("localhost", proxy.port, context=trust(authority), timeout=10)
    client.connect()
    return client


def ask(client: http.client.HTTPSConnection) -> int:
    client.request("GET", "/x")
    answer = client.getresponse()
    answer.read()
    return answer.status


def read_serial(proxy: ProxyProcess, *authorities: trustme.CA) -> int:
    """Which of the authorities has signed what the proxy shows; -1: none of them."""
    for index, authority in enumerate(authorities):
        try:
            with (
                socket.create_connection(("localhost", proxy.port), 10) as plain,
                trust(authority).wrap_socket(plain, server_hostname="localhost"),
            ):
                return index
        except ssl.SSLCertVerificationError:
            continue
    return -1


def test_changed_files_reach_new_connections_and_close_none(
    proxy: ProxyProcess, authority: trustme.CA, tmp_path: Path
) -> None:
    renewed = trustme.CA()
    kept = open_client(proxy, authority)
    local = kept.sock.getsockname()
    assert ask(kept) == 200
    store(tmp_path, renewed.issue_cert("localhost"))
    end = time.monotonic() + 10
    while read_serial(proxy, authority, renewed) != 1:
        assert time.monotonic() < end, proxy.log
        assert ask(kept) == 200
    assert kept.sock.getsockname() == local  # the same connection all the time
    with open_client(proxy, renewed).sock:
        pass
    (tmp_path / "tls.key").write_bytes(b"")
    end = time.monotonic() + 10
    while "the former certificate stays in force" not in proxy.log:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert read_serial(proxy, authority, renewed) == 1
    assert "has changed; new connections get it" in proxy.log
    kept.close()


def test_replaced_worker_has_the_newest_certificate(proxy: ProxyProcess, authority: trustme.CA, tmp_path: Path) -> None:
    renewed = trustme.CA()
    store(tmp_path, renewed.issue_cert("localhost"))
    end = time.monotonic() + 10
    while read_serial(proxy, authority, renewed) != 1:
        assert time.monotonic() < end, proxy.log
    children = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), 9)
    for _ in range(10):
        assert read_serial(proxy, authority, renewed) == 1


def test_start_without_usable_files_says_why(tmp_path: Path) -> None:
    listen = [{"address": "127.0.0.1:0", "tls": {"certificate": "none.crt", "key": "none.key"}}]
    proxy = ProxyProcess(tmp_path, [describe_instance(["http://127.0.0.1:9"])], extra={"listen": listen})
    with pytest.raises(ProxyFailedError, match="ended with status 1") as raised:
        proxy.start()
    assert "listen[0].tls: " in str(raised.value)
    assert "none.crt cannot be read: No such file or directory" in str(raised.value)


def test_check_reads_the_files_too(tmp_path: Path, authority: trustme.CA) -> None:
    config = tmp_path / "proxy.yaml"
    config.write_text(
        "listen: [{address: '127.0.0.1:0', tls: {certificate: tls.crt, key: tls.key}}]\n"
        "instances: [{name: a, ha: true, replicas: {static: ['http://127.0.0.1:1']}}]\n"
    )
    command = [sys.executable, "-m", "haproxy_py", "check", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "tls.crt cannot be read" in done.stderr
    store(tmp_path, authority.issue_cert("test"))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_new_pair_is_used_although_it_was_first_seen_when_no_file_descriptor_was_left(
    files: CertificateFiles, tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files.read()

    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    store(tmp_path, authority.issue_cert("second.example"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", fail)
        assert files.look() is None
    assert (files.look() or before) != before

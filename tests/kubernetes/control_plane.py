"""A real control plane of Kubernetes on this machine: etcd, API server, controllers, scheduler, and the kubelet of the tests.

    python -m tests.kubernetes.control_plane KUBE COMMAND...

runs COMMAND with TEST_KUBECONFIG set while the control plane is up, and leaves nothing behind. Everything is in one network
namespace, with the pods in others beside it, that nothing outside can reach; COMMAND runs in there, too. KUBE is the program that
`tests/kubernetes/build` makes. Needs root, and the commands ip, openssl and setsid.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SERVER = "10.244.0.1"
URL = f"https://{SERVER}:6443"
ETCD = "http://127.0.0.1:2379"
PARTS = ("etcd", "apiserver", "controllers", "scheduler", "kubelet")
READY_WITHIN = 120.0
END_WITHIN = 10.0

FOLDER = "TEST_KUBERNETES_FOLDER"
"""The variable that tells COMMAND where the state is."""

CLONE_NEWNET = 0x40000000
"""Of <sched.h>."""

GRACE = 8
"""Seconds without a word from a node until its pods are called unready; 50 unless told otherwise."""


class ControlPlane:
    """One control plane, by the folder that has its state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "admin.kubeconfig"
        self._pki = folder / "pki"
        described = json.loads((folder / "description.json").read_text())
        self._kube: str = described["kube"]
        self.netns: str = described["netns"]

    # --- parts ---

    def start(self, part: str) -> None:
        """Start a part; returns when it is ready, as far as that can be asked."""
        # Its parent is not this process: whoever starts a part need not be the one who ends it.
        script = f'echo $$ > "{self._pid_file(part)}"; exec "$@" >> "{self.folder}/{part}.log" 2>&1 < /dev/null'
        command = ["setsid", "--fork", "sh", "-c", script, "sh", *self._choose_command(part)]
        subprocess.run(command, check=True)
        if part == "etcd":
            self._count_on()
        elif part == "apiserver":
            self._wait_for_server()

    def stop(self, part: str) -> None:
        """SIGSTOP: it is there, and says nothing."""
        os.kill(self._read_pid(part), signal.SIGSTOP)

    def resume(self, part: str) -> None:
        os.kill(self._read_pid(part), signal.SIGCONT)

    def kill(self, part: str) -> None:
        """SIGKILL; returns when it is gone. No SIGTERM, at which an API server waits a minute for its watches."""
        pid = self._read_pid(part)
        self._pid_file(part).unlink()
        _kill(pid)

    def back_up(self) -> Path:
        """What etcd has stored. It is down meanwhile."""
        self.kill("etcd")
        shutil.rmtree(self.folder / "backup", ignore_errors=True)
        shutil.copytree(self.folder / "etcd", self.folder / "backup")
        self.start("etcd")
        self._wait_for_server()
        return self.folder / "backup"

    def restore(self, backup: Path) -> None:
        """Everything is as it was, and the versions begin again where they were."""
        self.kill("apiserver")
        self.kill("etcd")
        shutil.rmtree(self.folder / "etcd")
        shutil.copytree(backup, self.folder / "etcd")
        self.start("etcd")
        self.start("apiserver")

    # --- objects ---

    def kubectl(self, *words: str) -> str:
        """What it prints."""
        command = [self._kube, "kubectl", "--kubeconfig", str(self.kubeconfig), *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"kubectl {' '.join(words)} said:\n{done.stderr}"
        return done.stdout

    def get(self, path: str) -> Any:
        """The answer of the API server. Raises OSError."""
        tls = ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
        tls.load_cert_chain(self._pki / "admin.crt", self._pki / "admin.key")
        with urllib.request.urlopen(URL + path, context=tls, timeout=5) as answer:
            data = answer.read()
        return json.loads(data) if answer.headers.get_content_type() == "application/json" else data.decode()

    # --- inside ---

    def _count_on(self) -> None:
        """Use up some versions, as every cluster has that was not made just now: 1 is then one from long ago."""
        data = json.dumps({"key": "dXNlZA==", "value": ""}).encode()
        deadline = time.monotonic() + READY_WITHIN
        for _ in range(10):
            while True:
                try:
                    urllib.request.urlopen(f"{ETCD}/v3/kv/put", data, timeout=5).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)

    def _choose_command(self, part: str) -> list[str]:
        pki, folder = self._pki, self.folder
        options: dict[str, Mapping[str, object]] = {
            "etcd": {
                "data-dir": folder / "etcd",
                "listen-client-urls": ETCD,
                "advertise-client-urls": ETCD,
                "listen-peer-urls": "http://127.0.0.1:2380",
                "initial-advertise-peer-urls": "http://127.0.0.1:2380",
                "initial-cluster": "default=http://127.0.0.1:2380",
                "log-level": "warn",
                "unsafe-no-fsync": "true",
            },
            "apiserver": {
                "etcd-servers": ETCD,
                "secure-port": 6443,
                "advertise-address": SERVER,
                "tls-cert-file": pki / "apiserver.crt",
                "tls-private-key-file": pki / "apiserver.key",
                "client-ca-file": pki / "ca.crt",
                "authorization-mode": "Node,RBAC",
                "service-cluster-ip-range": "10.96.0.0/16,fd00:96::/112",
                "service-account-issuer": "https://kubernetes.default.svc",
                "service-account-key-file": pki / "sa.pub",
                "service-account-signing-key-file": pki / "sa.key",
            },
            "controllers": {
                "kubeconfig": self.kubeconfig,
                "use-service-account-credentials": "true",
                "service-account-private-key-file": pki / "sa.key",
                "root-ca-file": pki / "ca.crt",
                "leader-elect": "false",
                "node-monitor-period": "1s",
                "node-monitor-grace-period": f"{GRACE}s",
            },
            "scheduler": {"kubeconfig": self.kubeconfig, "leader-elect": "false"},
        }
        if part == "kubelet":
            program = Path(__file__).with_name("kubelet.py")
            return [sys.executable, str(program), "--folder", str(folder), "--netns", self.netns]
        return [self._kube, part, *(f"--{name}={value}" for name, value in options[part].items())]

    def _pid_file(self, part: str) -> Path:
        return self.folder / f"{part}.pid"

    def _read_pid(self, part: str) -> int:
        return int(self._pid_file(part).read_text())

    def _wait_for_server(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while True:
            try:
                if self.get("/readyz") == "ok":
                    return
            except (OSError, ssl.SSLError):
                pass
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"the API server is not ready within {READY_WITHIN:g} s:\n{self.read_log('apiserver')}"
                )
            time.sleep(0.1)

    def read_log(self, part: str) -> str:
        """The end of it."""
        path = self.folder / f"{part}.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else "(no log)"


class Started:
    """A context manager: a control plane from nothing, and nothing of it afterwards."""

    def __init__(self, kube: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="haproxy-py-kubernetes-"))
        self._netns = f"kube-{os.getpid()}"
        (self._folder / "description.json").write_text(json.dumps({"kube": kube, "netns": self._netns}))
        self._plane = ControlPlane(self._folder)

    def __enter__(self) -> Self:
        try:
            self._make_network()
            make_certificates(self._folder / "pki", self._plane.kubeconfig)
            for part in PARTS:
                self._plane.start(part)
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clean_up()

    def run(self, command: list[str]) -> int:
        """With the control plane; the exit status."""
        own = {"TEST_KUBECONFIG": str(self._plane.kubeconfig), FOLDER: str(self._folder)}
        return subprocess.run(command, env={**os.environ, **own}).returncode

    def _make_network(self) -> None:
        subprocess.run(["ip", "netns", "add", self._netns], check=True)
        for command in (
            "link set lo up",
            "link add pods type bridge",
            f"addr add {SERVER}/16 dev pods",
            "addr add fd00:244::1/64 dev pods nodad",
            "link set pods up",
        ):
            subprocess.run(["ip", "-n", self._netns, *command.split()], check=True)
        # This process goes in, and so does all that it starts. (os.setns came with Python 3.12.)
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{self._netns}") as file:
            if libc.setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "the network namespace cannot be entered")

    def _clean_up(self) -> None:
        for part in reversed(PARTS):
            if (self._folder / f"{part}.pid").exists():
                self._plane.kill(part)
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
        for line in listed.splitlines():
            name = line.split()[0]
            if name == self._netns or name.startswith(f"{self._netns}-"):
                found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout
                for pid in {int(pid) for pid in found.split()} - {os.getpid()}:
                    _kill(pid)
                subprocess.run(["ip", "netns", "del", name], capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def make_certificates(pki: Path, kubeconfig: Path) -> None:
    """An authority; certificates of the API server and of an administrator; keys of service accounts."""
    pki.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=pki)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("genrsa", "-out", "sa.key", "2048")
    openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    openssl(
        "req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=kubernetes-test"
    )
    names = f"DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:{SERVER},IP:10.96.0.1"
    for name, subject, extension in (
        ("apiserver", "/CN=kube-apiserver", f"subjectAltName={names}"),
        ("admin", "/O=system:masters/CN=admin", "extendedKeyUsage=clientAuth"),
    ):
        (pki / "extension").write_text(f"{extension}\nauthorityKeyIdentifier=keyid\n")
        openssl("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        authority = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extension")
        openssl("x509", "-req", "-in", f"{name}.csr", *authority, "-out", f"{name}.crt")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": URL, "certificate-authority": str(pki / "ca.crt")}}],
        "users": [
            {
                "name": "admin",
                "user": {"client-certificate": str(pki / "admin.crt"), "client-key": str(pki / "admin.key")},
            }
        ],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
    }
    kubeconfig.write_text(json.dumps(config))


def _kill(pid: int) -> None:
    """Returns when it is gone, or as good as gone."""
    try:
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + END_WITHIN
        while (
            time.monotonic() < deadline and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        ):
            time.sleep(0.01)
    except (ProcessLookupError, FileNotFoundError):
        pass


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    for needed in ("ip", "openssl", "setsid"):
        if not shutil.which(needed):
            print(f"{needed} is missing. On Debian: apt-get install iproute2 openssl util-linux", file=sys.stderr)
            return 1
    if os.geteuid() != 0:
        print(
            "A control plane in network namespaces needs root. TEST_KUBECONFIG can name another cluster.",
            file=sys.stderr,
        )
        return 1
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that everything is cleaned up
    began = time.monotonic()
    print("Starting the control plane of Kubernetes", flush=True)
    with Started(sys.argv[1]) as started:
        print(f"It is up after {time.monotonic() - began:.0f} s", flush=True)
        return started.run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())

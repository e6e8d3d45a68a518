"""A kubelet for tests: runs the pods of one node as processes, each in a network namespace of its own.

Real: addresses of pods, startup and readiness probes by HTTP, preStop, SIGTERM, the grace period and SIGKILL, ConfigMaps, bound
tokens, and a status that is told again when the control plane has another idea of it. Stand-ins: an image of Node-RED is the
demo replica, one of haproxy-py this checkout. Anything else is a pod that only exists. Init containers are taken as done.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

NODE = "node-1"
SERVER = "10.244.0.1"
POLL = 0.3
"""Seconds from one look at the pods to the next."""

RECONCILE = 3.0
"""Seconds until a pod that the control plane has marked unready is told ready again; the real one takes up to ten."""

LEASE = 2.0
TROUBLE = (aiohttp.ClientError, OSError, TimeoutError, RuntimeError)

Thing = dict[str, Any]


def stamp(form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    return time.strftime(form, time.gmtime())


class Server:
    """The API server."""

    def __init__(self, pki: Path) -> None:
        tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self._session = aiohttp.ClientSession(
            f"https://{SERVER}:6443", connector=aiohttp.TCPConnector(ssl=tls), timeout=aiohttp.ClientTimeout(total=5)
        )

    async def call(self, method: str, path: str, body: Thing | None = None, kind: str = "application/json") -> Thing:
        """Raises one of TROUBLE."""
        async with self._session.request(method, path, json=body, headers={"Content-Type": kind}) as answer:
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {(await answer.text())[:300]}")
            found: Thing = await answer.json()
            return found

    async def patch(self, path: str, body: Thing) -> None:
        await self.call("PATCH", path, body, "application/strategic-merge-patch+json")


class Kubelet:
    """One node."""

    def __init__(self, folder: Path, netns: str) -> None:
        self.folder, self.netns = folder, netns
        self.server = Server(folder / "pki")
        self.probes = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        self._pods: dict[str, Pod] = {}
        self._number = 0

    async def run(self) -> None:
        heartbeat = asyncio.create_task(self._beat())
        while not heartbeat.done():
            with contextlib.suppress(*TROUBLE):
                listed = await self.server.call("GET", f"/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE}")
                there = {thing["metadata"]["uid"]: thing for thing in listed["items"]}
                for uid in self._pods.keys() - there.keys():
                    await self._pods.pop(uid).remove()
                for uid, thing in there.items():
                    if uid not in self._pods:
                        self._number += 1
                        self._pods[uid] = Pod(self, thing, self._number)
                    self._pods[uid].see(thing)
            await asyncio.sleep(POLL)
        await heartbeat

    async def _beat(self) -> None:
        room = {"cpu": "64", "memory": "256Gi", "pods": "500"}
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        while True:
            with contextlib.suppress(*TROUBLE):
                node = {"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}}
                lease = {
                    "metadata": {"name": NODE},
                    "spec": {
                        "holderIdentity": NODE,
                        "leaseDurationSeconds": 40,
                        "renewTime": stamp("%Y-%m-%dT%H:%M:%S.000000Z"),
                    },
                }
                for path, thing in (("/api/v1/nodes", node), (leases, lease)):
                    with contextlib.suppress(RuntimeError):  # it is there
                        await self.server.call("POST", path, thing)
                condition = {"type": "Ready", "status": "True", "reason": "Test", "lastHeartbeatTime": stamp()}
                status = {"capacity": room, "allocatable": room, "conditions": [condition]}
                await self.server.patch(f"/api/v1/nodes/{NODE}/status", {"status": status})
                await self.server.patch(f"{leases}/{NODE}", {"spec": lease["spec"]})
            await asyncio.sleep(LEASE)


class Pod:
    """One pod, from its first process to its last."""

    def __init__(self, kubelet: Kubelet, thing: Thing, number: int) -> None:
        self._kubelet, self._thing = kubelet, thing
        metadata = thing["metadata"]
        self._name, self._namespace, self._uid = metadata["name"], metadata["namespace"], metadata["uid"]
        self._path = f"/api/v1/namespaces/{self._namespace}/pods/{self._name}"
        self._folder = kubelet.folder / "pods" / self._name
        self._netns, self._link = f"{kubelet.netns}-{number}", f"veth{number}"
        self._ip = f"10.244.1.{number}" if number < 255 else f"10.244.2.{number - 254}"
        self._ip6 = f"fd00:244::1:{number:x}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._is_ready = False
        self._is_ending = False
        self._changed = self._started = stamp()
        self._contradicted = (
            0.0  # monotonic seconds since when the control plane says that it is unready; 0: it does not
        )
        self._tasks = [asyncio.create_task(self._live())]

    def see(self, thing: Thing) -> None:
        """As the API server has it."""
        self._thing = thing
        if "deletionTimestamp" in thing["metadata"] and not self._is_ending:
            self._is_ending = True
            self._tasks.append(asyncio.create_task(self._end()))
        conditions = thing.get("status", {}).get("conditions", [])
        told = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        if told or not self._is_ready or self._is_ending:
            self._contradicted = 0.0
        elif not self._contradicted:
            self._contradicted = time.monotonic()
        elif time.monotonic() - self._contradicted > RECONCILE:
            self._contradicted = 0.0
            self._tasks.append(asyncio.create_task(self._tell()))

    async def remove(self) -> None:
        """Nothing of it is left."""
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        for process in self._processes:
            process.kill()
            process.wait()
        await asyncio.to_thread(subprocess.run, ["ip", "netns", "del", self._netns], capture_output=True)

    async def _live(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        commands = [
            f"netns add {self._netns}",
            f"-n {self._kubelet.netns} link add {self._link} type veth peer name eth0 netns {self._netns}",
            f"-n {self._kubelet.netns} link set {self._link} master pods up",
            f"-n {self._netns} link set lo up",
            f"-n {self._netns} addr add {self._ip}/16 dev eth0",
            f"-n {self._netns} addr add {self._ip6}/64 dev eth0 nodad",
            f"-n {self._netns} link set eth0 up",
        ]
        for command in commands:
            await asyncio.to_thread(subprocess.run, ["ip", *command.split()], check=True)
        await self._again(self._mount)
        self._start_containers()
        await self._tell()
        await self._probe()

    def _start_containers(self) -> None:
        for container in self._thing["spec"]["containers"]:
            if command := self._choose_command(container):
                words = ["ip", "netns", "exec", self._netns, *command]
                with open(self._folder / f"{container['name']}.log", "ab") as log:
                    process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
                self._processes.append(process)

    async def _mount(self) -> None:
        for volume in self._thing["spec"].get("volumes", []):
            folder = self._folder / "volumes" / volume["name"]
            folder.mkdir(parents=True, exist_ok=True)
            if "configMap" in volume:
                await self._write_config_map(folder, volume["configMap"]["name"])
            for source in volume.get("projected", {}).get("sources", []):
                if "configMap" in source:
                    await self._write_config_map(folder, source["configMap"]["name"])
                if "downwardAPI" in source:
                    (folder / "namespace").write_text(self._namespace)
                if "serviceAccountToken" in source:
                    account = self._thing["spec"].get("serviceAccountName", "default")
                    bound = {"apiVersion": "v1", "kind": "Pod", "name": self._name, "uid": self._uid}
                    path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token"
                    made = await self._kubelet.server.call("POST", path, {"spec": {"boundObjectRef": bound}})
                    (folder / "token").write_text(made["status"]["token"])

    async def _write_config_map(self, folder: Path, name: str) -> None:
        found = await self._kubelet.server.call("GET", f"/api/v1/namespaces/{self._namespace}/configmaps/{name}")
        for key, text in found.get("data", {}).items():
            (folder / key).write_text(text)

    def _choose_command(self, container: Thing) -> list[str]:
        if container["image"].startswith("nodered/"):
            port = str(container["ports"][0]["containerPort"])
            words = ["-m", "haproxy_py.demo.replica", "--host", self._ip, "--port", port, "--name", self._name]
            return [sys.executable, *words]
        if container["image"].startswith("haproxy-py:"):
            # /etc and /run are its own, so that what is mounted lies where the manifest says.
            script = ["set -e", "mount -t tmpfs tmpfs /run", "mount -t tmpfs tmpfs /mnt", "mkdir /mnt/new /mnt/work"]
            script.append("mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/new,workdir=/mnt/work /etc")
            for mount in container.get("volumeMounts", []):
                script.append(f"mkdir -p {mount['mountPath']}")
                script.append(f"mount --bind {self._folder}/volumes/{mount['name']} {mount['mountPath']}")
            script.append(f"exec {Path(sys.executable).with_name('haproxy-py')} {' '.join(container['args'])}")
            own = [f"KUBERNETES_SERVICE_HOST={SERVER}", "KUBERNETES_SERVICE_PORT=6443"]
            return ["env", *own, "unshare", "-m", "bash", "-c", "; ".join(script)]
        return []

    async def _probe(self) -> None:
        """Ready means that every container with a probe answers it; failures count as its threshold says."""
        probed = [
            one for one in self._thing["spec"]["containers"] if "readinessProbe" in one and self._choose_command(one)
        ]
        failures = 0
        while True:
            answers = [await self._ask(one, one["readinessProbe"]) for one in probed]
            failures = 0 if all(answers) else failures + 1
            threshold = max([one["readinessProbe"].get("failureThreshold", 3) for one in probed], default=1)
            if all(answers) != self._is_ready and (all(answers) or failures >= threshold):
                self._is_ready = all(answers)
                self._changed = stamp()
                await self._tell()
            if not probed:
                return
            await asyncio.sleep(
                min(one["readinessProbe"].get("periodSeconds", 10) for one in probed) if self._is_ready else 0.3
            )

    async def _ask(self, container: Thing, probe: Thing) -> bool:
        if "httpGet" not in probe:
            return True
        port = probe["httpGet"]["port"]
        if isinstance(port, str):
            port = next(one["containerPort"] for one in container["ports"] if one["name"] == port)
        within = aiohttp.ClientTimeout(total=probe.get("timeoutSeconds", 1))
        try:
            url = f"http://{self._ip}:{port}{probe['httpGet']['path']}"
            async with self._kubelet.probes.get(url, timeout=within) as answer:
                return 200 <= answer.status < 400
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def _tell(self, is_over: bool = False) -> None:
        is_ready = self._is_ready and not is_over
        conditions = {"PodScheduled": True, "Initialized": True, "ContainersReady": is_ready, "Ready": is_ready}
        state = {"running": {"startedAt": self._started}}
        if is_over:
            state = {"terminated": {"exitCode": 0, "startedAt": self._started, "finishedAt": stamp()}}  # type: ignore[dict-item]
        status = {
            "phase": "Succeeded" if is_over else "Running",
            "podIP": self._ip,
            "podIPs": [{"ip": self._ip}, {"ip": self._ip6}],
            "startTime": self._started,
            "conditions": [
                {"type": kind, "status": str(value), "lastTransitionTime": self._changed}
                for kind, value in conditions.items()
            ],
            "containerStatuses": [
                {
                    **{"name": one["name"], "image": one["image"], "imageID": one["image"], "restartCount": 0},
                    **{"ready": is_ready, "started": not is_over, "state": state},
                }
                for one in self._thing["spec"]["containers"]
            ],
        }

        async def patch() -> None:
            await self._kubelet.server.patch(f"{self._path}/status", {"metadata": {"uid": self._uid}, "status": status})

        await self._again(patch)

    async def _again(self, act: Any) -> None:
        """Until it works: the real one goes on, too, while the API server is away."""
        while True:
            try:
                await act()
                return
            except TROUBLE as error:
                print(stamp(), self._name, str(error)[:300], flush=True)
                if " 404 " in str(error) and "/status" in str(error):
                    return
                await asyncio.sleep(0.5)

    async def _end(self) -> None:
        began, grace = time.monotonic(), self._thing["metadata"].get("deletionGracePeriodSeconds", 30)
        pauses = [
            float(one["lifecycle"]["preStop"]["exec"]["command"][-1])
            for one in self._thing["spec"]["containers"]
            if "preStop" in one.get("lifecycle", {}) and self._processes
        ]
        await asyncio.sleep(min(max(pauses, default=0.0), grace))
        for process in self._processes:
            process.terminate()
        while any(process.poll() is None for process in self._processes) and time.monotonic() - began < grace:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for process in self._processes:
            process.kill()
        self._tasks[0].cancel()
        await self._tell(is_over=True)
        now = {"gracePeriodSeconds": 0, "preconditions": {"uid": self._uid}}
        with contextlib.suppress(RuntimeError):
            await self._kubelet.server.call("DELETE", self._path, now)


async def run(folder: Path, netns: str) -> None:
    await Kubelet(folder, netns).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--netns", required=True)
    args = parser.parse_args()
    os.chdir(args.folder)
    asyncio.run(run(args.folder, args.netns))

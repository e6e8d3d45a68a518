"""Lists and watches over HTTP: what the API promises, against the own API server and a real one; then what goes wrong."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from haproxy_py.config import Cluster
from haproxy_py.discovery import api as api_module
from haproxy_py.discovery.api import Api, ApiError, Collection, Event, Outcome
from tests.discovery.api_server import ApiServer, Faults, make_certificates
from tests.discovery.cluster import AnyCluster, RealCluster
from tests.discovery.things import make_endpoint, make_service, make_slice

WITHIN = 20.0


@asynccontextmanager
async def open_api(kubeconfig: Path, context: str = "") -> AsyncIterator[Api]:
    api = Api(Cluster(str(kubeconfig), context))
    try:
        yield api
    finally:
        await api.close()


def slices(selector: str = "") -> Collection:
    return Collection("endpointslices", "discovery.k8s.io", "v1", "", selector)


async def list_all(api: Api, collection: Collection) -> tuple[list[str], str, int]:
    """Names, version, and the number of pages."""
    names: list[str] = []
    version, pages = "", 0
    async with asyncio.timeout(WITHIN), aclosing(api.list_pages(collection)) as found:
        async for things, version in found:  # noqa: B007
            pages += 1
            names += [thing["metadata"]["name"] for thing in things]
    return names, version, pages


async def take(stream: Any, count: int) -> list[Event]:
    """So many events of a watch."""
    events: list[Event] = []
    async with asyncio.timeout(WITHIN):
        while len(events) < count:
            events += await anext(stream)
    return events


def name_all(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.kind, event.thing["metadata"]["name"]) for event in events]


async def fail_list(kubeconfig: Path) -> ApiError:
    async with open_api(kubeconfig) as api:
        with pytest.raises(ApiError) as raised:
            await list_all(api, slices())
        return raised.value


async def fail_watch(kubeconfig: Path, version: str = "1001") -> ApiError:
    async with open_api(kubeconfig) as api, aclosing(api.watch(slices(), version)) as stream:
        with pytest.raises(ApiError) as raised:
            await take(stream, 100)
        return raised.value


# --- what the API promises ---


async def test_a_watch_tells_what_happened_after_the_list(cluster: AnyCluster) -> None:
    cluster.put("endpointslices", make_slice(name="one"))
    async with open_api(cluster.write_kubeconfig()) as api:
        names, version, _ = await list_all(api, slices())
        assert names == ["one"]
        assert api.namespace == cluster.namespace
        cluster.put("endpointslices", make_slice(name="two"))
        cluster.put("endpointslices", make_slice(make_endpoint("a"), name="one"))
        cluster.delete("endpointslices", "two")
        async with aclosing(api.watch(slices(), version)) as stream:
            events = await take(stream, 3)
            assert name_all(events) == [("ADDED", "two"), ("MODIFIED", "one"), ("DELETED", "two")]
            middle = events[1].thing["metadata"]["resourceVersion"]
        async with aclosing(api.watch(slices(), middle)) as stream:
            assert name_all(await take(stream, 1)) == [("DELETED", "two")]


async def test_a_label_selector_chooses_and_a_label_that_goes_deletes(cluster: AnyCluster) -> None:
    cluster.put("endpointslices", make_slice(name="one", service="x"))
    cluster.put("endpointslices", make_slice(name="two", service="y"))
    async with open_api(cluster.write_kubeconfig()) as api:
        collection = slices("kubernetes.io/service-name in (x,z)")
        names, version, _ = await list_all(api, collection)
        assert names == ["one"]
        async with aclosing(api.watch(collection, version)) as stream:
            cluster.put("endpointslices", make_slice(name="one", service="y"))
            cluster.put("endpointslices", make_slice(name="two", service="z"))
            assert name_all(await take(stream, 2)) == [("DELETED", "one"), ("ADDED", "two")]


async def test_a_field_selector_asks_for_one_name(cluster: AnyCluster) -> None:
    for name in ("one", "two"):
        cluster.put("services", make_service(name))
    async with open_api(cluster.write_kubeconfig()) as api:
        collection = Collection("services", "", "v1", "", "", "metadata.name=two")
        assert (await list_all(api, collection))[0] == ["two"]


async def test_a_long_list_comes_in_pages(cluster: AnyCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "PAGE_OBJECTS", 2)
    for number in range(5):
        cluster.put("endpointslices", make_slice(name=f"s-{number}"))
    async with open_api(cluster.write_kubeconfig()) as api:
        names, version, pages = await list_all(api, slices())
        assert (names, pages) == ([f"s-{number}" for number in range(5)], 3)
        assert version


async def test_a_version_from_long_ago_is_expired(cluster: AnyCluster, request: pytest.FixtureRequest) -> None:
    if not isinstance(cluster, RealCluster):
        request.getfixturevalue("api").compact()
    assert (await fail_watch(cluster.write_kubeconfig(), "1")).outcome is Outcome.EXPIRED


async def test_a_wrong_token_is_401(cluster: AnyCluster) -> None:
    error = await fail_list(cluster.write_kubeconfig(token="wrong"))
    assert error.outcome is Outcome.UNAUTHORIZED


async def test_an_unknown_collection_is_404(cluster: AnyCluster) -> None:
    async with open_api(cluster.write_kubeconfig()) as api:
        with pytest.raises(ApiError) as raised:
            await list_all(api, Collection("endpointslices", "discovery.k8s.io", "v9", ""))
        assert raised.value.outcome is Outcome.MISSING


async def test_a_bad_selector_is_400(cluster: AnyCluster) -> None:
    async with open_api(cluster.write_kubeconfig()) as api:
        with pytest.raises(ApiError) as raised:
            await list_all(api, slices("a in"))
        assert raised.value.outcome is Outcome.CLIENT


def test_a_real_cluster_is_driven_as_the_own_one(api: ApiServer, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "user"
    kubeconfig.write_text(api.write_kubeconfig().read_text())
    with RealCluster(kubeconfig, tmp_path) as real:
        assert real.put("endpointslices", make_slice(name="x")) == "1001"
        assert real.put("endpointslices", make_slice(name="x")) == "1002"
        real.delete("endpointslices", "x")
        real.delete("endpointslices", "x")
        assert real.namespace in real.write_kubeconfig(token="other").read_text()


async def test_bookmarks_come_on_a_quiet_watch(api: ApiServer) -> None:
    api.bookmark_interval = 0.05
    api.put("services", "node-red", make_service())  # of another kind: the version goes on, the watch hears nothing
    async with open_api(api.write_kubeconfig()) as client, aclosing(client.watch(slices(), "1000")) as stream:
        (event, *_) = await take(stream, 1)
        assert (event.kind, event.thing["metadata"]["resourceVersion"]) == ("BOOKMARK", "1001")


async def test_the_server_is_asked_as_the_rules_say(api: ApiServer) -> None:
    async with open_api(api.write_kubeconfig()) as client:
        await list_all(client, slices("l"))
        async with aclosing(client.watch(slices("l"), "1000")) as stream:
            await anext(stream)
    listing, watch = api.requests
    assert listing.query == {"limit": "50", "labelSelector": "l"}
    assert 240 <= int(watch.query.pop("timeoutSeconds")) <= 300
    assert watch.query == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": "1000",
        "labelSelector": "l",
    }


@pytest.mark.parametrize("cut", [1, 2, 7, 100])
async def test_events_may_be_cut_anywhere(api: ApiServer, cut: int) -> None:
    api.faults = Faults(cut=cut)
    for number in range(3):
        api.put("endpointslices", "node-red", make_slice(make_endpoint("a"), name=f"s-{number}"))
    async with open_api(api.write_kubeconfig()) as client, aclosing(client.watch(slices(), "1000")) as stream:
        assert name_all(await take(stream, 3)) == [("ADDED", f"s-{number}") for number in range(3)]


# --- what goes wrong ---


async def test_a_watch_that_is_refused_with_410_is_expired(api: ApiServer) -> None:
    api.faults = Faults(expired_watch=True)
    assert (await fail_watch(api.write_kubeconfig())).outcome is Outcome.EXPIRED


@pytest.mark.parametrize(
    "status", [{"code": 410}, {"code": 410, "reason": "Expired"}, {"reason": "Gone"}, {"reason": "Expired", "code": 1}]
)
async def test_an_error_event_with_410_is_expired(api: ApiServer, status: dict[str, Any]) -> None:
    api.faults = Faults(error_event={"kind": "Status", "message": "too old resource version"} | status)
    assert (await fail_watch(api.write_kubeconfig())).outcome is Outcome.EXPIRED


async def test_another_error_event_is_a_failure_of_the_server(api: ApiServer) -> None:
    api.faults = Faults(error_event={"kind": "Status", "code": 500, "message": "etcdserver: no leader"})
    error = await fail_watch(api.write_kubeconfig())
    assert error.outcome is Outcome.SERVER
    assert "no leader" in str(error)


@pytest.mark.parametrize(
    "line",
    [
        b"<html>\n",
        b"{}\n",
        b"[]\n",
        b'{"type": 1, "object": {}}\n',
        b'{"type": "ADDED", "object": []}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
    ],
)
async def test_a_line_that_is_no_event_is_told_after_the_good_ones(api: ApiServer, line: bytes) -> None:
    good = json.dumps({"type": "ADDED", "object": {"metadata": {"name": "a", "resourceVersion": "1002"}}}).encode()
    api.faults = Faults(garbage=good + b"\n" + line)
    async with open_api(api.write_kubeconfig()) as client, aclosing(client.watch(slices(), "1001")) as stream:
        assert name_all(await take(stream, 1)) == [("ADDED", "a")]
        with pytest.raises(ApiError) as raised:
            await take(stream, 1)
        assert raised.value.outcome is Outcome.DECODE


async def test_a_line_without_end_is_refused(api: ApiServer) -> None:
    api.faults = Faults(garbage=b"x" * (9 * 1024 * 1024))
    assert (await fail_watch(api.write_kubeconfig())).outcome is Outcome.DECODE


async def test_a_reset_in_the_middle_of_a_line_is_told(api: ApiServer) -> None:
    api.put("endpointslices", "node-red", make_slice(make_endpoint("a")))
    api.faults = Faults(reset_after=100)
    assert (await fail_watch(api.write_kubeconfig(), "1000")).outcome is Outcome.RESET


@pytest.mark.parametrize("tls", [False, True])
async def test_what_cannot_be_reached_is_named_without_the_insides_of_python(tmp_path: Path, tls: bool) -> None:
    with ApiServer(tmp_path, tls=tls) as server:
        kubeconfig, url = server.write_kubeconfig(), server.url
    problem = str(await fail_list(kubeconfig))
    assert problem.startswith(f"{url} cannot be reached: ")
    assert "Connect call failed" in problem
    assert " object at 0x" not in problem


async def test_a_certificate_of_another_authority_is_named_as_the_problem(tmp_path: Path) -> None:
    with ApiServer(tmp_path, tls=True) as server:
        kubeconfig = server.write_kubeconfig()
        make_certificates(tmp_path)
        problem = str(await fail_list(kubeconfig))
    assert "certificate verify failed" in problem
    assert " object at 0x" not in problem


async def test_a_silent_watch_is_given_up(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "SILENCE", 0.2)
    api.faults = Faults(stall=True)
    assert (await fail_watch(api.write_kubeconfig())).outcome is Outcome.SILENT


async def test_bytes_that_never_become_a_line_are_silence(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "SILENCE", 0.3)
    api.faults = Faults(garbage=b"x" * 100_000, cut=1)
    began = time.monotonic()
    assert (await fail_watch(api.write_kubeconfig())).outcome is Outcome.SILENT
    assert time.monotonic() - began < WITHIN


async def test_a_server_that_does_not_answer_is_given_up(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "PAGE_WITHIN", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        kubeconfig = api.write_kubeconfig()
        kubeconfig.write_text(kubeconfig.read_text().replace(api.url, f"http://127.0.0.1:{mute.getsockname()[1]}"))
        assert (await fail_list(kubeconfig)).outcome is Outcome.SILENT


@pytest.mark.parametrize(
    ("status", "retry_after", "outcome", "seconds"),
    [
        (500, "", Outcome.SERVER, 0),
        (500, "9", Outcome.SERVER, 0),
        (503, "9", Outcome.SERVER, 9),
        (429, "9", Outcome.SERVER, 9),
        (429, "999999", Outcome.SERVER, 600),
        (429, "soon", Outcome.SERVER, 0),
        (400, "", Outcome.CLIENT, 0),
        (307, "", Outcome.CLIENT, 0),
        (204, "", Outcome.CLIENT, 0),
    ],
)
async def test_a_status_that_is_no_success(
    api: ApiServer, status: int, retry_after: str, outcome: Outcome, seconds: float
) -> None:
    api.faults = Faults(status=status, retry_after=retry_after)
    error = await fail_list(api.write_kubeconfig())
    assert (error.outcome, error.retry_after) == (outcome, seconds)


async def test_403_tells_what_the_server_said(api: ApiServer) -> None:
    api.faults = Faults(forbidden={"endpointslices"})
    error = await fail_list(api.write_kubeconfig())
    assert error.outcome is Outcome.FORBIDDEN
    assert 'cannot list resource "endpointslices"' in str(error)


async def test_a_list_whose_continue_token_expired_is_expired(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "PAGE_OBJECTS", 1)
    for number in range(3):
        api.put("endpointslices", "node-red", make_slice(name=f"s-{number}"))
    async with open_api(api.write_kubeconfig()) as client, aclosing(client.list_pages(slices())) as pages:
        await anext(pages)
        api.compact()
        with pytest.raises(ApiError) as raised:
            await anext(pages)
        assert raised.value.outcome is Outcome.EXPIRED


async def test_a_page_that_is_too_large_is_refused(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "MAX_PAGE", 1000)
    api.put("endpointslices", "node-red", make_slice(*[make_endpoint("a")] * 20))
    assert (await fail_list(api.write_kubeconfig())).outcome is Outcome.DECODE


async def test_nobody_at_the_address_is_unreachable(api: ApiServer) -> None:
    kubeconfig = api.write_kubeconfig()
    api.vanish()
    assert (await fail_list(kubeconfig)).outcome is Outcome.UNREACHABLE


async def test_cancelling_leaves_no_connection(api: ApiServer) -> None:
    async with open_api(api.write_kubeconfig()) as client:

        async def follow() -> None:
            async with aclosing(client.watch(slices(), "1000")) as stream:
                async for _ in stream:
                    agreed.set()

        agreed = asyncio.Event()
        task = asyncio.create_task(follow())
        async with asyncio.timeout(WITHIN):
            await agreed.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client._session is not None
        connector: Any = client._session.connector
        assert not connector._acquired
        assert not connector._conns


# --- credentials ---


async def test_a_certificate_of_another_ca_is_refused(api: ApiServer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    make_certificates(other)
    kubeconfig = api.write_kubeconfig()
    kubeconfig.write_text(kubeconfig.read_text().replace("ca.crt", "other/ca.crt"))
    error = await fail_list(kubeconfig)
    assert error.outcome is Outcome.UNREACHABLE
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)


async def test_a_token_that_was_replaced_is_read_again_after_401(api: ApiServer, tmp_path: Path) -> None:
    async with open_api(api.write_kubeconfig()) as client:
        await list_all(client, slices())
        api.tokens = {"second-token"}
        (tmp_path / "token").write_text("second-token")
        with pytest.raises(ApiError):
            await list_all(client, slices())
        client.expire_credentials()
        await list_all(client, slices())
    assert [request.token for request in api.requests] == ["first-token", "first-token", "second-token"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "does not exist"),
        ("", "cannot be used"),
        ("{", "cannot be used"),
        ("[]", "cannot be used"),
        ("{}", "cannot be used"),
        ('{"current-context": "x", "contexts": [], "clusters": [], "users": []}', "cannot be used"),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, text: str | None, expected: str) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    error = await fail_list(path)
    assert error.outcome is Outcome.UNREACHABLE
    assert expected in str(error)
    assert str(path) in str(error)


async def test_a_context_that_is_not_there_is_named(api: ApiServer) -> None:
    async with open_api(api.write_kubeconfig(), "other") as client:
        with pytest.raises(ApiError, match="other"):
            await list_all(client, slices())


@pytest.fixture
def pod(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a pod has: the folder of its service account, and two variables."""
    from kubernetes.aio.config import incluster_config

    from haproxy_py.discovery import credentials

    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("first-token")
    (folder / "namespace").write_text("node-red\n")
    (folder / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(folder / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(folder / "ca.crt"))
    monkeypatch.setattr(credentials, "_POD_NAMESPACE", folder / "namespace")
    host, port = api.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    return folder


async def list_in_pod(times: int = 1) -> None:
    api = Api(Cluster())
    try:
        for _ in range(times):
            await list_all(api, slices())
    finally:
        await api.close()


async def test_in_a_pod_the_service_account_is_used(api: ApiServer, pod: Path) -> None:
    await list_in_pod()
    (request,) = api.requests
    assert (request.token, request.namespace) == ("first-token", "node-red")


async def test_the_token_of_a_pod_is_read_again_now_and_then(
    api: ApiServer, pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from haproxy_py.discovery import credentials

    monkeypatch.setattr(credentials, "REREAD_AFTER", -1.0)
    api.tokens = {"first-token", "second-token"}
    client = Api(Cluster())
    await list_all(client, slices())
    (pod / "token").write_text("second-token")
    await list_all(client, slices())
    await client.close()
    assert [request.token for request in api.requests] == ["first-token", "second-token"]


async def test_outside_of_a_pod_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ApiError, match=r"no pod with a service account .* kubernetes\.kubeconfig"):
        await list_in_pod()


async def test_a_token_with_a_line_end_is_no_token(api: ApiServer, pod: Path) -> None:
    (pod / "token").write_text("a\r\nX-Evil: 1")
    with pytest.raises(ApiError, match="characters that no token has"):
        await list_in_pod()

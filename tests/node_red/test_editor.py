"""The editor in a real browser: refused with an explanation in HA mode, and whole when HA mode is off."""

from __future__ import annotations

from pathlib import Path

from tests.browser import Page
from tests.node_red.front import put_proxy_before
from tests.node_red.replicas import NodeRedReplica, Replicas
from tests.proxy_process import ProxyProcess


async def test_ha_mode_shows_a_person_why_there_is_no_editor(page: Page, proxy: ProxyProcess) -> None:
    assert await page.open(f"{proxy.url}/") == 403
    text = await page.evaluate("document.body.innerText")
    assert "High Availability" in text
    assert await page.evaluate("document.title") != ""
    assert await page.evaluate("document.querySelector('#red-ui-editor')") is None


async def test_ha_mode_refuses_what_a_page_could_call(page: Page, proxy: ProxyProcess) -> None:
    # A page of the instance's own origin is the strongest place to call from: no CORS, its own cookies.
    await page.open(f"{proxy.url}/dashboard/page1")
    for call in ("fetch('/flows')", "fetch('/flows', {method: 'POST', body: '[]'})", "fetch('/%66lows/')"):
        assert await page.evaluate(f"{call}.then((answer) => answer.status)") == 403, call
    opened = await page.evaluate(
        """new Promise((resolve) => {
            const socket = new WebSocket(location.origin.replace('http', 'ws') + '/comms')
            socket.onopen = () => resolve(true)
            socket.onerror = () => resolve(false)
        })"""
    )
    assert opened is False


async def test_without_ha_mode_a_flow_is_changed_deployed_and_watched(
    page: Page, own_replicas: Replicas, tmp_path: Path
) -> None:
    with put_proxy_before(own_replicas.urls, tmp_path, ha=False) as proxy:
        assert await page.open(f"{proxy.url}/") == 200
        await page.wait_for("document.querySelector('#red-ui-workspace .red-ui-flow-node')")
        await page.wait_for("!document.querySelector('#red-ui-loading-progress, #red-ui-full-shade')?.offsetParent")
        assert any(url.endswith("/comms") for url in page.web_sockets.values())

        await _rename_inject_node(page, "Fire again")
        await page.click("#red-ui-header-button-deploy")
        await page.wait_for_text(".red-ui-notification-success", "Successfully deployed")
        deployed_to = [replica for replica in own_replicas.members if _has_node_named(replica, "Fire again")]
        assert len(deployed_to) == 1  # editor traffic keeps to one replica

        # The message comes back over /comms: from the replica that the inject button fired, or not at all.
        await page.evaluate("RED.sidebar.show('debug')")
        await page.click("#work-inject .red-ui-flow-node-button-button")
        await page.wait_for_text(".red-ui-debug-msg", "from the workbench")
        assert page.failed_requests == []


def _has_node_named(replica: NodeRedReplica, name: str) -> bool:
    return any(node.get("name") == name for node in replica.get_flows())


async def _rename_inject_node(page: Page, name: str) -> None:
    """As a person does it: double click, a new name, Done."""
    await page.click("#work-inject .red-ui-flow-node", times=2)
    await page.wait_for("document.querySelector('#node-input-name')?.offsetParent")
    await page.evaluate("document.querySelector('#node-input-name').select()")
    await page.type(name)
    await page.click("#node-dialog-ok")
    await page.wait_for("!document.querySelector('.red-ui-tray')")

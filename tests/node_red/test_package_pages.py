"""What packages show users, in a browser, through the proxy in HA mode: nothing that their pages need is refused.

Both dashboards, a widget of another package in Dashboard 2, uibuilder and the world map.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Page
from tests.node_red.front import put_proxy_before
from tests.node_red.replicas import FLOWS, HERE, NodeRedReplica
from tests.proxy_process import ProxyProcess

WIDGET = "node-red-dashboard-2-ui-greeting"
PACKAGES = ("node-red-contrib-uibuilder", "node-red-contrib-web-worldmap")

UIBUILDER = {
    "id": "uib", "type": "uibuilder", "z": "extra", "url": "uib", "name": "", "copyIndex": True, "templateFolder": "blank",
    "sourceFolder": "src", "fwdInMessages": False, "allowScripts": False, "allowStyles": False, "showfolder": False,
    "reload": False, "showMsgUib": False, "deployedVersion": "7.7.4", "x": 200, "y": 60, "wires": [[], []],
}  # fmt: skip
WORLDMAP = {
    "id": "map", "type": "worldmap", "z": "extra", "name": "", "path": "/worldmap", "lat": "51", "lon": "0", "zoom": "7",
    "layer": "None", "layers": "hide", "usermenu": "hide", "coords": "none", "x": 200, "y": 120, "wires": [],
}  # fmt: skip
GREETING = {
    "id": "greeting", "type": "ui-greeting", "z": "extra", "group": "d2-group", "name": "", "order": 9, "width": 0,
    "height": 0, "x": 200, "y": 180, "wires": [[]],
}  # fmt: skip

NODE = """\
module.exports = function (RED) {
  RED.nodes.registerType('ui-greeting', function (config) {
    RED.nodes.createNode(this, config)
    RED.nodes.getNode(config.group).register(this, config, {})
  })
}
"""
COMPONENT = """\
window['ui-greeting'] = { UIGreeting: { render () { return 'Hello from another package' } } }
"""


@pytest.fixture(scope="module")
def packages_replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeRedReplica]:
    """A replica that has these packages."""
    folder = tmp_path_factory.mktemp("packages")
    for name in PACKAGES:
        if not (HERE / "v5" / "node_modules" / name).is_dir():
            pytest.fail(
                f"{name} is missing in {HERE}/v5/node_modules: run tests/install, as `make test` does", pytrace=False
            )
    flows = folder / "flows.json"
    tab = {"id": "extra", "type": "tab", "label": "Packages", "disabled": False}
    flows.write_text(json.dumps([*json.loads(FLOWS.read_text()), tab, UIBUILDER, WORLDMAP, GREETING]))
    replica = NodeRedReplica("v5", "r1", folder, flows=flows)
    install_widget(replica.user_dir)
    replica.start()
    try:
        replica.wait_ready()
        yield replica
    finally:
        replica.stop()


@pytest.fixture(scope="module", params=["deny", "strict"])
def packages_proxy(
    request: pytest.FixtureRequest, packages_replica: NodeRedReplica, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyProcess]:
    """The proxy in HA mode before that replica, with either kind of gate."""
    strict = {"mode": "strict", "flows": {"file": str(packages_replica.user_dir / "flows.json")}}
    gate = strict if request.param == "strict" else None
    with put_proxy_before([packages_replica.url], tmp_path_factory.mktemp(request.param), ha=True, gate=gate) as proxy:
        yield proxy


def install_widget(user_dir: Path) -> None:
    """A Dashboard 2 widget as other packages bring it: its component is a file in their `resources`."""
    package = user_dir / "node_modules" / WIDGET
    (package / "resources").mkdir(parents=True)
    widgets = {"ui-greeting": {"output": "ui-greeting.umd.js", "component": "UIGreeting"}}
    manifest = {
        "name": WIDGET,
        "version": "1.0.0",
        "node-red": {"version": ">=3.0.0", "nodes": {"ui-greeting": "ui-greeting.js"}},
        "node-red-dashboard-2": {"version": "1.0.0", "widgets": widgets},
    }
    (package / "package.json").write_text(json.dumps(manifest))
    (package / "ui-greeting.js").write_text(NODE)
    (package / "ui-greeting.html").write_text(
        "<script>RED.nodes.registerType('ui-greeting', {category: 'x', defaults: {}})</script>"
    )
    (package / "resources" / "ui-greeting.umd.js").write_text(COMPONENT)
    dependencies = {"dependencies": {WIDGET: "1.0.0"}}
    (user_dir / "package.json").write_text(json.dumps({"name": "user", "version": "1.0.0", **dependencies}))


PAGES = {
    "dashboard 2": ("/dashboard/page1", "document.body.textContent.includes('Hello from another package')"),
    "dashboard 1": ("/ui/", "document.querySelector('.press button, button.press')"),
    "uibuilder": ("/uib/", "window.uibuilder && window.uibuilder.get('ioConnected')"),
    "worldmap": ("/worldmap/", "document.querySelector('.leaflet-container')"),
}
"""Where each page is, and what holds once it works: for uibuilder that its socket is connected."""


@pytest.mark.parametrize("name", PAGES)
async def test_page_works_and_nothing_that_it_asks_for_is_refused(
    name: str, page: Page, packages_proxy: ProxyProcess
) -> None:
    path, works = PAGES[name]
    assert await page.open(packages_proxy.url + path) == 200
    await page.wait_for(works)
    own = [each for each in page.failed_requests if packages_proxy.url in each]
    assert [each for each in own if each.endswith((": 403", ": 400"))] == []


@pytest.mark.parametrize("path", ["/uibuilder/admin/uib", "/uibuilder/uibindex", "/uibuilder/docs/", "/-ui-worldmap"])
async def test_the_packages_admin_side_stays_closed(path: str, page: Page, packages_proxy: ProxyProcess) -> None:
    assert await page.open(packages_proxy.url + path) == 403

"""The admin surface of Node-RED: the paths below the admin root that edit, inspect or fire flows.

Lists of what a Node-RED with its usual packages registers (core 4.1 and 5.0 measured, packages read; the long tail of
packages stands in `package_routes.json`, which `tests/gate_corpus/renew_package_routes.py` writes), and how these lists and an
operator's `gate` settings become the rules that a gate applies. How a path is read and compared with the rules stands
in `haproxy_py.datapath.gate`.

A list can never be complete, because any installed package may register admin routes: a replica's `httpAdminRoot` other
than `/`, named in `gate.admin_root`, moves all of them below one prefix and is the safer setting.
"""

from __future__ import annotations

import json
from pathlib import Path

from haproxy_py.config import Gate
from haproxy_py.config_values import gate_rule
from haproxy_py.table import DeclaredRoute, GateRules

# The editor: its page's files, texts, libraries, stored credentials, and `/comms`, the WebSocket of the editor. Gone
# with `disableEditor: true`, denied all the same. (`/`, the page itself, is a rule of its own.)
EDITOR = frozenset(
    (
        "comms", "credentials", "favicon.ico", "icons", "library", "locales", "red", "resources", "theme", "types",
        "vendor",
    )
)  # fmt: skip

# The editor's projects: git repositories of flows, thirty routes.
PROJECTS = frozenset(("projects",))

# The admin API of the runtime: flows, installed modules, context, settings, plugins, versions. Stays with
# `disableEditor: true`. `settings` holds the editor's `/settings/user` too.
RUNTIME = frozenset(("context", "diagnostics", "flow", "flows", "nodes", "plugins", "settings"))

# Logins to the editor and the admin API.
AUTH = frozenset(("auth",))

# Routes that the core nodes Inject, Debug and UDP register; the first fires flows.
CORE_NODES = frozenset(("debug", "inject", "udp-ports"))

# node-red-dashboard (Dashboard 1): its files and settings for the editor, served without any login.
DASHBOARD_1 = frozenset(("ui_base", "uisettings"))

# Hardware and serial lines: node-red-node-serialport, -pi-gpio, -pi-gpiod, -arduino, -wemo.
HARDWARE_NODES = frozenset(("arduinoports", "rpi-gpio", "rpi-pins", "serialports", "wemong"))

# Services and timers: node-red-node-timeswitch, -twilio, -pushbullet, and node-red-contrib-cron-plus.
SERVICE_NODES = frozenset(("cronplus", "cronplusinject", "pushbullet", "timeswitch", "twilio-api"))

# FlowFuse: launcher (`/ff/metrics`, subflow export), project nodes, assistant.
FLOWFUSE = frozenset(("ff", "nr-assistant", "nr-project-link"))

OWN_NAMES = (
    EDITOR | PROJECTS | RUNTIME | AUTH | CORE_NODES | DASHBOARD_1 | HARDWARE_NODES | SERVICE_NODES | FLOWFUSE
)  # fmt: skip

OWN_PAIRS = frozenset(
    (
        # @flowfuse/node-red-dashboard (Dashboard 2): the API with which its layout editor deploys changes to the flows,
        # and the route that empties a chart. They do not follow the dashboard's configured path.
        ("dashboard", "api"),
        ("dashboard", "chart"),
        # node-red-contrib-uibuilder: its admin calls, without a permission check.
        ("uibuilder", "instance"),
        ("uibuilder", "uib-sidebar"),
    )
)

PACKAGE_ROUTES = Path(__file__).with_name("package_routes.json")

SHARED = frozenset(
    (
        "api", "dashboard", "endpoint", "facebook", "firebase", "geofence", "hue", "modbus", "nosql", "oauth2", "public",
        "static", "test", "thinger", "ui", "uibuilder", "worldmap",
    )
)  # fmt: skip
"""First segments of packages' admin routes that flows and dashboards use as well: only the first two together deny."""


def _read_package_routes() -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
    """First segments, and pairs of the first two, that the listed packages register on the admin side."""
    names: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    for package in json.loads(PACKAGE_ROUTES.read_bytes()):
        for route in (*package["routes"], *package.get("also", ())):
            # `/a/:id/b` has one fixed segment in front, `/a{}` none.
            first, _, rest = route.partition(" ")[2].lower().strip("/").partition("/")
            second = rest.partition("/")[0]
            if not _is_fixed(first):
                continue
            if first not in SHARED:
                names.add(first)
            elif _is_fixed(second):
                pairs.add((first, second))
    return frozenset(names), frozenset(pairs)


def _is_fixed(segment: str) -> bool:
    return bool(segment) and not any(sign in segment for sign in "{}:*?()+")


_PACKAGES = _read_package_routes()

DENIED_NAMES = OWN_NAMES | _PACKAGES[0]
"""First segments, in lower case, that belong to the admin side with admin root `/`."""

DENIED_PAIRS = OWN_PAIRS | _PACKAGES[1]
"""First two segments that do, where the first alone belongs to users."""


def build_gate_rules(gate: Gate, routes: tuple[DeclaredRoute, ...] | None = None) -> GateRules:
    """The rules of one instance, from its checked settings and what its flows declare, which only strict mode asks."""
    return GateRules(
        admin_root=_split(gate.admin_root),
        names=DENIED_NAMES,
        pairs=DENIED_PAIRS,
        allow=tuple(gate_rule(entry) for entry in gate.allow),
        deny=tuple((methods, _split(path)) for methods, path in map(gate_rule, gate.deny)),
        strict=gate.mode == "strict",
        routes=routes if gate.mode == "strict" else None,
    )


def find_open_root(rules: GateRules) -> str | None:
    """What to warn of where a gate in HA mode has to know every admin route by name; None if it does not."""
    if rules.admin_root or rules.strict:
        return None
    return (
        "gate.admin_root is /: the admin routes of Node-RED and of known packages are closed, those of any other installed "
        "package are not. Set httpAdminRoot: '/admin' in Node-RED's settings.js and gate.admin_root: /admin here, and "
        "everything of the admin side is behind one prefix"
    )


def _split(path: str) -> tuple[str, ...]:
    """The segments of a path or pattern as a gate reads them: lower-case, empty ones dropped."""
    return tuple(segment for segment in path.lower().split("/") if segment)

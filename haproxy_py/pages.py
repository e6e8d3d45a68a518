"""The pages that a browser is shown when the proxy itself answers: one for each rule of the gate, one for all else.

A page stands for itself: no script, no font, no address of anything else, so it needs nothing from an instance that may
be out of reach. It follows the reader's light or dark setting and reads the same without any style. Who is shown a page
and who JSON is decided where the answer is made.

Placeholders are replaced as octets. A value that comes from a configuration or a client goes through `escape` first,
after which it can be neither markup nor a placeholder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

INSTANCE = b"{{instance}}"
STATUS = b"{{status}}"
REASON = b"{{reason}}"
MESSAGE = b"{{message}}"
REQUEST_ID = b"{{request_id}}"

_STYLE = """\
:root{color-scheme:light dark;--paper:#f6f4f1;--card:#fff;--ink:#221d1a;--soft:#5d544d;--line:#dcd5cd;--mark:#8f0000}
@media (prefers-color-scheme:dark){:root{--paper:#191614;--card:#23201d;--ink:#efe9e3;--soft:#b5aba2;--line:#403a35;\
--mark:#ff9a8c}}
*{box-sizing:border-box}
body{margin:0;padding:2rem 1rem;background:var(--paper);color:var(--ink);font:1rem/1.6 system-ui,sans-serif}
main{max-width:40rem;margin:4vh auto;padding:2rem;background:var(--card);border:1px solid var(--line);\
border-top:.3rem solid var(--mark);border-radius:.5rem}
h1{margin:0 0 1rem;font-size:1.5rem;line-height:1.25}
h2{margin:1.75rem 0 .25rem;font-size:1.05rem}
p,ul,ol{margin:.5rem 0}
ul,ol{padding-left:1.4rem}
li{margin:.35rem 0}
.over{margin:0 0 .25rem;color:var(--mark);font-weight:600;overflow-wrap:anywhere}
code{font:.9em ui-monospace,monospace;overflow-wrap:anywhere}
footer{margin-top:2rem;padding-top:1rem;border-top:1px solid var(--line);color:var(--soft);font-size:.875rem}
"""


def _frame(title: str, content: str) -> bytes:
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>
{_STYLE}</style>
</head>
<body>
<main>
{content}</main>
</body>
</html>
""".encode()


@dataclass(frozen=True, slots=True)
class Denial:
    """What a rule of the gate means to the one who meets it."""

    title: str  # what is closed
    why: str
    hint: str  # how to go on, for whoever runs the instance; stands in JSON too
    is_editing: bool = False  # whoever asked probably wanted to change flows


_COPIES = (
    "Several copies of the same flows are running, and every request goes to one of them. What is changed in one copy "
    "would be missing in all the others."
)
_COLLIDES = (
    "If a flow itself serves this address, add its exact path to gate.allow in the proxy's configuration, or give the "
    "admin side a path of its own: httpAdminRoot: '/admin' in Node-RED's settings.js with gate.admin_root: /admin."
)

DENIALS = {
    "editor_page": Denial(
        "The editor is closed while this instance runs in High Availability mode", _COPIES, _COLLIDES, is_editing=True
    ),
    "admin_route": Denial(
        "This address belongs to the admin side, which is closed in High Availability mode",
        f"Node-RED's editor, its admin interface or a package uses addresses that begin like this one. {_COPIES}",
        _COLLIDES,
        is_editing=True,
    ),
    "admin_root": Denial(
        "The editor and the admin interface are closed while this instance runs in High Availability mode",
        _COPIES,
        "Everything below gate.admin_root is closed. If a flow itself serves this address, add its exact path to "
        "gate.allow in the proxy's configuration.",
        is_editing=True,
    ),
    "dashboard_admin": Denial(
        "This address belongs to the admin side of a package, which is closed in High Availability mode",
        f"A dashboard or another package uses it to read or change what belongs to the flows. {_COPIES}",
        _COLLIDES,
    ),
    "dashboard_debug": Denial(
        "This address is for debugging a dashboard, which is closed in High Availability mode",
        "It hands out the data of single widgets, of one copy, to anybody who asks.",
        "Add its exact path to gate.allow in the proxy's configuration if it is needed all the same.",
    ),
    "deny_list": Denial(
        "This address is closed by the proxy's configuration",
        "Whoever runs this instance has put it on the list of what is closed in High Availability mode.",
        "Take its entry out of gate.deny in the proxy's configuration if it is closed by mistake.",
    ),
    "not_declared": Denial(
        "No flow declares this address",
        "The gate is in its strict mode: while this instance runs in High Availability mode only what the flows declare is "
        "reached.",
        "Deploy the flow that serves it, or add its exact path to gate.allow in the proxy's configuration.",
    ),
}
"""For each rule of the gate what its denial says."""

_TO_EDIT = """\
<h2>To change the flows</h2>
<ol>
<li>Edit and test them on a development instance.</li>
<li>Deliver them to this one through a deployment pipeline, which brings the same flows to every copy.</li>
</ol>
"""
_EDIT_HERE = "<li>To edit right here, switch High Availability mode off and run a single copy.</li>\n"


def _make_gate_page(rule: str, denial: Denial) -> bytes:
    return _frame(
        f"{denial.title}: {{{{instance}}}}",
        f"""\
<p class="over">{{{{instance}}}}</p>
<h1>{denial.title}</h1>
<p>{denial.why}</p>
<p><strong>Your flows are running.</strong> Dashboards, HTTP endpoints and WebSockets work as usual.</p>
{_TO_EDIT if denial.is_editing else ""}<h2>If you run this instance</h2>
<ul>
{_EDIT_HERE if denial.is_editing else ""}<li>{_mark_code(denial.hint)}</li>
</ul>
<footer>403 <code>gate_denied</code>, <code>{rule}</code> &middot; Request <code>{{{{request_id}}}}</code></footer>
""",
    )


def _mark_code(text: str) -> str:
    return re.sub(r"gate\.\w+(?:: /\w+)?|httpAdminRoot: '/\w+'|settings\.js", r"<code>\g<0></code>", text)


GATE_PAGES = {rule: _make_gate_page(rule, denial) for rule, denial in DENIALS.items()}
"""403 `gate_denied`, by rule. Placeholders: INSTANCE (twice) and REQUEST_ID."""

ERROR_PAGE = _frame(
    "{{status}}: this request was not answered by Node-RED",
    """\
<p class="over">{{status}}</p>
<h1>This request was not answered by Node-RED</h1>
<p>{{message}}</p>
<p>This page comes from the proxy in front of it. Whoever runs this site finds the cause in the proxy's log with the
request id below.</p>
<footer>{{status}} <code>{{reason}}</code> &middot; Request <code>{{request_id}}</code></footer>
""",
)
"""Any other reason. Placeholders: STATUS (three times), REASON, MESSAGE and REQUEST_ID."""


# Not html.escape: that module brings 0.5 MiB of character names into every worker.
_ESCAPED = {ord(sign): f"&#{ord(sign)};" for sign in "&<>\"'{"}


def escape(value: str) -> bytes:
    """A value as text of a page."""
    return value.translate(_ESCAPED).encode()


def render_gate_page(rule: str, instance: str, request_id: str) -> bytes:
    """The page for `gate_denied` by a rule of the gate."""
    return GATE_PAGES[rule].replace(INSTANCE, escape(instance)).replace(REQUEST_ID, escape(request_id))


def render_error_page(status: int, reason: str, message: str, request_id: str) -> bytes:
    """The page for any other reason."""
    page = ERROR_PAGE.replace(STATUS, b"%d" % status).replace(REASON, escape(reason))
    return page.replace(MESSAGE, escape(message)).replace(REQUEST_ID, escape(request_id))

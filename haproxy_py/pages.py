"""The pages that a browser is shown when the proxy itself answers: one for the gate, one for every other reason.

A page stands for itself: no script, no font, no address of anything else, so it needs nothing from an instance that may
be out of reach. It follows the reader's light or dark setting and reads the same without any style. Who is shown a page
and who JSON is decided where the answer is made.

Placeholders are replaced as octets. A value that comes from a configuration or a client goes through `escape` first,
after which it can be neither markup nor a placeholder.
"""

from __future__ import annotations

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


GATE_PAGE = _frame(
    "Editor closed: {{instance}} runs in High Availability mode",
    """\
<p class="over">{{instance}}</p>
<h1>The editor is closed while this instance runs in High Availability mode</h1>
<p>Several copies of the same flows are running, and every request goes to one of them. The editor would reach only one
copy too: what you change there would be missing in all the others. That is why the editor and its admin interface are
switched off here.</p>
<p><strong>Your flows are running.</strong> Dashboards, HTTP endpoints and WebSockets work as usual.</p>
<h2>To change the flows</h2>
<ol>
<li>Edit and test them on a development instance.</li>
<li>Deliver them to this one through a deployment pipeline, which brings the same flows to every copy.</li>
</ol>
<h2>If you run this instance</h2>
<ul>
<li>To edit right here, switch High Availability mode off. The instance restarts and the editor comes back.</li>
<li>If this address belongs to the flows and not to the editor, add its exact path to <code>gate.allow</code> in the
proxy's configuration.</li>
</ul>
<footer>403 <code>gate_denied</code> &middot; Request <code>{{request_id}}</code></footer>
""",
)
"""403 `gate_denied`. Placeholders: INSTANCE (twice) and REQUEST_ID."""

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


def render_gate_page(instance: str, request_id: str) -> bytes:
    """The page for `gate_denied`."""
    return GATE_PAGE.replace(INSTANCE, escape(instance)).replace(REQUEST_ID, escape(request_id))


def render_error_page(status: int, reason: str, message: str, request_id: str) -> bytes:
    """The page for any other reason."""
    page = ERROR_PAGE.replace(STATUS, b"%d" % status).replace(REASON, escape(reason))
    return page.replace(MESSAGE, escape(message)).replace(REQUEST_ID, escape(request_id))

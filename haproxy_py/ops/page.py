"""The status page: one self-contained document that shows `/api/v1/status` and keeps itself fresh.

Every value is put in as text, never as markup. The policy allows exactly the script and the style below, by hash.
"""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --good: #2a9d4a; --warn: #c77700; --bad: #d43c3c; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; }
p { margin: .3rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; font-size: .85rem; opacity: .75; }
td.number, th.number { text-align: right; }
.mark { font-weight: 600; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.note { opacity: .75; }
code { background: var(--soft); padding: .05rem .3rem; border-radius: .2rem; }
""".strip()

SCRIPT = """
"use strict";
const REFRESH = 2000;
const STATE_CLASS = {ready: "good", draining: "warn", ejected: "bad", unhealthy: "bad"};

function element(name, text, ...classes) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  made.classList.add(...classes);
  return made;
}

function table(columns, rows) {
  const box = element("div", undefined, "scroll"), made = element("table"), head = element("tr");
  for (const [title, , kind] of columns) head.append(element("th", title, ...(kind === "number" ? [kind] : [])));
  made.append(element("thead"), element("tbody"));
  made.tHead.append(head);
  for (const row of rows) {
    const line = element("tr");
    for (const [, read, kind] of columns) {
      const value = read(row), cell = element("td", undefined, ...(kind === "number" ? [kind] : []));
      cell.append(value instanceof Node ? value : String(value));
      line.append(cell);
    }
    made.tBodies[0].append(line);
  }
  box.append(made);
  return box;
}

function mark(text, kind) { return element("span", text, "mark", kind); }

function span(seconds) {
  const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60, rest = Math.floor(seconds) % 60;
  return (days ? days + " d " : "") + (days || hours ? hours + " h " : "") +
    (days || hours || minutes ? minutes + " min " : "") + rest + " s";
}

function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) { number /= 1024; unit++; }
  return (unit ? number.toFixed(1) : number) + " " + units[unit];
}

function address(host, port) { return (host.includes(":") ? "[" + host + "]" : host) + ":" + port; }

function showCheck(replica) {
  const check = replica.check;
  if (!check || check.last === null) return check ? "-" : "off";
  if (check.last === "ok") return (check.seconds * 1000).toFixed(1) + " ms";
  return mark(check.detail, "bad");
}

const REPLICA = [
  ["replica", r => r.name], ["id", r => element("code", r.id)],
  ["state", r => mark(r.state + (r.drain ? " by " + r.drain.by + (r.drain.seconds_left ? ", tunnels " +
    span(r.drain.seconds_left) + " more" : "") : ""), STATE_CLASS[r.state] || "warn")],
  ["last check", showCheck],
  ["active", r => r.active_requests, "number"], ["requests", r => r.requests, "number"],
  ["open tunnels", r => r.active_tunnels, "number"], ["tunnels", r => r.tunnels, "number"],
  ["idle connections", r => r.idle_connections, "number"],
  ["failed connections", r => r.failed_connections, "number"],
  ["received", r => bytes(r.received_bytes), "number"], ["sent", r => bytes(r.sent_bytes), "number"],
];
const WORKER = [
  ["worker", w => w.worker], ["process", w => w.pid === null ? "-" : w.pid],
  ["state", w => w.stalled_seconds ? mark("stalled", "bad") : w.leaving ? mark("leaving", "warn") :
    w.ready ? mark("ready", "good") : mark("not ready", "bad")],
  ["restarts", w => w.restarts, "number"], ["stalls", w => w.stalls, "number"], ["table", w => w.table_version, "number"],
];

const FOLLOWED = [
  ["kind", f => f.kind], ["namespace or name", f => f.namespace],
  ["cluster or servers", f => f.cluster || "own"],
  ["state", f => f.failure ? mark("failing", "bad") : f.listed ? mark("followed", "good") : mark("not read yet", "warn")],
  ["objects", f => f.objects, "number"],
  ["last event", f => f.seconds_since_event === null ? "-" : span(Math.round(f.seconds_since_event)) + " ago"],
];

function drawDiscovery(discovery) {
  if (!discovery.followed.length) return [];
  const parts = [element("h2", "Discovery"), table(FOLLOWED, discovery.followed)];
  for (const feed of discovery.followed) if (feed.failure) parts.push(element("p", feed.failure, "bad"));
  for (const complaint of discovery.complaints) parts.push(element("p", complaint, "warn"));
  return parts;
}

function draw(status) {
  const parts = [], summary = element("p");
  if (status.draining) summary.append(mark("draining", "warn"));
  else if (status.ready) summary.append(mark("ready", "good"));
  else summary.append(mark("not ready: " + status.not_ready_because.join(", "), "bad"));
  summary.append(" \\u00b7 version " + status.version + " \\u00b7 up " + span(status.uptime_seconds) +
    " \\u00b7 table " + status.table_version + " \\u00b7 " + status.client_connections + " client connections");
  parts.push(summary);
  const listeners = status.listeners.map(l => l.scheme + "://" + address(l.host, l.port)).join(", ");
  parts.push(element("p", "listens on " + listeners, "note"));
  for (const warning of status.warnings) parts.push(element("p", warning, "warn"));
  if (status.config.refused_because)
    parts.push(element("p", "the configuration file is refused: " + status.config.refused_because, "bad"));
  for (const instance of status.instances) {
    parts.push(element("h2", instance.name));
    const hosts = instance.hosts.length ? instance.hosts.join(", ") : "any host";
    parts.push(element("p", hosts + " \\u00b7 " + (instance.ha ? "High Availability mode, editor closed" :
      "not in High Availability mode, editor open") + " \\u00b7 " + instance.policy + ", affinity " +
      instance.affinity + " \\u00b7 " + instance.gate_denied + " requests refused by the gate \\u00b7 " +
      instance.queued + " in the queue", "note"));
    for (const warning of instance.warnings) parts.push(element("p", warning, "warn"));
    if (instance.replicas.length) parts.push(table(REPLICA, instance.replicas));
    else parts.push(element("p", instance.discovered ? "no replica" : "replicas are not known yet", "bad"));
  }
  parts.push(...drawDiscovery(status.discovery));
  parts.push(element("h2", "Workers"), table(WORKER, status.workers));
  document.getElementById("status").replaceChildren(...parts);
}

async function refresh() {
  const fresh = document.getElementById("fresh");
  try {
    const answer = await fetch("api/v1/status", {cache: "no-store", signal: AbortSignal.timeout(5000)});
    if (!answer.ok) throw new Error("status " + answer.status);
    draw(await answer.json());
    fresh.textContent = "as of " + new Date().toLocaleTimeString();
    fresh.className = "note";
  } catch (error) {
    fresh.textContent = "not refreshed: the proxy does not answer (" + error.message + ")";
    fresh.className = "bad";
  }
  setTimeout(refresh, REFRESH);
}
refresh();
""".strip()


def _name_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_name_hash(SCRIPT)}",
        f"style-src {_name_hash(STYLE)}",
        "connect-src 'self'",
        "img-src data:",  # the empty icon, so that browsers do not ask for one
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The value of Content-Security-Policy."""

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>haproxy_py</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<h1>haproxy_py</h1>
<p id="fresh" class="note" role="status">loading</p>
<main id="status"></main>
<noscript><p>This page needs JavaScript. The same as JSON: <a href="api/v1/status">api/v1/status</a></p></noscript>
<p class="note"><a href="metrics">metrics</a> · <a href="readyz">readiness</a> · <a href="api/v1/status">status as JSON</a></p>
<script>{SCRIPT}</script>
</body>
</html>
"""

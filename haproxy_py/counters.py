"""Where each counter lies in shared memory: workers add, control reads.

Control makes one segment per worker, so no cell ever has two writers and no add needs a lock. A cell is an unsigned 64-bit
integer in native byte order. A worker that dies takes no count with it: its successor maps the same segment and goes on
adding. Gauges (what is going on now) are the exception: control sets them to zero when a worker died, because whatever
they counted ended with it.

A segment is one *worker* block, then `MAX_INSTANCES` *instance* blocks, then `MAX_REPLICAS` *replica* blocks. Instances and
replicas are given a slot by control, the same in every worker. The file behind a segment is sparse: a slot that was never
used costs address space only.
"""

from __future__ import annotations

CELL = 8
"""Bytes in a cell."""

MAX_INSTANCES = 1025
"""Instance slots. Slot 0 is for exchanges refused before their instance was known; its label is the empty string."""

MAX_REPLICAS = 2048
"""Replica slots. Kubernetes itself truncates an Endpoints object at 1,000 addresses."""

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "other")
"""The closed set of method labels (REQ-24): a client may not make new label values."""

REASONS = (
    "bad_request", "bad_target", "bad_host", "bad_field", "bad_framing", "ambiguous_framing", "bad_chunk",
    "bad_connection_option", "bad_websocket", "gate_denied", "method_not_supported", "head_timeout", "body_timeout",
    "body_too_large", "uri_too_long", "head_too_large", "too_many_fields", "client_gone", "internal", "method_unknown",
    "unsupported_coding", "connect_failed", "upstream_closed", "bad_response", "response_head_too_large", "bad_upgrade",
    "loop_detected", "retry_budget", "discovery_pending", "no_replica", "replicas_full", "connect_timeout",
    "response_timeout", "version_not_supported", "client_stalled", "options_answered",
    "queue_timeout", "unknown_host", "client_limit",
)  # fmt: skip
"""The closed set of reasons for which the proxy itself ended an exchange. An index here is a cell of the instance block."""

RETRIES = ("connect_failed", "connect_timeout", "reused_closed", "new_closed", "over_budget")
"""Why a request was tried again: the replica could not be connected to (nothing was sent), or it closed a kept or a new
connection before any octet of an answer; and where it was not, because the budget was spent."""

TLS_FAILURES = ("plain_http", "protocol", "certificate_refused", "closed", "timeout", "other")
"""How handshakes fail: HTTP (or other text) came instead; no version or cipher in common; the client does not trust the
certificate; it left; it did not end in time; anything else, such as noise."""

GATE_RULES = (
    "editor_page", "admin_route", "admin_root", "dashboard_admin", "dashboard_debug", "deny_list", "not_declared",
)  # fmt: skip
"""The closed set of rules by which the gate refuses. An index here is a cell of the instance block."""

DURATION_BUCKETS = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds in seconds of the histograms, without +Inf. A fast HTTP In node answers in about a millisecond."""

FIRST_CODE, LAST_CODE = 100, 999
"""Status codes that a replica may send (FLD-23); each has its own cells."""

# --- worker block: cells from the start of the segment ---
WORKER_CLIENT_CONNECTIONS = 0  # gauge: client connections open now
WORKER_CLIENT_CONNECTIONS_TOTAL = 1  # accepted since start
WORKER_LOG_LINES_DROPPED = 2  # access-log lines dropped because the reader of the log did not keep up
WORKER_ACCEPT_PAUSES = 3  # times that accepting paused at the connection limit
WORKER_TICKS = 4  # of the loop: the sign of life that the watchdog looks for
WORKER_CONNECTIONS_REFUSED = 5  # closed at once because their address had as many as it may
WORKER_RETRIES = 8  # one cell per reason of RETRIES
WORKER_TLS_FAILURES = 16  # one cell per reason of TLS_FAILURES
WORKER_CELLS = 512  # one page

# --- instance block ---
INSTANCE_PROXY_REPLIES = 0  # one cell per reason
INSTANCE_GATE_DENIED = 48  # one cell per rule
INSTANCE_QUEUED = 64  # gauge: requests that wait for a place at a replica
INSTANCE_QUEUE_DURATION = 65  # a histogram, of those that got one: like that of a replica
INSTANCE_CELLS = 128

# --- replica block ---
REPLICA_ACTIVE_REQUESTS = 0  # gauge
REPLICA_ACTIVE_TUNNELS = 1  # gauge
REPLICA_IDLE_CONNECTIONS = 2  # gauge: connections in the pool
REPLICA_CONNECTIONS_OPENED = 3
REPLICA_CONNECTIONS_REUSED = 4
REPLICA_CONNECTIONS_STALE = 5  # found closed, or with bytes on it, while idle
REPLICA_CONNECTIONS_FAILED = 6
REPLICA_RECEIVED_BYTES = 7  # from the replica
REPLICA_SENT_BYTES = 8  # to the replica
REPLICA_TUNNELS_TOTAL = 9
REPLICA_EJECTED = 10  # gauge: 1 while the worker passes the replica over
REPLICA_EJECTIONS = 11
REPLICA_CODES_SEEN = 16  # bitmap of the codes that have a cell above zero, so that a scrape reads only those: 15 cells
REPLICA_DURATION = 32  # a histogram: one cell per bucket, one for +Inf, then the sum in nanoseconds
REPLICA_CONNECT_DURATION = 64  # a histogram of the same shape
REPLICA_REQUESTS = 96  # [code - FIRST_CODE][method]
REPLICA_CELLS = 7680  # 96 + 900 codes * 8 methods = 7,296, rounded up to whole pages (15 pages of 512 cells)

INSTANCES_AT = WORKER_CELLS
REPLICAS_AT = -(-(INSTANCES_AT + MAX_INSTANCES * INSTANCE_CELLS) // 512) * 512
SEGMENT_CELLS = REPLICAS_AT + MAX_REPLICAS * REPLICA_CELLS
SEGMENT_BYTES = SEGMENT_CELLS * CELL

GAUGES = (REPLICA_ACTIVE_REQUESTS, REPLICA_ACTIVE_TUNNELS, REPLICA_IDLE_CONNECTIONS, REPLICA_EJECTED)
"""Cells of a replica block that control zeroes when a worker died; with `INSTANCE_QUEUED` of every instance block."""


def instance_at(slot: int) -> int:
    """The first cell of an instance's block."""
    return INSTANCES_AT + slot * INSTANCE_CELLS


def replica_at(slot: int) -> int:
    """The first cell of a replica's block."""
    return REPLICAS_AT + slot * REPLICA_CELLS

"""Why the proxy itself ended an exchange: for every reason its status, its RFC 9209 error type and a message.

The rules are those of `http-intermediary` sections 11 and 12. A reason is one word of the closed set
`counters.REASONS`, in the same order: the answer's body, `Proxy-Status`, the access log and the metric label all carry
it. A message is one sentence that says what is wrong and, where the client can do something, what. It never holds an
address or the name of a replica, and of the request nothing but the host that no instance has.
"""

from __future__ import annotations

from dataclasses import dataclass

HOST = "\x01"
"""Stands in a message for the request's host."""


@dataclass(frozen=True, slots=True)
class Reason:
    """What follows from one reason."""

    status: int  # sent to the client; 499 is only logged and counted (`is_sent`)
    error: str  # RFC 9209 section 2.3 error type for `Proxy-Status`; empty: no such field
    message: str  # one sentence for the client

    @property
    def is_sent(self) -> bool:
        """False: nobody is left to be answered, the reason is only logged and counted."""
        return self.status != 499


REASONS: dict[str, Reason] = {
    "bad_request": Reason(
        400, "http_request_error", "The first line of the request is not valid HTTP/1.1, or its fields cannot be read."
    ),
    "bad_target": Reason(
        400, "http_request_error", "The address in the first line of the request is not a valid HTTP request target."
    ),
    "bad_host": Reason(
        400, "http_request_error", "The request needs exactly one valid Host field that agrees with its address."
    ),
    "bad_field": Reason(
        400, "http_request_error", "A header field has a name or a value with characters that HTTP does not allow."
    ),
    "bad_framing": Reason(
        400, "http_request_error", "Content-Length or Transfer-Encoding does not say validly how long the body is."
    ),
    "ambiguous_framing": Reason(
        400, "http_request_error", "The request says in two ways how long its body is: send only one of them."
    ),
    "bad_chunk": Reason(400, "http_request_error", "The chunked request body is not encoded as HTTP/1.1 asks."),
    "bad_connection_option": Reason(
        400, "http_request_error", "The Connection field names a field that must not be removed on the way."
    ),
    "bad_websocket": Reason(
        400, "http_request_error", "The WebSocket handshake lacks a field, or one of its fields is not valid."
    ),
    "gate_denied": Reason(
        403,
        "http_request_denied",
        "This address is closed while the instance runs in High Availability mode.",
    ),
    # REQ-20: TRACE. CONNECT (REQ-19) carries the same word with status 501.
    "method_not_supported": Reason(405, "http_request_denied", "This proxy does not serve this method."),
    "head_timeout": Reason(408, "http_request_error", "The request did not arrive in time: send it faster."),
    "body_timeout": Reason(
        408, "http_request_error", "The body of the request did not arrive in time: send it faster."
    ),
    "body_too_large": Reason(
        413, "http_request_error", "The body of the request is larger than this instance accepts."
    ),
    "uri_too_long": Reason(
        414, "http_request_error", "The first line of the request is too long: use a shorter address."
    ),
    "head_too_large": Reason(
        431,
        "http_request_error",
        "The header fields of the request are too large together: send fewer or smaller cookies.",
    ),
    "too_many_fields": Reason(431, "http_request_error", "The request has too many header fields."),
    "client_gone": Reason(499, "", "The client closed the connection before it had its answer."),
    "internal": Reason(
        500, "proxy_internal_error", "The proxy made a mistake: give the request id to whoever runs this site."
    ),
    "method_unknown": Reason(501, "http_request_error", "The proxy does not know this method."),
    "unsupported_coding": Reason(
        501, "http_request_error", "The only transfer coding that may be used for a request is chunked."
    ),
    "connect_failed": Reason(
        502, "connection_refused", "No replica that was tried accepted a connection: try again in a moment."
    ),
    "upstream_closed": Reason(
        502, "connection_terminated", "The replica closed the connection before its answer was complete."
    ),
    "bad_response": Reason(502, "http_protocol_error", "The replica sent an answer that is not valid HTTP."),
    "response_head_too_large": Reason(
        502, "http_response_header_section_size", "The header fields of the replica's answer are too large."
    ),
    "bad_upgrade": Reason(502, "http_upgrade_failed", "The replica did not answer the upgrade as the protocol asks."),
    "loop_detected": Reason(
        502,
        "proxy_loop_detected",
        "The request came back to this proxy: one of its replicas leads to the proxy itself.",
    ),
    "retry_budget": Reason(
        502, "connection_terminated", "The replica failed, and too many requests are being retried to try another one."
    ),
    "discovery_pending": Reason(
        503,
        "destination_unavailable",
        "The proxy has just started and is still looking for replicas or what they serve: try again in a moment.",
    ),
    "no_replica": Reason(
        503, "destination_unavailable", "No replica of this instance is available: try again in a moment."
    ),
    "replicas_full": Reason(
        503,
        "connection_limit_reached",
        "Every replica of this instance is at its limit, and as many requests wait as may: try again in a moment.",
    ),
    "connect_timeout": Reason(
        504, "connection_timeout", "No replica of this instance accepted a connection in time: try again in a moment."
    ),
    "response_timeout": Reason(504, "http_response_timeout", "The replica did not answer in time."),
    "version_not_supported": Reason(505, "http_request_error", "This proxy speaks HTTP/1.0 and HTTP/1.1 only."),
    "client_stalled": Reason(499, "", "The client stopped taking its answer."),
    "options_answered": Reason(200, "", "Answered by the proxy itself."),
    "queue_timeout": Reason(
        503,
        "connection_limit_reached",
        "Every replica of this instance stayed at its limit while the request waited: try again in a moment.",
    ),
    # RFC 9110 section 15.5.20
    "unknown_host": Reason(
        421,
        "destination_not_found",
        f"No instance of this proxy serves the host {HOST}: check its spelling, or add it to the hosts of an instance.",
    ),
    # RFC 6585 section 4
    "client_limit": Reason(
        429,
        "http_request_denied",
        "Too many requests or connections come from this client's address: try again in a moment.",
    ),
}
"""In the order of `counters.REASONS`."""

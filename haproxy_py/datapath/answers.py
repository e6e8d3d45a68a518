"""The proxy's own answers: made from templates, so that refusing is cheaper than forwarding.

What each reason means stands in `haproxy_py.reasons`, the pages in `haproxy_py.pages`. An answer is HTML for a browser (the
client takes text/html) and JSON for everybody else, and carries the same word in its body and in Proxy-Status (RFC 9209). It
says nothing of the request but its id and a host that no instance has, and nothing of replicas.
"""

import http
import json

import cython
from cython.cimports.cpython.bytes import PyBytes_GET_SIZE
from cython.cimports.haproxy_py.datapath.context import Context
from cython.cimports.haproxy_py.datapath.reason import (
    CLIENT_LIMIT,
    CONNECT_FAILED,
    GATE_DENIED,
    METHOD_NOT_SUPPORTED,
    OPTIONS_ANSWERED,
    QUEUE_TIMEOUT,
    REPLICAS_FULL,
    RESPONSE_TIMEOUT,
    UNKNOWN_HOST,
)
from cython.cimports.haproxy_py.datapath.writer import Writer

from haproxy_py import counters, pages, reasons

_ALLOWED = "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"
_MARK = "\x00"  # stands for the request id while a template is made
_MAX_TEMPLATES = 4096  # more instances than this have their refusals made anew

_templates = cython.declare(dict, {})
_STATUSES = cython.declare(list, [reasons.REASONS[name].status for name in counters.REASONS])


@cython.cfunc
@cython.exceptval(check=False)
def status_of(reason: cython.int) -> cython.int:
    return _STATUSES[reason]


@cython.cfunc
def name_of(reason: cython.int) -> str:
    return counters.REASONS[reason]


@cython.cfunc
@cython.exceptval(check=False)
def may_persist(reason: cython.int) -> cython.bint:
    """Whether the client's connection may stay after this answer, its request body being complete (section 11)."""
    return (
        reason == GATE_DENIED
        or reason == METHOD_NOT_SUPPORTED
        or reason == OPTIONS_ANSWERED
        or CONNECT_FAILED <= reason <= REPLICAS_FULL
        or REPLICAS_FULL < reason <= RESPONSE_TIMEOUT
        or reason == QUEUE_TIMEOUT
        or reason == UNKNOWN_HOST
        or reason == CLIENT_LIMIT
    )


@cython.final
@cython.cclass
class Template:
    """All of an answer but its length, date and request id."""

    def __init__(self, reason: str, rule: str, instance: str, status: int, html: bool, closing: bool):
        facts = reasons.REASONS[reason]
        fields: list = [f"HTTP/1.1 {status} {_phrase(status)}", "Server: haproxy_py", "Cache-Control: no-store"]
        if facts.error:
            fields.append(f'Proxy-Status: haproxy_py; error={facts.error}; details="{reason}"')
        if status in (200, 405):
            fields.append(f"Allow: {_ALLOWED}")
        if status in (429, 503):
            fields.append("Retry-After: 1")
        if closing:
            fields.append("Connection: close")
        if status == 200:
            body = ""
        elif html:
            fields.append("Content-Type: text/html; charset=utf-8")
            fields.append("Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'")
            body = (
                pages.render_gate_page(rule, instance, _MARK)
                if reason == "gate_denied"
                else pages.render_error_page(status, reason, facts.message, _MARK)
            ).decode()
        else:
            fields.append("Content-Type: application/json")
            said: dict = {"status": status, "reason": reason, "message": facts.message}
            if reason == "gate_denied":
                denial = pages.DENIALS[rule]
                said |= {"message": f"{denial.title}.", "rule": rule, "hint": denial.hint}
            body = json.dumps(said | {"request_id": "ID"}).replace('"ID"', f'"{_MARK}"') + "\n"
        body = body.replace(json.dumps(reasons.HOST)[1:-1], reasons.HOST)
        before, _, after = body.partition(_MARK)
        if reasons.HOST in before:
            first, _, before = before.partition(reasons.HOST)
            self.first = first.encode()
        self.fields = ("\r\n".join(fields) + "\r\nContent-Length: ").encode()
        self.before = before.encode()
        self.after = after.encode()


def _phrase(status: int) -> str:
    return http.HTTPStatus(status).phrase if status != 499 else "Client Closed Request"


@cython.cfunc
def write_answer(
    context: Context,
    reason: cython.int,
    rule: cython.int,
    instance: str,
    status: cython.int,
    html: cython.bint,
    closing: cython.bint,
    to_head_request: cython.bint,
    request_id: cython.p_const_char,
    request_id_size: cython.int,
    host: bytes,
):
    """Write a whole answer into the context's writer.

    `rule` is that of the gate, where the reason is its denial. `instance` may be the empty string; the request id holds
    nothing that needs escaping (FWD-13). `host` counts only for a reason whose message names it: it has been measured, so
    nothing in it needs escaping in JSON (REQ-14).
    """
    size: cython.Py_ssize_t
    writer: Writer = context.writer
    key: tuple = (reason, rule, instance, status, html, closing)
    template: Template = _templates.get(key)
    if template is None:
        template = Template(name_of(reason), counters.GATE_RULES[rule], instance, status, html, closing)
        if len(_templates) < _MAX_TEMPLATES:
            _templates[key] = template
    size = PyBytes_GET_SIZE(template.before)
    if size > 0:
        size += request_id_size + PyBytes_GET_SIZE(template.after)
    if template.first is not None:
        if html:
            host = pages.escape(host.decode("ascii"))
        size += PyBytes_GET_SIZE(template.first) + PyBytes_GET_SIZE(host)
    writer.clear()
    writer.put_bytes(template.fields)
    writer.put_number(size)
    writer.put(b"\r\n", 2)
    writer.put_bytes(context.date_line)
    writer.put(b"\r\n", 2)
    if not to_head_request and size > 0:
        if template.first is not None:
            writer.put_bytes(template.first)
            writer.put_bytes(host)
        writer.put_bytes(template.before)
        writer.put(request_id, request_id_size)
        writer.put_bytes(template.after)

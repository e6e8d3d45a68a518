"""Calls that change something: who may make them, and what they do.

- Only POST, and only with `Authorization: Bearer TOKEN` (RFC 6750). Without `ops.token_file` they are off: 403. No token, or the
  wrong one: 401. A page of another site can make a browser send a POST, but not this field, so no form can reach them.
- A body is neither needed nor read. A query parameter that is not known is 400: it might have been meant to hold a call back.
"""

from __future__ import annotations

import hmac
import time
from functools import partial

from aiohttp import web

from haproxy_py.ops.answers import Say, answer_error, answer_json
from haproxy_py.ops.status import describe_replica
from haproxy_py.ops.view import Proxy, RefusedError

COMPLAIN_AGAIN = 10.0
"""Seconds between two lines about calls without the right token: whoever guesses must not fill the log."""

REPLICA_PATH = "/api/v1/instances/{instance}/replicas/{replica}"


class Changes:
    """The calls, for the operators' port to serve."""

    def __init__(self, proxy: Proxy, say: Say) -> None:
        self.token = b""  # empty: all of these calls are off
        self._proxy = proxy
        self._say = say
        self._complained = 0.0  # monotonic seconds

    def list_routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{REPLICA_PATH}/drain", self._drain),
            web.post(f"{REPLICA_PATH}/undrain", self._undrain),
        ]

    async def _drain(self, request: web.Request) -> web.Response:
        return self._change(request, drains=True)

    async def _undrain(self, request: web.Request) -> web.Response:
        return self._change(request, drains=False)

    def _change(self, request: web.Request, *, drains: bool) -> web.Response:
        refusal = self._judge_caller(request)
        if refusal is not None:
            return refusal
        instance, replica = request.match_info["instance"], request.match_info["replica"]
        try:
            force = _read_force(request, may_force=drains)
            change = partial(self._proxy.drain, force=force) if drains else self._proxy.undrain
            entry = change(instance, replica)
        except RefusedError as error:
            return answer_error(error.status, error.reason, f"{error}.")
        view = self._proxy.view()
        return answer_json(
            {
                "instance": instance,
                "replica": describe_replica(view, instance, entry),
                "table_version": view.table.version,  # in which it stands; `workers` of the status say what is in force
            }
        )

    def _is_token(self, shown: str) -> bool:
        """The time it takes says nothing about how much of it is right."""
        return hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self.token)

    def _judge_caller(self, request: web.Request) -> web.Response | None:
        """None if the caller may change something."""
        if not self.token:
            return answer_error(
                403,
                "changes_off",
                "Calls that change something are switched off. Name a file with a token under ops.token_file in the "
                "configuration, and send the token as Authorization: Bearer TOKEN.",
            )
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(shown.strip()):
            return None
        now = time.monotonic()
        if now - self._complained >= COMPLAIN_AGAIN or not self._complained:
            self._complained = now
            self._say(
                "warning",
                f"operators' port: {request.method} {request.path} from {request.remote} was refused, because it "
                f"showed {'a wrong token' if shown else 'no token'}",
            )
        answer = answer_error(
            401,
            "wrong_token" if shown else "token_needed",
            "This call needs Authorization: Bearer TOKEN with the token in the file that ops.token_file names.",
        )
        answer.headers["WWW-Authenticate"] = 'Bearer realm="haproxy_py"' + (', error="invalid_token"' if shown else "")
        return answer


def _read_force(request: web.Request, *, may_force: bool) -> bool:
    """The parameter `force`; no other is known. Raises RefusedError."""
    force = False
    for name, value in request.query.items():
        if name != "force" or not may_force or value not in ("true", "false"):
            known = "force=true and force=false are" if may_force else "none is"
            raise RefusedError(400, "bad_parameter", f"this query parameter is not known here; {known}")
        force = value == "true"
    return force

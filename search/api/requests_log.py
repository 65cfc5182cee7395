"""The outermost layer: gives each request an id, counts it, logs it as one JSON line, and catches what nobody did.

What is logged of a request: time, id, method, the path's template, status, milliseconds, bytes sent, the key's name.
Never a query, an id or a text: they are the user's.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
import traceback
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.api.metrics import Metrics
from search.api.problems import problem_response

REQUEST_ID = b"x-request-id"
UNMATCHED = "unmatched"
_ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))
logger = logging.getLogger("search.api")


@dataclass
class _Answer:
    """What was sent so far."""

    status: int = 0
    bytes: int = 0


class RequestLog:
    """ASGI layer around everything else."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request and write it down."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["request_id"] = request_id = _request_id(scope)
        answer, started = _Answer(), time.perf_counter()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id.encode())]
            answer.bytes += len(message.get("body", b""))
            await send(message)

        failure = None
        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            failure = error
            if not answer.status:
                detail = f"an error in the server; its log has it under {request_id}. Report it if it comes again."
                await problem_response(500, detail, request_id)(scope, receive, watched)
        self._write(scope, answer, time.perf_counter() - started, failure)

    def _write(self, scope: Scope, answer: _Answer, seconds: float, failure: Exception | None) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._metrics.count(method, route, answer.status, seconds)
        record: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "request": scope["request_id"],
            "method": method, "route": route, "status": answer.status, "ms": round(seconds * 1000, 1),
            "bytes": answer.bytes, "key": scope.get("key_name"),
        }  # fmt: skip
        if failure is not None:  # where it broke; the message might quote a text
            frames = traceback.extract_tb(failure.__traceback__)
            record |= {"error": type(failure).__name__, "at": [f"{f.filename}:{f.lineno} {f.name}" for f in frames]}
        logger.log(logging.ERROR if failure else logging.INFO, json.dumps(record))


def _request_id(scope: Scope) -> str:
    """The caller's id where it is harmless, so that logs of several services can be put together; else a new one."""
    given = dict(scope["headers"]).get(REQUEST_ID, b"").decode("latin-1")
    return given if _ID_FORM.fullmatch(given) else secrets.token_hex(8)

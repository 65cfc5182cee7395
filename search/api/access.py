"""Who is asking, whether they may, and whether not too often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from search.api.keys import Scope
from search.api.problems import ApiError, problem_response
from search.api.service import service_of

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_bearer = HTTPBearer(auto_error=False, description="an API key; `search key NAME` makes one")


def allow(scope: Scope) -> Callable[..., Awaitable[None]]:
    """A dependency that lets a request pass when its key has the scope and was not used too often.

    Raises:
        ApiError: No key or an unknown one (401), one without the scope (403), or too many requests (429).
    """

    async def check(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None
    ) -> None:
        service = service_of(request)
        address = request.client.host if request.client else "unknown"
        key = service.keys.find(credentials.credentials) if credentials else None
        request.scope["key_name"] = key.name if key else None
        wait_s = service.rates.wait_s(f"key {key.name}" if key else f"address {address}")
        if wait_s:
            seconds = int(wait_s) + 1
            message = f"more than {service.settings.serve.rate} requests a minute; try again in {seconds} s"
            raise ApiError(429, message, {"Retry-After": str(seconds)})
        if service.keys and key is None:
            message = "send an API key of this server as `Authorization: Bearer KEY`; whoever runs it can give you one"
            raise ApiError(401, message, {"WWW-Authenticate": "Bearer"})
        if key is not None and scope not in key.scopes:
            allowed = ", ".join(sorted(key.scopes))
            raise ApiError(403, f"this needs a key with the scope {scope}; the key {key.name!r} has {allowed}")

    return check


class HostCheck:
    """ASGI layer that refuses other host names than the server's own.

    Without it, a web page could make its visitor's browser talk to a server on the visitor's machine under a name of
    the page's (DNS rebinding).

    Args:
        app: What it stands before.
        hosts: Names to answer to; empty: all.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, frozenset(name.lower() for name in hosts)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Hand on what is meant for this server."""
        if scope["type"] == "http" and self._hosts:
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
            name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
            if name not in self._hosts:
                detail = f"this server does not answer to the name {name[:80]!r}; start it with --host-name to allow it"
                await problem_response(400, detail, str(scope.get("request_id", "")))(scope, receive, send)
                return
        await self._app(scope, receive, send)

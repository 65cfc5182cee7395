"""What keeps one caller from taking the server from the others: rate, size of requests, time, number at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.api.problems import ApiError, problem_response

T = TypeVar("T")

_MOST_CALLERS = 10_000


class RateLimiter:
    """A bucket of tokens for every caller, filled at a steady rate; for use from one thread.

    Args:
        per_minute: Tokens a minute; the bucket holds half of that, and 10 at least. 0: no limit.
        clock: Seconds that only grow.

    Source: Turner, 1986, "New Directions in Communications" (leaky bucket as a meter).
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst = per_minute / 60.0, max(10.0, per_minute / 2)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, caller: str) -> float:
        """Take a token: 0 when there was one, else the seconds until there is."""
        if not self._rate:
            return 0.0
        now = self._clock()
        tokens, at = self._buckets.pop(caller, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        taken = tokens >= 1.0
        self._buckets[caller] = (tokens - 1.0 if taken else tokens, now)
        if len(self._buckets) > _MOST_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1.0 - tokens) / self._rate


class Workers:
    """Threads in which the engine's calls run, so that the event loop never waits.

    A call that takes too long is answered as such. It cannot be stopped, so it goes on counting until it ends; where
    too many run or wait, further ones are refused at once rather than kept waiting.

    Args:
        threads: Calls that run at the same time.
        waiting: Calls that run or wait.
        timeout_s: Seconds after which the caller is told that it took too long.
    """

    def __init__(self, *, threads: int, waiting: int, timeout_s: float) -> None:
        self._limiter = anyio.CapacityLimiter(threads)
        self._most, self._timeout_s = waiting, timeout_s
        self._lock = threading.Lock()
        self.busy = 0

    async def run(self, call: Callable[[], T]) -> T:
        """Run `call` in a thread.

        Raises:
            ApiError: Too many calls wait (503), or this one took too long (504).
        """
        with self._lock:
            if self.busy >= self._most:
                raise ApiError(503, "too many requests at the moment; try again in a second", {"Retry-After": "1"})
            self.busy += 1
        place = _Place(self)

        def counted() -> T:
            place.taken = True
            try:
                return call()
            finally:
                place.leave()

        try:
            async with asyncio.timeout(self._timeout_s):
                return await anyio.to_thread.run_sync(counted, abandon_on_cancel=True, limiter=self._limiter)
        except TimeoutError as error:
            message = f"no answer within {self._timeout_s:g} s; ask for less, or start the server with --timeout"
            raise ApiError(504, message) from error
        finally:
            if not place.taken:
                place.leave()

    def free(self) -> None:
        """One call fewer."""
        with self._lock:
            self.busy -= 1


class _Place:
    """The place of one call among the workers, left once: by its thread, or by whoever gave up before it began."""

    def __init__(self, workers: Workers) -> None:
        self._workers, self._left, self.taken = workers, threading.Lock(), False

    def leave(self) -> None:
        if self._left.acquire(blocking=False):
            self._workers.free()


class BodyLimit:
    """ASGI layer that refuses bodies that are too large or come too slowly.

    Args:
        app: What it stands before.
        max_bytes: Largest body.
        timeout_s: Seconds within which the body must be there.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float) -> None:
        self._app, self._max_bytes, self._timeout_s = app, max_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body within the limits and hand it on whole."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(scope, receive)
        except TimeoutError:
            error = ApiError(408, f"the body did not come within {self._timeout_s:g} s", {"Connection": "close"})
        except ApiError as refused:
            error = refused
        else:
            await self._app(scope, _once(body, receive), send)
            return
        response = problem_response(error.status, str(error), str(scope.get("request_id", "")), error.headers)
        await response(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        parts: list[bytes] = []
        size, read, more = int(declared) if declared.isdigit() else 0, 0, True
        while more and size <= self._max_bytes:
            message = await receive()
            parts.append(message.get("body", b""))
            read += len(parts[-1])
            size, more = max(size, read), message.get("more_body", False)
        if size > self._max_bytes:
            detail = f"the body is larger than {self._max_bytes} bytes; send it in parts"
            raise ApiError(413, detail, {"Connection": "close"})
        return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then whatever the connection says."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message

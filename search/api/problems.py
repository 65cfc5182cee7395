"""Errors as problem details: what failed, and what to do, in one JSON object.

Source: Nottingham, Wilde and Dalal, 2023, "Problem Details for HTTP APIs" (RFC 9457).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from search.errors import (
    EncoderError,
    EncoderMismatchError,
    IndexBusyError,
    IndexFormatError,
    IndexNotFoundError,
    PanlinguaError,
    QueryError,
    SourceError,
    StoreError,
)

CONTENT_TYPE = "application/problem+json"
_MOST_FIELD_ERRORS = 20
_TITLES = {
    400: "The request cannot be answered", 401: "A key is needed", 403: "The key does not allow this",
    404: "There is no such thing", 405: "The method is not allowed here", 408: "The request came too slowly",
    409: "The index is being written", 413: "The request is too large", 422: "The request is not valid",
    429: "Too many requests", 500: "Something went wrong", 503: "Not ready", 504: "It took too long",
}  # fmt: skip
_STATUS: tuple[tuple[type[PanlinguaError], int], ...] = (
    (QueryError, 400),
    (SourceError, 400),
    (IndexNotFoundError, 503),
    (IndexBusyError, 409),
    (EncoderMismatchError, 503),
    (EncoderError, 400),
    (StoreError, 503),
    (IndexFormatError, 503),
)


class ApiError(PanlinguaError):
    """A request is refused by the server itself rather than by the engine.

    Args:
        status: HTTP status.
        detail: What failed and what to do, for the person who asked.
        headers: Headers that go with the status, such as `Retry-After`.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.headers = status, dict(headers or {})


class Problem(BaseModel):
    """What went wrong, as RFC 9457 writes it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "The request cannot be answered",
                    "status": 400,
                    "detail": "the query is empty; type a question or some words",
                    "instance": "urn:request:5f0c9ad2",
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="what failed, what is allowed and what to do next")
    instance: str = Field(description="names this request in the server's log")


def status_of(error: PanlinguaError) -> int:
    """HTTP status of an error that a person can act on."""
    if isinstance(error, ApiError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(status: int, detail: str, request_id: str) -> dict[str, Any]:
    """The problem as plain values."""
    title = _TITLES.get(status, "The request failed")
    return Problem(title=title, status=status, detail=detail, instance=f"urn:request:{request_id}").model_dump()


def problem_response(
    status: int, detail: str, request_id: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The problem as a response."""
    body = problem(status, detail, request_id)
    return JSONResponse(body, status_code=status, media_type=CONTENT_TYPE, headers=dict(headers or {}))


def request_id_of(request: Request) -> str:
    """The id that the outermost layer gave the request."""
    return str(request.scope.get("request_id", "unknown"))


async def answer_panlingua_error(request: Request, error: Exception) -> JSONResponse:
    """Handler for the errors of this project."""
    assert isinstance(error, PanlinguaError)
    headers = error.headers if isinstance(error, ApiError) else {}
    return problem_response(status_of(error), str(error), request_id_of(request), headers)


async def answer_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Handler for requests of the wrong shape; says where, and does not repeat what was sent."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found[:_MOST_FIELD_ERRORS]]
    more = f"; and {len(found) - len(lines)} more" if len(found) > len(lines) else ""
    return problem_response(422, "; ".join(lines) + more + ". See /docs for what is allowed.", request_id_of(request))


async def answer_http_error(request: Request, error: Exception) -> JSONResponse:
    """Handler for what the framework refuses, such as an unknown path."""
    assert isinstance(error, HTTPException)
    detail = f"{error.detail}; /docs lists the paths and methods" if error.status_code in (404, 405) else error.detail
    return problem_response(error.status_code, detail, request_id_of(request), error.headers)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI descriptions of the problems that a path may answer with."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status: {"description": _TITLES[status], "content": {CONTENT_TYPE: schema}} for status in statuses}

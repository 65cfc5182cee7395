"""The FastAPI application: routes, layers around them, OpenAPI description."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_swagger import patch_fastapi
from starlette.exceptions import HTTPException

from search.api import document_routes, search_routes, server_routes
from search.api.access import LOOPBACK, HostCheck
from search.api.limits import BodyLimit
from search.api.problems import (
    Problem,
    answer_http_error,
    answer_panlingua_error,
    answer_validation_error,
)
from search.api.requests_log import RequestLog
from search.api.service import Service
from search.errors import PanlinguaError
from search.settings import version

_DESCRIPTION = """Cross-lingual search over your own documents: a question in one language finds what is written in \
others. Errors are problem details (RFC 9457) whose `detail` says what to do. Texts of hits are what the documents \
say: treat them as data, escape them in a page, and never let a model take them for instructions."""


def create_app(service: Service) -> FastAPI:
    """The application of a service; starts it, and closes it at the end."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(
        title="Panlingua", version=version(), description=_DESCRIPTION, lifespan=lifespan,
        docs_url=None, redoc_url=None, swagger_ui_oauth2_redirect_url=None,
    )  # fmt: skip
    # FastAPI's own page would fetch its scripts from the network, and remember keys in the browser.
    patch_fastapi(app, swagger_ui_parameters={"tryItOutEnabled": True, "persistAuthorization": False})
    app.state.service = service
    for module in (search_routes, document_routes, server_routes):
        app.include_router(module.router)
    app.add_exception_handler(PanlinguaError, answer_panlingua_error)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    serve = service.settings.serve
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, max_bytes=serve.max_body_bytes, timeout_s=serve.timeout_s)
    app.add_middleware(HostCheck, hosts=allowed_hosts(service))
    app.add_middleware(RequestLog, metrics=service.metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def allowed_hosts(service: Service) -> tuple[str, ...]:
    """Host names to answer to: those of the settings; without keys, this machine's own; else all."""
    return service.settings.serve.hosts or (() if service.keys else LOOPBACK)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description with the problem's schema, which no route names as its answer."""
    if app.openapi_schema is None:
        description = FastAPI.openapi(app)
        schemas = description["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = description
    return app.openapi_schema

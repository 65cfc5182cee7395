"""Search, batch search, similar documents, facets, documents by their passages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse

from search.api.access import allow
from search.api.keys import Scope
from search.api.problems import ApiError, documented, problem, request_id_of, status_of
from search.api.schemas import (
    MOST_QUERY_CHARACTERS,
    BatchAnswer,
    BatchRequest,
    DocumentAnswer,
    FacetsAnswer,
    FilterRequest,
    HitsAnswer,
    SearchAnswer,
    SearchRequest,
    TopicsAnswer,
    TopicsRequest,
    TranslationsAnswer,
    chunk_answer,
    search_answer,
)
from search.api.service import Service, service_of
from search.errors import PanlinguaError, QueryError
from search.records import Chunk
from search.results import MAX_RESULTS, Mode

NDJSON = "application/x-ndjson"
_TOGETHER = 8
"""Searches of one batch that run at the same time."""

router = APIRouter(
    prefix="/v1", tags=["search"], dependencies=[Depends(allow(Scope.READ))],
    responses=documented(400, 401, 403, 408, 413, 422, 429, 500, 503, 504),
)  # fmt: skip

DocumentId = Annotated[str, Query(alias="id", min_length=1, max_length=4_000, description="id of a document")]
Service_ = Annotated[Service, Depends(service_of)]


@router.post("/search", response_model=SearchAnswer)
async def search(body: SearchRequest, service: Service_) -> dict[str, Any]:
    """Find the documents that answer a question, whatever their language."""
    return await _search(service, body)


@router.get("/search", response_model=SearchAnswer)
async def search_by_url(
    service: Service_,
    q: Annotated[str, Query(min_length=1, max_length=MOST_QUERY_CHARACTERS, description="a question or words")],
    k: Annotated[int, Query(ge=1, le=MAX_RESULTS)] = 10,
    offset: Annotated[int, Query(ge=0, le=MAX_RESULTS)] = 0,
    mode: Mode = Mode.HYBRID,
) -> dict[str, Any]:
    """The same with a URL. URLs end up in logs of proxies: send what is confidential with POST."""
    return await _search(service, SearchRequest(query=q, k=k, offset=offset, mode=mode))


@router.post(
    "/search/batch",
    response_model=BatchAnswer,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}, "description": "Answers, in order"}},
)
async def search_batch(body: BatchRequest, request: Request, service: Service_) -> Response | dict[str, Any]:
    """Many searches at once; with `Accept: application/x-ndjson` each answer is a line, sent when it is ready."""
    service.engine()
    answers = _answers(service, body.searches, request_id_of(request))
    if NDJSON in request.headers.get("accept", ""):
        return StreamingResponse((json.dumps(a, ensure_ascii=False) + "\n" async for a in answers), media_type=NDJSON)
    return {"results": [answer async for answer in answers]}


@router.get("/similar", response_model=HitsAnswer, responses=documented(404))
async def similar(
    document_id: DocumentId, service: Service_, k: Annotated[int, Query(ge=1, le=MAX_RESULTS)] = 10
) -> dict[str, Any]:
    """Documents about the same as one, in any language."""
    await document_chunks(service, document_id)
    hits = await service.run(lambda engine: engine.similar(document_id, k=k))
    return {"hits": [hit.as_json() for hit in hits]}


@router.post("/facets", response_model=FacetsAnswer)
async def facets(service: Service_, body: FilterRequest | None = None) -> dict[str, Any]:
    """How many documents have which language, folder, year and metadata."""
    chosen = body.as_filter() if body else None
    return {"facets": await service.run(lambda engine: engine.facets(chosen))}


@router.get("/translations", response_model=TranslationsAnswer, responses=documented(404))
async def translations(document_id: DocumentId, service: Service_) -> dict[str, Any]:
    """Documents that were found to say the same as one, in other languages."""
    await document_chunks(service, document_id)
    found = await service.run(lambda engine: engine.translations(document_id))
    return {"translations": [asdict(translation) for translation in found]}


@router.post("/topics", response_model=TopicsAnswer)
async def topics(service: Service_, body: TopicsRequest | None = None) -> dict[str, Any]:
    """What documents are about: one topic for one subject, whatever their languages."""
    asked = body or TopicsRequest()
    chosen = asked.filter.as_filter() if asked.filter else None
    found = await service.run(
        lambda engine: engine.topics(
            filter=chosen, query=asked.query, reader_languages=asked.reader_languages, count=asked.count
        )
    )
    return {
        "topics": [topic.as_json() for topic in found.topics], "languages": dict(found.languages),
        "notes": list(found.notes),
    }  # fmt: skip


@router.get("/documents", response_model=DocumentAnswer, responses=documented(404))
async def document(document_id: DocumentId, service: Service_) -> dict[str, Any]:
    """A document by its passages, in order. They overlap; `start` and `end` say where each belongs."""
    chunks = await document_chunks(service, document_id)
    first = chunks[0]
    return {
        "document_id": document_id, "title": first.title, "source": first.source, "date": first.date,
        "chunks": [chunk_answer(chunk) for chunk in chunks],
    }  # fmt: skip


async def document_chunks(service: Service, document_id: str) -> list[Chunk]:
    """A document's passages.

    Raises:
        ApiError: There is no such document.
    """
    try:
        return await service.run(lambda engine: engine.document(document_id))
    except QueryError as error:
        raise ApiError(404, str(error)) from error


async def _search(service: Service, body: SearchRequest) -> dict[str, Any]:
    options = body.options()
    result = await service.run(lambda engine: engine.search(body.query, **options))
    return search_answer(result, facets=body.facets)


async def _answers(
    service: Service, searches: Sequence[SearchRequest], request_id: str
) -> AsyncIterator[dict[str, Any]]:
    """Answers or problems, in the order of the searches."""

    async def answer(body: SearchRequest) -> dict[str, Any]:
        try:
            return await _search(service, body)
        except PanlinguaError as error:
            return {"problem": problem(status_of(error), str(error), request_id)}

    for start in range(0, len(searches), _TOGETHER):
        for found in await asyncio.gather(*map(answer, searches[start : start + _TOGETHER])):
            yield found

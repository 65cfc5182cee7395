"""The server itself: health, counters, what the index holds, and the encoder as OpenAI's clients ask for one."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from search.api.access import allow
from search.api.keys import Scope
from search.api.metrics import CONTENT_TYPE
from search.api.problems import ApiError, documented
from search.api.schemas import MOST_TEXTS, EmbeddingsAnswer, EmbeddingsRequest, HealthAnswer, IndexAnswer
from search.api.service import Service, service_of
from search.encoder import Encoder
from search.records import Vectors

Service_ = Annotated[Service, Depends(service_of)]
_SHARED = (400, 401, 403, 408, 413, 422, 429, 500, 503, 504)

router = APIRouter()


@router.get("/health/live", response_model=HealthAnswer, tags=["server"])
async def live() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get("/health/ready", response_model=HealthAnswer, tags=["server"], responses=documented(503))
async def ready(service: Service_) -> dict[str, str]:
    """Whether searches are answered: encoder and index are open, and belong together."""
    await run_in_threadpool(service.check)
    return {"status": "ok"}


@router.get(
    "/metrics", tags=["server"], dependencies=[Depends(allow(Scope.METRICS))], response_class=Response,
    responses={**documented(401, 403, 429, 500), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)  # fmt: skip
async def metrics(service: Service_) -> Response:
    """Counters, as Prometheus reads them."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


@router.get(
    "/v1/index", response_model=IndexAnswer, tags=["server"], dependencies=[Depends(allow(Scope.READ))],
    responses=documented(*_SHARED),
)  # fmt: skip
async def index(service: Service_) -> dict[str, Any]:
    """What the index holds."""
    manifest = await service.run(lambda engine: engine.index().manifest)
    return manifest.model_dump()


@router.post(
    "/v1/embeddings", response_model=EmbeddingsAnswer, tags=["embeddings"], dependencies=[Depends(allow(Scope.EMBED))],
    responses=documented(*_SHARED),
)  # fmt: skip
async def embeddings(body: EmbeddingsRequest, service: Service_) -> dict[str, Any]:
    """Vectors of texts, as OpenAI's endpoint gives them; they are the encoder's own, before any language balance."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not 1 <= len(texts) <= MOST_TEXTS or not all(text.strip() for text in texts):
        raise ApiError(400, f"send 1 to {MOST_TEXTS} texts, none of them blank; got {len(texts)}")
    encoder = service.encoder()
    if body.model not in (None, encoder.name):
        raise ApiError(400, f"this server encodes with {encoder.name!r} only; leave `model` out or name it")
    encode = encoder.encode_queries if body.input_type == "query" else encoder.encode_documents
    vectors, tokens = await service.workers.run(lambda: (encode(texts), _tokens(encoder, texts)))
    data = [
        {"object": "embedding", "index": row, "embedding": _written(vector, body.encoding_format)}
        for row, vector in enumerate(vectors)
    ]
    return {
        "object": "list", "model": encoder.name, "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }  # fmt: skip


def _tokens(encoder: Encoder, texts: list[str]) -> int:
    """Tokens of the texts, each as far as the encoder reads."""
    return sum(min(len(found), encoder.max_tokens) for found in encoder.tokenizer.encode_batch_fast(texts))


def _written(vector: Vectors, form: str) -> list[float] | str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if form == "base64" else vector.tolist()

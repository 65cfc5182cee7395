"""A stand-in for a Qdrant server that several processes write to: its REST calls, answered by the client's local mode.

It speaks the wire format and keeps the points; search structures, replication and faults are a real server's alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from qdrant_client import QdrantClient
from qdrant_client.http import models


def make_app(client: QdrantClient) -> FastAPI:
    """The calls that `ServerStore` and what is around it make, one at a time."""
    app, lock = FastAPI(), threading.Lock()

    def answer(result: Any) -> dict[str, Any]:
        return {"result": result, "status": "ok", "time": 0.0}

    @app.get("/collections/{name}/exists")
    def exists(name: str) -> dict[str, Any]:
        with lock:
            return answer({"exists": client.collection_exists(name)})

    @app.put("/collections/{name}")
    def create(name: str, body: models.CreateCollection) -> dict[str, Any]:
        with lock:
            if client.collection_exists(name):
                raise HTTPException(409, f"Collection `{name}` already exists!")
            client.create_collection(
                name,
                vectors_config=body.vectors,
                sparse_vectors_config=body.sparse_vectors,
                metadata=body.metadata,
            )
        return answer(True)

    @app.get("/collections/{name}")
    def info(name: str) -> dict[str, Any]:
        with lock:
            return answer(client.get_collection(name).model_dump(mode="json"))

    @app.patch("/collections/{name}")
    def update(name: str, body: models.UpdateCollection) -> dict[str, Any]:
        with lock:
            return answer(client.update_collection(name, metadata=body.metadata))

    @app.delete("/collections/{name}")
    def drop(name: str) -> dict[str, Any]:
        with lock:
            return answer(client.delete_collection(name))

    @app.get("/collections")
    def collections() -> dict[str, Any]:
        with lock:
            return answer(client.get_collections().model_dump(mode="json"))

    @app.get("/aliases")
    def aliases() -> dict[str, Any]:
        with lock:
            return answer(client.get_aliases().model_dump(mode="json"))

    @app.post("/collections/aliases")
    def change_aliases(body: models.ChangeAliasesOperation) -> dict[str, Any]:
        with lock:
            return answer(client.update_collection_aliases(body.actions))

    @app.put("/collections/{name}/index")
    def index(name: str) -> dict[str, Any]:
        return answer({"operation_id": 0, "status": "completed"})

    @app.put("/collections/{name}/points")
    def upsert(name: str, body: models.PointsList) -> dict[str, Any]:
        with lock:
            client.upsert(name, body.points)
        return answer({"operation_id": 0, "status": "completed"})

    @app.post("/collections/{name}/points")
    def retrieve(name: str, body: models.PointRequest) -> dict[str, Any]:
        with lock:
            read = client.retrieve(
                name, body.ids, with_payload=body.with_payload or False, with_vectors=body.with_vector or False
            )
        return answer(read)

    @app.post("/collections/{name}/points/batch")
    def change(name: str, body: models.UpdateOperations) -> dict[str, Any]:
        with lock:
            client.batch_update_points(name, body.operations)
        return answer([{"operation_id": 0, "status": "completed"}] * len(body.operations))

    @app.post("/collections/{name}/points/delete")
    def delete(name: str, body: models.FilterSelector) -> dict[str, Any]:
        with lock:
            client.delete(name, body)
        return answer({"operation_id": 0, "status": "completed"})

    @app.post("/collections/{name}/points/scroll")
    def scroll(name: str, body: models.ScrollRequest) -> dict[str, Any]:
        with lock:
            points, offset = client.scroll(
                name,
                body.filter,
                limit=body.limit or 10,
                offset=body.offset,
                with_payload=True if body.with_payload is None else body.with_payload,
                with_vectors=body.with_vector or False,
            )
        return answer({"points": points, "next_page_offset": offset})

    @app.post("/collections/{name}/points/count")
    def count(name: str, body: models.CountRequest) -> dict[str, Any]:
        with lock:
            return answer({"count": client.count(name, body.filter, exact=True).count})

    @app.post("/collections/{name}/facet")
    def facet(name: str, body: models.FacetRequest) -> dict[str, Any]:
        with lock:
            hits = client.facet(name, body.key, body.filter, limit=body.limit or 10, exact=True).hits
        return answer({"hits": hits})

    @app.post("/collections/{name}/points/query")
    def query(name: str, body: models.QueryRequest) -> dict[str, Any]:
        with lock:
            found = client.query_points(
                name,
                query=body.query,
                using=body.using,
                limit=body.limit or 10,
                query_filter=body.filter,
                with_payload=body.with_payload or False,
            )
        return answer({"points": found.points})

    return app


@contextmanager
def running() -> Iterator[str]:
    """Serve on a free port of this machine; yields the URL."""
    client = QdrantClient(":memory:")
    server = uvicorn.Server(uvicorn.Config(make_app(client), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the stand-in did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()

"""A stand-in for a Qdrant server that several processes write to: its REST calls, answered by the client's local mode.

    python -m tests.integration.qdrant_standin FOLDER PORT

It speaks the wire format and keeps the points; search structures and replication are a real server's alone. As a
program it keeps them in a folder, and for every line that it reads it starts a server on them, in a process of its own
that can be killed, and says that one's id: see `tests.integration.breaking`.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from qdrant_client import QdrantClient
from qdrant_client.http import models

DROPPING = "dropping"
"""Name of the collection that is being dropped, beside local mode's files."""


def make_app(client: QdrantClient, *, dropping: Path | None = None) -> FastAPI:
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
            if dropping:
                dropping.with_suffix(".new").write_text(name, "utf-8")
                dropping.with_suffix(".new").replace(dropping)
            dropped = client.delete_collection(name)
            if dropping:
                dropping.unlink()
        return answer(dropped)

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

    @app.post("/collections/{name}/points/query/batch")
    def query_batch(name: str, body: models.QueryRequestBatch) -> dict[str, Any]:
        with lock:
            found = client.query_batch_points(name, body.searches)
        return answer([{"points": response.points} for response in found])

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


def open_kept(folder: Path) -> QdrantClient:
    """Local mode on the points in a folder, as a kill left it.

    Of a collection that is dropped local mode removes the files first and its name afterwards; a server drops all or
    nothing. So what it dropped when it was killed is dropped now, and files without a name are removed.
    """
    while True:
        try:
            client = QdrantClient(path=str(folder), force_disable_check_same_thread=True)
            break
        except RuntimeError:  # the one that was killed is not quite gone
            time.sleep(0.01)
    dropping = folder / DROPPING
    if dropping.exists():
        client.delete_collection(dropping.read_text("utf-8"))
        dropping.unlink()
    names = {collection.name for collection in client.get_collections().collections}
    for left in (folder / "collection").glob("*"):
        if left.name not in names:
            shutil.rmtree(left)
    return client


def main() -> None:
    """Start servers until there is nothing to read any more."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        process = os.fork()
        if not process:
            uvicorn.run(make_app(open_kept(folder), dropping=folder / DROPPING), port=port, log_level="error")
            os._exit(0)
        print(process, flush=True)


if __name__ == "__main__":
    main()

"""What changes the index: documents that callers send, folders that are ingested. Each change is a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from search.api.access import allow
from search.api.jobs import Job
from search.api.keys import Scope
from search.api.problems import ApiError, documented
from search.api.schemas import DocumentsRequest, JobAnswer, JobRequest, JobsAnswer
from search.api.search_routes import DocumentId, Service_, document_chunks
from search.api.service import Service
from search.api.uploads import KEY_FIELD

_WAIT_S = "86400"
"""A job waits for whoever else writes to the index, rather than failing."""

router = APIRouter(
    prefix="/v1", tags=["documents"], dependencies=[Depends(allow(Scope.WRITE))],
    responses=documented(400, 401, 403, 408, 413, 422, 429, 500, 503, 504),
)  # fmt: skip


@router.post("/documents", status_code=202, response_model=JobAnswer)
async def add_documents(body: DocumentsRequest, service: Service_) -> Mapping[str, Any]:
    """Add documents, or put them in place of those of the same keys; they can be found when the job is done.

    They are kept as files in the server's folder. A hit's `metadata.key` is the key that it was sent under.
    """
    uploads = service.uploads
    for document in body.documents:
        uploads.path_of(document.key)

    def write() -> None:
        for d in body.documents:
            fields = {name: tuple(v) if isinstance(v, list) else v for name, v in d.metadata.items()}
            uploads.put(d.key, d.text, title=d.title, date=d.date, metadata=fields)

    await service.workers.run(write)
    return _shown(_ingest(service, uploads.folder))


@router.delete("/documents", status_code=202, response_model=JobAnswer, responses=documented(404))
async def remove_document(document_id: DocumentId, service: Service_) -> Mapping[str, Any]:
    """Remove a document from the index when the job is done.

    One that was sent is gone then; one that was read from a folder comes back with the folder's next ingest, as long
    as the file is there.
    """
    chunk = (await document_chunks(service, document_id))[0]
    key = chunk.metadata.get(KEY_FIELD)
    if service.uploads.holds(key, chunk.source):
        service.uploads.remove(str(key))
    return _shown(service.jobs.submit("remove", ("remove", "--json", "--wait", _WAIT_S, "--", document_id)))


@router.post("/jobs", status_code=202, response_model=JobAnswer)
async def start_ingest(body: JobRequest, service: Service_) -> Mapping[str, Any]:
    """Bring the index into step with a folder of the server's machine."""
    return _shown(_ingest(service, _allowed_folder(service, body.folder)))


@router.get("/jobs", response_model=JobsAnswer)
async def list_jobs(service: Service_) -> dict[str, Any]:
    """The last jobs, newest first."""
    return {"jobs": [_shown(job) for job in service.jobs.jobs()]}


@router.get("/jobs/{job_id}", response_model=JobAnswer, responses=documented(404))
async def show_job(job_id: Annotated[str, "id of a job"], service: Service_) -> Mapping[str, Any]:
    """How a job stands."""
    return _shown(service.jobs.job(job_id))


@router.delete("/jobs/{job_id}", response_model=JobAnswer, responses=documented(404))
async def stop_job(job_id: Annotated[str, "id of a job"], service: Service_) -> Mapping[str, Any]:
    """Ask a job to stop; what it finished before is kept, and the same request goes on there."""
    return _shown(service.jobs.stop(job_id))


def _ingest(service: Service, folder: Path) -> Job:
    return service.jobs.submit("ingest", ("ingest", "--json", "--progress", "--wait", _WAIT_S, "--", str(folder)))


def _allowed_folder(service: Service, name: str) -> Path:
    """The folder, when it lies in one that the server was started with, links resolved."""
    allowed = [folder.expanduser().resolve() for folder in service.settings.serve.folders]
    if not allowed:
        raise ApiError(403, "this server ingests no folders; start it with --folder PATH to allow some")
    try:
        folder = Path(name).resolve()
    except (OSError, ValueError, RuntimeError):
        folder = Path()
    if not any(folder.is_relative_to(root) for root in allowed):
        raise ApiError(403, "that is in none of the folders that this server may ingest; see its --folder options")
    return folder


def _shown(job: Job) -> Mapping[str, Any]:
    """A job without its command line."""
    return {name: value for name, value in asdict(job).items() if name != "arguments"}

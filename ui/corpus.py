"""What the Corpus page knows: the ingested folders, what was skipped, how the index grew."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from search.errors import StoreError
from search.settings import Settings
from ui import jobs
from ui.files import source_path
from ui.resources import Library

INDEX_JOBS = ("ingest", "remove", "reindex")
_STATUS_S = 120.0
_MOST_POINTS = 2_000


@dataclass(frozen=True, slots=True)
class Condition:
    """What `indexer status` says: folders, skipped files with reasons, size on the disk in bytes.

    `prefixes` are what the ids of each folder's documents begin with.
    """

    roots: tuple[str, ...]
    prefixes: tuple[str, ...]
    files: int
    skipped: tuple[tuple[str, str], ...]
    interrupted: bool
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Growth:
    """How many documents and chunks the index held, and since when (RFC 3339)."""

    updated: str
    documents: int
    chunks: int


@st.cache_data(show_spinner=False, max_entries=8)
def condition(_library: Library, state: str) -> Condition:
    """Ask `indexer status`, in its own process.

    Raises:
        StoreError: It fails; the message is its own.
    """
    command = [sys.executable, "-m", "indexer.cli", "status", "--json", *index_options(_library.engine.settings)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_STATUS_S, check=False)
    if ended.returncode != 0:
        raise StoreError(ended.stderr.strip().removeprefix("error: ") or "`indexer status` failed")
    said = json.loads(ended.stdout.strip().splitlines()[-1])
    return Condition(
        roots=tuple(said["roots"]), prefixes=tuple(said["prefixes"]), files=int(said["files"]),
        skipped=tuple((a, b) for a, b in said["skipped"]),
        interrupted=bool(said["interrupted"]), size_bytes=int(said["bytes"]),
    )  # fmt: skip


def moment(library: Library) -> str:
    """What changes with every state of the index, and whenever a job on it ends."""
    ended = [job.id for job in jobs.jobs(kinds=INDEX_JOBS) if job.state is not jobs.State.RUNNING]
    return f"{library.state}|{ended[:1]}"


def file_of(library: Library, source: str) -> Path | None:
    """The file that the index calls `source`, if it still lies below an ingested folder."""
    known = condition(library, library.state)
    return source_path(source, zip(known.roots, known.prefixes, strict=True))


def index_options(settings: Settings) -> list[str]:
    """The command-line options that name the index of `settings`."""
    return ["--index", str(settings.index_folder), *(["--store", settings.store] if settings.store else [])]


def start_ingest(settings: Settings, folder: Path, *, about: str) -> str:
    """Start an ingest of `folder` into the index, with the encoder that it has. Returns the job."""
    options = ["--json", "--progress", "--wait", "3600", *index_options(settings)]
    return jobs.start("ingest", about, "indexer.cli", ["ingest", str(folder), *options])


def start_reindex(settings: Settings, encoder: str) -> str:
    """Start to encode the index with another encoder, beside the one that answers meanwhile. Returns the job."""
    options = ["--encoder", encoder, "--json", "--wait", "3600", *index_options(settings)]
    return jobs.start("reindex", short_name(encoder), "indexer.cli", ["reindex", *options])


def short_name(encoder: str) -> str:
    """The encoder's name without the folders before it."""
    return encoder.rstrip("/").rpartition("/")[2]


def start_removal(settings: Settings, names: list[str]) -> str:
    """Start the removal of documents or files from the index; returns the job."""
    options = ["--json", "--wait", "3600", *index_options(settings)]
    return jobs.start("remove", ", ".join(names), "indexer.cli", ["remove", *options, "--", *names])


def note_growth(library: Library) -> list[Growth]:
    """Every state of the index that this application has seen, the present one included."""
    manifest = library.engine.index().manifest
    settings = library.engine.settings
    path = settings.home / "growth" / f"{settings.index_label}.jsonl"
    points = _read_growth(path)
    now = Growth(manifest.updated, manifest.documents, manifest.chunks)
    if not points or points[-1] != now:
        points.append(now)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([now.updated, now.documents, now.chunks]) + "\n")
    return points[-_MOST_POINTS:]


def _read_growth(path: Path) -> list[Growth]:
    points: list[Growth] = []
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError):
                points.append(Growth(*json.loads(line)))
    return points

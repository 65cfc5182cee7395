"""Files that the application may touch: uploads, and files below the folders that were ingested or allowed."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import chain, count
from pathlib import Path
from typing import Protocol

from search.errors import SourceError
from search.settings import Settings
from search.text import truncate_graphemes

FOLDERS_VARIABLE = "PANLINGUA_FOLDERS"
"""Folders, separated as in PATH, below which the application may ingest; `ui` sets it."""
UPLOAD_KINDS = (
    "txt", "md", "markdown", "html", "htm", "xhtml", "pdf", "docx", "pptx", "xlsx", "odt", "epub", "eml", "rtf",
    "csv", "tsv", "json", "jsonl", "ndjson", "parquet",
)  # fmt: skip
MAX_UPLOAD_BYTES = 50 * 2**20
MAX_UPLOADS = 200
_LONGEST_NAME, _LONGEST_NAME_BYTES = 120, 228
_NOT_IN_NAMES = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')


class Upload(Protocol):
    """A file as the browser sent it."""

    name: str

    def getvalue(self) -> bytes:
        """Its content."""


def uploads_folder(settings: Settings) -> Path:
    """Where uploaded documents of an index are kept."""
    return settings.home / "uploads" / settings.index_label


def save_uploads(uploads: Sequence[Upload], folder: Path) -> list[Path]:
    """Keep uploads as files; one of the same name is replaced.

    Raises:
        SourceError: There are too many, or one is too large or of a kind that is not read; nothing is kept then.
    """
    if len(uploads) > MAX_UPLOADS:
        raise SourceError(f"{len(uploads)} files at once; at most {MAX_UPLOADS} can be uploaded")
    contents = list(zip(_told_apart([safe_name(upload.name) for upload in uploads]), uploads, strict=True))
    for name, upload in contents:
        if name.rpartition(".")[2].lower() not in UPLOAD_KINDS:
            raise SourceError(f"{name} is of a kind that is not read; these are: {', '.join(UPLOAD_KINDS)}")
        if (found := len(upload.getvalue())) > MAX_UPLOAD_BYTES:
            limit = MAX_UPLOAD_BYTES // 2**20
            raise SourceError(f"{name} has {found / 2**20:.0f} MiB; at most {limit} are taken")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, upload in contents:
        path = folder / name
        temporary = folder / f".{os.getpid()}-{os.urandom(4).hex()}.part"  # hidden: an ingest leaves it out
        temporary.write_bytes(upload.getvalue())
        temporary.replace(path)
        paths.append(path)
    return paths


def delete_uploads(settings: Settings, files: Iterable[Path | None]) -> None:
    """Delete those of the files that were uploaded, so that the next upload does not bring them back."""
    for path in files:
        if path is not None and is_upload(settings, path):
            path.unlink(missing_ok=True)


def is_upload(settings: Settings, path: Path) -> bool:
    """Whether the file was uploaded."""
    return path.resolve().is_relative_to(uploads_folder(settings).resolve())


def _told_apart(names: Sequence[str]) -> list[str]:
    """Names of files that come together, those that are alike with a number: none replaces another."""
    found: dict[str, str] = {}
    for name in names:
        stem, _, extension = name.rpartition(".")
        numbered = (f"{stem} ({number}).{extension}" for number in count(2))
        chosen = next(each for each in chain([name], numbered) if each.casefold() not in found)
        found[chosen.casefold()] = chosen
    return list(found.values())


def safe_name(name: str) -> str:
    """A file name without folders, control characters or a dot in front, its extension kept.

    One that is too long is cut and ends in eight digits of a hash of the whole, so that it stays another than those
    that begin in the same way.
    """
    bare = _bare(name)
    stem, dot, extension = bare.rpartition(".") if "." in bare else ("", ".", bare)
    cut = _shortened(stem)
    mark = "" if cut == stem else f"-{sha256(stem.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return f"{cut or 'document'}{mark}{dot}{extension[:10]}"


def safe_folder_name(name: str) -> str:
    """A name for a folder of ours, within the folder that it is made in."""
    return _shortened(_bare(name)) or "unnamed"


def _bare(name: str) -> str:
    last = unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])
    return _NOT_IN_NAMES.sub("_", last).strip().lstrip(".~$")


def _shortened(name: str) -> str:
    while len(name.encode("utf-8", "replace")) > _LONGEST_NAME_BYTES:
        name = truncate_graphemes(name, len(name) - 8)
    return truncate_graphemes(name, _LONGEST_NAME)


def allowed_folders() -> list[Path]:
    """Folders below which the application may ingest; none unless whoever started it named some."""
    named = os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)
    return [Path(name).expanduser().resolve() for name in named if name.strip()]


def check_folder(text: str, allowed: Iterable[Path]) -> Path:
    """The folder that `text` names.

    Raises:
        SourceError: It is not below an allowed one, or there is none of that name.
    """
    folders = list(allowed)
    path = Path(text.strip()).expanduser()
    if not text.strip() or not path.is_absolute():
        raise SourceError(f"write the folder's whole path, such as {folders[0] if folders else '/srv/documents'}")
    path = path.resolve()
    if not any(path.is_relative_to(folder) for folder in folders):
        names = ", ".join(map(str, folders)) or "none"
        raise SourceError(f"{path} is outside the folders that may be read here ({names}); see `ui --help`")
    if not path.is_dir():
        raise SourceError(f"there is no folder {path} on the machine that runs this application")
    return path


def source_path(source: str, roots: Iterable[tuple[str, str]]) -> Path | None:
    """The file that an index calls `source`, if it still lies below the ingested folder that it was read from.

    Args:
        source: As the index has it.
        roots: Ingested folders, and what their sources begin with; the longest beginning tells the folder.
    """
    owners = [(root, prefix) for root, prefix in roots if source.startswith(prefix)]
    if not owners:
        return None
    root, prefix = max(owners, key=lambda owner: len(owner[1]))
    path = Path(root) / source[len(prefix) :]
    return path if path.is_file() and path.resolve().is_relative_to(Path(root).resolve()) else None

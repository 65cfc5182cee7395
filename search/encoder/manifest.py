"""What an encoder is, as data: prompts, dimension, token limit and a fingerprint of everything that shapes a vector."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from search.errors import EncoderError

logger = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"
MODULES_FILE = "modules.json"
FORMAT = 2
"""Raised when a conversion gives other vectors than before."""
WEIGHT_SUFFIXES = (".safetensors", ".bin")
TOKENIZER_FILES = ("tokenizer.json", "sentencepiece.bpe.model", "spiece.model", "vocab.txt", "merges.txt")
CONFIG_FILES = ("config.json", "sentence_bert_config.json")
VOLATILE_KEYS = (
    "_name_or_path",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "truncation",
    "padding",
    "__version__",
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The description of an encoder that is kept beside it or in the cache."""

    name: str
    dimension: int
    max_tokens: int
    query_prompt: str
    document_prompt: str
    fingerprint: str
    source: str = ""
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    format: int = FORMAT


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`.

    Raises:
        EncoderError: It is missing, damaged or of another format.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        files = {name: (int(size), int(mtime)) for name, (size, mtime) in raw.pop("files").items()}
        manifest = Manifest(**raw, files=files)
        if manifest.format != FORMAT or not manifest.fingerprint or manifest.dimension < 1 or manifest.max_tokens < 3:
            raise ValueError(f"format {manifest.format}, known: {FORMAT}")
        return manifest
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EncoderError(
            f"{path}: not a readable encoder manifest ({error}). Delete it to have it rewritten."
        ) from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write atomically: readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".manifest-", delete=False) as file:
        json.dump(asdict(manifest), file, indent=2, ensure_ascii=False)
    Path(file.name).replace(path)


def has_all_files(manifest: Manifest, folder: Path) -> bool:
    """Whether every file of the manifest is there in its full size."""
    sizes = {name: size for name, (size, _mtime) in file_stats(folder).items()}
    return bool(manifest.files) and sizes == {name: size for name, (size, _mtime) in manifest.files.items()}


def file_stats(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of each file that shapes a vector."""
    stats = {name: (folder / name).stat() for name in _fingerprinted(folder)}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def compute_fingerprint(folder: Path, prompts: tuple[str, str]) -> str:
    """Hash over weights, tokenizer, modules, pooling and prompts; the same wherever it lies and whatever runs it."""
    digest = hashlib.sha256(json.dumps([_module_types(folder), prompts]).encode())
    for name in _fingerprinted(folder):
        path = folder / name
        digest.update(f"\0{name}\0".encode())
        if path.suffix == ".json":
            kept = {key: value for key, value in read_json(path).items() if key not in VOLATILE_KEYS}
            digest.update(json.dumps(kept, sort_keys=True).encode())
        else:
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()[:32]


def fingerprint_weights(weights: Path, prompts: tuple[str, str]) -> str:
    """Hash of an encoder converted from one file: what other library versions write differently does not change it."""
    with weights.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(json.dumps([content, FORMAT, prompts]).encode()).hexdigest()[:32]


def read_modules(folder: Path) -> list[dict[str, Any]]:
    """The list in `modules.json`: what runs in which order."""
    modules = read_json(folder / MODULES_FILE)
    if not isinstance(modules, list) or not modules or not all(isinstance(m, dict) and "type" in m for m in modules):
        raise EncoderError(f"{folder / MODULES_FILE}: not a list of modules; save the encoder again")
    return modules


def read_prompts(folder: Path) -> tuple[str, str] | None:
    """Query and document prompt of a SentenceTransformer folder, or None when it names none."""
    path = folder / "config_sentence_transformers.json"
    prompts = read_json(path).get("prompts") if path.is_file() else None
    if not prompts:
        return None
    document = next((prompts[key] for key in ("document", "passage", "corpus") if key in prompts), "")
    return str(prompts.get("query") or ""), str(document or "")


def read_model_type(folder: Path) -> str | None:
    """What sentence-transformers says that a folder holds, such as `MultiVectorEncoder`; none where it says nothing."""
    path = folder / "config_sentence_transformers.json"
    found = read_json(path) if path.is_file() else None
    return str(found["model_type"]) if isinstance(found, dict) and found.get("model_type") else None


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        EncoderError: It is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path}: not a readable JSON file ({error}). Save the encoder again.") from error


def _module_types(folder: Path) -> list[list[str]]:
    return [[str(m["type"]).rpartition(".")[2], str(m.get("path", ""))] for m in read_modules(folder)]


def _fingerprinted(folder: Path) -> list[str]:
    """Names of the files that shape a vector, relative to the folder, sorted."""
    names: set[str] = set()
    for module in read_modules(folder):
        sub = str(module.get("path", ""))
        names.update(_module_files(folder, sub))
    return sorted(names)


def _module_files(folder: Path, sub: str) -> Iterator[str]:
    if not (folder / sub).is_dir():
        return
    for path in (folder / sub).iterdir():
        known = path.name in TOKENIZER_FILES or path.name in CONFIG_FILES or path.suffix in WEIGHT_SUFFIXES
        if path.is_file() and known and path.name != "training_args.bin":
            yield str(Path(sub) / path.name) if sub else path.name

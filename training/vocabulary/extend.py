"""An encoder with more pieces: for a language whose words its tokenizer shreds or cannot read."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.errors import TrainingDataError
from search.language import canonical_language
from search.records import Vectors
from search.settings import Settings
from training.outputs import refuse_existing
from training.pipeline import Report
from training.vocabulary.coverage import LanguageCoverage, count_tokens, judge_coverage
from training.vocabulary.embedding import initial_vectors
from training.vocabulary.folder import encoder_folder, load_named, read_parts, write_encoder
from training.vocabulary.learning import NewPiece, learn_pieces, with_pieces
from training.vocabulary.proof import Agreement, compare_vectors
from training.vocabulary.teaching import Advance, teach_pieces
from training.vocabulary.texts import iter_pairs, packaged_texts, read_texts, split_held_out, texts_of_language

if TYPE_CHECKING:
    from search.encoder import Encoder


@dataclass(frozen=True, slots=True)
class ExtendOptions:
    """What to add to, where to write it, and what to learn from.

    Attributes:
        encoder: Built-in name, folder or hub id.
        out: Folder to make.
        language: BCP-47.
        corpora: Folders, files or JSON lines with text in that language, among others.
        tokens: How many pieces to add at the most.
        steps: Of teaching the new pieces what they stand for; 0: none.
    """

    encoder: str
    out: Path
    language: str
    corpora: tuple[Path, ...]
    tokens: int = 2000
    steps: int = 300


@dataclass(frozen=True, slots=True)
class ExtendReport:
    """What was added, and what that did to passages that were not learnt from.

    Attributes:
        before: Coverage of the language.
        after: The same after.
        added: How many pieces; `unseen` of them are made only of characters that the encoder has never seen.
        unseen: See `added`.
        examples: Those that save most.
        agreement: Of the language's passages and of those of other languages that come with the package.
    """

    before: LanguageCoverage
    after: LanguageCoverage
    added: int
    unseen: int
    examples: tuple[str, ...]
    agreement: tuple[Agreement, ...]

    def as_record(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def extend_encoder(options: ExtendOptions, settings: Settings, *, report: Report) -> ExtendReport:
    """Write an encoder whose vocabulary has pieces for one more language, load it, and compare the two.

    The pieces' vectors are made of those of the pieces they replace, and then taught to mean the same. What is lost of
    that until the encoder is trained (`training adapt`) is in the report.

    Raises:
        TrainingDataError: The texts hold nothing, or too little, in the language; or nothing worth adding.
        EncoderError: The encoder's tokenizer is of another kind.
        TrainingError: `out` is there already.
    """
    refuse_existing(options.out)
    language = canonical_language(options.language)
    base = load_named(options.encoder, settings)
    texts = texts_of_language(read_texts(options.corpora, base.tokenizer, report), language)
    learnt, held_out = ({language: found.get(language, [])} for found in split_held_out({language: texts}))
    parts = read_parts(encoder_folder(base))
    new = learn_pieces(base.tokenizer, parts.unigram, learnt[language], count=options.tokens)
    if not new:
        raise TrainingDataError(
            f"nothing to add: {base.name} has every piece that {len(learnt[language])} passages in {language!r} would "
            "use often. `training tokens` says how it cuts them."
        )
    add_pieces(base, new, options.out, language=language, texts=learnt[language], steps=options.steps, report=report)
    after = load_named(str(options.out), settings)
    shown = held_out if held_out[language] else learnt
    return ExtendReport(
        before=_coverage(base, shown),
        after=_coverage(after, shown, reference=base),
        added=len(new),
        unseen=sum(set(piece.parts) == {parts.unigram.unknown} for piece in new),
        examples=tuple(piece.text for piece in new[:10]),
        agreement=tuple(compare_vectors(base, after, {**_others(language), **shown})),
    )


def add_pieces(
    base: Encoder, new: Sequence[NewPiece], out: Path, *, language: str, texts: Sequence[str], steps: int,
    report: Report,
) -> None:  # fmt: skip
    """Write the encoder with new pieces behind the old ones, taught on the texts for so many steps."""
    parts = read_parts(encoder_folder(base))
    vectors = initial_vectors(new, parts.unigram, parts.embeddings)
    extended = {"language": language, "pieces_before": len(parts.unigram.pieces), "added": len(new), "steps": steps}
    record = {"base": base.name, "base_fingerprint": base.fingerprint, "extended": extended}

    def write(folder: Path, rows: Vectors) -> None:
        embeddings = np.concatenate([parts.embeddings, rows.astype(parts.embeddings.dtype)])
        write_encoder(parts, folder, unigram=with_pieces(parts.unigram, new), embeddings=embeddings,
                      fingerprint=base.fingerprint, record=record)  # fmt: skip

    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    if steps:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            write(Path(scratch) / "untaught", vectors)
            vectors = teach_pieces(base, Path(scratch) / "untaught", texts, first=len(parts.unigram.pieces),
                                   steps=steps, advance=_reporter(report))  # fmt: skip
    write(out, vectors)


def _reporter(report: Report) -> Advance:
    """A line for every tenth of the steps."""

    def advance(step: int, of: int, loss: float) -> None:
        if step == of or step % max(1, of // 10) == 0:
            report(f"teaching new pieces: step {step} of {of}, 1 - cosine {loss:.4f}")

    return advance


def _others(language: str) -> dict[str, list[str]]:
    """Passages in other languages: how far they are left as they were."""
    return {lang: texts for lang, texts in packaged_texts().items() if lang != language}


def _coverage(encoder: Encoder, texts: dict[str, list[str]], *, reference: Encoder | None = None) -> LanguageCoverage:
    """Coverage by the encoder's tokenizer, against the median of languages by that of the `reference`."""
    known = count_tokens((reference or encoder).tokenizer, iter_pairs(packaged_texts()))
    counts = count_tokens(encoder.tokenizer, iter_pairs(texts))
    return judge_coverage(counts, reference=known, max_tokens=encoder.max_tokens)[0]

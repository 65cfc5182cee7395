"""How an encoder's tokenizer cuts texts, language by language, and how much of its vocabulary they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.encoder.loading import load_tokenizer, resolve
from search.settings import Settings
from training.pipeline import Report
from training.vocabulary.coverage import LanguageCoverage, count_tokens, judge_coverage, used_ids
from training.vocabulary.texts import iter_pairs, packaged_texts, read_texts

TRIM_BELOW = 0.5
"""Where texts use less of the vocabulary than this, trimming is spoken of."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Figures of every language, the worst first, and of the vocabulary as a whole."""

    encoder: str
    languages: tuple[LanguageCoverage, ...]
    pieces: int
    used: int

    @property
    def vocabulary_advice(self) -> str:
        """Whether trimming is worth it, in words."""
        share = f"these texts use {self.used:,} of {self.pieces:,} pieces ({self.used / self.pieces:.0%})"
        if self.used >= TRIM_BELOW * self.pieces:
            return f"{share}."
        return f"{share}. If they are typical of all that will be searched, `training trim` makes the encoder smaller."

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        return {"encoder": self.encoder, "pieces": self.pieces, "used": self.used, "advice": self.vocabulary_advice}


def survey_tokens(sources: Sequence[Path], settings: Settings, *, report: Report) -> Survey:
    """Cut texts with the encoder's tokenizer; the encoder itself is not run.

    Every language is compared with the median of those that come with the package, cut by the same tokenizer.

    Args:
        sources: Folders, files or JSON lines; none: the texts of the package.
        settings: Name the encoder.
        report: Told what was read.

    Raises:
        EncoderError: The encoder cannot be found.
        TrainingDataError: There is no text.
    """
    folder, manifest = resolve(settings.encoder, settings.encoders_folder)
    tokenizer, _ = load_tokenizer(folder)
    known = packaged_texts()
    texts = read_texts(sources, tokenizer, report) if sources else known
    reference = count_tokens(tokenizer, iter_pairs(known))
    counts = count_tokens(tokenizer, iter_pairs(texts)) if sources else reference
    rows = judge_coverage(counts, reference=reference, max_tokens=manifest.max_tokens)
    used = used_ids(tokenizer, [text for _, text in iter_pairs(texts)])
    return Survey(manifest.name, tuple(rows), tokenizer.get_vocab_size(), len(used))

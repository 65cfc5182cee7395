"""What an adaptation is asked to do, and what it says while it works."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import SettingsError
from search.settings import DEFAULT_ENCODER

if TYPE_CHECKING:
    from training.synthesis.endpoint import Endpoint

Progress = Callable[[str, int, int], None]
"""Called with what is done just now, the steps of it that are made, and how many there are."""


@dataclass(frozen=True)
class AdaptOptions:
    """An adaptation.

    Attributes:
        corpus: Folder of documents.
        out: Folder of the encoder to make.
        encoder: What to start from: a built-in name, a folder or a hub id.
        recipe: Recipe of the package, or a TOML file; `base`, prompts, steps and streams without data are filled in.
        minutes: For all of it; training gets what reading and judging leave.
        general: JSON lines of retrieval or bitext rows on which the encoder is kept as it is; none: the package's.
        general_eval: Retrieval sets in BEIR form that measure what is forgotten; none: the bundled corpus, if there.
        queries: Judged queries of the corpus, as `search evaluate` takes them.
        qrels: Their judgements, where the queries do not hold them.
        endpoint: A language model that writes queries; none: templates alone.
        resume: Go on with what was cut off.
        seed: Chooses held-out documents, pairs and batches.
        held_out_share: Share of the documents that is kept for judging.
        steps: Steps of training; 0: as many as the time allows.
        device, threads, backend: As for a training run.
    """

    corpus: Path
    out: Path
    encoder: str = DEFAULT_ENCODER
    recipe: str = "adapt"
    minutes: float = 30.0
    general: tuple[Path, ...] = ()
    general_eval: tuple[Path, ...] = ()
    queries: Path | None = None
    qrels: Path | None = None
    endpoint: Endpoint | None = field(default=None, repr=False)
    resume: bool = False
    seed: int = 7
    held_out_share: float = 0.2
    steps: int = 0
    device: str | None = None
    threads: int | None = None
    backend: str = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.minutes < math.inf:
            raise SettingsError(f"minutes is {self.minutes:g}; give a number above 0.")
        if not 0 < self.held_out_share <= 0.5:
            raise SettingsError(f"held_out_share is {self.held_out_share:g}; give more than 0, at most 0.5.")
        if self.qrels and not self.queries:
            raise SettingsError("--qrels judges the queries of --queries; give both.")

    @property
    def work(self) -> Path:
        """Where everything is kept until the encoder is complete."""
        return self.out.with_name(f".{self.out.name}-adapting")

    @property
    def key(self) -> dict[str, object]:
        """What a resumed adaptation must have in common with the one that was cut off."""
        return {
            "corpus": str(self.corpus.expanduser().resolve()), "encoder": self.encoder, "recipe": self.recipe,
            "seed": self.seed, "held_out_share": self.held_out_share, "general": [str(path) for path in self.general],
            "endpoint": self.endpoint.model if self.endpoint else "",
        }  # fmt: skip

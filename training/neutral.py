"""The language-neutral teacher: the base encoder's own vectors without their language's mean.

An encoder's vectors hold the language of a text as an offset. Without it, a text's neighbours are what it means, in
any language. Trained towards such vectors on plain text, an encoder loses the offset for good: at query time no
language has to be detected and no map applied.

Source: Yang et al., 2021, "A Simple and Effective Method To Eliminate the Self Language Bias in Multilingual
Representations", EMNLP (removal after the fact; here it is distilled into the weights).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from search.encoder import Encoder
from training.mixture import Batch

Vectors = npt.NDArray[np.float32]
SHRINKAGE = 30.0
"""Texts that the mean of all languages weighs in each language's mean."""


def neutral_texts(batches: Iterable[Batch]) -> list[tuple[str, str, str]]:
    """Distinct (text, kind, language) of the neutral and parallel batches, in order; kind is `query` or `document`."""
    found = {
        (str(text), str(row[-1]), lang): None
        for batch in batches
        if batch.columns[-1] == "kind"
        for row, langs in zip(batch.rows, batch.langs, strict=True)
        for text, lang in zip(row[:-1], langs, strict=False)
    }
    return list(found)


def mean_direction(vectors: Sequence[Vectors]) -> Vectors:
    """The unit vector (D,) whose cosines to all of these have the largest sum.

    Taught to a text and to its translation, it keeps both near what the teacher says of each and nearest to each other.

    Worked: of (1, 0) and (0, 1), (0.707, 0.707).

    Source: Reimers and Gurevych, 2020, "Making Monolingual Sentence Embeddings Multilingual using Knowledge
    Distillation", section 2, equation 1.
    Differs: there both are taught the vector of the text in the teacher's own language; a teacher that knows both has
    two that differ, and neither is the better one.
    """
    total = np.sum(vectors, axis=0)
    return np.asarray(total / max(float(np.linalg.norm(total)), 1e-6), np.float32)


def build_teacher(
    texts: Sequence[tuple[str, str, str]], encoder: Encoder, *, kept_mean: float = 0.0, own: bool = False
) -> dict[tuple[str, str], Vectors]:
    """Teacher vectors (D,) float32, unit length, by (text, kind).

    Means are of each language and kind, drawn towards the mean of all where a language has few texts; so are
    vectors of queries and documents centred alike. With `own` nothing is taken off: for an encoder that is neutral
    already, and for texts whose languages differ in their subjects, so that the mean would be the subject.
    """
    teacher: dict[tuple[str, str], Vectors] = {}
    for kind, encode in (("query", encoder.encode_queries), ("document", encoder.encode_documents)):
        chosen = [(text, lang) for text, its_kind, lang in texts if its_kind == kind]
        if chosen:
            vectors = encode([text for text, _ in chosen])
            langs = [lang for _, lang in chosen]
            centred = vectors if own else remove_language_means(vectors, langs, kept_mean=kept_mean)
            teacher.update({(text, kind): row for (text, _), row in zip(chosen, centred, strict=True)})
    return teacher


def remove_language_means(vectors: Vectors, langs: Sequence[str], *, kept_mean: float = 0.0) -> Vectors:
    """Vectors (N, D) without the mean of their language, unit length.

    The mean of all languages holds what makes a text a good answer in any language; `kept_mean` is the share of it that
    stays. Without any, Turkish passages lose two points of nDCG@10 (docs/experiments.md).

    Worked: two languages with means (1, 0) and (0, 1) over many texts: (1, 0.1) of the first becomes (0, 1); with a
    quarter of the mean of all, (0.125, 0.225) at unit length, (0.486, 0.874).
    """
    members: dict[str, list[int]] = defaultdict(list)
    for place, lang in enumerate(langs):
        members[lang].append(place)
    overall = vectors.mean(axis=0)
    centred = np.empty_like(vectors)
    for places in members.values():
        mean = (vectors[places].sum(axis=0) + SHRINKAGE * overall) / (len(places) + SHRINKAGE)
        centred[places] = vectors[places] - mean + kept_mean * overall
    lengths: Vectors = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    return np.asarray(centred / lengths, np.float32)

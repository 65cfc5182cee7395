"""What stands for a document in the benchmark, on passages worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.documents import (
    Collection,
    HierarchicalEncoder,
    Queries,
    WeightedMean,
    encode,
    iter_details,
    judge,
    train,
)

SIZE = 12


def made() -> Collection:
    """Eight works in two languages: three passages about nothing and one about the work."""
    rng = np.random.default_rng(0)
    subjects, noise = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0][:8], rng.standard_normal((64, SIZE))
    passages = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    for document in range(16):
        passages[document * 4] = subjects[document // 2]
    vectors = passages.astype(np.float32)
    pairs = [[2 * work, 2 * work + 1] for work in range(8)]
    none = Queries(vectors[:0], [])
    return Collection(
        vectors, np.ones(64, np.float32), np.arange(0, 65, 4), np.repeat(np.arange(8), 2),
        Queries(np.tile(subjects.astype(np.float32), (5, 1)), pairs * 5), none,
    )  # fmt: skip


def test_means_and_best_passages() -> None:
    of = Collection(
        np.array([[1, 0], [0, 1], [0, -1]], np.float32), np.array([3, 4, 9], np.float32), np.array([0, 2, 3]),
        np.array([0, 1]), Queries(np.eye(2, dtype=np.float32), [[0], [1]]), Queries(np.zeros((0, 2), np.float32), []),
    )  # fmt: skip
    assert of.means == pytest.approx(np.array([[0.6, 0.8], [0.0, -1.0]]))
    assert of.best(np.eye(2, dtype=np.float32)) == pytest.approx(np.array([[1, 1], [0, -1]]))
    row = judge(of, "max", None, {0, 1}, None)
    assert row["queries"] == 0.75  # the second query's document comes second
    assert judge(of, "max + 1 mean", of.means, {0}, 1.0)["queries"] == 1.0


@pytest.mark.parametrize("kind", [HierarchicalEncoder, WeightedMean])
def test_a_document_encoder_begins_as_the_mean_and_learns_what_documents_are_about(
    kind: type[torch.nn.Module],
) -> None:
    torch.manual_seed(0)
    of, model = made(), kind(SIZE)
    assert encode(model, of) == pytest.approx(of.means, abs=1e-5)
    before = judge(of, "mean", of.means, set(range(8)), None)["queries"]
    train(model, of, set(), steps=60, rate=3e-3)
    after = judge(of, "learned", encode(model, of), set(range(8)), None)["queries"]
    assert after > before + 0.05


def test_a_detail_is_a_sentence_of_a_document_with_many_passages() -> None:
    texts = [f"The harbour of town number {number} opens at six. Yes." for number in range(12)]
    assert list(iter_details([(0, texts[:3])])) == []
    ((row, sentence),) = iter_details([(7, texts)])
    assert row == 7
    assert sentence.startswith("The harbour of town")
    assert sentence.endswith("at six.")

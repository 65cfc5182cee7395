"""Labelled texts: clusters that should be the classes, and a linear probe of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search.records import Vectors

SAMPLES = 5
SAMPLE_SIZE = 2048
KMEANS_BATCH = 512


def v_measure(vectors: Vectors, labels: Sequence[str], *, samples: int = SAMPLES, seed: int = 0) -> float:
    """V-measure of mini-batch k-means with as many clusters as labels, mean over samples, in [0, 1].

    Chance is above 0 when clusters are small, so compare encoders on the same texts only.

    Args:
        vectors: (B, D).
        labels: One for each vector, two different ones or more.
        samples: Runs, each on at most 2,048 texts drawn without replacement and with a seed of its own.
        seed: Of the first run.

    Source: Rosenberg and Hirschberg, 2007, "V-Measure", equation 1 with beta 1. Muennighoff et al., 2023, "MTEB".
    Differs: MTEB draws with replacement and ten times.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import v_measure_score

    names = np.asarray(labels)
    total = 0.0
    for run in range(seed, seed + samples):
        rows = np.random.default_rng(run).permutation(len(names))[:SAMPLE_SIZE]
        clusters = MiniBatchKMeans(
            n_clusters=min(len(set(names[rows])), len(rows)), batch_size=KMEANS_BATCH, n_init=1, random_state=run
        ).fit_predict(vectors[rows])
        total += float(v_measure_score(names[rows], clusters))
    return total / samples


def probe_accuracy(
    train: Vectors, train_labels: Sequence[str], test: Vectors, test_labels: Sequence[str], *, seed: int = 0
) -> float:
    """Accuracy of logistic regression on the vectors, in [0, 1]: what a linear classifier finds in them.

    With `train` in one language and `test` in another, it tells how well classes transfer.

    Source: Muennighoff et al., 2023, "MTEB", section 3.2 (classification).
    Differs: learns from all training texts, not a few of each label; these also centre the vectors and scale them as a
    whole, or regularisation would take an encoder whose vectors lie close together for a poor one.
    """
    from sklearn.linear_model import LogisticRegression

    centre = train.mean(axis=0)
    scale = max(float((train - centre).std()), 1e-6)
    classifier = LogisticRegression(max_iter=1000, random_state=seed)
    classifier.fit((train - centre) / scale, list(train_labels))
    return float(np.mean(classifier.predict((test - centre) / scale) == np.asarray(test_labels)))

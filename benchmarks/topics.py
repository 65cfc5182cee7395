"""Measure topics: do clusters follow subjects or languages, with what method, and how long does it take?

    python -m benchmarks.topics quality --data sib200.jsonl.gz --variants eng_Latn,jpn_Jpan --per-language 200
    python -m benchmarks.topics speed --chunks 20000 200000

`--data` names JSON lines with `lang`, `label`, `text` and perhaps `title`, `variant` (language, script), `split` (its
test part is taken) and `group_id` (texts that are translations of one another share it). Wall seconds depend on what
else the machine does; processor seconds of all threads hardly.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score, v_measure_score

from benchmarks.records import describe_run, write_rows
from search.balance import LanguageMap, LanguageSums, fit_language_map, load_shipped_offsets
from search.document_map import make_map
from search.encoder import load_encoder
from search.manifest import IndexManifest
from search.records import Chunk, Point, SparseVector, Vectors
from search.topics import find_topics
from search.topics.clustering import Labels, cluster

Row = dict[str, str]
_TEXT_CHARS = 500
_DIMENSION = 384
_SUBJECTS, _LANGUAGES, _NOISE_SHARE = 200, 20, 0.05


def load_rows(path: Path, variants: list[str], per_language: int) -> list[Row]:
    """Up to so many texts of each variant, its labels as equal in number as they come, drawn with a fixed seed."""
    pools: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    seen = set()
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            variant = row.setdefault("variant", row["lang"])
            key = (variant, row.get("group_id", row["text"]))
            if row.get("split", "test") == "test" and (not variants or variant in variants) and key not in seen:
                seen.add(key)
                pools[variant][row["label"]].append(row)
    drawn = []
    for variant in sorted(pools):
        shuffled = [random.Random(0).sample(rows, len(rows)) for _, rows in sorted(pools[variant].items())]
        rounds = [rows[place] for place in range(max(map(len, shuffled))) for rows in shuffled if place < len(rows)]
        drawn += rounds[:per_language]
    return drawn


def encode(rows: list[Row], encoder_name: str, cache: Path | None, name: str) -> tuple[Vectors, str]:
    """Unit vectors of the rows, and the encoder's fingerprint; kept in `cache` between runs."""
    encoder = load_encoder(encoder_name)
    path = cache / f"{name}-{encoder.fingerprint}.npz" if cache else None
    texts = [f"{row.get('title', '')}\n{row['text'][:_TEXT_CHARS]}".strip() for row in rows]
    if path and path.is_file():
        kept = np.load(path)
        if kept["texts"].tolist() == texts:
            return kept["vectors"], encoder.fingerprint
    vectors = encoder.encode_documents(texts)
    if path:
        np.savez(path, vectors=vectors, texts=np.array(texts))
    return vectors, encoder.fingerprint


def neutral(vectors: Vectors, langs: list[str], fingerprint: str) -> Vectors:
    """What an index of these texts would cluster: the language map fitted on them, its span taken out."""
    sums = LanguageSums(vectors.shape[1])
    sums.add(langs, vectors)
    language_map = fit_language_map(load_shipped_offsets(fingerprint), sums)
    stored = language_map.map_documents(vectors)
    return centred(np.asarray(stored - (stored @ language_map.basis.T) @ language_map.basis, np.float32))


def centred(vectors: Vectors) -> Vectors:
    """Unit vectors from the common middle."""
    away = vectors - vectors.mean(axis=0)
    return np.asarray(away / np.linalg.norm(away, axis=1, keepdims=True), np.float32)


def methods(labels: int) -> dict[str, Callable[[Vectors], Labels]]:
    """Ways to cluster; `labels` is the number of classes."""

    def ours(count: int | None) -> Callable[[Vectors], Labels]:
        return lambda vectors: cluster(vectors, count=count).labels

    def kmeans(vectors: Vectors) -> Labels:
        from sklearn.cluster import KMeans

        return np.asarray(KMeans(labels, n_init=3, random_state=0).fit_predict(vectors))

    def hdbscan(vectors: Vectors) -> Labels:
        from sklearn.cluster import HDBSCAN
        from sklearn.decomposition import PCA

        reduced = PCA(15, random_state=0).fit_transform(vectors)
        return np.asarray(HDBSCAN(max(5, len(vectors) // 200), min_samples=5, copy=True).fit_predict(reduced))

    def evoc_best(vectors: Vectors) -> Labels:
        return _evoc_layers(vectors)[0]

    def evoc_coarse(vectors: Vectors) -> Labels:
        return min(_evoc_layers(vectors), key=lambda layer: abs(int(layer.max()) + 1 - labels))

    return {
        "ours": ours(None), f"ours, {labels}": ours(labels), f"k-means, {labels}": kmeans, "HDBSCAN on 15 PCA": hdbscan,
        "EVoC": evoc_best, f"EVoC, layer nearest to {labels}": evoc_coarse,
    }  # fmt: skip


def _evoc_layers(vectors: Vectors) -> list[Labels]:
    """The labels that EVoC thinks best, then those of all its layers."""
    from evoc import EVoC

    clusterer = EVoC(random_state=0)
    return [np.asarray(clusterer.fit_predict(vectors)), *map(np.asarray, clusterer.cluster_layers_)]


def judge(found: Labels, rows: list[Row]) -> dict[str, Any]:
    """Agreement of clusters with labels and with languages. Outliers count as one more cluster in V and AMI."""
    variants = np.array([row["variant"] for row in rows])
    kept = found >= 0
    pure = sum(np.unique(variants[found == c], return_counts=True)[1].max() for c in np.unique(found[kept]))
    groups = np.array([row.get("group_id", "") for row in rows])
    return {
        "clusters": len(np.unique(found[kept])),
        "outliers": round(1 - float(kept.mean()), 3),
        "v_measure": round(float(v_measure_score([row["label"] for row in rows], found)), 3),
        "ami": round(float(adjusted_mutual_info_score([row["label"] for row in rows], found)), 3),
        "language_purity": round(float(pure / max(1, kept.sum())), 3),
        "language_ami": round(float(adjusted_mutual_info_score(variants, found)), 3),
        "translations_together": translations_together(found, groups) if groups[0] else None,
    }


def translations_together(found: Labels, groups: np.ndarray) -> float:
    """Share of the pairs of translations that are in one cluster; a pair with an outlier is not."""

    def pairs(counts: Counter[Any]) -> int:
        return sum(count * (count - 1) // 2 for count in counts.values())

    together = Counter((c, group) for c, group in zip(found.tolist(), groups.tolist(), strict=True) if c >= 0)
    return round(pairs(together) / pairs(Counter(groups.tolist())), 3)


def measure_quality(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every encoder, with and without the language, by every method."""
    rows = load_rows(options.data, options.variants.split(",") if options.variants else [], options.per_language)
    langs, name = [row["lang"] for row in rows], options.name or options.data.stem
    found = []
    for encoder in options.encoder:
        vectors, fingerprint = encode(rows, encoder, options.vectors, name)
        for kind, used in (("as encoded", centred(vectors)), ("neutral", neutral(vectors, langs, fingerprint))):
            for method, run in methods(len({row["label"] for row in rows})).items():
                processor, wall = time.process_time(), time.monotonic()
                result = judge(run(used), rows)
                seconds = {"cpu_s": round(time.process_time() - processor, 1), "s": round(time.monotonic() - wall, 1)}
                record = {"data": name, "texts": len(rows), "encoder": encoder, "vectors": kind, "method": method}
                found.append(record | result | seconds)
                print(json.dumps(found[-1], ensure_ascii=False), flush=True)
    return found


def synthetic_points(number: int) -> Iterator[Point]:
    """Chunks of 200 subjects of unequal size in 20 languages with a twentieth of noise, made as they are read."""
    rng = np.random.default_rng(0)
    subjects = centred(rng.normal(size=(_SUBJECTS, _DIMENSION)).astype(np.float32))
    shares = 1 / np.arange(3, _SUBJECTS + 3)
    words = [[f"{chr(97 + s % 26)}{s}word{w}" for w in range(12)] for s in range(_SUBJECTS)]
    nothing = SparseVector(np.zeros(0, np.uint32), np.zeros(0, np.float32))
    for place in range(number):
        subject = int(rng.choice(_SUBJECTS, p=shares / shares.sum()))
        vector = rng.normal(size=_DIMENSION) / np.sqrt(_DIMENSION)
        if rng.random() > _NOISE_SHARE:
            vector += subjects[subject]
        text = " ".join(rng.choice(words[subject], 60)) + " and the of to in it " * 20
        chunk = Chunk(f"s{subject}/{place}", 0, text, lang=f"x{place % _LANGUAGES}", script="Latn")
        yield Point(chunk, np.asarray(vector / np.linalg.norm(vector), np.float32), nothing)


def measure_speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Topics alone, and topics with the map, of synthetic chunks that are already in memory."""
    found = []
    manifest = IndexManifest(
        encoder="", encoder_fingerprint="", dimension=_DIMENSION, map_fingerprint="", documents=0, chunks=0,
        languages={}, created="", updated="", panlingua_version="",
    )  # fmt: skip
    language_map = LanguageMap.identity(_DIMENSION)
    for number in options.chunks:
        points = list(synthetic_points(number))
        jobs: dict[str, Callable[[], object]] = {"topics": partial(find_topics, points, language_map)}
        if options.map:
            jobs["topics and map"] = partial(make_map, points, manifest, language_map)
        for job, run in jobs.items():
            processor, wall = time.process_time(), time.monotonic()
            result = run()
            record = {"job": job, "chunks": number, "cpu_s": round(time.process_time() - processor, 1),
                      "s": round(time.monotonic() - wall, 1)}  # fmt: skip
            if job == "topics":
                record |= _recovered(result, points)
            found.append(record)
            print(json.dumps(record), flush=True)
    return found


def _recovered(found: Any, points: list[Point]) -> dict[str, Any]:
    """How well the topics are the subjects that the chunks were made of."""
    topics = [-1 if (topic := found.assigned[point.chunk.id]) is None else topic for point in points]
    truth = [point.chunk.document_id.partition("/")[0] for point in points]
    return {
        "topics": sum(not topic.children for topic in found.topics),
        "outliers": round(found.outliers / len(points), 3),
        "ami": round(float(adjusted_mutual_info_score(truth, topics)), 3),
    }


def main() -> None:
    """Run one measurement and append its rows to `results/topics.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = parser.add_subparsers(dest="job", required=True)
    quality = jobs.add_parser("quality")
    quality.add_argument("--data", type=Path, required=True)
    quality.add_argument("--name", help="of the data in the results")
    quality.add_argument("--variants", default="", help="separated by commas; none: all")
    quality.add_argument("--per-language", type=int, default=200)
    quality.add_argument("--encoder", nargs="+", default=["multilingual-e5-small", "panlingua-e5-small"])
    quality.add_argument("--vectors", type=Path, help="folder to keep vectors in between runs")
    speed = jobs.add_parser("speed")
    speed.add_argument("--chunks", type=int, nargs="+", default=[20_000, 200_000])
    speed.add_argument("--map", action="store_true", help="time the map as well")
    options = parser.parse_args()
    rows = measure_quality(options) if options.job == "quality" else measure_speed(options)
    write_rows("topics", describe_run(f"python -m benchmarks.topics {options.job}"), rows)


if __name__ == "__main__":
    main()

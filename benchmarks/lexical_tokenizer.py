"""Measure tokenizers by the BM25 ranking they give, per language, and by their speed.

    python -m benchmarks.lexical_tokenizer --data tquad-dev --data drcd-test

A data folder holds `corpus.jsonl.gz` and `queries.jsonl.gz` (`_id`, `lang`, `text`, a `title` of documents is ignored)
and `qrels.tsv` (query, document, score). Queries are matched with the documents of their own language.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from qdrant_edge import Bm25, Bm25Config, TokenizerType
from scipy.sparse import csr_matrix

from search.lexical import AVERAGE_LENGTH, K1, B, document_vector, query_vector, term_index, tokenize
from search.records import SparseVector
from search.text import normalize

Vectorize = Callable[[str], SparseVector]
_SNOWBALL = {"ar": "arabic", "de": "german", "en": "english", "et": "estonian", "fa": "persian", "fr": "french",
             "it": "italian", "nl": "dutch", "pt": "portuguese", "ru": "russian", "tr": "turkish"}  # fmt: skip


@dataclass(frozen=True)
class Collection:
    """Documents and queries of one language."""

    name: str
    lang: str
    documents: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, set[str]]


def load_collections(folder: Path, most_queries: int) -> list[Collection]:
    """One collection per language of the queries."""

    def rows(name: str) -> list[dict[str, str]]:
        with gzip.open(folder / name, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    documents, queries, relevant = rows("corpus.jsonl.gz"), rows("queries.jsonl.gz"), defaultdict(set)
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, score = line.split("\t")
        if float(score) > 0:
            relevant[query].add(document)
    collections = []
    for lang in sorted({row["lang"] for row in queries}):
        texts = {row["_id"]: row["text"] for row in documents if row["lang"] == lang}
        right = {query: found & texts.keys() for query, found in relevant.items()}
        asked = {row["_id"]: row["text"] for row in queries if row["lang"] == lang and right.get(row["_id"])}
        asked = dict(list(asked.items())[:most_queries])
        if asked:
            collections.append(Collection(folder.name, lang, texts, asked, right))
    return collections


def weighted(terms: Callable[[str], list[str]]) -> Vectorize:
    """BM25 weights over the terms of another tokenizer, as `document_vector` gives them."""

    def vectorize(text: str) -> SparseVector:
        counts = Counter(map(term_index, terms(text)))
        values = np.array(list(counts.values()), dtype=np.float32)
        norm = K1 * (1 - B + B * values.sum() / AVERAGE_LENGTH)
        return SparseVector(np.array(list(counts), dtype=np.uint32), values * (K1 + 1) / (values + norm))

    return vectorize


def tokenizers(lang: str) -> dict[str, tuple[Vectorize, Vectorize]]:
    """Document and query vectors per tokenizer. Snowball is told the language, which a search engine has to guess."""
    words = weighted(lambda text: re.findall(r"\w+", normalize(text)))
    plain = weighted(lambda text: [term for term in tokenize(text) if not term.endswith("*")])
    bm25 = Bm25(Bm25Config(tokenizer=TokenizerType.Multilingual, avg_len=AVERAGE_LENGTH))

    def edge(embed: Callable[[str], object]) -> Vectorize:
        def vectorize(text: str) -> SparseVector:
            found = embed(text)
            return SparseVector(np.array(found.indices, np.uint32), np.array(found.values, np.float32))  # type: ignore[attr-defined]

        return vectorize

    found = {
        r"words (\w+)": (words, words),
        "ours": (document_vector, query_vector),
        "ours without prefixes": (plain, plain),
        "Qdrant Bm25 Multilingual": (edge(bm25.embed_document), edge(bm25.embed_query)),
    }
    if lang in _SNOWBALL:
        import snowballstemmer

        stem = snowballstemmer.stemmer(_SNOWBALL[lang]).stemWord
        stems = weighted(lambda text: [stem(term) for term in tokenize(text) if not term.endswith("*")])
        found["words, Snowball of the known language"] = (stems, stems)
    return found


def ndcg_at_10(collection: Collection, of_document: Vectorize, of_query: Vectorize) -> tuple[float, float, float]:
    """Mean nDCG@10 of BM25 with binary relevance, megabytes of documents per second, terms per document."""
    started = time.perf_counter()
    vectors = [of_document(text) for text in collection.documents.values()]
    seconds = time.perf_counter() - started
    columns, indices = np.unique(np.concatenate([vector.indices for vector in vectors]), return_inverse=True)
    bounds = np.cumsum([0, *(len(vector.indices) for vector in vectors)])
    frequency = np.bincount(indices, minlength=len(columns))
    idf = np.log(1 + (len(vectors) - frequency + 0.5) / (frequency + 0.5))
    values = np.concatenate([vector.values for vector in vectors]) * idf[indices]
    matrix = csr_matrix((values, indices, bounds), shape=(len(vectors), len(columns))).tocsc()
    ids, total = list(collection.documents), 0.0
    for query, text in collection.queries.items():
        wanted = np.flatnonzero(np.isin(columns, of_query(text).indices))
        scores = np.asarray(matrix[:, wanted].sum(axis=1)).ravel()
        best = [i for i in np.argsort(-scores, kind="stable")[:10] if scores[i] > 0]
        right = collection.relevant[query]
        gain = sum(1 / np.log2(rank + 2) for rank, i in enumerate(best) if ids[i] in right)
        total += gain / sum(1 / np.log2(rank + 2) for rank in range(min(10, len(right))))
    size = sum(len(text.encode()) for text in collection.documents.values())
    return total / len(collection.queries), size / 1e6 / seconds, len(indices) / len(vectors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="a folder; may be repeated")
    parser.add_argument("--queries", type=int, default=1000, help="at most so many per language")
    options = parser.parse_args()
    print("| data | language | tokenizer | nDCG@10 | MB/s | distinct terms per document |\n|---|---|---|---|---|---|")
    for collection in (found for folder in options.data for found in load_collections(folder, options.queries)):
        for name, (of_document, of_query) in tokenizers(collection.lang).items():
            quality, rate, terms = ndcg_at_10(collection, of_document, of_query)
            row = f"| {collection.name} | {collection.lang} | {name} | {quality:.3f} | {rate:.1f} | {terms:.0f} |"
            print(row, flush=True)

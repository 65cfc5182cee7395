"""BM25 scores of a pool of documents, over the terms that search uses for every script."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from search.lexical import K1, B, tokenize
from search.records import Vectors

EMPTY = ""
"""Term that no text has; it stands in documents without words, which the index would not take."""


class LexicalIndex:
    """Scores queries against all documents of a pool at once.

    Costs the tokenizer once over all documents (some MB a second), then one pass over the postings of a query's terms.

    Source: Lù, 2024, "BM25S: Orders of magnitude faster lexical search via eager sparse scoring"; the
    variant is that of Lucene (Kamphuis et al., 2020, "Which BM25 do you mean?").
    Differs: `search.lexical` gives the terms, so that texts without spaces between words work too.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)
        self._count = len(texts)
        self._index = bm25s.BM25(k1=K1, b=B, method="lucene", auto_compile=False)
        self._index.index([tokenize(text) or [EMPTY] for text in texts], show_progress=False)

    def scores(self, query: str) -> Vectors:
        """Scores (N,) float32 of all documents, 0 without a common term; a term that the query repeats counts once."""
        ids = self._index.get_tokens_ids(sorted(set(tokenize(query))))
        if not ids:
            return np.zeros(self._count, np.float32)
        return np.asarray(self._index.get_scores_from_ids(ids), np.float32)

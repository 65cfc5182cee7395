"""Pieces cut by sentencepiece: those of the tokenizers library, in every script."""

from __future__ import annotations

import json

import pytest
import tokenizers
from made_unigram import many_scripts, trained_tokenizer
from tokenizers import models, normalizers, pre_tokenizers

from search.encoder.unigram_pieces import unigram_pieces

ODD = ["", " ", "a  b ", "\n", "\ta\u3000b\u200bc", "ﬁﬁ ½ Å", "👩‍👩‍👧 🏔️", "�\x00", "𓀀𓀁 unknown", "x" * 3000]


def changed(**parts: object) -> tokenizers.Tokenizer:
    """The made tokenizer with other parts."""
    tokenizer = tokenizers.Tokenizer.from_str(trained_tokenizer().to_str())
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        changed(),
        changed(normalizer=None),
        changed(normalizer=normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])),
        changed(
            pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁")])
        ),
    ],
    ids=["metaspace", "not normalized", "nmt", "whitespace"],
)
def test_texts_are_cut_as_by_the_tokenizer(tokenizer: tokenizers.Tokenizer) -> None:
    """Or as well: a made tokenizer of few texts has many ways to cut a word that have one sum."""
    pieces = unigram_pieces(tokenizer)
    assert pieces is not None
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    texts = [*(text for found in many_scripts().values() for text in found), *ODD]
    equal = 0
    for text, ids in zip(texts, pieces(texts), strict=True):
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        equal += ids == expected
        (ours, our_sum), (theirs, their_sum) = (
            ("".join(vocabulary[number][0] for number in found), sum(vocabulary[number][1] for number in found))
            for found in (ids, expected)
        )
        assert ours == theirs
        assert our_sum == pytest.approx(their_sum, abs=1e-3)
    assert equal >= 0.95 * len(texts)
    assert pieces([]) == []


def without_unknown() -> tokenizers.Tokenizer:
    told = json.loads(trained_tokenizer().to_str())
    told["model"]["unk_id"] = None
    return tokenizers.Tokenizer.from_str(json.dumps(told))


@pytest.mark.parametrize(
    "tokenizer",
    [
        changed(pre_tokenizer=None),
        changed(pre_tokenizer=pre_tokenizers.ByteLevel()),
        changed(pre_tokenizer=pre_tokenizers.Metaspace("▁", prepend_scheme="never")),
        tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")),
        without_unknown(),
    ],
    ids=["not at spaces", "bytes", "no space before the first word", "word pieces", "nothing for the unknown"],
)
def test_what_it_would_cut_otherwise_is_left_to_the_tokenizer(tokenizer: tokenizers.Tokenizer) -> None:
    assert unigram_pieces(tokenizer) is None

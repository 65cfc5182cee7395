"""One text in many languages: what is read of it, and the sets made of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.vocabulary import letters_of_scripts, pairs, read_versions
from training.evaluation.sets import BitextSet, load_set
from training.vocabulary.coverage import Counts


def write(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return path


def test_only_whole_translations_are_compared(tmp_path: Path) -> None:
    rows = [{"lang": "th", "variant": "tha", "section": number, "text": "ข้อ"} for number in range(31)]
    rows += [{"lang": "am", "variant": "amh", "section": number, "text": "አንቀጽ"} for number in range(5)]
    assert list(read_versions(write(tmp_path / "text.jsonl", rows))) == ["th tha"]


def test_letters_are_the_ratio_of_lengths_to_latin() -> None:
    versions = {"en eng": ["abcdef"], "zh cmn": ["字"], "ti tir": ["ሰላም"]}
    counts = {name: Counts(characters=len(texts[0])) for name, texts in versions.items()}
    assert letters_of_scripts(versions, counts) == {"Ethi": 2.0, "Hani": 6.0, "Latn": 1.0}


def test_pairs_are_a_set_that_can_be_evaluated(tmp_path: Path) -> None:
    texts = {"en": "water", "ti": "ማይ", "am": "ውሃ", "hi": "पानी"}
    rows = [
        {"lang": lang, "group_id": str(number), "split": split, "text": f"{text} {number}"}
        for lang, text in texts.items()
        for number, split in enumerate(("test", "test", "train"))
    ]
    pairs(write(tmp_path / "texts.jsonl", rows), ["ti", "am"], tmp_path / "set")
    found = load_set(tmp_path / "set")
    assert isinstance(found, BitextSet)
    assert {row.pair for row in found.rows} == {"ti-en", "am-en"}
    assert ("ማይ 0", "water 0") in {row.texts for row in found.rows}
    assert len(found.rows) == 4  # the training split is left out

"""Training data: what a file or hub dataset may hold, and what is said of one that cannot be used."""

from __future__ import annotations

import gzip
import json
import sys
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.errors import TrainingDataError
from training.data.loading import find_files, iter_good_rows, iter_hub_rows, iter_rows, join_nli_pairs, parse_row
from training.data.schema import (
    TASK_NAMES,
    BitextRow,
    LabelledRow,
    NliRow,
    RetrievalRow,
    StsRow,
    Task,
    row_langs,
    row_texts,
)
from training.data.statistics import count_rows
from training.mixture import plan_batches
from training.prepare import prepare
from training.recipe import load_recipe

CROSS_LINGUAL = {"objective": "retrieval", "batch_size": 16, "cross_lingual": 1.0, "negatives": 1, "languages": 4}
GOOD = {"task": "retrieval", "query": "犬", "positive": "كلب في البيت", "lang_query": "ja", "lang_doc": "ar"}


def write(path: Path, *lines: Any, before: bytes = b"") -> Path:
    content = before + b"".join(
        (line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode()) + b"\n" for line in lines
    )
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_come_in_order_without_blank_lines_and_byte_order_mark(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, GOOD, b"", b"  ", {**GOOD, "query": " कुत्ता \u200d"}, before=b"\xef\xbb\xbf")
    rows = list(iter_rows(path))
    assert [row.query for row in rows if isinstance(row, RetrievalRow)] == ["犬", "कुत्ता \u200d"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"task": "retrieval", ', "rows.jsonl:2: not JSON"),
        (b"[1, 2]", "rows.jsonl:2: a JSON object is expected, not list"),
        ('{"query": "é"}'.encode("latin-1"), "rows.jsonl:2: not UTF-8"),
        ({**GOOD, "task": "chat"}, "rows.jsonl:2: task 'chat' is not known. Known: bitext, "),
        ({"query": "a"}, "rows.jsonl:2: task None is not known"),
        ({"task": "nli", "lang": "en", "anchor": "a", "positive": "b"}, "negative: Field required"),
        ({"task": "nli", "lang": "en", "anchor": "a", "positive": "b"}, "It has: anchor, lang, positive, task"),
        ({**GOOD, "query": "  "}, "query: String should have at least 1"),
        (
            {"task": "sts", "langs": ["en", "de"], "text_a": "a", "text_b": "b", "score": 7},
            "score: Input should be less",
        ),
        ({"task": "bitext", "langs": ["en", "de"], "texts": ["a", "b", "c"]}, "2 langs for 3 texts"),
        ({"task": "bitext", "langs": ["en"], "texts": ["a"]}, "langs: Tuple should have at least 2"),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path: Path, line: Any, words: str) -> None:
    with pytest.raises(TrainingDataError) as caught:
        list(iter_rows(write(tmp_path / "rows.jsonl", GOOD, line)))
    assert words in str(caught.value)


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(json.dumps({**GOOD, "query": str(n)}).encode() + b"\n" for n in range(500)))
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) // 2 + 20] = b"\xff" * 20
    for name, content in {"cut.gz": whole[:-30], "not.gz": b"{}", "damaged.gz": bytes(damaged)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TrainingDataError, match=name):
            list(iter_rows(tmp_path / name))
    with pytest.raises(TrainingDataError, match=r"nothing\.jsonl: cannot be read"):
        list(iter_rows(tmp_path / "nothing.jsonl"))


def test_bad_rows_are_counted_by_reason_where_that_is_asked(tmp_path: Path) -> None:
    skipped: Counter[str] = Counter()
    path = write(tmp_path / "rows.jsonl", GOOD, {**GOOD, "query": ""}, {**GOOD, "query": " "}, b"{", GOOD)
    assert len(list(iter_good_rows(path, skipped))) == 2
    assert sorted(skipped.values()) == [1, 2]
    with pytest.raises(TrainingDataError, match="cannot be read"):
        list(iter_good_rows(tmp_path / "none.jsonl", skipped))


def test_tasks_have_aliases_and_a_default_that_does_not_hide_a_mistake() -> None:
    assert TASK_NAMES["faq"] is TASK_NAMES["qa"] is Task.RETRIEVAL
    assert isinstance(parse_row({**GOOD, "task": "qa"}, "x"), RetrievalRow)
    row = parse_row({"task": "clustering", "lang": "en", "text": "a", "label": 3}, "x")
    assert isinstance(row, LabelledRow)
    assert row.label == "3"
    unnamed = {key: value for key, value in GOOD.items() if key != "task"}
    assert isinstance(parse_row(unnamed, "x", task=Task.RETRIEVAL), RetrievalRow)
    with pytest.raises(TrainingDataError, match="'retreival' is not known"):
        parse_row({**GOOD, "task": "retreival"}, "x", task=Task.RETRIEVAL)


def test_columns_are_renamed_and_joined() -> None:
    raw = {"q": "犬", "a": "dog", "n1": "cat", "n2": "cow", "lang_query": "ja", "lang_doc": "en"}
    columns: dict[str, str | tuple[str, ...]] = {"query": "q", "positive": "a", "negatives": ("n1", "n2")}
    row = parse_row(raw, "x", task=Task.RETRIEVAL, columns=columns)
    assert row_texts(row) == ("犬", "dog", "cat", "cow")
    with pytest.raises(TrainingDataError, match="no column 'question' for 'query'; it has a, lang_doc, lang_query, n1"):
        parse_row(raw, "x", task=Task.RETRIEVAL, columns={"query": "question"})
    with pytest.raises(TrainingDataError, match="no column 'n3' for 'negatives'"):
        parse_row(raw, "x", task=Task.RETRIEVAL, columns={**columns, "negatives": ("n1", "n3")})


def fake_hub(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], *, fails_after: int | None = None
) -> list[Any]:
    calls: list[Any] = []

    def load_dataset(*args: Any, **options: Any) -> Iterator[dict[str, Any]]:
        calls.append((args, options))

        def stream() -> Iterator[dict[str, Any]]:
            for number, row in enumerate(rows):
                if number == fails_after:
                    raise ConnectionError("the network went away")
                yield row

        if fails_after == 0:
            raise ValueError("Unknown config 'xx'")
        return stream()

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_hub_rows_are_streamed_with_columns_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = [{"english": "dog", "non_english": "Hund", "task": "translation"}] * 3
    calls = fake_hub(monkeypatch, raw)
    rows = list(
        iter_hub_rows("owner/talks", task=Task.BITEXT, config="en-de", columns={"texts": ("english", "non_english")},
                      defaults={"langs": ["en", "de"]})
    )  # fmt: skip
    assert calls == [(("owner/talks", "en-de"), {"split": "train", "streaming": True})]
    assert rows == [BitextRow(dataset="owner/talks", langs=("en", "de"), texts=("dog", "Hund"))] * 3


@pytest.mark.parametrize("fails_after", [0, 1])
def test_a_hub_dataset_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch, fails_after: int) -> None:
    fake_hub(monkeypatch, [{**GOOD}] * 3, fails_after=fails_after)
    with pytest.raises(
        TrainingDataError, match=r"dataset 'o/n' \(config xx, split dev\) cannot be loaded.*Check the id"
    ):
        list(iter_hub_rows("o/n", task=Task.RETRIEVAL, config="xx", split="dev"))


def test_a_hub_row_that_does_not_fit_names_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, [GOOD, {"query": "a"}])
    with pytest.raises(TrainingDataError, match="o/n, row 2: not a retrieval row"):
        list(iter_hub_rows("o/n", task=Task.RETRIEVAL))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TrainingDataError, match="pip install"):
        list(iter_hub_rows("o/n", task=Task.RETRIEVAL))


def test_nli_pairs_become_triplets_with_the_place_of_their_premise(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("p", "yes", 0), ("r", "perhaps", 1), ("p", "no", 2), ("r", "never", "contradiction"), ("p", "also", 0),
             ("r", "sure", "entailment"), ("s", "lone", 0)]  # fmt: skip
    raw = [{"premise": premise, "hypothesis": hypothesis, "label": label} for premise, hypothesis, label in pairs]
    assert list(join_nli_pairs(raw)) == [
        {"anchor": "p", "group": "0", "positive": "yes", "negative": "no"},
        {"anchor": "r", "group": "1", "negative": "never", "positive": "sure"},
    ]
    fake_hub(monkeypatch, raw)
    rows = list(iter_hub_rows("o/xnli", task=Task.NLI, defaults={"lang": "fr"}, nli_pairs=True))
    assert rows[0] == NliRow(dataset="o/xnli", lang="fr", anchor="p", positive="yes", negative="no")
    with pytest.raises(TrainingDataError, match="no column 'label'; it has hypothesis, premise"):
        list(join_nli_pairs([{"premise": "p", "hypothesis": "h"}]))


def test_the_cross_lingual_recipe_pairs_premises_with_what_they_entail_in_another_language(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load_dataset(_name: str, config: str, **_: Any) -> list[dict[str, Any]]:
        labels = ("yes", "perhaps", "no")
        return [
            {"premise": f"p {number} {config}", "hypothesis": f"{labels[label]} {number} {config}", "label": label}
            for number in range(40)
            for label in (0, 1, 2)
        ]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    recipe = load_recipe("m-st5-cross-lingual", overrides={"streams": [CROSS_LINGUAL]})
    prepared = prepare(recipe.data, tmp_path, held_out=None, seed=7)
    assert len(prepared.rows["xnli"]) == 40 * 15
    for batch in plan_batches(prepared.rows, recipe.streams, steps=20, seed=7):
        for (premise, entailed, contradicted), (first, second) in zip(batch.rows, batch.langs, strict=True):
            number = str(premise).split()[1]
            assert first != second
            assert premise == f"p {number} {first}"
            assert entailed == f"yes {number} {second}"
            assert contradicted == f"no {number} {first}"


def test_patterns_that_match_nothing_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", GOOD)
    write(tmp_path / "b.jsonl", GOOD)
    assert [path.name for path in find_files(tmp_path, ["*.jsonl", "a*"])] == ["a.jsonl", "b.jsonl"]
    with pytest.raises(TrainingDataError, match=r"no file matches '\*\.gz'"):
        find_files(tmp_path, ["*.jsonl", "*.gz"])


def test_statistics_count_rows_by_dataset_and_texts_by_language() -> None:
    rows = [
        RetrievalRow(dataset="d", query="q", positive="p", lang_query="ja", lang_doc="ar", negatives=("n",)),
        StsRow(dataset="s", langs=("en", "hi"), text_a="a", text_b="b", score=1),
    ]
    assert [row_langs(row) for row in rows] == [("ja", "ar", "ar"), ("en", "hi")]
    counted = count_rows(rows)
    assert counted.languages == {"ja": 1, "ar": 2, "en": 1, "hi": 1}
    assert counted.as_dict()["rows"] == {"retrieval": {"d": 1}, "sts": {"s": 1}}

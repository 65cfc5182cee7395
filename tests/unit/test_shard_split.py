"""How an ingest is split: every file in one shard, whatever else there is; and what the ledgers of shards hold."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from indexer.documents import Skipped
from indexer.ledger import DocumentRow, FileRow, Ledger
from indexer.pipeline import Summary
from indexer.ray_engine import add_up, import_ray
from indexer.shards import FINISHED, Shard, ShardLedgers, begun_splits, parse_shard
from search.errors import IndexBusyError, SettingsError
from search.index import IndexFolder

SOURCES = [
    f"{folder}/{name} {number}.txt"
    for folder in ("de", "ja/温泉", "ar/شاي", "hi/चाय", "th/ข้าว", "he/לחם", "ko/차")
    for name in ("Übersicht", "U\u0308bersicht", "👩‍🔬", "a\\xff")
    for number in range(50)
]


@pytest.mark.parametrize("of", [1, 2, 3, 7, 64])
def test_every_file_is_in_one_shard(of: int) -> None:
    shards = [Shard(number, of) for number in range(of)]
    assert all(sum(shard.owns(source) for shard in shards) == 1 for source in SOURCES)
    sizes = [sum(map(shard.owns, SOURCES)) for shard in shards]
    assert max(sizes) < 2.5 * len(SOURCES) / of


def test_the_choice_is_the_same_on_every_machine() -> None:
    """Worked out by hand with sha256sum: the first eight bytes, big-endian, modulo the number of shards."""
    assert Shard(int("5feceb66ffc86f38", 16) % 7, 7).owns("0")
    assert Shard(int("2ac9a6746aca543a", 16) % 1000, 1000).owns("000")


@pytest.mark.parametrize(("text", "number", "of"), [("0/1", 0, 1), (" 3/4 ", 3, 4), ("99999/100000", 99_999, 100_000)])
def test_a_shard_is_named(text: str, number: int, of: int) -> None:
    assert parse_shard(text) == Shard(number, of)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "0/4 for the first"),
        ("1", "give i/n"),
        ("1/", "give i/n"),
        ("-1/4", "give i/n"),
        ("1/4/2", "give i/n"),
        ("١/٤", "give i/n"),
        ("1.5/4", "give i/n"),
        ("0/0", "1 to 100000"),
        ("0/100001", "1 to 100000"),
        ("4/4", "the last of 4 is 3/4"),
    ],
)
def test_what_is_no_shard_is_explained(text: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=hint):
        parse_shard(text)


def fill(ledger: Ledger, sources: list[str]) -> None:
    for source in sources:
        ledger.put_file(FileRow(source, 1, 2, "d", "o"))
    ledger.put_documents([DocumentRow(f"{source}#1", source, "d", 3, 1) for source in sources])


def rows(path: Path) -> tuple[list[FileRow], list[str], list[tuple[str, str]]]:
    with closing(Ledger(path)) as ledger:
        files = list(ledger.iter_files())
        return files, [name for file in files for name in ledger.documents_of(file.source)], ledger.roots()


def test_ledgers_are_parted_and_put_together_again(tmp_path: Path) -> None:
    ledgers = ShardLedgers(tmp_path, 5)
    with closing(Ledger(ledgers.whole)) as whole:
        whole.prefix_of(tmp_path)
        fill(whole, SOURCES)
    before = rows(ledgers.whole)
    assert ledgers.seed(ledgers.shards, tmp_path, None) == before[2]
    for shard in ledgers.shards:
        assert {row.source for row in rows(ledgers.path(shard))[0]} == set(filter(shard.owns, SOURCES))
    assert begun_splits(tmp_path) == [5]
    assert ledgers.unfinished() == ledgers.shards
    for shard in ledgers.shards:
        with closing(Ledger(ledgers.path(shard))) as ledger:
            ledger.set_meta(FINISHED, "map")
    assert ledgers.unfinished() == []
    assert set(ledgers.maps().values()) == {"map"}
    ledgers.whole.unlink()
    ledgers.merge()
    assert rows(ledgers.whole) == before
    with closing(Ledger(ledgers.whole)) as ledger:
        assert ledger.meta(FINISHED) is None
    ledgers.discard()
    assert begun_splits(tmp_path) == []


def test_a_ledger_that_a_shard_has_is_gone_on_with(tmp_path: Path) -> None:
    ledgers = ShardLedgers(tmp_path, 2)
    shard = ledgers.shards[0]
    ledgers.seed([shard], tmp_path, None)
    with closing(Ledger(ledgers.path(shard))) as ledger:
        fill(ledger, ["a.txt"])
    ledgers.seed(ledgers.shards, tmp_path, None)
    assert [row.source for row in rows(ledgers.path(shard))[0]] == ["a.txt"]


def test_shards_that_name_their_folder_differently_are_not_merged(tmp_path: Path) -> None:
    ledgers = ShardLedgers(tmp_path / "index", 2)
    for shard, name in zip(ledgers.shards, ("one", "other"), strict=True):
        (tmp_path / name).mkdir()
        ledgers.seed([shard], tmp_path / name, None)
    with pytest.raises(SettingsError, match=r"shard 1/2 read its folder at another path .*one, .*other.* same path"):
        ledgers.merge()
    assert not ledgers.whole.exists()


def test_a_shard_at_work_is_not_merged(tmp_path: Path) -> None:
    ledgers = ShardLedgers(tmp_path, 2)
    ledgers.seed([ledgers.shards[1]], tmp_path, None)
    at_work = IndexFolder(ledgers.place(ledgers.shards[1]))
    with at_work.write_lock(), pytest.raises(IndexBusyError, match="another process"), ledgers.locks():
        pass


def test_summaries_add_up() -> None:
    first = Summary(files=2, read=1, documents=1, chunks=3, bytes=10, empty=False, seconds=9.0)
    first.languages.update({"de": 2, "ja": 1})
    first.skipped.append(Skipped("z.pdf", "damaged"))
    second = Summary(files=1, unchanged=1, removed=2)
    second.languages.update({"ja": 4})
    second.skipped.append(Skipped("a.pdf", "empty"))
    total = add_up([first, second], seconds=5.0)
    assert (total.files, total.read, total.unchanged, total.documents, total.chunks) == (3, 1, 1, 1, 3)
    assert (total.removed, total.bytes, total.seconds, total.empty) == (2, 10, 5.0, False)
    assert total.languages == {"ja": 5, "de": 2}
    assert [item.source for item in total.skipped] == ["a.pdf", "z.pdf"]
    assert add_up([second, second], seconds=1.0).empty


def test_ray_that_is_not_installed_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'panlingua\[cluster\]'"):
        import_ray()

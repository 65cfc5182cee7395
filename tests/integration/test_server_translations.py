"""Translations of an index on a server: every machine finds them, whichever ingested."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.served import record_calls
from indexer import build
from indexer.reindex import reindex
from indexer.transfer import pull, push
from search.engine import Engine
from search.errors import QueryError
from search.opening import connect_index, open_index
from search.records import Filter, Match
from search.server_families import TRANSLATIONS, ServerFamilies
from search.settings import Settings, load_settings
from search.store.server import ServerStore, write_metadata
from tests.integration import qdrant_standin
from tests.integration.test_translations import (
    LANGUAGES,
    SUBJECTS,
    SubjectEncoder,
    document,
    expected,
    groups,
    ingest,
    make_corpus,
    write,
)


class OtherSubjectEncoder(SubjectEncoder):
    """Another encoder of the same subjects."""

    fingerprint, address = "subjects-2", "others"

    def _vector(self, text: str) -> np.ndarray:
        return np.roll(super()._vector(text), 7)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    outside = os.environ.get("QDRANT_URL")
    if outside:
        yield outside
        return
    with qdrant_standin.running() as url:
        yield url


@pytest.fixture
def server(url: str, tmp_path: Path) -> Iterator[Settings]:
    settings = load_settings(home=tmp_path / "home", index=f"folded-{os.getpid()}", store=url)
    yield settings
    client, name = connect_index(settings)
    with closing(client):
        for found in client.get_collections().collections:
            if found.name.startswith(f"{name}@"):
                client.delete_collection(found.name)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "corpus")


def elsewhere(server: Settings, home: str = "elsewhere") -> Settings:
    """A machine that has nothing of the index."""
    return server.model_copy(update={"home": server.home.parent / home})


def found(settings: Settings, encoder: SubjectEncoder | None = None) -> list[list[tuple[str, float, list[str]]]]:
    """Hits with their scores and what is folded into them, for questions in three languages."""
    with closing(Engine(settings, encoder or SubjectEncoder())) as engine:  # type: ignore[arg-type]
        return [
            [
                (hit.chunk.id, round(hit.score, 6), [chunk.document_id for chunk in hit.also_in])
                for hit in engine.search(phrases[language], k=50).hits
            ]
            for language, phrases in zip((0, 2, 6), SUBJECTS.values(), strict=False)
        ]


def groups_of(settings: Settings) -> set[frozenset[str]]:
    with closing(open_index(settings)) as opened:
        return {frozenset(group.values()) for group in opened.families.iter_groups()}


def means_of(settings: Settings, *documents: str) -> np.ndarray:
    """Whether the means of documents are known."""
    with closing(open_index(settings)) as opened:
        return ~np.isnan(opened.families.score_documents(documents, np.ones(64, np.float32)))


SEARCHES: dict[str, tuple[dict[str, object], dict[str, int]]] = {
    "hybrid": ({}, {"query": 2, "query/batch": 1, "scroll": 1}),
    "filter": ({"filter": Filter((Match("lang", ("de", "en")),))}, {"query": 2, "query/batch": 1, "scroll": 2}),
    "not folded": ({"fold": False}, {"query": 2, "query/batch": 1}),
    "dense": ({"mode": "dense"}, {"query": 1, "query/batch": 1, "scroll": 1}),
}


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_search_asks_the_server_for_everything_once(
    corpus: Path, server: Settings, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both lists, what words are known, the families' members, and passages of them that were not found."""
    monkeypatch.setattr("search.opening._SERVER_POLL_S", 60.0)
    options, expected = SEARCHES[kind]
    ingest(corpus, server, SubjectEncoder())
    with closing(Engine(server, SubjectEncoder())) as engine:  # type: ignore[arg-type]
        engine.search(SUBJECTS["tea"][0], **options)  # type: ignore[arg-type]
        store = engine.index().store
        assert isinstance(store, ServerStore)
        calls = record_calls(store.client)
        engine.search(SUBJECTS["bread"][1], **options)  # type: ignore[arg-type]
    asked = Counter(call.what.removeprefix("POST points").strip("/") for call in calls)
    assert asked == expected


def test_a_machine_that_did_not_ingest_folds_and_ranks_the_same(corpus: Path, server: Settings) -> None:
    ingest(corpus, server, SubjectEncoder())
    reader = elsewhere(server)
    hits = found(server)
    assert found(reader) == hits
    assert [len(page) for page in hits] == [len(SUBJECTS)] * 3
    assert groups_of(reader) == expected()
    assert means_of(reader, document("tea", "ja"), "nope").tolist() == [True, False]
    with closing(Engine(reader, SubjectEncoder())) as engine:  # type: ignore[arg-type]
        others = engine.translations(document("tea", "ja"))
        assert {t.lang: t.document_id for t in others} == {
            lang: document("tea", lang) for lang in ("ar", "de", "en", "hi")
        }
        assert all(t.shared == 1.0 for t in others)
        assert [gap.missing for gap in engine.gaps()] == [("he", "th")]
    assert not list(reader.home.rglob("families.sqlite"))


def test_it_is_as_in_an_embedded_index(corpus: Path, server: Settings, tmp_path: Path) -> None:
    embedded = load_settings(home=tmp_path / "home", index=str(tmp_path / "index"))
    for where in (server, embedded):
        ingest(corpus, where, SubjectEncoder())
        write(corpus, "moon", "ja", "猫は窓辺で静かに眠っていて、犬は庭で骨を埋めています。")
        (corpus / document("bread", "th")).unlink(missing_ok=True)
        ingest(corpus, where, SubjectEncoder())
        build.remove(where, [document("tea", "de")])
        write(corpus, "moon", "ja", SUBJECTS["moon"][LANGUAGES.index("ja")])
    assert groups_of(elsewhere(server)) == groups(embedded)
    with closing(open_index(server)) as one, closing(open_index(embedded)) as other:
        assert one.families.languages() == other.families.languages()
        named = sorted(document(name, lang) for name in SUBJECTS for lang in LANGUAGES)
        assert one.families.of(named).keys() == other.families.of(named).keys()
        families = [opened.families.members(set(opened.families.of(named).values())) for opened in (one, other)]
        sides = [
            sorted([(m.document_id, m.lang, m.aligned.tolist()) for m in members] for members in side.values())
            for side in families
        ]
        assert sides[0] == sides[1]


def halves(root: Path) -> list[Path]:
    """Two folders, each with half of the subjects in all their languages."""
    both, folders, names = make_corpus(root / "both"), [root / "first", root / "second"], list(SUBJECTS)
    for number, folder in enumerate(folders):
        folder.mkdir()
        for name in names[2 * number : 2 * number + 2]:
            for lang in LANGUAGES:
                if (both / document(name, lang)).exists():
                    (both / document(name, lang)).rename(folder / document(name, lang))
    return folders


def test_each_machine_finds_what_the_others_ingested(server: Settings, tmp_path: Path) -> None:
    for folder, machine in zip(halves(tmp_path), (server, elsewhere(server)), strict=True):
        ingest(folder, machine, SubjectEncoder())
    assert groups_of(server) == groups_of(elsewhere(server)) == groups_of(elsewhere(server, "third")) == expected()


def test_notes_that_went_with_their_chunks_come_back(corpus: Path, server: Settings) -> None:
    ingest(corpus, server, SubjectEncoder())
    with closing(open_index(server)) as opened:
        assert isinstance(opened.store, ServerStore)
        there = opened.store.read_notes([document("tea", "ja"), document("tea", "en")])
        wanted = Filter((Match("document_id", (document("tea", "ja"),)),))
        opened.store.upsert(list(opened.store.iter_points(filter=wanted, with_vectors=True)))
    lost = frozenset({("tea", "ja")})
    assert groups_of(server) == expected(without=lost)
    written: list[str] = []
    write_notes = ServerStore.write_notes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ServerStore, "write_notes", lambda store, notes: [written.extend(notes), write_notes(store, notes)]
        )
        ingest(corpus, server, SubjectEncoder())
    assert written == [document("tea", "ja")], "the others are as they should be"
    assert groups_of(server) == expected()
    with closing(open_index(server)) as opened:
        assert isinstance(opened.store, ServerStore)
        assert opened.store.read_notes(list(there)) == there
        opened.store.write_notes({"nope": there[document("tea", "ja")]})
        assert opened.store.read_notes(["nope"]) == {}


def test_a_push_brings_them_and_a_pull_as_well(corpus: Path, server: Settings, tmp_path: Path) -> None:
    local = server.model_copy(update={"store": None})
    ingest(corpus, local, SubjectEncoder())
    push(server)
    assert groups_of(elsewhere(server)) == expected()
    assert found(elsewhere(server)) == found(local)
    third = elsewhere(server, "third")
    pull(third)
    assert groups(third.model_copy(update={"store": None})) == expected()


def refuse(_store: ServerStore, notes: dict[str, object]) -> None:
    assert not notes


def test_another_encoder_keeps_them_on_every_machine(
    corpus: Path, server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(corpus, server, SubjectEncoder())
    other = elsewhere(server)
    reindex(other, OtherSubjectEncoder())  # type: ignore[arg-type]
    assert groups_of(other) == groups_of(server) == expected()
    names = [document(name, lang) for name in SUBJECTS for lang in ("ja", "de")]
    assert means_of(other, *names).all()
    hits = found(other, OtherSubjectEncoder())
    assert [len(page) for page in hits] == [len(SUBJECTS)] * 3
    with monkeypatch.context() as patch:
        patch.setattr(ServerStore, "write_notes", refuse)  # they are as whoever ingests makes them
        build.ingest(corpus, server, encoder=OtherSubjectEncoder())  # type: ignore[arg-type]
    assert found(other, OtherSubjectEncoder()) == hits


def test_an_index_of_before_has_none_until_the_next_ingest(corpus: Path, server: Settings) -> None:
    ingest(corpus, server, SubjectEncoder())
    client, name = connect_index(server)
    with closing(client):
        write_metadata(client, name, {TRANSLATIONS: {"version": 0}})
    hits = found(server)
    assert [len(page) for page in hits] == [len(SUBJECTS) * len(LANGUAGES) - 2] * 3
    with closing(Engine(server, SubjectEncoder())) as engine, pytest.raises(QueryError, match="indexer ingest"):  # type: ignore[arg-type]
        engine.gaps()
    encoder = SubjectEncoder()
    ingest(corpus, server, encoder)
    assert encoder.encoded == 0
    assert [len(page) for page in found(server)] == [len(SUBJECTS)] * 3


def test_what_was_read_is_not_asked_for_again(corpus: Path, server: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(corpus, server, SubjectEncoder())
    monkeypatch.setattr("search.server_families.REMEMBERED_DOCUMENTS", 3)
    with closing(open_index(server)) as opened:
        assert isinstance(opened.families, ServerFamilies)
        asked: list[list[str]] = []
        read = ServerStore.read_notes
        monkeypatch.setattr(
            ServerStore, "read_notes", lambda store, ids, parts: [asked.append(ids), read(store, ids, parts)][1]
        )
        names = [document("tea", lang) for lang in ("ar", "de", "en", "hi")]
        assert opened.families.of(names[:3]).keys() == set(names[:3])
        opened.families.of(names[:3])
        assert len(asked) == 1
        assert len(opened.families.of(names)) == 4
        assert asked[1:] == [[names[3]]]


def test_a_reader_goes_on_while_a_document_is_ingested_again(
    corpus: Path, server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.opening._SERVER_POLL_S", 0.0)
    ingest(corpus, server, SubjectEncoder())
    with closing(Engine(elsewhere(server), SubjectEncoder())) as engine:  # type: ignore[arg-type]
        question, name = SUBJECTS["tea"][2], document("tea", "ja")
        before = engine.search(question, k=50)
        assert len(engine.translations(name)) == 4
        store = engine.index().store
        assert isinstance(store, ServerStore)
        points = [point for point in store.iter_points(with_vectors=True) if point.chunk.document_id in TEA]
        store.upsert(points[:1])
        lost = points[0].chunk.document_id
        assert engine.translations(lost) == []
        store.upsert(points)
        assert [engine.translations(document) for document in sorted(TEA)] == [[]] * len(TEA)
        assert len(engine.search(question, k=50).hits) >= len(before.hits)
        ingest(corpus, server, SubjectEncoder())
        assert len(engine.translations(name)) == 4, "the index is opened again when notes were written"
        assert [hit.chunk.id for hit in engine.search(question, k=50).hits] == [hit.chunk.id for hit in before.hits]


TEA = {document("tea", lang) for lang in ("ar", "de", "en", "hi", "ja")}


def test_words_that_are_cut_again_leave_the_notes_of_every_machine(
    server: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = halves(tmp_path)
    for folder, machine in zip(folders, (server, elsewhere(server)), strict=True):
        ingest(folder, machine, SubjectEncoder())
    for module in ("indexer.build", "search.engine", "indexer.shard_jobs"):
        monkeypatch.setattr(f"{module}.LEXICAL_VERSION", 1_000, raising=False)
    ingest(folders[0], server, SubjectEncoder())
    assert groups_of(server) == expected()
    with closing(open_index(server)) as opened:
        assert opened.manifest.lexical_version == 1_000


def test_machines_with_the_same_documents_lose_none(server: Settings, tmp_path: Path) -> None:
    both = make_corpus(tmp_path / "both")
    for number, (machine, languages) in enumerate(
        ((server, ("de", "en", "ja")), (elsewhere(server), ("de", "en", "hi")))
    ):
        folder = tmp_path / f"{number}" / "same"
        folder.mkdir(parents=True)
        for lang in languages:
            for name in SUBJECTS:
                (folder / document(name, lang)).write_bytes((both / document(name, lang)).read_bytes())
        ingest(folder, machine, SubjectEncoder())
    everything = [name for group in groups_of(server) for name in group]
    assert sorted(everything) == sorted(document(name, lang) for name in SUBJECTS for lang in ("de", "en", "ja", "hi"))

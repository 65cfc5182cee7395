"""The HTTP API as its callers see it, over an index of small documents in many scripts."""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from indexer import build
from search.api.app import create_app
from search.api.keys import KeyRing, load_keys
from search.api.service import Service
from search.encoder.encoding import TokenVectors
from search.settings import Settings, load_settings
from tests.conftest import FakeEncoder
from tests.integration.indexes import FILES, OtherEncoder

READ, WRITE, EMBED, METRICS = (f"{name}-secret-of-enough-characters" for name in ("read", "write", "embed", "metrics"))
INDEXER = "import search.encoder; from tests.conftest import FakeEncoder; " \
    "search.encoder.load_encoder = lambda *a, **k: FakeEncoder(); from indexer.cli import main; main()"  # fmt: skip
SECRET_TEXT = "geheim"


class TokenEncoder(FakeEncoder):
    """Gives vectors of words as well, as reading again and marking need them."""

    backend = None

    def encode_query_tokens(self, texts: list[str], *, max_tokens: int | None = None) -> list[TokenVectors]:
        return [self._words(text, max_tokens) for text in texts]

    encode_document_tokens = encode_query_tokens

    def _words(self, text: str, most: int | None) -> TokenVectors:
        spans = [found.span() for found in re.finditer(r"\w+", text)][:most]
        words = [text[start:end] for start, end in spans]
        ids = np.array([zlib.crc32(word.casefold().encode()) for word in words], np.int64)
        return TokenVectors(self.encode_queries(words), ids, np.array(spans, np.int64).reshape(-1, 2))


def filled(folder: Path) -> Settings:
    """Settings of a server over an index of the small documents."""
    for name, text in FILES.items():
        path = folder / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    serve = {"folders": (folder / "corpus",), "rate": 0}
    settings = load_settings(home=folder / "home", index="notes", serve=serve)
    build.ingest(folder / "corpus", settings, encoder=FakeEncoder())  # type: ignore[arg-type]
    return settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of an index that no test changes."""
    return filled(tmp_path_factory.mktemp("api"))


def client_of(settings: Settings, keys: KeyRing | None = None) -> Iterator[TestClient]:
    service = Service(
        settings, keys=keys, encoder=TokenEncoder(), indexer=[sys.executable, "-c", INDEXER],  # type: ignore[arg-type]
    )  # fmt: skip
    with TestClient(create_app(service), base_url="http://localhost", raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client


def wait_until_ready(client: TestClient) -> None:
    for _ in range(600):
        if client.get("/health/ready").status_code == 200:
            return
        time.sleep(0.05)
    raise AssertionError(client.get("/health/ready").text)


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    """A server without keys, over an index that no test changes."""
    yield from client_of(settings)


@pytest.fixture(scope="module")
def guarded(settings: Settings) -> Iterator[TestClient]:
    """The same with keys."""
    keys = load_keys(None, f"r:read:{READ} w:read+write:{WRITE} e:embed:{EMBED} m:metrics:{METRICS}")
    yield from client_of(settings, keys)


@pytest.fixture
def writable(tmp_path: Path) -> Iterator[TestClient]:
    """A server over an index of its own."""
    yield from client_of(filled(tmp_path))


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def done(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    for _ in range(600):
        job = client.get(f"/v1/jobs/{job['id']}").json()
        if job["ended"] is not None:
            return job
        time.sleep(0.1)
    raise AssertionError(job)


def ids(client: TestClient, query: str, **options: object) -> list[str]:
    answer = client.post("/v1/search", json={"query": query, **options})
    assert answer.status_code == 200, answer.text
    return [hit["document_id"] for hit in answer.json()["hits"]]


def test_every_document_is_found_by_its_own_words(client: TestClient) -> None:
    for name, text in FILES.items():
        words = text.splitlines()[-1][:30]
        assert ids(client, words)[0] == name
        assert client.get("/v1/search", params={"q": words, "k": 1}).json()["hits"][0]["document_id"] == name


def test_an_answer_says_what_was_understood(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"query": "お湯に入る前に", "explain": True, "facets": True}).json()
    assert answer["detection"]["lang"] == "ja"
    assert answer["hits"][0]["explanation"]["dense_rank"] is not None
    assert ["ja", 1] in answer["facets"]["lang"]
    assert {"encode", "retrieve", "total"} <= set(answer["timings_ms"])
    assert answer["suggestion"] is None or isinstance(answer["suggestion"], str)


def test_hits_are_read_again_and_marked_when_asked_for(client: TestClient) -> None:
    body = {"query": "Sauerteig braucht Zeit", "rerank": "late", "highlight": True, "explain": True, "k": 3}
    first = client.post("/v1/search", json=body).json()["hits"][0]
    assert (first["document_id"], first["explanation"]["rerank_rank"]) == ("de/Brot.md", 1)
    marked = {first["text"][h["start"] - first["start"] : h["end"] - first["start"]] for h in first["highlights"]}
    assert {"Sauerteig", "Zeit"} <= marked


def test_filters_hold(client: TestClient) -> None:
    assert sorted(ids(client, "Wasser", filter={"lang": ["hi", "th"]}, k=50)) == ["hi/चाय.txt", "th/ข้าว.txt"]
    assert ids(client, "Wasser", filter={"source": ["de/"]}) == ["de/Brot.md"]
    assert ids(client, "Wasser", filter={"metadata": {"year": [2024, "x"]}}) == []
    bad = client.post("/v1/search", json={"query": "x", "filter": {"since": "yesterday"}})
    assert (bad.status_code, "YYYY-MM-DD" in bad.json()["detail"]) == (400, True)


def test_a_batch_is_answered_in_order_also_line_by_line(client: TestClient) -> None:
    searches = [
        {"query": "moon pulls on the sea", "k": 1},
        {"query": "x", "lang": "klingon"},
        {"query": "Sauerteig", "k": 1},
    ]
    whole = client.post("/v1/search/batch", json={"searches": searches})
    assert whole.status_code == 200
    first, second, third = whole.json()["results"]
    assert (first["hits"][0]["document_id"], third["hits"][0]["document_id"]) == ("en/tides.txt", "de/Brot.md")
    assert second["problem"]["status"] == 400
    lines = client.post("/v1/search/batch", json={"searches": searches}, headers={"Accept": "application/x-ndjson"})
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    rows = [json.loads(line) for line in lines.text.splitlines()]
    assert [row.get("query") for row in rows] == ["moon pulls on the sea", None, "Sauerteig"]


def test_a_document_its_neighbours_and_the_counts(client: TestClient) -> None:
    document = client.get("/v1/documents", params={"id": "ja/温泉.txt"}).json()
    assert document["chunks"][0]["text"] == FILES["ja/温泉.txt"]
    similar = client.get("/v1/similar", params={"id": "ja/温泉.txt", "k": 3}).json()["hits"]
    assert len(similar) == 3
    assert "ja/温泉.txt" not in [hit["document_id"] for hit in similar]
    assert dict(map(tuple, client.post("/v1/facets").json()["facets"]["lang"]))["ar"] == 1
    assert client.post("/v1/facets", json={"lang": ["ar"]}).json()["facets"]["lang"] == [["ar", 1]]
    for path in ("documents", "similar", "translations"):
        missing = client.get(f"/v1/{path}", params={"id": "no/such\0thing"})
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


def test_topics_need_enough_passages_and_say_so(client: TestClient) -> None:
    answer = client.post("/v1/topics", json={"reader_languages": ["de"]})
    assert (answer.status_code, answer.headers["content-type"]) in {
        (200, "application/json"),
        (400, "application/problem+json"),
    }
    assert client.post("/v1/topics", json={"count": 1}).status_code == 422


def test_translations_are_listed(client: TestClient) -> None:
    answer = client.get("/v1/translations", params={"id": "ja/温泉.txt"})
    assert (answer.status_code, answer.json()) == (200, {"translations": []})


def test_no_model_can_be_named_by_a_caller(client: TestClient) -> None:
    for name in ("/etc", "owner/model", "../x"):
        assert client.post("/v1/search", json={"query": "x", "rerank": name}).status_code == 422


def test_documents_are_added_replaced_and_removed(writable: TestClient) -> None:
    tags = {"tags": ["küche", "obst"]}
    sent = {"key": "日記/五月", "title": "Mai", "text": "Zwetschgenkuchen backen", "metadata": tags}
    added = writable.post("/v1/documents", json={"documents": [sent]})
    assert added.status_code == 202
    job = done(writable, added.json())
    assert (job["state"], job["summary"].get("documents")) == ("done", 1), job["error"]
    hit = writable.post("/v1/search", json={"query": "Zwetschgenkuchen"}).json()["hits"][0]
    assert (hit["metadata"], hit["title"]) == ({"key": "日記/五月", **tags}, "Mai")
    done(writable, writable.post("/v1/documents", json={"documents": [{**sent, "text": "Quittengelee kochen"}]}).json())
    again = writable.post("/v1/search", json={"query": "Quittengelee"}).json()["hits"][0]
    assert (again["document_id"], again["text"]) == (hit["document_id"], "Quittengelee kochen")
    removed = writable.delete("/v1/documents", params={"id": hit["document_id"]})
    job = done(writable, removed.json())
    assert (removed.status_code, job["state"]) == (202, "done"), job["error"]
    assert writable.get("/v1/documents", params={"id": hit["document_id"]}).status_code == 404
    next_one = {"documents": [{"key": "next", "text": "Mirabellen einwecken"}]}
    assert done(writable, writable.post("/v1/documents", json=next_one).json())["summary"]["documents"] == 1
    assert set(ids(writable, "Quittengelee", k=50)) == {*FILES, "notes/next.md"}


def test_a_document_of_a_folder_is_removed_by_its_id(writable: TestClient) -> None:
    job = done(writable, writable.delete("/v1/documents", params={"id": "th/ข้าว.txt"}).json())
    assert (job["state"], job["kind"]) == ("done", "remove"), job["error"]
    assert "th/ข้าว.txt" not in ids(writable, "ข้าว", k=50)
    assert writable.delete("/v1/documents", params={"id": "th/ข้าว.txt"}).status_code == 404


def test_folders_are_ingested_where_that_is_allowed(writable: TestClient, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    (corpus / "es.txt").write_text("La pelota roja en el parque.", encoding="utf-8")
    job = done(writable, writable.post("/v1/jobs", json={"folder": str(corpus)}).json())
    assert (job["state"], job["summary"].get("documents")) == ("done", 1), job["error"]
    assert ids(writable, "pelota roja")[0] == "es.txt"
    assert writable.get("/v1/jobs").json()["jobs"][0]["id"] == job["id"]
    (corpus / "out").symlink_to(tmp_path)
    for outside in ("/etc", f"{corpus}/../home", f"{corpus}/out", "\0", "a" * 4000, "~root"):
        refused = writable.post("/v1/jobs", json={"folder": outside})
        assert refused.status_code == 403, outside
    missing = done(writable, writable.post("/v1/jobs", json={"folder": f"{corpus}/none"}).json())
    assert (missing["state"], "cannot be opened" in missing["error"]) == ("failed", True)


@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings_are_the_encoders(client: TestClient, form: str) -> None:
    texts = ["Guten Tag", "おはよう", "صباح الخير"]
    body = {"input": texts, "model": "fake", "encoding_format": form, "user": "ignored"}
    answer = client.post("/v1/embeddings", json=body).json()
    rows = [row["embedding"] for row in answer["data"]]
    vectors = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows] if form == "base64" else rows
    assert np.allclose(vectors, FakeEncoder().encode_documents(texts), atol=1e-7)
    assert answer["usage"]["total_tokens"] > 0
    for bad in ([], [" "], ["x"] * 513):
        assert client.post("/v1/embeddings", json={"input": bad}).status_code == 400
    assert client.post("/v1/embeddings", json={"input": "x", "model": "gpt"}).status_code == 400


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"query": "  "}, 400, "empty"),
        ({"query": "x", "k": 0}, 422, "k"),
        ({"query": "x", "colour": "red"}, 422, "colour"),
        ({"query": "x" * 10_001}, 422, "query"),
        ({"query": "x", "balance": 2}, 422, "balance"),
        ({"query": "x", "filter": {"lang": ["klingon"]}}, 400, "klingon"),
        ([], 422, "body"),
    ],
)
def test_problems_say_what_to_do(client: TestClient, body: object, status: int, word: str) -> None:
    answer = client.post("/v1/search", json=body)
    found = answer.json()
    assert (answer.status_code, found["status"], word in found["detail"]) == (status, status, True), found
    assert answer.headers["content-type"] == "application/problem+json"
    assert found["instance"] == f"urn:request:{answer.headers['x-request-id']}"


def test_unknown_paths_and_methods_are_problems_too(client: TestClient) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("PUT", "/v1/search", 405), ("GET", "/v1/jobs/none", 404)):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_keys_open_what_their_scopes_say(guarded: TestClient) -> None:
    table = {
        ("GET", "/v1/search?q=tea"): {READ, WRITE},
        ("GET", "/v1/index"): {READ, WRITE},
        ("GET", "/v1/jobs"): {WRITE},
        ("DELETE", "/v1/documents?id=none"): {WRITE},
        ("GET", "/metrics"): {METRICS},
    }
    for (method, path), allowed in table.items():
        for secret in (READ, WRITE, EMBED, METRICS):
            status = guarded.request(method, path, headers=bearer(secret)).status_code
            assert (status in (200, 404)) == (secret in allowed), (path, secret, status)
            assert status in (200, 403, 404)
        for headers in ({}, bearer("wrong"), {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}):
            answer = guarded.request(method, path, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert guarded.post("/v1/embeddings", json={"input": "x"}, headers=bearer(EMBED)).status_code == 200
    assert guarded.post("/v1/embeddings", json={"input": "x"}, headers=bearer(READ)).status_code == 403


def test_without_keys_only_this_machines_names_are_answered(client: TestClient, guarded: TestClient) -> None:
    for host in ("localhost:8080", "127.0.0.1", "[::1]:8080", "LOCALHOST"):
        assert client.get("/health/live", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]"):
        assert client.get("/health/live", headers={"Host": host}).status_code == 400
    assert guarded.get("/health/live", headers={"Host": "search.example"}).status_code == 200


def test_a_page_of_another_origin_cannot_send_what_it_may_send_unasked(client: TestClient) -> None:
    body = json.dumps({"query": "tea"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        headers = {"Content-Type": kind, "Origin": "https://evil.example"}
        assert client.post("/v1/search", content=body, headers=headers).status_code == 422
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "DELETE"}
    answer = client.options("/v1/documents", headers=asked)
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (405, False)


def test_bodies_that_are_too_large_are_refused(settings: Settings) -> None:
    serve = settings.serve.model_copy(update={"max_body_bytes": 2000})
    for client in client_of(settings.model_copy(update={"serve": serve})):
        large = json.dumps({"query": "x" * 3000}).encode()
        answers = [
            client.post("/v1/search", content=large, headers={"Content-Type": "application/json"}),
            client.post("/v1/search", content=iter([large[:1500], large[1500:]])),
        ]
        for answer in answers:
            assert (answer.status_code, "2000 bytes" in answer.json()["detail"]) == (413, True)
        assert ids(client, "x" * 1000) is not None


def test_too_many_requests_are_told_when_to_come_back(settings: Settings) -> None:
    serve = settings.serve.model_copy(update={"rate": 1})
    for client in client_of(settings.model_copy(update={"serve": serve})):
        answers = [client.get("/v1/index") for _ in range(20)]
        limited = [answer for answer in answers if answer.status_code == 429]
        assert answers[0].status_code == 200
        assert len(limited) >= 5
        assert int(limited[0].headers["retry-after"]) >= 1
        assert client.get("/health/live").status_code == 200


def test_the_log_tells_everything_but_what_was_asked(guarded: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "search.api"):
        guarded.get(f"/v1/search?q={SECRET_TEXT}", headers={**bearer(READ), "X-Request-Id": "mine-1"})
        guarded.get(f"/v1/documents?id={SECRET_TEXT}", headers=bearer(READ))
        guarded.get(f"/{SECRET_TEXT}")
    rows = [json.loads(record.message) for record in caplog.records if record.name == "search.api"]
    assert [(row["route"], row["status"], row["key"]) for row in rows] == [
        ("/v1/search", 200, "r"), ("/v1/documents", 404, "r"), ("unmatched", 404, None),
    ]  # fmt: skip
    assert rows[0]["request"] == "mine-1"
    assert SECRET_TEXT not in caplog.text
    assert READ not in caplog.text


def test_an_error_of_the_server_is_a_problem_and_its_text_stays_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_args: object, **_options: object) -> None:
        raise RuntimeError(SECRET_TEXT)

    monkeypatch.setattr("search.engine.Engine.search", broken)
    answer = client.post("/v1/search", json={"query": "x"})
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert SECRET_TEXT not in answer.text + caplog.text
    row = json.loads(caplog.records[-1].message)
    assert (row["error"], row["status"], "test_api" in row["at"][-1]) == ("RuntimeError", 500, True)


def test_the_counters_count(writable: TestClient) -> None:
    ids(writable, "tea")
    writable.post("/v1/search", json={"query": " "})
    text = writable.get("/metrics").text
    assert 'panlingua_requests_total{method="POST",route="/v1/search",status="200"} 1.0' in text
    assert 'panlingua_requests_total{method="POST",route="/v1/search",status="400"} 1.0' in text
    assert "panlingua_ready 1.0" in text
    assert "panlingua_encoded_texts_count 1.0" in text


def test_without_an_index_the_server_says_what_to_do_and_takes_documents(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, index="empty", serve={"rate": 0})
    for client in client_of(settings):
        answer = client.post("/v1/search", json={"query": "x"})
        assert (answer.status_code, "indexer ingest" in answer.json()["detail"]) == (503, True)
        sent = {"documents": [{"key": "first", "text": "Der erste Text"}]}
        assert done(client, client.post("/v1/documents", json=sent).json())["state"] == "done"
        assert len(ids(client, "erste")) == 1
        assert client.get("/v1/index").json()["documents"] == 1


def test_a_server_over_the_index_of_another_encoder_is_not_ready(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, index="other", serve={"rate": 0})
    for client in client_of(settings):  # ready while there is no index
        (tmp_path / "docs").mkdir()
        (tmp_path / "docs" / "tee.txt").write_text("Grüner Tee.", encoding="utf-8")
        build.ingest(tmp_path / "docs", settings, encoder=OtherEncoder())  # type: ignore[arg-type]
        answer = client.get("/health/ready")
        assert (answer.status_code, "other-1" in answer.json()["detail"]) == (503, True)
        assert client.get("/health/live").status_code == 200


def test_the_page_of_the_description_needs_no_network(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert len(addresses) >= 2
    for address in addresses:
        assert address.startswith("http://localhost/"), address
        assert len(client.get(address).content) > 500


def test_the_description_has_examples_and_names_every_problem(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    assert description["components"]["schemas"]["SearchRequest"]["examples"]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            if path.startswith("/v1"):
                assert "application/problem+json" in operation["responses"]["422"]["content"], (path, method)
                assert operation["security"], (path, method)

"""The parts of the HTTP API one by one: keys, rate, threads, batching, uploads, jobs."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

import anyio
import numpy as np
import pytest

from indexer.extract.front_matter import front_matter
from search.api.batching import MOST_TEXTS, BatchingEncoder
from search.api.jobs import Job, JobQueue, JobState, job_environment
from search.api.keys import ApiKey, KeyRing, Scope, as_toml, check_entry, digest_of, load_keys, new_secret
from search.api.limits import RateLimiter, Workers
from search.api.problems import ApiError
from search.api.uploads import Uploads
from search.errors import EncoderError, QueryError, SettingsError
from search.records import Vectors
from search.serve_command import check_reachable
from search.settings import load_settings
from tests.conftest import FakeEncoder

SECRET = "a-secret-of-enough-characters"


def test_a_key_is_found_by_its_secret_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    made = new_secret()
    file.write_text(as_toml("team", made, [Scope.READ, Scope.EMBED]), encoding="utf-8")
    keys = load_keys(file, f"ops:write+metrics:{SECRET}")
    found = keys.find(made)
    assert found is not None
    assert (found.name, found.scopes) == ("team", {Scope.READ, Scope.EMBED})
    other = keys.find(SECRET)
    assert other is not None
    assert (other.name, other.scopes) == ("ops", {Scope.WRITE, Scope.METRICS})
    for wrong in ("", made[:-1], made + "x", "schlüssel-日本語-\ud800"):
        assert keys.find(wrong) is None
    assert made not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ("team:read", "right form"),
        (f"team:read+fly:{SECRET}", "unknown scope"),
        ("team:read:short", "shorter than"),
        (f"a:read:{SECRET},a:write:{SECRET}2", "same name"),
    ],
)
def test_entries_that_are_wrong_are_refused_without_repeating_the_secret(entries: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected) as caught:
        load_keys(None, entries)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[[keys]]\nname = 'a'\n", "keys = 3", "[[keys", "[[keys]]\nname='a b'\nsha256='00'\n"]
)
def test_a_key_file_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match="key file"):
        load_keys(tmp_path / "keys.toml", None)


def test_a_name_that_would_break_the_key_file_is_refused() -> None:
    with pytest.raises(SettingsError, match="name"):
        check_entry(as_toml('a"\n[[keys]]', new_secret(), [Scope.READ]))


def test_a_server_without_keys_listens_on_this_machine_only() -> None:
    keys = KeyRing([ApiKey("a", digest_of(SECRET), frozenset((Scope.READ,)))])
    check_reachable("127.0.0.1", KeyRing(), without_keys=False)
    check_reachable("0.0.0.0", keys, without_keys=False)
    check_reachable("0.0.0.0", KeyRing(), without_keys=True)
    with pytest.raises(SettingsError, match="search key"):
        check_reachable("0.0.0.0", KeyRing(), without_keys=False)


def test_the_rate_is_kept_for_each_caller_by_itself() -> None:
    now = 0.0
    limiter = RateLimiter(60, clock=lambda: now)
    assert [limiter.wait_s("a") for _ in range(30)] == [0.0] * 30
    assert limiter.wait_s("a") == pytest.approx(1.0)
    assert limiter.wait_s("b") == 0.0
    now = 2.0
    assert [limiter.wait_s("a") > 0 for _ in range(3)] == [False, False, True]
    assert RateLimiter(0).wait_s("a") == 0.0


def test_workers_refuse_what_is_too_much_and_answer_what_takes_too_long() -> None:
    release = threading.Event()

    async def check() -> None:
        workers = Workers(threads=1, waiting=2, timeout_s=0.2)
        calls = [asyncio.create_task(workers.run(release.wait)) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(ApiError) as refused:
            await workers.run(lambda: 1)
        assert refused.value.status == 503
        for call in calls:
            with pytest.raises(ApiError) as late:
                await call
            assert late.value.status == 504
        assert workers.busy == 1  # the one that waited never began; the other cannot be stopped
        release.set()
        while workers.busy:
            await asyncio.sleep(0.01)
        assert await workers.run(lambda: 1) == 1

    anyio.run(check)


class _Slow(FakeEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.busy, self.release = threading.Event(), threading.Event()

    def encode_queries(self, texts: list[str]) -> Vectors:
        self.batches.append(len(texts))
        self.busy.set()
        self.release.wait()
        if "broken" in texts:
            raise EncoderError("broken")
        return super().encode_queries(texts)


def _encode_all(texts: list[str]) -> tuple[_Slow, list[int], dict[str, Vectors | EncoderError]]:
    """Encode one text, and the others from a thread each while it is being encoded."""
    slow, counted, found = _Slow(), list[int](), dict[str, Vectors | EncoderError]()
    encoder = BatchingEncoder(slow, counted.append)  # type: ignore[arg-type]

    def encode(text: str) -> None:
        try:
            found[text] = encoder.encode_queries([text])
        except EncoderError as error:
            found[text] = error

    threads = [threading.Thread(target=encode, args=(text,)) for text in texts]
    threads[0].start()
    slow.busy.wait()
    for thread in threads[1:]:
        thread.start()
    while encoder.waiting < len(texts) - 1:
        time.sleep(0.001)
    slow.release.set()
    for thread in threads:
        thread.join()
    return slow, counted, found


def test_queries_that_come_while_the_encoder_is_busy_are_encoded_together() -> None:
    texts = ["第一", "شاي", "हिन्दी", "ข้าว", "vélo", "Straße"]
    slow, counted, found = _encode_all(texts)
    assert slow.batches == counted == [1, 5]
    for text in texts:
        vector = found[text]
        assert isinstance(vector, np.ndarray)
        assert np.array_equal(vector, FakeEncoder().encode_queries([text]))


def test_an_error_reaches_everyone_in_the_batch_and_nobody_else() -> None:
    _, _, found = _encode_all(["first", "broken", "other"])
    assert isinstance(found["first"], np.ndarray)
    assert isinstance(found["broken"], EncoderError)
    assert isinstance(found["other"], EncoderError)


def test_a_batch_has_a_limit() -> None:
    slow, _, found = _encode_all([f"text {n}" for n in range(MOST_TEXTS + 11)])
    assert slow.batches == [1, MOST_TEXTS, 10]
    assert len(found) == MOST_TEXTS + 11


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(load_settings(home=tmp_path, index="notes"))


@pytest.mark.parametrize(
    "key",
    ["", "/", "../x", "a/../b", "a//b", "/etc/passwd", ".hidden", "a/.git/b", "a\\b", "a\0b", "a\nb", "x" * 201,
     "文" * 67, "a/" * 400 + "b", "~$lock", "a/", "\ud800"],
)  # fmt: skip
def test_keys_that_are_no_plain_paths_are_refused(uploads: Uploads, key: str) -> None:
    with pytest.raises(QueryError, match="key"):
        uploads.put(key, "text", metadata={})
    assert not uploads.folder.exists()


def test_a_link_out_of_the_folder_is_not_followed(uploads: Uploads, tmp_path: Path) -> None:
    uploads.folder.mkdir(parents=True)
    (uploads.folder / "out").symlink_to(tmp_path)
    with pytest.raises(QueryError, match="leads out"):
        uploads.put("out/file", "text", metadata={})


def test_what_is_kept_is_what_was_sent(uploads: Uploads) -> None:
    metadata = {"tags": ("茶", "a: b", "- x🎉"), "sign": "𠮷野家", "year": 2024, "ratio": 0.5, "draft": True}
    metadata |= {"no": "no", "zero": "007"}
    title = 'Über "Tee" 🍵: 1'
    path = uploads.put("文書/茶 🎉", "---\nText: # «x»", title=title, date="2024-05-01", metadata=metadata)
    fields, body = front_matter(path.read_text(encoding="utf-8"))
    assert body == "---\nText: # «x»"
    assert fields == {"key": "文書/茶 🎉", "title": title, "date": "2024-05-01", **metadata}
    assert [path.name for path in uploads.folder.rglob("*") if path.is_file()] == ["茶 🎉.md"]
    assert uploads.holds("文書/茶 🎉", "notes/文書/茶 🎉.md")
    assert not uploads.holds("文書/茶 🎉", "notes/other.md")
    assert uploads.remove("文書/茶 🎉")
    assert not uploads.remove("文書/茶 🎉")


def _wait(jobs: JobQueue, job: Job) -> Job:
    for _ in range(600):
        now = jobs.job(job.id)
        if now.ended is not None:
            return now
        time.sleep(0.05)
    raise AssertionError(now)


def test_a_job_tells_its_progress_and_its_end(tmp_path: Path) -> None:
    code = (
        "import sys, json, time\n"
        "print(json.dumps({'event': 'progress', 'bytes': 1, 'total_bytes': 4}), flush=True)\n"
        "if sys.argv[1] == 'fail': sys.exit('error: no such folder')\n"
        "if sys.argv[1] == 'hang': time.sleep(60)\n"
        "print('not json'); print(json.dumps({'event': 'summary', 'documents': 3}))\n"
    )
    jobs = JobQueue(job_environment(load_settings(home=tmp_path)), [sys.executable, "-c", code])
    try:
        done = _wait(jobs, jobs.submit("ingest", ["ok"]))
        assert (done.state, done.progress, done.summary["documents"]) == (JobState.DONE, 1.0, 3)
        failed = _wait(jobs, jobs.submit("ingest", ["fail"]))
        assert (failed.state, failed.error, failed.progress) == (JobState.FAILED, "no such folder", 0.25)
        hanging, queued = jobs.submit("ingest", ["hang"]), jobs.submit("ingest", ["ok"])
        assert jobs.submit("ingest", ["ok"]).id == queued.id
        assert jobs.stop(queued.id).state is JobState.STOPPED
        while jobs.job(hanging.id).progress is None:
            time.sleep(0.02)
        jobs.stop(hanging.id)
        assert _wait(jobs, hanging).state in (JobState.STOPPED, JobState.FAILED)
        with pytest.raises(ApiError, match="no such job"):
            jobs.job("unknown")
    finally:
        jobs.close()


def test_a_stopped_job_that_was_forgotten_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.api.jobs._KEPT", 2)
    code = (
        "import sys, json, time\n"
        "print(json.dumps({'event': 'progress', 'bytes': 1, 'total_bytes': 4}), flush=True)\n"
        "time.sleep(60 if sys.argv[1] == 'hang' else 0)"
    )
    jobs = JobQueue(job_environment(load_settings(home=tmp_path)), [sys.executable, "-c", code])
    try:
        hanging = jobs.submit("ingest", ["hang"])
        forgotten = jobs.submit("ingest", ["stopped"])
        jobs.stop(forgotten.id)
        last = [jobs.submit("ingest", [str(number)]) for number in range(4)][-1]
        with pytest.raises(ApiError, match="no such job"):
            jobs.job(forgotten.id)
        while jobs.job(hanging.id).progress is None:
            time.sleep(0.02)
        jobs.stop(hanging.id)
        assert _wait(jobs, last).state is JobState.DONE
    finally:
        jobs.close()


def test_a_job_gets_the_settings_and_no_key_of_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANLINGUA_SERVE_KEYS", f"team:read:{SECRET}")
    environment = job_environment(load_settings(home=tmp_path, index="notes", store="http://q:6333", api_key="k"))
    assert not any(SECRET in value for value in environment.values())
    names = ("HOME", "INDEX", "STORE", "API_KEY")
    assert [environment[f"PANLINGUA_{n}"] for n in names] == [str(tmp_path), "notes", "http://q:6333", "k"]

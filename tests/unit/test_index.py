"""The folder of generations: publishing, locking, crashes, readers."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from search import files
from search.errors import IndexBusyError, IndexFormatError, IndexNotFoundError, StoreError
from search.files import allocated_bytes
from search.index import MANIFEST, IndexFolder
from search.manifest import IndexManifest, now, parse_manifest
from search.readers import UNUSED_S, ReaderView, make_view


def manifest(**changes: object) -> IndexManifest:
    values: dict[str, object] = {
        "encoder": "fake", "encoder_fingerprint": "f", "dimension": 4, "map_fingerprint": "m", "documents": 1,
        "chunks": 2, "languages": {"de": 2}, "created": now(), "updated": now(), "panlingua_version": "0",
    }  # fmt: skip
    return IndexManifest.model_validate(values | changes)


def publish(folder: IndexFolder, text: str) -> None:
    with folder.write_lock():
        (folder.begin() / "content").write_text(text, encoding="utf-8")
        folder.publish(manifest())


def content(folder: IndexFolder) -> str:
    return (folder.current().path / "content").read_text(encoding="utf-8")


def test_no_index_names_the_command_that_makes_one(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path / "索引")
    assert folder.current_number() is None
    with pytest.raises(IndexNotFoundError, match="indexer ingest FOLDER"):
        folder.current()


def test_a_generation_is_copied_changed_and_swapped(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path / "index")
    publish(folder, "one")
    first = folder.current()
    with folder.write_lock():
        building = folder.begin()
        assert (building / "content").read_text(encoding="utf-8") == "one"
        (building / "content").write_text("two", encoding="utf-8")
        assert content(folder) == "one"
        folder.publish(manifest(documents=7))
    assert (content(folder), folder.current().manifest.documents) == ("two", 7)
    assert not first.path.exists()


def test_an_unfinished_generation_is_continued_and_fresh_starts_over(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path / "index")
    publish(folder, "one")
    with folder.write_lock():
        (folder.begin() / "half").touch()
    with folder.write_lock():
        assert (folder.begin() / "half").exists()
        assert list(folder.begin(fresh=True, corpus="a").iterdir()) == [folder.building / "started"]
        (folder.building / "half").touch()
        assert (folder.begin(corpus="a") / "half").exists()
        assert (folder.begin(corpus="b") / "content").exists()


def test_a_publication_cut_off_before_the_pointer_is_finished(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path / "index")
    publish(folder, "one")
    publish(folder, "two")
    (folder.path / "current").write_text("1", encoding="ascii")
    with folder.write_lock():
        assert content(folder) == "two"


def test_a_copy_keeps_the_holes_of_its_files(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path / "index")
    with folder.write_lock():
        first = folder.begin()
        (first / "shard" / "leer").mkdir(parents=True)
        with (first / "shard" / "page").open("wb") as file:
            file.write("début 日本".encode())
            file.seek(32 * 2**20)
            file.write(b"end")
            file.truncate(64 * 2**20)
        (first / "empty").touch()
        folder.publish(manifest())
    with folder.write_lock():
        copied = folder.begin()
    original = folder.current().path
    if allocated_bytes(original) > 2**20:
        pytest.skip("this file system has no holes")
    assert (copied / "shard" / "page").read_bytes() == (original / "shard" / "page").read_bytes()
    assert (copied / "empty").exists()
    assert (copied / "shard" / "leer").is_dir()
    assert allocated_bytes(copied) < 2**20


def test_a_copy_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = IndexFolder(tmp_path / "index")
    publish(folder, "one")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "copy_sparse", full)
    with folder.write_lock(), pytest.raises(StoreError, match="disk is full: free some space"):
        folder.begin()
    assert not folder.building.exists()
    assert content(folder) == "one"


def test_a_copy_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path / "index")
    publish(folder, "one")
    folder.building.mkdir()
    (folder.building / "content").write_text("on", encoding="utf-8")
    with folder.write_lock():
        assert (folder.begin() / "content").read_text(encoding="utf-8") == "one"


CRASH = """
    import os, sys
    from pathlib import Path
    import search.index as index
    from tests.unit.test_index import manifest
    folder, point = index.IndexFolder(Path(sys.argv[1])), int(sys.argv[2])
    calls = 0
    def step(real):
        def stepped(*args, **kwargs):
            global calls
            calls += 1
            if calls == point:
                os._exit(9)
            return real(*args, **kwargs)
        return stepped
    index.write_durably = step(index.write_durably)
    index._sync_tree = step(index._sync_tree)
    index._sync_folder = step(index._sync_folder)
    index.shutil.rmtree = step(index.shutil.rmtree)
    Path.rename = step(Path.rename)
    with folder.write_lock():
        (folder.begin() / "content").write_text("two")
        folder.publish(manifest())
    os._exit(0)
"""


def test_a_crash_at_any_step_leaves_the_old_or_the_new_generation(tmp_path: Path) -> None:
    seen = set()
    for point in range(1, 20):
        folder = IndexFolder(tmp_path / f"index-{point}")
        publish(folder, "one")
        command = [sys.executable, "-c", textwrap.dedent(CRASH), str(folder.path), str(point)]
        code = subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode
        seen.add(code)
        assert content(folder) in ("one", "two")
        assert folder.current().manifest.documents == 1
        publish(folder, "three")
        assert content(folder) == "three"
        if code == 0:
            break
    assert seen == {0, 9}


def hold_lock(path: str, ready: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    with IndexFolder(Path(path)).write_lock():
        ready.set()
        done.wait(30)


def test_a_second_writer_is_told_who_holds_the_lock_or_waits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold_lock, args=(str(tmp_path / "index"), ready, done))
    process.start()
    assert ready.wait(30)
    folder = IndexFolder(tmp_path / "index")
    with pytest.raises(IndexBusyError, match=f"process {process.pid} on .* since 20"), folder.write_lock():
        pass
    done.set()
    with folder.write_lock(wait_s=30):
        pass
    process.join()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ('{"encoder": 3}', "damaged"),
        (manifest(format_version=99).model_dump_json(), "format version 99"),
    ],
)
def test_a_damaged_manifest_says_what_to_do(text: str, message: str) -> None:
    with pytest.raises(IndexFormatError, match=f"{message}.*--fresh"):
        parse_manifest(text, "here")


def test_a_damaged_pointer_or_missing_manifest_says_what_to_do(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path / "index")
    publish(folder, "one")
    (folder.current().path / MANIFEST).unlink()
    with pytest.raises(IndexFormatError, match="--fresh"):
        _ = folder.current().manifest
    (folder.path / "current").write_bytes(b"\xff\xfejunk")
    with pytest.raises(IndexFormatError, match="--fresh"):
        folder.current()


def test_a_file_in_the_way_is_explained(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("not a folder", encoding="utf-8")
    folder = IndexFolder(tmp_path / "index")
    with pytest.raises(StoreError, match=r"choose another place|as it was"), folder.write_lock():
        pass


def other_view(mine: ReaderView, name: str, *, unused_s: float = 0.0, locks: bool = True) -> Path:
    """A view as another process leaves it behind."""
    path = mine.path.with_name(name)
    path.mkdir()
    if locks:
        (path / "reader.lock").touch()
        moment = time.time() - unused_s
        os.utime(path / "reader.lock", (moment, moment))
    return path


def test_views_of_readers_that_are_gone_are_removed(tmp_path: Path) -> None:
    folder = IndexFolder(tmp_path / "index")
    publish(folder, "one")
    mine = folder.new_reader_view()
    here, nobody, long_ago = socket.gethostname(), 2**22 + 1, UNUSED_S + 60
    os.utime(mine.path / "reader.lock", (1, 1))
    gone = [
        other_view(mine, f"{here}-{nobody}-a"),
        other_view(mine, f"{here}-{nobody}-b", locks=False),
        other_view(mine, f"{here}-{os.getpid()}-c", unused_s=long_ago),
        other_view(mine, "else-where-1-d", unused_s=long_ago),
    ]
    kept = [
        mine.path,
        other_view(mine, f"{here}-{os.getpid()}-e"),
        other_view(mine, "else-where-1-f"),
        other_view(mine, "else-where-1-g", locks=False),
    ]
    second = folder.new_reader_view()
    assert [path.exists() for path in gone] == [False] * 4
    assert [path.exists() for path in kept] == [True] * 4
    mine.close()
    second.close()
    assert not mine.path.exists()


HOLDER = """
    import os, sys, time
    from pathlib import Path
    from search.readers import make_view
    view = make_view(Path(sys.argv[1]))
    os.utime(view.path / "reader.lock", (1, 1))
    view.path.rename(view.path.with_name("other-machine-1-x"))
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_view_in_use_stays_whatever_its_name_and_age_and_goes_after_a_kill(tmp_path: Path) -> None:
    readers = tmp_path / "readers"
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(readers)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    view = readers / "other-machine-1-x"
    make_view(readers).close()
    assert view.exists()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    make_view(readers).close()
    assert not view.exists()


def test_a_view_that_is_used_says_so_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = make_view(tmp_path / "readers")
    lock = view.path / "reader.lock"
    os.utime(lock, (1, 1))
    view.keep()
    assert lock.stat().st_mtime == 1
    later = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: later)
    view.keep()
    assert lock.stat().st_mtime > 1
    view.close()

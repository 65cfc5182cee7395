"""Parts of one ingest that different machines do: which files are whose, and the ledgers of the parts.

Which shard a file belongs to follows from its name in the index and the number of shards alone. So every machine works
it out for itself, a file that is added moves no other, and a shard can be done again anywhere.

    SHARDS/4/0/ledger.sqlite    the ledger of shard 0 of 4, until all are merged into the one beside SHARDS
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from indexer.ledger import Ledger
from indexer.roots import folder_of, names_below
from indexer.side_files import SHARDS
from search.errors import SettingsError, StoreError
from search.index import LEDGER, IndexFolder, writing

MOST_SHARDS = 100_000
FINISHED, SCOPE = "shard_finished", "shard_scope"
"""Keys of a shard's ledger: the map under which its vectors were written, once all of its files are dealt with; and
what it was a shard of."""
_WRITTEN = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `of`, counted from 0."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def owns(self, source: str) -> bool:
        """Whether a file is in this shard, by its name in the index."""
        return shard_of(source, self.of) == self.number


def shard_of(source: str, of: int) -> int:
    """Number of the shard that a file is in, by its name in the index."""
    digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) % of


def parse_shard(text: str) -> Shard:
    """The shard that a person names as `i/n`.

    Raises:
        SettingsError: It is not of that form, or there is no such shard.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if not found:
        raise SettingsError(f"--shard {text!r}: give i/n, for example 0/4 for the first of four shards")
    number, of = int(found[1]), int(found[2])
    if not 1 <= of <= MOST_SHARDS:
        raise SettingsError(f"--shard {text!r}: the number of shards must be 1 to {MOST_SHARDS}")
    if number >= of:
        raise SettingsError(f"--shard {text!r}: shards are counted from 0, so the last of {of} is {of - 1}/{of}")
    return Shard(number, of)


@dataclass(frozen=True, slots=True)
class Scope:
    """What the documents of an ingested folder are called: sources that begin with one of `prefixes`.

    The folder that was ingested first has no prefix; `others` are those of the folders beside it.
    """

    prefixes: tuple[str, ...]
    others: tuple[str, ...]

    def holds(self, source: str) -> bool:
        """Whether a file is below the folder, by its name in the index."""
        found = (prefix for prefix in self.prefixes if source.startswith(prefix))
        return any(prefix or not source.startswith(self.others) for prefix in found)

    def as_json(self) -> str:
        """As a ledger keeps it."""
        return json.dumps([self.prefixes, self.others])

    @classmethod
    def from_json(cls, text: str) -> Scope:
        """What `as_json` made."""
        prefixes, others = json.loads(text)
        return cls(tuple(prefixes), tuple(others))


def scope_of(corpus: Path, ledger: Ledger) -> Scope:
    """The scope of a folder that is being ingested; of one file, nothing."""
    names = names_below(corpus, ledger)
    if names.prefix is None or not corpus.is_dir():
        return Scope((), ())
    return Scope((names.prefix, *(prefix for _, prefix in names.nested)), names.others)


class ShardLedgers:
    """The ledgers of `of` shards in the folder beside the ledger of the whole."""

    def __init__(self, folder: Path, of: int) -> None:
        self.whole = folder / LEDGER
        self.folder = folder / SHARDS / str(of)
        self.shards = [Shard(number, of) for number in range(of)]

    def place(self, shard: Shard) -> Path:
        """Folder of one shard."""
        return self.folder / str(shard.number)

    def path(self, shard: Shard) -> Path:
        """Ledger of one shard."""
        return self.place(shard) / LEDGER

    def seed(
        self, shards: Sequence[Shard], corpus: Path, known_roots: Sequence[tuple[str, str]] | None
    ) -> list[tuple[str, str]]:
        """Make the ledgers of shards that have none: what the whole one says of their files.

        Needs the write lock of the index: the whole ledger must not change. It is read once for all of them.

        Args:
            shards: Which ones.
            corpus: What is going to be ingested; the whole ledger, where there is one, gives it its name.
            known_roots: Ingested folders as the store knows them, for a machine without the whole ledger; None: none.

        Returns:
            All ingested folders, with what the ids of their documents begin with.

        Raises:
            SettingsError: Without the whole ledger, what the documents are to be called cannot be known.
        """
        model = self.folder / "model.new"
        with writing(model):
            self.folder.mkdir(parents=True, exist_ok=True)
            model.unlink(missing_ok=True)
            if self.whole.exists():
                Ledger(self.whole).close()  # closing folds the log of an ingest that was killed into the file
                shutil.copyfile(self.whole, model)
            with closing(Ledger(model)) as ledger:
                if not self.whole.exists() and known_roots:
                    _name_root(ledger, folder_of(corpus), known_roots)
                ledger.prefix_of(folder_of(corpus))
                roots = ledger.roots()
            missing = [shard for shard in shards if not self.path(shard).exists()]
            if missing:
                _part(model, {shard: self.path(shard) for shard in missing})
            model.unlink()
        return roots

    @contextmanager
    def locks(self) -> Iterator[None]:
        """Hold every shard that was begun, so that none is at work.

        Raises:
            IndexBusyError: One is.
        """
        with ExitStack() as held:
            for shard in self.shards:
                if self.place(shard).exists():
                    held.enter_context(IndexFolder(self.place(shard)).write_lock())
            yield

    def unfinished(self) -> list[Shard]:
        """Shards that were not begun here or did not come to their end."""
        return [shard for shard in self.shards if not self._finished(shard)]

    def scope(self) -> Scope:
        """What the finished shards are shards of.

        Raises:
            SettingsError: Not all of the same folder.
        """
        found: dict[str, Shard] = {}
        for shard in self.shards:
            with closing(Ledger(self.path(shard))) as ledger:
                found.setdefault(ledger.meta(SCOPE) or "", shard)
        if len(found) > 1:
            one, other, *_ = found.values()
            raise SettingsError(
                f"the shards {one} and {other} are not of the same folder: ingest one of them again with the folder of "
                "the other. Split one folder at a time, and merge it before the next."
            )
        return Scope.from_json(next(iter(found)))

    def maps(self) -> dict[Shard, str]:
        """Fingerprint of the language map that each finished shard wrote under."""
        return {shard: found for shard in self.shards if (found := self._finished(shard))}

    def merge(self) -> None:
        """Put the ledgers of all shards in place of the whole one, in one step.

        Raises:
            SettingsError: Shards were ingested from folders at different paths.
        """
        work = self.whole.with_name(f"{self.whole.name}.new")
        with writing(self.whole.parent):
            shutil.copyfile(self.path(self.shards[0]), work)
            with closing(sqlite3.connect(work, isolation_level=None)) as db:
                for shard in self.shards[1:]:
                    _add(db, self.path(shard), shard)
                db.execute("DELETE FROM meta WHERE key IN (?, ?)", (FINISHED, SCOPE))
            for suffix in ("-wal", "-shm"):  # a log that a kill left would bring the old rows back
                self.whole.with_name(self.whole.name + suffix).unlink(missing_ok=True)
            work.replace(self.whole)

    def discard(self) -> None:
        """Remove the ledgers of all shards; first out of sight, so that a kill leaves all or none."""
        shards = self.folder.parent
        gone = shards.with_name(f"{SHARDS}.old")
        shutil.rmtree(gone, ignore_errors=True)
        with writing(shards):
            shards.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _finished(self, shard: Shard) -> str:
        if not self.path(shard).exists():
            return ""
        with closing(Ledger(self.path(shard))) as ledger:
            return ledger.meta(FINISHED) or ""


def begun_splits(folder: Path) -> list[int]:
    """Into how many shards the ingests were split that are not merged yet."""
    return sorted(int(path.name) for path in (folder / SHARDS).glob("[0-9]*"))


def _name_root(ledger: Ledger, root: Path, known: Sequence[tuple[str, str]]) -> None:
    """Enter the folders that the store knows; `root` must be one of them or within one."""
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as db:
        db.executemany("INSERT OR REPLACE INTO roots VALUES (?, ?)", known)
    if ledger.known_prefix(root) is None:
        raise SettingsError(
            f"the index holds {', '.join(path for path, _ in known)}, and {root} is not in it. Mount the documents at "
            "the same path on every machine; a further folder needs the ledger of the index: run the shards with the "
            "PANLINGUA_HOME in which the index was merged."
        )


def _part(model: Path, targets: Mapping[Shard, Path]) -> None:
    """Give each shard a ledger with its rows of the closed ledger `model`."""
    split = next(iter(targets))
    with closing(sqlite3.connect(model, isolation_level=None)) as db:
        db.create_function("shard", 1, lambda source: shard_of(source, split.of), deterministic=True)
        db.execute("BEGIN")
        for table in ("files", "documents"):
            db.execute(f"CREATE TABLE parted_{table} AS SELECT shard(source) AS shard, {table}.* FROM {table}")
            db.execute(f"CREATE INDEX parted_{table}_shard ON parted_{table} (shard)")
        db.execute("COMMIT")
        for shard, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            work = target.with_suffix(".new")
            work.unlink(missing_ok=True)
            Ledger(work).close()
            _copy_part(db, work, shard)
            work.replace(target)


def _copy_part(db: sqlite3.Connection, target: Path, shard: Shard) -> None:
    db.execute("ATTACH ? AS part", (str(target),))
    db.execute("BEGIN")
    for table in ("meta", "roots"):
        db.execute(f"INSERT OR REPLACE INTO part.{table} SELECT * FROM main.{table}")
    for table, columns in (
        ("files", "source, size, mtime_ns, digest, options, skipped"),
        ("documents", "id, source, digest, chunks, run"),
    ):
        rows = f"SELECT {columns} FROM parted_{table} WHERE shard=?"
        db.execute(f"INSERT INTO part.{table} ({columns}) {rows}", (shard.number,))
    db.execute("INSERT OR REPLACE INTO part.meta VALUES (?, '')", (FINISHED,))
    db.execute("COMMIT")
    db.execute("DETACH part")


def _add(db: sqlite3.Connection, path: Path, shard: Shard) -> None:
    """Add the rows of a shard's closed ledger; every row is of one shard only."""
    db.execute("ATTACH ? AS part", (str(path),))
    try:
        db.execute("BEGIN")
        both = "main.roots a JOIN part.roots b ON a.prefix=b.prefix OR a.path=b.path"
        if db.execute(f"SELECT 1 FROM {both} WHERE (a.path, a.prefix)<>(b.path, b.prefix)").fetchone():
            found = db.execute("SELECT path FROM main.roots UNION SELECT path FROM part.roots").fetchall()
            paths = ", ".join(sorted(path for (path,) in found))
            raise SettingsError(
                f"shard {shard} read its folder at another path than the shards before it ({paths}). Mount it at the "
                f"same path everywhere, remove {path.parent} and ingest that shard again."
            )
        for table in ("roots", "files", "documents"):
            db.execute(f"INSERT OR REPLACE INTO main.{table} SELECT * FROM part.{table}")
        run = "SELECT 'run', MAX(CAST(value AS INTEGER)) FROM (SELECT * FROM main.meta UNION SELECT * FROM part.meta)"
        db.execute(f"INSERT OR REPLACE INTO main.meta {run} WHERE key='run' HAVING COUNT(*)>0")
        db.execute("COMMIT")
    except sqlite3.Error as error:
        hint = "Free some disk space, or remove its folder and ingest that shard again."
        raise StoreError(f"cannot merge the ledger {path}: {error}. {hint}") from error
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
        db.execute("DETACH part")

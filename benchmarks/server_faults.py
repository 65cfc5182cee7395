"""Let the server of an index go away in the middle of every job, and see that nothing is lost, doubled or left wrong.

    python -m benchmarks.server_faults [--rounds 60] [--seed 0] [--topics 8]

A process ingests, removes, encodes anew or pushes, and at a random moment the server is killed (SIGKILL), hangs, or the
connection to it is cut; it comes back at once, or when the job has ended. After each round: the job has succeeded, or
said what to do; every document that the ledger counts is there once and whole, with vectors of its own text; a reader
that was open all the while finds something again. Every other job is then run once more, after which documents,
manifest and translations are exactly what they should be. Appends to results/faults.jsonl.

The server is a stand-in (`tests.integration.qdrant_standin`): qdrant-client's local mode with its files behind REST
calls. It keeps what it has answered, and a kill may leave the half of a call; it has no replication and no search
structures. With TMPDIR in memory it is ten times as quick as on a disk that has to keep every passage by itself.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from benchmarks.faults import DIMENSIONS, HashEncoder, Outcome, World, check, conclude, start
from benchmarks.records import describe_run
from indexer import build, pipeline, transfer
from indexer.chunking import ChunkOptions, passage_text
from indexer.ledger import DocumentRow, Ledger
from indexer.pipeline import IngestOptions
from indexer.reindex import reindex
from indexer.side_files import is_of
from search import opening
from search.engine import Engine
from search.errors import PanlinguaError, StoreError
from search.language import LanguageDetector
from search.opening import OpenIndex, connect_index, open_index
from search.records import Point, Vectors
from search.settings import Settings, load_settings
from search.store.server import ServerStore, collections_of
from tests.integration import breaking

JOBS = ("ingest", "ingest", "remove", "reindex", "push")
SENTENCES = {
    "de": "Um einen Reifen zu flicken, muss man zuerst den Mantel abnehmen und das Loch suchen:",
    "en": "To mend a bicycle tyre you first have to take off the cover and look for the hole:",
    "ru": "Чтобы починить велосипедную шину, надо сначала снять покрышку и найти дырку:",
    "ar": "لإصلاح إطار الدراجة عليك أولا أن تنزع الغطاء وتبحث عن الثقب:",
    "he": "כדי לתקן צמיג של אופניים צריך קודם להסיר את הכיסוי ולחפש את החור:",
}
PARAGRAPHS = 3
OPTIONS = IngestOptions(chunk=ChunkOptions(64, 0))
"""Every paragraph is a passage."""
PROGRAM = "benchmarks.server_faults"
WHAT_TO_DO = "Check that the server runs"
BEFORE, SAID = "finished before that", "error that says what to do"
DONE_BEFORE = {"reindex": "already; name another with --encoder", "remove": "no document, file or folder"}
"""What a job says that had done all of its work when the server went away with the answer."""
MOST = {"push": 1, "reindex": 2}
"""Collections that there are after a job."""
_LONGEST_S = 300.0
_BATCH_CHUNKS = 8


class SubjectEncoder(HashEncoder):
    """A text is what its subjects are, and a little of its own letters: translations lie near one another."""

    def __init__(self, name: str, batch_s: float = 0.0) -> None:
        super().__init__(name, batch_s)
        pieces = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\w{1,6}"), "isolated")
        self.tokenizer.pre_tokenizer = pieces

    def encode_queries(self, texts: list[str]) -> Vectors:
        """Unit vectors (B, D)."""
        rows = [0.2 * self._noise(text) + sum(map(self._noise, subjects_of(text))) for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)

    def _noise(self, text: str) -> Vectors:
        row = np.random.default_rng(zlib.crc32(f"{self.name} {text}".encode())).normal(size=DIMENSIONS[self.name])
        return np.asarray(row / np.linalg.norm(row), np.float32)


@dataclass
class ServerWorld(World):
    """Files in several languages, `SUBJECT-LANGUAGE.txt`, and an index of them on a server."""

    url: str = ""

    @property
    def settings(self) -> Settings:
        return load_settings(home=self.folder / "home", index=self.folder.name, store=self.url)

    @property
    def embedded(self) -> Settings:
        return self.settings.model_copy(update={"store": None})

    def write(self, name: str) -> None:
        """See World; `files` and `versions` hold texts as an index can be asked for them."""
        super().write(name)
        self.files[name] = squeeze(self.files[name])
        self.versions[name] = set(map(squeeze, self.versions[name]))

    def compose(self, name: str) -> str:
        """See World."""
        subject, lang = name.removesuffix(".txt").split("-")
        return "\n\n".join(f"{SENTENCES[lang]} {subject}x{n} wort{self.number}" for n in range(PARAGRAPHS))

    def new_names(self) -> list[str]:
        """See World: a new subject in three languages."""
        return [f"thema{self.number + 1}-{lang}.txt" for lang in self.random.sample(sorted(SENTENCES), 3)]

    def read(self) -> dict[str, str]:
        """See `read_documents`."""
        with closing(open_index(self.settings)) as opened:
            return read_documents(opened, self.settings)

    def acknowledged(self) -> set[str]:
        """Documents that the ledger counts in the index."""
        with closing(open_index(self.settings)) as opened:
            return {row.id for row in rows_of(opened, self.settings)}

    def is_version(self, name: str, text: str) -> bool:
        """See World; where the server went away, the half of a document may be there that no ledger counts."""
        return any(text in version for version in self.versions.get(name, ()))


def subjects_of(text: str) -> list[str]:
    """What a text is about."""
    return [word for word in text.split() if word.startswith("thema") and "x" in word] or text.split()


def squeeze(text: str) -> str:
    """The text without spaces, which differ where it is cut into passages."""
    return "".join(text.split())


def by_document(points: list[Point]) -> dict[str, list[Point]]:
    """Points of each document in order."""
    found: dict[str, list[Point]] = defaultdict(list)
    for point in sorted(points, key=lambda point: point.chunk.number):
        found[point.chunk.document_id].append(point)
    return found


def read_documents(opened: OpenIndex, settings: Settings) -> dict[str, str]:
    """Text of every document that an index on a server holds; raises what is wrong with it.

    Raises:
        ValueError: A document of the ledger is not there once and whole, or a vector is that of another text.
    """
    points = list(opened.store.iter_points(with_vectors=True))
    held, encoder = by_document(points), SubjectEncoder(opened.manifest.encoder)
    expected = encoder.encode_queries([passage_text(point.chunk) for point in points])
    if np.abs(opened.language_map.map_documents(expected) - [point.dense for point in points]).max() > 1e-5:
        raise ValueError("a passage has the vector of another")
    for name, chunks in held.items():
        numbers = [point.chunk.number for point in chunks]
        if len(set(numbers)) != len(numbers):
            raise ValueError(f"passages {numbers} of {name}")
    for row in rows_of(opened, settings):
        numbers = [point.chunk.number for point in held.get(row.id, [])]
        if numbers != list(range(row.chunks)):
            raise ValueError(f"the ledger counts {row.chunks} passages of {row.id}, there are {numbers}")
    return {name: squeeze("".join(point.chunk.text for point in chunks)) for name, chunks in held.items()}


def rows_of(opened: OpenIndex, settings: Settings) -> list[DocumentRow]:
    """What the ledger counts, where it is about this collection."""
    assert isinstance(opened.store, ServerStore)
    with closing(Ledger(build.server_ledger(settings))) as ledger:
        if not is_of(ledger, opened.store.metadata):
            return []
        names = [name for file in ledger.iter_files() for name in ledger.documents_of(file.source)]
        return [row for row in map(ledger.document, names) if row]


def require_exact(world: ServerWorld, documents: dict[str, str], outcome: Outcome, where: str) -> None:
    """Documents, manifest and translations are these, to the last."""
    with closing(open_index(world.settings)) as opened:
        found, manifest = read_documents(opened, world.settings), opened.manifest
        wrong = {name for name in {*found, *documents} if found.get(name) != documents.get(name)}
        outcome.require(not wrong, f"{where}: not as it should be: {sorted(wrong)[:3]}")
        counted, chunks = (manifest.documents, manifest.chunks), opened.store.count()
        outcome.require(counted == (len(found), chunks), f"{where}: the manifest says {counted}, there are {chunks}")
        families: dict[str, set[str]] = defaultdict(set)
        for name in found:
            families[name.split("-")[0]].add(name)
        groups = {frozenset(group.values()) for group in opened.families.iter_groups()}
        missing = {frozenset(family) for family in families.values()} ^ groups
        outcome.require(not missing, f"{where}: translations {sorted(map(sorted, missing))[:3]}")
        means = opened.families.score_documents(sorted(found), np.ones(manifest.dimension, np.float32))
        outcome.require(not np.isnan(means).any(), f"{where}: {np.isnan(means).sum()} documents without their mean")


def open_reader(world: ServerWorld) -> Engine:
    """Who searches while the server goes away, with the encoder that the index has just then."""
    return Engine(world.settings, load=lambda _settings, manifest: SubjectEncoder(manifest.encoder))  # type: ignore[arg-type,return-value]


def ask(reader: Engine, name: str) -> str:
    """Whether the subject of a document is found, or what the search says."""
    subject = name.split("-")[0]
    try:
        hits = reader.search(f"{subject}x0 {subject}x1", k=5).hits
    except StoreError as error:
        return SAID if WHAT_TO_DO in str(error) else str(error)
    return "found" if hits and hits[0].document_id.startswith(f"{subject}-") else f"not found: {name}"


def run_rounds(world: ServerWorld, server: breaking.Breakable, rounds: int, outcome: Outcome, kind: str) -> None:
    """Rounds in which this server goes away."""
    lasts = dict.fromkeys(JOBS, 2.0)
    build.ingest(world.corpus, world.settings, options=OPTIONS, encoder=SubjectEncoder("hash-a"))  # type: ignore[arg-type]
    with closing(open_reader(world)) as reader:
        for number in range(rounds):
            known, job = world.read(), world.random.choice(JOBS)
            target, touched = _prepare(world, job, known)
            with start(PROGRAM, world, job, target, "--store", world.url) as process:
                end = break_off(process, world, server, reader, lasts[job] * world.random.random())
            lasts[job] *= 0.8 if end == BEFORE else 1.15
            outcome.ends[f"{kind}, {job}", end] += 1
            where = f"{kind}, round {number}, {job} {end}"
            outcome.require(end in (BEFORE, "finished", SAID), where)
            found = check(world, known, touched, outcome, where)
            if job == "reindex":
                outcome.require(found == known, f"{where}: other documents than before")
            if job == "push":
                outcome.require(found in (known, world.files), f"{where}: neither the old index nor the new one")
            if end == SAID and number % 2:
                finish(world, job, target, outcome, where)
            answer = ask(reader, sorted(world.read())[0])
            outcome.require(answer == "found", f"{where}: a search afterwards: {answer}")
            print(f"{where}, {len(outcome.problems)} problems", file=sys.stderr)
    finish(world, "ingest", "", outcome, f"{kind}, at the end")


def _prepare(world: ServerWorld, job: str, known: dict[str, str]) -> tuple[str, set[str]]:
    """What the job is about, and the documents that it may remove: those of changed files, and of such as no row is."""
    target, touched = "", set(known)
    if job == "remove":
        target = world.random.choice(sorted(known))
        touched = {target}
    elif job == "reindex":
        with closing(open_index(world.settings)) as opened:
            target = "hash-b" if opened.manifest.encoder == "hash-a" else "hash-a"
    else:
        touched = world.change() | known.keys() - world.acknowledged()
    if job == "push":
        build.ingest(world.corpus, world.embedded, options=OPTIONS, encoder=SubjectEncoder("hash-a"))  # type: ignore[arg-type]
        touched = {*known}
    return target, touched


def break_off(
    process: subprocess.Popen[str], world: ServerWorld, server: breaking.Breakable, reader: Engine, after_s: float
) -> str:
    """Let the server go away after a while, for a moment or until a job has ended; how that ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(after_s)
        return BEFORE
    server.cut()
    if isinstance(server, breaking.Hanging) or world.random.random() < 0.5:
        time.sleep(world.random.uniform(0.0, 1.0))
        server.mend()
    else:
        process.wait(_LONGEST_S)
        answer = ask(reader, sorted(world.files)[0])
        server.mend()
        if answer != SAID:
            return f"a search without the server: {answer}"
    return end_of(process)


def end_of(process: subprocess.Popen[str]) -> str:
    """How a job ended."""
    _, errors = process.communicate(timeout=_LONGEST_S)
    if process.returncode == 0:
        return "finished"
    last = errors.strip().splitlines()[-1] if errors.strip() else f"status {process.returncode}"
    return SAID if WHAT_TO_DO in last and last.startswith("error: ") and "Traceback" not in errors else last


def finish(world: ServerWorld, job: str, target: str, outcome: Outcome, where: str) -> None:
    """Run a job once more, to its end; the index is then exactly what it should be."""
    before = world.read()
    with start(PROGRAM, world, job, target, "--store", world.url) as process:
        end = end_of(process)
    was_done = job in DONE_BEFORE and DONE_BEFORE[job] in end
    outcome.require(end == "finished" or was_done, f"{where}, again: {end}")
    expected = world.files if job in ("ingest", "push") else {n: text for n, text in before.items() if n != target}
    require_exact(world, expected, outcome, f"{where}, again")
    client, name = connect_index(world.settings)
    with closing(client):
        kept = collections_of(client, name)
    outcome.require(job not in MOST or len(kept) <= MOST[job], f"{where}, again: collections {kept} are left")


def work(world: ServerWorld, job: str, target: str) -> None:
    """One job, in a process of its own."""
    settings = world.settings
    pipeline.BATCH_CHUNKS, transfer.READERS_NOTICE_S = _BATCH_CHUNKS, 0.2
    with closing(open_index(settings)) as opened:
        encoder = SubjectEncoder(target if job == "reindex" else opened.manifest.encoder, 0.02)
    if job == "ingest":
        LanguageDetector().split(SENTENCES["de"])  # its models are read now
    print("ready", flush=True)
    if job == "ingest":
        build.ingest(world.corpus, settings, options=OPTIONS, encoder=encoder)  # type: ignore[arg-type]
    elif job == "remove":
        build.remove(settings, [target])
    elif job == "reindex":
        reindex(settings, encoder)
    elif job == "push":
        transfer.push(settings, replace=True)


def make_world(folder: Path, url: str, seed: int, topics: int) -> ServerWorld:
    """Files about so many subjects, each in three languages."""
    folder.mkdir()
    world = ServerWorld(folder, random.Random(seed), url=url)
    for _ in range(topics):
        for name in world.new_names():
            world.write(name)
    return world


def main() -> None:
    """Run all rounds and write down how they ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--topics", type=int, default=8)
    for hidden in ("--job", "--target", "--at", "--store"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        try:
            work(ServerWorld(Path(options.at), random.Random(0), url=options.store), options.job, options.target)
        except PanlinguaError as error:
            sys.exit(f"error: {error}")
        return
    run = describe_run("python -m benchmarks.server_faults " + " ".join(sys.argv[1:]))
    opening._SERVER_POLL_S = 0.0
    outcome = Outcome()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="server-faults-")))
        server = stack.enter_context(breaking.running(folder / "server"))
        kinds: tuple[tuple[str, breaking.Breakable], ...] = (
            ("server hangs", breaking.Hanging(server)),
            ("connection cut", breaking.Wire(server.port)),
            ("server killed", server),
        )
        for number, (kind, breakable) in enumerate(kinds, 1):
            world = make_world(folder / f"world{number}", breakable.url, options.seed + number, options.topics)
            run_rounds(world, breakable, options.rounds * number // 6, outcome, kind)
    conclude(outcome, run)


if __name__ == "__main__":
    main()

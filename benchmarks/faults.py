"""Break the index in every way that was thought of, and see that nothing acknowledged is lost and nothing doubled.

    python -m benchmarks.faults [--rounds 200] [--seed 0] [--documents 60] [--damaged 40]

Kill rounds: a process ingests changed files, removes a document or encodes the index anew, and is killed (SIGKILL) at a
random moment. After each: the index opens; every document that the ledger or the manifest counts is there once, whole,
as one of the versions that its file ever had; what was there before and not touched is still there. Every other job is
then run to its end, after which the index holds exactly what it should. Then: bytes of the shard's files are flipped,
the disk is full (a small file system in memory; needs the right to mount one), the server cannot be reached. What
becomes of an index on a server that goes away and comes back: `benchmarks.server_faults`.

The encoder hashes words: the faults are in files and processes, not in vectors. Writes results/faults.jsonl.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tokenizers

from benchmarks.records import ROOT, describe_run, write_rows
from indexer import build
from indexer.ledger import Ledger
from indexer.reindex import reindex
from search.engine import Engine
from search.errors import PanlinguaError
from search.index import LEDGER, SHARD, IndexFolder
from search.lexical import tokenize
from search.records import Vectors
from search.results import Mode
from search.settings import Settings, load_settings

WORDS = ("Wasser", "eau", "水を飲む", "الماء", "पानी", "น้ำ", "вода", "agua", "víz", "물")
JOBS = ("ingest", "ingest", "remove", "reindex")
DIMENSIONS = {"hash-a": 48, "hash-b": 32}
"""Encoders between which a reindex goes back and forth."""
_LONGEST_S = 600.0
_BATCH_S = 0.02


class HashEncoder:
    """Hashes words into a few dimensions, and takes its time, so that a kill hits the middle of a job."""

    max_tokens, folder = 512, None

    def __init__(self, name: str, batch_s: float = 0.0) -> None:
        self.name = self.address = self.fingerprint = name
        self.dimension, self._batch_s = DIMENSIONS[name], batch_s
        self.tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
        self.tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()

    def encode_documents(self, texts: list[str]) -> Vectors:
        """Unit vectors (B, D)."""
        time.sleep(self._batch_s)
        return self.encode_queries(texts)

    def encode_queries(self, texts: list[str]) -> Vectors:
        """Unit vectors (B, D)."""
        vectors = np.full((len(texts), self.dimension), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for term in tokenize(text):
                vectors[row, zlib.crc32(f"{self.name}{term}".encode()) % self.dimension] += 1
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@dataclass
class World:
    """The files, what each ever held, and what the index is known to hold."""

    folder: Path
    random: random.Random
    files: dict[str, str] = field(default_factory=dict)
    versions: dict[str, set[str]] = field(default_factory=dict)
    number: int = 0

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus"

    @property
    def settings(self) -> Settings:
        return load_settings(home=self.folder / "home", index=str(self.folder / "index"))

    def write(self, name: str) -> None:
        """Write a file with a text that no file had before."""
        self.number += 1
        text = self.compose(name)
        self.corpus.mkdir(parents=True, exist_ok=True)
        (self.corpus / name).write_text(text, encoding="utf-8")
        self.files[name] = text
        self.versions.setdefault(name, set()).add(text)

    def compose(self, name: str) -> str:
        """A text with the number that is next in it."""
        return f"Dokument {self.number}: {' '.join(self.random.choices(WORDS, k=12))} wort{self.number}."

    def new_names(self) -> list[str]:
        """Names for three further files."""
        return [f"文書 {self.number + n}.txt" for n in range(1, 4)]

    def change(self) -> set[str]:
        """Add, change and delete some files; returns those touched."""
        names = sorted(self.files)
        gone, changed = self.random.sample(names, 3), self.random.sample(names, 5)
        added = self.new_names()
        for name in gone:
            (self.corpus / name).unlink()
            del self.files[name]
        for name in [*added, *(name for name in changed if name not in gone)]:
            self.write(name)
        return {*gone, *changed, *added}

    def read(self) -> dict[str, str]:
        """What the index holds; see `read_index`."""
        return read_index(self.settings)

    def is_version(self, name: str, text: str) -> bool:
        """Whether the file ever held this text."""
        return text in self.versions.get(name, ())


@dataclass
class Outcome:
    """Counts of the rounds, by job and by how the job ended; what went wrong, in words, said as it comes."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def require(self, right: bool, problem: str) -> None:
        """Note a problem."""
        if not right:
            self.problems.append(problem)
            print(f"PROBLEM {problem}", file=sys.stderr, flush=True)


def read_index(settings: Settings) -> dict[str, str]:
    """Text of every document of the current generation; raises what is wrong with it.

    Raises:
        ValueError: A document is not once and whole, or the ledger or the manifest count otherwise.
    """
    folder = IndexFolder(settings.index_folder)
    generation = folder.current()
    engine = Engine(settings, HashEncoder(generation.manifest.encoder))  # type: ignore[arg-type]
    with closing(engine), closing(Ledger(generation.path / LEDGER, read_only=True)) as ledger:
        chunks = [point.chunk for point in engine.index().store.iter_points()]
        texts = {chunk.document_id: chunk.text for chunk in chunks}
        if len(texts) != len(chunks):  # each document is one passage long
            raise ValueError(f"{len(chunks)} passages of {len(texts)} documents")
        if ledger.totals() != (len(texts), len(chunks)) or generation.manifest.documents != len(texts):
            raise ValueError(f"{len(texts)} documents, the ledger says {ledger.totals()}")
        missing = [name for name in texts if ledger.document(name) is None]
        if missing:
            raise ValueError(f"not in the ledger: {missing[:3]}")
        for name in sorted(texts)[:2]:
            if engine.search(texts[name].split(":")[0], mode=Mode.HYBRID, k=5).hits == []:
                raise ValueError(f"nothing is found for {name}")
    return texts


def run_rounds(world: World, rounds: int, outcome: Outcome, tell: Callable[[str], None]) -> None:
    """The kill rounds."""
    lasts = dict.fromkeys(JOBS, 1.0)
    build.ingest(world.corpus, world.settings, encoder=HashEncoder("hash-a"))  # type: ignore[arg-type]
    known = read_index(world.settings)
    for number in range(rounds):
        job = world.random.choice(JOBS)
        touched = world.change() if job == "ingest" else set()
        target = world.random.choice(sorted(known)) if job == "remove" else ""
        started = time.monotonic()
        end = _run(world, job, target, kill_after_s=world.random.uniform(0.0, 1.2) * lasts[job])
        if end == "finished":
            lasts[job] = 0.5 * lasts[job] + 0.5 * max(time.monotonic() - started, 0.1)
        outcome.ends[job, end] += 1
        known = check(world, known, touched | {target}, outcome, f"round {number}, {job} {end}")
        if end == "killed" and number % 2:
            known = _finish(world, job, target, outcome, number)
        tell(f"round {number + 1}: {job} {end}, {len(known)} documents, {len(outcome.problems)} problems")
    known = _finish(world, "ingest", "", outcome, rounds)
    outcome.require(known == world.files, "at the end the index holds something else than the files")


def check(world: World, known: dict[str, str], touched: set[str], outcome: Outcome, where: str) -> dict[str, str]:
    """What the index holds now; notes whatever it should not hold, or should still."""
    try:
        found = world.read()
    except (PanlinguaError, ValueError) as error:
        outcome.require(False, f"{where}: {error}")
        return known
    strange = [name for name, text in found.items() if not world.is_version(name, text)]
    outcome.require(not strange, f"{where}: no version of its file: {strange[:3]}")
    pending = {name for name in known if world.files.get(name) != known[name]}  # changed by rounds that were killed
    lost = [name for name in known if name not in found and name not in touched | pending]
    outcome.require(not lost, f"{where}: lost {lost[:3]}")
    return found


def _finish(world: World, job: str, target: str, outcome: Outcome, number: int) -> dict[str, str]:
    """Run a job that was killed once more, to its end; the index then holds exactly what it should."""
    before = check(world, {}, set(), outcome, f"round {number}, before {job} again")
    end = _run(world, job, target if target in before else "")
    where = f"round {number}, {job} again"
    if end == "an ingest is not finished":  # what a reindex says; so the ingest comes first
        outcome.ends[job, "told to finish the ingest"] += 1
        job, end = "ingest", _run(world, "ingest", "")
    outcome.require(end == "finished", f"{where}: {end}")
    found = check(world, before, {target} | set(world.files) | set(before), outcome, where)
    if job == "ingest":
        outcome.require(found == world.files, f"{where}: the index is not what the files are")
    if job == "remove":
        outcome.require(target not in found, f"{where}: still there")
    if job == "reindex":
        outcome.require(found.keys() == before.keys(), f"{where}: other documents than before")
    return found


def _run(world: World, job: str, target: str, kill_after_s: float | None = None) -> str:
    """Run a job in a process of its own; how it ended: finished, killed, or what it said."""
    with start("benchmarks.faults", world, job, target) as process:
        if kill_after_s is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(kill_after_s)
            process.send_signal(signal.SIGKILL)
        output, errors = process.communicate(timeout=_LONGEST_S)
    if "finished" in output or process.returncode == 0:  # reading the first line may have taken more with it
        return "finished"
    if process.returncode == -signal.SIGKILL:
        return "killed"
    if "an ingest is not finished" in errors:
        return "an ingest is not finished"
    return errors.strip().splitlines()[-1] if errors.strip() else f"status {process.returncode}"


def work(job: str, target: str, at: Path) -> None:
    """One job, in the process that is killed."""
    world = World(at, random.Random(0))
    settings, folder = world.settings, IndexFolder(world.settings.index_folder)
    number = folder.current_number()
    name = folder.current().manifest.encoder if number is not None else "hash-a"
    print("ready", flush=True)
    if job == "ingest":
        build.ingest(world.corpus, settings, encoder=HashEncoder(name, _BATCH_S))  # type: ignore[arg-type]
    elif job == "remove" and target:
        build.remove(settings, [target])
    elif job == "reindex":
        reindex(settings, HashEncoder("hash-b" if name == "hash-a" else "hash-a", _BATCH_S))
    print("finished", flush=True)


def start(module: str, world: World, job: str, target: str, *options: str) -> subprocess.Popen[str]:
    """A process of a program that has imported everything and begins the job now."""
    command = [sys.executable, "-m", module, "--job", job, "--target", target, "--at", str(world.folder), *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def damage_files(world: World, most: int, outcome: Outcome) -> None:
    """Flip a byte in `most` of the shard's files in turn: right answers, or an error that says what to do."""
    path = IndexFolder(world.settings.index_folder).path
    with tempfile.TemporaryDirectory(dir=world.folder) as kept:
        shutil.copytree(path, Path(kept) / "index")
        shard = IndexFolder(world.settings.index_folder).current().path / SHARD
        names = sorted(str(file.relative_to(path)) for file in shard.rglob("*") if file.is_file())
        for name in world.random.sample(names, min(most, len(names))):
            shutil.rmtree(path)
            shutil.copytree(Path(kept) / "index", path)
            outcome.ends["damaged file", _read_damaged(world, path / name)] += 1
    build.ingest(world.corpus, world.settings, encoder=HashEncoder("hash-a"), fresh=True)  # type: ignore[arg-type]
    outcome.require(read_index(world.settings) == world.files, "after --fresh the index is not what the files are")


def _read_damaged(world: World, file: Path) -> str:
    data = bytearray(file.read_bytes())
    if not data:
        return "empty file"
    data[world.random.randrange(len(data))] ^= 0xFF
    file.write_bytes(data)
    code = "from benchmarks.faults import *; import sys; w = World(Path(sys.argv[1]), random.Random(0)); " \
        "print('same' if read_index(w.settings) == {f.name: f.read_text('utf-8') for f in w.corpus.iterdir()} " \
        "else 'other contents')"  # fmt: skip
    command = [sys.executable, "-c", code, str(world.folder)]
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired:
        return f"no answer within {_LONGEST_S:.0f} s"
    if ended.returncode == 0:
        return ended.stdout.strip()
    if ended.returncode < 0:
        return f"process ended by signal {-ended.returncode}"
    last = ended.stderr.strip().splitlines()[-1]
    return "error that says what to do" if "indexer ingest" in last else f"other error: {last.partition(':')[0]}"


def fill_disk(outcome: Outcome, seed: int) -> None:
    """Ingest into a file system with too little room, then with enough."""
    with tempfile.TemporaryDirectory() as folder, _small_disk(Path(folder)) as disk:
        if disk is None:
            outcome.ends["full disk", "not tried: no right to mount"] += 1
            return
        world = World(disk, random.Random(seed))
        for n in range(20):
            world.write(f"{n}.txt")
        filler = disk / "filler"
        filler.write_bytes(bytes(60 << 20))
        end = _run(world, "ingest", "")
        outcome.ends["full disk", "error that says what to do" if "ree some" in end else end] += 1
        filler.unlink()
        outcome.require(_run(world, "ingest", "") == "finished", "the ingest does not work after room was made")
        outcome.require(
            read_index(world.settings) == world.files, "after a full disk the index is not what the files are"
        )


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path | None]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=180m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def break_network(outcome: Outcome, folder: Path) -> None:
    """Search and ingest with a server that does not answer."""
    settings = load_settings(home=folder / "home", index="gone", store="http://127.0.0.1:9")
    jobs: dict[str, Callable[[], Any]] = {
        "search": lambda: Engine(settings, HashEncoder("hash-a")).search("x"),  # type: ignore[arg-type]
        "ingest": lambda: build.ingest(folder / "corpus", settings, encoder=HashEncoder("hash-a")),  # type: ignore[arg-type]
    }
    for name, job in jobs.items():
        try:
            job()
            end = "no error"
        except PanlinguaError as error:
            end = "error that says what to do" if "Check that the server runs" in str(error) else str(error)
        outcome.ends[f"{name} without server", end] += 1


def conclude(outcome: Outcome, run: Mapping[str, str]) -> NoReturn:
    """Write down how all rounds ended, and end with 1 where something was lost or doubled."""
    rows = [{"fault": fault, "end": end, "times": n} for (fault, end), n in sorted(outcome.ends.items())]
    rows += [{"problem": problem} for problem in outcome.problems]
    print("\n".join(str(row) for row in rows))
    print(write_rows("faults", run, rows))
    sys.exit(bool(outcome.problems))


def main() -> None:
    """Run all faults and write down how they ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--damaged", type=int, default=40, help="files of the index to damage")
    for hidden in ("--job", "--target", "--at"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        work(options.job, options.target, Path(options.at))
        return
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        world = World(Path(folder), random.Random(options.seed))
        for n in range(options.documents):
            world.write(f"文書 {n}.txt")
        run_rounds(world, options.rounds, outcome, lambda line: print(line, file=sys.stderr))
        break_network(outcome, world.folder)
        damage_files(world, options.damaged, outcome)
    fill_disk(outcome, options.seed)
    run = describe_run("python -m benchmarks.faults " + " ".join(sys.argv[1:]))
    conclude(outcome, run)


if __name__ == "__main__":
    main()

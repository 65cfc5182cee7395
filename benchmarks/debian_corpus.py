"""Build a real corpus that nobody here wrote: Debian's translated manual pages, handbook and reference, with queries.

    python -m benchmarks.debian_corpus OUT [--limit 8000]

Needs Debian (written for bookworm) with a network: `apt-get download` and `dpkg-deb`, nothing is installed. Writes

    OUT/documents/man/<lang>/<section>/<page>.txt     manual pages as plain text, one unbroken line per paragraph
    OUT/documents/{handbook,reference}/<lang>/*.html  as shipped
    OUT/queries.jsonl                                 {"id", "text", "lang", "relevant": [document ids]}

A query is the one-line description of a page in one language; relevant is that page in every language. Descriptions are
taken out of the written pages, so that the page in the query's own language is no literal match. A second run
keeps what is there and continues.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from benchmarks.manual_pages import join_blocks, parse_blocks, split_description

_TRANSLATED = "cs da de el es fi fr hu id it ja mk nb nl pl pt-br ro ru sr sv tr uk vi zh"
_TRANSLATED_DEV = "cs da de es fr it ja nl pl pt-br ru uk"
_REFERENCE = "de en es fr id it ja pt pt-br zh-cn zh-tw"
_PROGRAMS = """
apt apt-utils bash bsdextrautils bsdutils bzip2 coreutils cpio cron curl dash debhelper diffutils dpkg dpkg-dev
e2fsprogs fdisk file findutils gawk gnupg gpg grep groff gzip hostname iproute2 kmod less login lvm2 man-db mount
net-tools nfs-common openssh-client passwd patch procps psmisc rsync sed systemd tar udev util-linux util-linux-extra
vim-common wget xz-utils
"""
"""They bring the English originals of many translations, or translations of their own."""
PACKAGES = (
    *("manpages", "manpages-dev", "debian-handbook"),
    *(f"manpages-{lang}" for lang in _TRANSLATED.split()),
    *(f"manpages-{lang}-dev" for lang in _TRANSLATED_DEV.split()),
    *(f"debian-reference-{lang}" for lang in _REFERENCE.split()),
    *_PROGRAMS.split(),
)
RENDERER = "mandoc"
DEFAULT_LIMIT = 8000
MIN_LANGUAGES = 3
QUERIES_PER_LANGUAGE = 100

_PAGE = re.compile(r"usr/share/man/(?:(?P<lang>[^/]+)/)?man[^/]+/(?P<name>[^/]+)\.(?P<section>[0-9n][^./]*)\.gz$")
_HANDBOOK = re.compile(r"usr/share/doc/debian-handbook/html/(?P<lang>[a-z]+-[A-Z]+)/(?P<file>[^/]+\.html)$")
_REFERENCE_PAGE = re.compile(r"usr/share/debian-reference/(?P<name>[a-z0-9]+)\.(?P<lang>[a-z-]+)\.html$")
_INCLUDE = re.compile(r"(?:(?:[.']\\\".*|[ \t]*)\n)*\.so\s+(?P<file>\S+)")
_IDEOGRAPH_OR_KANA = re.compile("[\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")


class CorpusError(Exception):
    """The corpus cannot be built; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Page:
    """A manual page as shipped. `key` is section/name; `alias_of` the key of the page that it only points to."""

    lang: str
    key: str
    path: Path
    alias_of: str | None = None

    @property
    def id(self) -> str:
        """Document id: the path below the documents folder."""
        return f"man/{self.lang}/{self.key}.txt"


Pages = dict[tuple[str, str], Page]
"""By language and key."""


def language_tag(folder: str) -> str:
    """BCP-47 of a folder of translations.

    >>> [language_tag(folder) for folder in ("zh_CN", "sr@latin", "de.UTF-8", "pt-br", "ja-JP", "nb_NO")]
    ['zh-CN', 'sr-Latn', 'de', 'pt-BR', 'ja', 'nb']
    """
    name, _, script = folder.partition(".")[0].partition("@")
    lang, _, region = name.replace("_", "-").partition("-")
    if script == "latin":
        return f"{lang}-Latn"
    return f"{lang}-{region.upper()}" if region and lang in {"pt", "zh"} else lang


def download(package: str, folder: Path) -> Path | None:
    """The package's file, fetched unless it is there; None when the archive does not have it."""
    found = next(folder.glob(f"{package}_*.deb"), None)
    if found is None:
        command = ["apt-get", "download", "--quiet", package]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        found = next(folder.glob(f"{package}_*.deb"), None) if result.returncode == 0 else None
        if found is None:
            say(f"missing: {package}: {(result.stderr.strip() or 'no message').splitlines()[-1]}")
    return found


def unpack(deb: Path, folder: Path) -> Path:
    """The folder with the package's manual pages, books and renderer; unpacked unless it is there."""
    target = folder / deb.name.partition("_")[0]
    if target.is_dir():
        return target
    work = target.with_suffix(".part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            if is_wanted(member.name.removeprefix("./")) and not member.isdir():
                archive.extract(member, work, filter="data")
    if process.returncode:
        raise CorpusError(f"{deb} cannot be unpacked; delete it and run this again")
    work.rename(target)
    return target


def is_wanted(name: str) -> bool:
    """Whether a file of a package is used here."""
    patterns = (_PAGE, _HANDBOOK, _REFERENCE_PAGE)
    return name == f"usr/bin/{RENDERER}" or any(pattern.search(name) for pattern in patterns)


def find_pages(folders: Sequence[Path]) -> Pages:
    """Every manual page; of two packages with the same page the first wins, and a real page wins over an alias."""
    pages: Pages = {}
    for folder in folders:
        for path in sorted((folder / "usr/share/man").rglob("*.gz")):
            page = read_page(path)
            known = pages.get((page.lang, page.key)) if page else None
            if page and (known is None or (known.alias_of and not page.alias_of)):
                pages[page.lang, page.key] = page
    return pages


def read_page(path: Path) -> Page | None:
    """The page at a path; None when the path is not a page's."""
    found = _PAGE.search(path.as_posix())
    if not found:
        return None
    lang, key = language_tag(found["lang"] or "en"), f"{found['section']}/{found['name']}"
    if path.is_symlink():
        return Page(lang, key, path, alias_of=page_key(str(path.readlink())))
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
        include = _INCLUDE.match(file.read(4000))
    return Page(lang, key, path, alias_of=page_key(include["file"]) if include else None)


def page_key(file: str) -> str:
    """Key of a page's file name.

    >>> page_key("../man3/strcat.3.gz"), page_key("man1/grep.1")
    ('3/strcat', '1/grep')
    """
    name, _, section = file.rpartition("/")[2].removesuffix(".gz").rpartition(".")
    return f"{section}/{name}"


def choose_keys(counts: Mapping[str, int], limit: int) -> set[str]:
    """Keys, evenly and always the same, whose pages in all languages together are about `limit`."""
    chosen: set[str] = set()
    total = 0
    for key in sorted(counts, key=spread):
        if total >= limit:
            break
        chosen.add(key)
        total += counts[key]
    return chosen


def spread(key: str) -> bytes:
    """A sort key that puts names into an arbitrary, repeatable order."""
    return hashlib.blake2b(key.encode(), digest_size=8).digest()


def render(page: Page, renderer: Path) -> tuple[str | None, str]:
    """Description and text of a page; None for a description that the rest of the text repeats.

    Raises:
        ValueError: The page has no text, or is not UTF-8.
    """
    source = gzip.decompress(page.path.read_bytes())
    source.decode("utf-8")
    command = [str(renderer), "-K", "utf-8", "-T", "html", "-O", "fragment"]
    result = subprocess.run(command, input=source, capture_output=True, check=False)
    description, blocks = split_description(parse_blocks(result.stdout.decode("utf-8")))
    if sum(len(text) for _, text in blocks) < 100:
        raise ValueError("no text")
    section, name = page.key.split("/", 1)
    text = join_blocks(f"{name}({section})", blocks)
    if description and description.casefold() in text.casefold():
        description = None
    return description, text


def is_query(text: str, lang: str) -> bool:
    """Whether a description is long enough for a query: 3 words, or 8 Chinese or Japanese characters."""
    if lang.partition("-")[0] in {"ja", "zh"}:
        return len(_IDEOGRAPH_OR_KANA.findall(text)) >= 8
    return sum(any(char.isalpha() for char in word) for word in text.split()) >= 3


def build_queries(
    descriptions: Mapping[tuple[str, str], str],
    relevant: Mapping[str, Mapping[str, str]],
    *,
    per_language: int,
    is_english: Callable[[str, str], bool],
) -> list[dict[str, object]]:
    """Queries from descriptions by (language, key) and the documents of each key by language.

    Left out: pages in fewer than 3 languages, descriptions that are too short, left untranslated (`is_english` of text
    and language, or the same in several languages) or on several pages. The same pages are preferred in every language,
    so that the languages can be compared.
    """
    pages_of: dict[tuple[str, str], set[str]] = defaultdict(set)
    langs_of: dict[str, set[str]] = defaultdict(set)
    for (lang, key), text in descriptions.items():
        pages_of[lang, text.casefold()].add(key)
        langs_of[text.casefold()].add(lang)
    count: Counter[str] = Counter()
    queries: list[dict[str, object]] = []
    for lang, key in sorted(descriptions, key=lambda item: (spread(item[1]), item[0])):
        text, documents = descriptions[lang, key], relevant.get(key, {})
        same = text.casefold()
        untranslated = lang != "en" and len({other.partition("-")[0] for other in langs_of[same]}) > 1
        if len(documents) < MIN_LANGUAGES or count[lang] >= per_language or lang not in documents:
            continue
        if untranslated or len(pages_of[lang, same]) > 1 or not is_query(text, lang) or is_english(text, lang):
            continue
        count[lang] += 1
        ids = sorted(set(documents.values()))
        queries.append({"id": f"man/{lang}/{key}", "text": text, "lang": lang, "relevant": ids})
    return sorted(queries, key=lambda query: str(query["id"]))


def build_english_test() -> Callable[[str, str], bool]:
    """A test whether a text that should be in a language is rather English."""
    from search.language import LanguageDetector

    detector = LanguageDetector()

    def is_english(text: str, lang: str) -> bool:
        own = lang.partition("-")[0]
        return own != "en" and detector.detect_query(text, among=(own, "en")).lang == "en"

    return is_english


def relevant_documents(pages: Pages, written: set[str]) -> dict[str, dict[str, str]]:
    """Document ids by key and language; where a language has only an alias, the page that it points to."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for (lang, key), page in pages.items():
        target = pages.get((lang, page.alias_of)) if page.alias_of else page
        if target and target.id in written:
            found[key][lang] = target.id
    return found


class Builder:
    """Writes the corpus below a folder."""

    def __init__(self, out: Path) -> None:
        self.documents = out / "documents"
        self.packages = out / "packages"
        self.unpacked = out / "unpacked"
        self.log = out / "pages.jsonl"
        self.queries = out / "queries.jsonl"

    def build(self, limit: int) -> dict[str, object]:
        """Build or complete the corpus; returns the counts."""
        folders, missing = self._fetch()
        renderer = self.unpacked / RENDERER / "usr/bin" / RENDERER
        if not renderer.is_file():
            raise CorpusError(f"the package {RENDERER} renders the pages and cannot be had; run `apt-get update` first")
        books = dict(chain.from_iterable(find_books(folder) for folder in folders))
        for document, path in books.items():
            if not (self.documents / document).is_file():
                self._write(document, path.read_bytes())
        pages = find_pages(folders)
        real = [page for page in pages.values() if not page.alias_of]
        keys = choose_keys(Counter(page.key for page in real), limit - len(books))
        chosen = sorted((page for page in real if page.key in keys), key=lambda page: page.id)
        descriptions, skipped = self._render(chosen, renderer)
        self._remove_others({*books, *descriptions})
        texts = {(page.lang, page.key): text for page in chosen if (text := descriptions.get(page.id))}
        queries = build_queries(
            texts,
            relevant_documents(pages, set(descriptions)),
            per_language=QUERIES_PER_LANGUAGE,
            is_english=build_english_test(),
        )
        self.queries.write_text("".join(json.dumps(query, ensure_ascii=False) + "\n" for query in queries), "utf-8")
        by_language = Counter(document.split("/")[1] for document in (*books, *descriptions))
        return {
            "documents": len(books) + len(descriptions), "languages": dict(by_language.most_common()),
            "queries": len(queries), "queries_by_language": dict(Counter(str(q["lang"]) for q in queries)),
            "skipped": dict(skipped), "missing_packages": missing,
        }  # fmt: skip

    def _fetch(self) -> tuple[list[Path], list[str]]:
        for tool in ("apt-get", "dpkg-deb"):
            if not shutil.which(tool):
                raise CorpusError(f"{tool} is not here; this corpus can be built on Debian and its derivatives only")
        self.packages.mkdir(parents=True, exist_ok=True)
        debs = {package: download(package, self.packages) for package in (RENDERER, *PACKAGES)}
        missing = [package for package, deb in debs.items() if deb is None]
        return [unpack(deb, self.unpacked) for deb in debs.values() if deb], missing

    def _render(self, pages: Sequence[Page], renderer: Path) -> tuple[dict[str, str | None], Counter[str]]:
        """Descriptions by document id of the pages that are written now, and how many were skipped for what."""
        done = self._read_log()
        skipped: Counter[str] = Counter()
        descriptions: dict[str, str | None] = {}
        with self.log.open("a", encoding="utf-8") as log:
            for number, page in enumerate(pages):
                if number % 500 == 0:
                    say(f"{number} of {len(pages)} pages")
                if page.id not in done or not (self.documents / page.id).is_file():
                    try:
                        done[page.id], text = render(page, renderer)
                    except ValueError as error:  # UnicodeDecodeError is one
                        skipped["not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)] += 1
                        continue
                    self._write(page.id, text.encode())
                    print(json.dumps({"id": page.id, "description": done[page.id]}, ensure_ascii=False), file=log)
                descriptions[page.id] = done[page.id]
        return descriptions, skipped

    def _read_log(self) -> dict[str, str | None]:
        """Descriptions of an earlier run; a line cut short by a kill is left out."""
        done: dict[str, str | None] = {}
        for line in self.log.read_text("utf-8").splitlines() if self.log.is_file() else ():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            done[record["id"]] = record["description"]
        return done

    def _write(self, document: str, content: bytes) -> None:
        path = self.documents / document
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def _remove_others(self, keep: set[str]) -> None:
        """Remove the documents of an earlier run with another limit."""
        for path in self.documents.rglob("*"):
            if path.is_file() and path.relative_to(self.documents).as_posix() not in keep:
                path.unlink()


def find_books(folder: Path) -> Iterator[tuple[str, Path]]:
    """Document ids and files of the handbook's and the reference's pages in an unpacked package."""
    for path in sorted(folder.rglob("*.html")):
        if found := _HANDBOOK.search(path.as_posix()):
            yield f"handbook/{language_tag(found['lang'])}/{found['file']}", path
        elif found := _REFERENCE_PAGE.search(path.as_posix()):
            yield f"reference/{language_tag(found['lang'])}/{found['name']}.html", path


def say(message: str) -> None:
    """One line to stderr."""
    print(message, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the last line of stdout is the counts as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to build or complete")
    parser.add_argument("--limit", type=int, default=DEFAULT_LIMIT, help="about how many documents (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(Builder(options.out).build(options.limit), ensure_ascii=False))
    except CorpusError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

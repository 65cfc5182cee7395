"""Corpora for `training adapt` that nobody here wrote, with questions known from how they are made.

    python -m benchmarks.adapt gnome UNPACKED --out corpora/gnome --languages de fr ru --works 60
    python -m benchmarks.adapt scilab UNPACKED... --out corpora/scilab --works 150
    python -m benchmarks.adapt sky UNPACKED --out corpora/sky --languages ar be de en hr ja ru zh_CN
    python -m benchmarks.adapt tico19 BITEXT --out corpora/health --languages ar en es hi id ru sw zh --works 60
    python -m benchmarks.adapt news SOURCE --out corpora/news --languages en de fr es nl pt
    python -m benchmarks.adapt debian CORPUS --out corpora/debian --documents 2000
    training adapt corpora/gnome/documents --queries corpora/gnome/queries.jsonl --out encoders/gnome

UNPACKED are folders of Debian packages (`apt-get download`, `dpkg-deb -x`): gnome-user-docs (help pages of a desktop),
scilab-doc and scilab-doc-LANG (reference of a mathematical language), stellarium-data (star lore of peoples); BITEXT
holds the sentences of TICO-19 in their order, articles on an epidemic from PubMed, Wikinews, Wikipedia and Wikivoyage
with their translations (Anastasopoulos et al. 2020, arXiv 2007.01788), of which every twelve are a document; SOURCE is
the unpacked source of Debian's guix, whose etc/news.scm holds the news that its users are told; CORPUS is what
`benchmarks.debian_corpus` wrote. Which files are translations of one another is in the file tree. What an author wrote
as a summary (GNOME's `desc`, Scilab's purpose line, the first sentence on a culture, a headline, the line on a manual
page), or a sentence of an article, is taken out of the document and becomes the question.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from html import unescape
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

from markitdown import MarkItDown

from search.language import canonical_language
from search.passages import iter_sentences
from search.text import dominant_script

MALLARD = "{http://projectmallard.org/1.0/}"
_TICO_DIALOGUE, _TICO_SENTENCES = 141, 12
"""Sentences of conversations come first, which make no document."""
_SCHEME_TEXT = re.compile(r'\((\w+)\s+"((?:[^"\\]|\\.)*)"', re.DOTALL)
_HIDDEN = ("info", "media", "links")
_LEAST_LETTERS = 200
_SCILAB_LANGUAGES = {"en_US": "en", "fr_FR": "fr", "ja_JP": "ja", "pt_BR": "pt"}


@dataclass(frozen=True)
class Page:
    """A document of a work in one language; `summary` is what is asked for it, and not in `text`."""

    work: str
    lang: str
    title: str
    text: str
    summary: str


def iter_gnome(folder: Path, languages: list[str]) -> Iterator[Page]:
    """Mallard pages; English is in the folder C."""
    for lang in languages:
        for path in sorted(folder.glob(f"usr/share/help/{'C' if lang == 'en' else lang}/gnome-help/*.page")):
            try:
                page = ElementTree.parse(path).getroot()
            except ElementTree.ParseError:
                continue
            title = _words(page.find(f"{MALLARD}title"))
            summary = _words(page.find(f"{MALLARD}info/{MALLARD}desc"))
            blocks = [_block(child) for child in page if child.tag.removeprefix(MALLARD) not in (*_HIDDEN, "title")]
            yield Page(path.stem, canonical_language(lang), title, "\n\n".join(filter(None, blocks)), summary)


def iter_scilab(folders: list[Path], works: int) -> Iterator[Page]:
    """Reference pages in the jars of the help, of works that are in two languages or more."""
    reader = MarkItDown()
    jars = sorted(path for folder in folders for path in folder.rglob("scilab_*_help.jar"))
    names = {jar: [name for name in zipfile.ZipFile(jar).namelist() if name.endswith(".html")] for jar in jars}
    counts = Counter(Path(name).stem for found in names.values() for name in found if "section_" not in name)
    chosen = set(choose((work for work, count in counts.items() if count > 1), works))
    for jar, found in names.items():
        lang = _SCILAB_LANGUAGES[jar.stem.removeprefix("scilab_").removesuffix("_help")]
        with zipfile.ZipFile(jar) as archive:
            for name in sorted(name for name in found if Path(name).stem in chosen):
                html = archive.read(name).decode("utf-8", "replace")
                purpose = re.search(r'<p class="refpurpose">(.*?)</p>', html, re.DOTALL)
                body = re.search(r'<div class="refnamediv">(.*)</body>', html, re.DOTALL)
                if purpose and body:
                    text = reader.convert_stream(_stream(body[1].replace(purpose[0], "")), file_extension=".html")
                    stem = Path(name).stem
                    purpose_text = " ".join(unescape(re.sub(r"<[^>]+>", "", purpose[1])).split())
                    yield Page(stem, lang, stem, text.markdown, purpose_text)


def choose(works: Iterable[str], count: int) -> list[str]:
    """So many works, by hash."""
    return sorted(works, key=lambda work: sha256(work.encode()).digest())[:count]


def iter_sky(folder: Path, languages: list[str]) -> Iterator[Page]:
    """Descriptions of the sky cultures that Stellarium draws."""
    reader = MarkItDown()
    for path in sorted(folder.glob("usr/share/stellarium/skycultures/*/description.*.utf8")):
        name = path.name.split(".")[1]
        if name not in languages:
            continue
        lang = canonical_language(name)
        with path.open("rb") as file:
            text = reader.convert_stream(file, file_extension=".html").markdown
        title, _, rest = text.partition("\n\n")
        spans = iter_sentences(rest, lang=lang, script=dominant_script(rest))
        first = next((span for span in spans if sum(map(str.isalpha, rest[slice(*span)])) > 40), None)
        if first:
            left = rest[: first[0]] + rest[first[1] :]
            yield Page(path.parent.name, lang, title.lstrip("# "), left, " ".join(rest[slice(*first)].split()))


def iter_tico(path: Path, languages: list[str]) -> Iterator[Page]:
    """Articles of TICO-19, cut after every twelve sentences wherever one ends; one of them is the question."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [dict(zip(row["langs"], row["texts"], strict=True)) for row in map(json.loads, file)]
    if missing := set(languages).difference(*rows):
        raise SystemExit(f"{path} has nothing in {', '.join(sorted(missing))}; name others with --languages")
    rows = [row for row in rows[_TICO_DIALOGUE:] if set(languages) <= row.keys()]
    for number in range(len(rows) // _TICO_SENTENCES):
        part = rows[number * _TICO_SENTENCES :][:_TICO_SENTENCES]
        asked = max(range(4, 8), key=lambda place: len(part[place][languages[0]]))
        for lang in languages:
            title, *text = [row[lang] for place, row in enumerate(part) if place != asked]
            yield Page(f"part-{number:03}", lang, title, "\n".join(text), part[asked][lang])


def iter_news(source: Path, languages: list[str]) -> Iterator[Page]:
    """News of Guix, an S-expression of entries: headlines and bodies by language, with Texinfo's commands."""
    for number, entry in enumerate(source.joinpath("etc/news.scm").read_text("utf-8").split("(entry ")[1:]):
        headlines, bodies = (dict(_SCHEME_TEXT.findall(part)) for part in entry.split("(body", 1))
        for lang in languages:
            if lang in headlines and lang in bodies:
                headline, body = (_without_texinfo(texts[lang]) for texts in (headlines, bodies))
                yield Page(f"news-{number:03}", canonical_language(lang), "", body, " ".join(headline.split()))


def _without_texinfo(text: str) -> str:
    """The words of a Scheme string of Texinfo."""
    text = re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
    while (bare := re.sub(r"@\w+\{([^{}]*)\}", r"\1", text)) != text:
        text = bare
    lines = [line.strip() for line in text.splitlines() if not re.match(r"\s*@(?!item)\w", line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines).replace("@item", "-").replace("@@", "@")).strip()


def write(pages: Iterator[Page], out: Path, works: int) -> None:
    """Documents as Markdown by language, and their summaries as judged queries; `works` of the works, by hash."""
    found: dict[str, dict[str, Page]] = defaultdict(dict)
    for page in pages:
        is_new = page.text not in {other.text for other in found[page.work].values()}  # else: not translated
        if is_new and sum(map(str.isalpha, page.text)) >= _LEAST_LETTERS and (page.title or page.summary):
            found[page.work].setdefault(page.lang, page)
    several = choose((work for work in found if len(found[work]) > 1), works)
    rows = []
    for work in several:
        names = {lang: f"{lang}/{work}.md" for lang in found[work]}
        for lang, page in found[work].items():
            path = out / "documents" / names[lang]
            path.parent.mkdir(parents=True, exist_ok=True)
            head = f"# {page.title}\n\n" if page.title else ""
            path.write_text(f"{head}{page.text}\n", encoding="utf-8")
            if page.summary:
                rows.append({"id": names[lang], "text": page.summary, "lang": lang, "relevant": sorted(names.values())})
    with (out / "queries.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    print(f"{out}: {len(several)} works, {len(rows)} queries")


def sample(corpus: Path, out: Path, documents: int) -> None:
    """About so many documents of a built corpus that there are questions about, by whole works, by hash."""
    rows = [json.loads(line) for line in (corpus / "queries.jsonl").read_text("utf-8").splitlines()]
    works = {" ".join(row["relevant"]): row["relevant"] for row in rows}
    kept: set[str] = set()
    for work in choose(works, len(works)):
        if len(kept) < documents:
            kept.update(works[work])
    for name in kept:
        (out / "documents" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(corpus / "documents" / name, out / "documents" / name)
    chosen = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows if kept.issuperset(row["relevant"])]
    (out / "queries.jsonl").write_text("".join(chosen), "utf-8")
    print(f"{out}: {len(kept)} documents, {len(chosen)} queries")


def _block(element: ElementTree.Element) -> str:
    """Text of a block of Mallard: a section with its title, a list or a paragraph."""
    kind = element.tag.removeprefix(MALLARD)
    if kind in _HIDDEN or not isinstance(element.tag, str):
        return ""
    if kind == "title":
        return f"## {_words(element)}"
    if kind == "item":
        return "- " + " ".join(filter(None, map(_block, element)))
    if kind in ("p", "cmd", "td", "screen", "code"):
        return _words(element)
    return "\n\n".join(filter(None, map(_block, element)))


def _words(element: ElementTree.Element | None) -> str:
    return " ".join("".join(element.itertext()).split()) if element is not None else ""


def _stream(html: str) -> BytesIO:
    return BytesIO(f'<html><head><meta charset="utf-8"></head><body>{html}</body></html>'.encode())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("gnome", "scilab", "sky", "tico19", "news", "debian"))
    parser.add_argument("unpacked", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", default=["en", "de", "fr", "ru", "uk", "ko", "id", "hu"])
    parser.add_argument("--works", type=int, default=10_000)
    parser.add_argument("--documents", type=int, default=2_000)
    given = parser.parse_args()
    if given.kind == "debian":
        return sample(given.unpacked[0], given.out, given.documents)
    match given.kind:
        case "gnome":
            pages = iter_gnome(given.unpacked[0], given.languages)
        case "scilab":
            pages = iter_scilab(given.unpacked, given.works)
        case "tico19":
            pages = iter_tico(given.unpacked[0], given.languages)
        case "news":
            pages = iter_news(given.unpacked[0], given.languages)
        case _:
            pages = iter_sky(given.unpacked[0], given.languages)
    return write(pages, given.out, given.works)


if __name__ == "__main__":
    main()

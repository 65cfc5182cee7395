"""What the interface says and how it writes texts of documents: without a browser and without an index."""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.sources.files import SUPPORTED
from search.errors import PanlinguaError, SourceError
from search.highlight import Highlight, HighlightKind
from search.language import check_languages
from search.records import Chunk
from search.results import Hit, Mode
from search.settings import load_settings
from search.text import truncate_graphemes
from ui import exports, files
from ui.components.hits import marked_title, title_end
from ui.components.markup import plain, tag
from ui.components.passages import Span, excerpt, marked, whole_text
from ui.languages import day, direction_of, language_name, number
from ui.messages import LANGUAGES, Speaker, load_messages, nearest_language
from ui.reasons import KINDS, kind_of, reason_in, sentence_in
from ui.state import Request

HOSTILE = (
    """<img src=x onerror="alert(1)"> **bold** :red[x] $x^2$ <script>alert(2)</script> & 'quotes' [a](javascript:b)"""
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_everything_with_the_same_values(language: str) -> None:
    reference, own = load_messages("en"), load_messages(language)
    assert list(own) == list(reference)
    for key, text in own.items():
        assert text.strip(), key
        assert set(re.findall(r"{(\w+)}", text)) == set(re.findall(r"{(\w+)}", reference[key])), key


def test_every_message_that_the_code_asks_for_exists(repository: Path) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (repository / "ui").rglob("*.py"))
    asked = set(re.findall(r'\bsay\(\s*"([a-z_.]+)"', code)) - {"results"}  # the example in a docstring
    assert len(asked) > 80
    assert asked <= set(load_messages("en"))


def test_every_reason_to_skip_a_file_has_a_kind(repository: Path) -> None:
    """Reasons as the extractors' code writes them, with numbers for what is filled in."""
    folders = ("extract", "sources")
    code = "".join(
        path.read_text("utf-8") for folder in folders for path in (repository / "indexer" / folder).glob("*.py")
    )
    raised = re.findall(r'SourceError\(\s*f?"([^"]+)"', code)
    raised += re.findall(r'Skipped\((?:[^",]|"[^"]*")*, f?"([^"]+)"', code)
    reasons = {re.sub(r"{[^}]*}", "7", reason) for reason in raised}
    assert len(reasons) > 30
    assert {kind_of(reason) for reason in reasons if kind_of(reason)} == KINDS.keys() - {"same_id"}
    wrong_commands = {reason for reason in reasons if reason.startswith("7 cannot be opened")}
    assert {reason for reason in reasons if not kind_of(reason)} == wrong_commands
    assert kind_of("another document has the same id; make the ids unique") == "same_id"


def test_reasons_are_said_in_the_readers_language_with_the_original() -> None:
    said = reason_in("zip bomb: 3 MB that unpack to 9 MB", Speaker("ja"))
    assert said == "開くのは安全ではありません (zip bomb: 3 MB that unpack to 9 MB)"
    assert reason_in("something new", Speaker("ja")) == "something new"


def test_every_note_on_a_search_is_said_in_the_readers_language(repository: Path) -> None:
    """Notes as the engine's code writes them, with numbers for what is filled in."""
    sources = {"interpretation.py": "append", "engine.py": "note", "topics/find.py": "append"}
    notes = [
        "".join(str(part.value) if isinstance(part, ast.Constant) else _filled_in(part) for part in written.values)
        for name in sources
        for node in ast.walk(ast.parse((repository / "search" / name).read_text("utf-8")))
        for written in [_note_of(node)]
        if written is not None
    ]
    assert len(notes) >= 8
    for note in notes:
        assert sentence_in(note, Speaker("ja")) != note, note
    assert sentence_in("the query has 25,312 characters; the first 20,000 were searched", Speaker("de")) == (
        "Die Frage hat 25.312 Zeichen; gesucht wurde nach den ersten 20.000."
    )
    assert sentence_in("something new: 7", Speaker("ja")) == "something new: 7"


def _filled_in(part: ast.expr) -> str:
    match part:
        case ast.FormattedValue(value=ast.Call(func=ast.Name(id="counted"), args=[_, ast.Constant(value=noun)])):
            return f"7 {noun}s"
    return "7"


def _note_of(node: ast.AST) -> ast.JoinedStr | None:
    """What a statement notes: `notes.append(f"...")`, or `note = f"..."`."""
    match node:
        case ast.Call(func=ast.Attribute(attr="append", value=ast.Name(id="notes") | ast.Attribute(attr="notes"))):
            return node.args[0] if isinstance(node.args[0], ast.JoinedStr) else None
        case ast.Assign(targets=[ast.Name(id="note")], value=ast.JoinedStr()):
            return node.value  # type: ignore[return-value]
    return None


def test_errors_of_the_pages_are_said_in_the_readers_language(tmp_path: Path) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: files.save_uploads([Sent("virus.exe")], tmp_path),
        lambda: files.save_uploads([Sent("groß.txt", bytes(files.MAX_UPLOAD_BYTES + 1))], tmp_path),
        lambda: files.save_uploads([Sent("a.txt")] * (files.MAX_UPLOADS + 1), tmp_path),
        lambda: files.check_folder("docs", [tmp_path]),
        lambda: files.check_folder("/etc", [tmp_path]),
        lambda: files.check_folder(str(tmp_path / "没有"), [tmp_path]),
        lambda: check_languages(["zzz"], among=["de", "ja"]),
        lambda: check_languages(["jp"], among=["de", "ja"]),
    ]
    for attempt in attempts:
        with pytest.raises(PanlinguaError) as caught:
            attempt()
        for language in ("de", "ar", "zh"):
            said = sentence_in(str(caught.value), Speaker(language))
            assert said != str(caught.value)


def test_what_runs_in_the_other_direction_is_set_apart() -> None:
    assert Speaker("ar")("job.remove", about="report.pdf") == "إزالة \u2068report.pdf\u2069"
    assert Speaker("en")("job.remove", about="تقرير.pdf") == "Removing \u2068تقرير.pdf\u2069"
    assert Speaker("en")("job.remove", about="bill\u202efdp.exe") == "Removing \u2068bill\u202efdp.exe\u2069"
    assert Speaker("en")("job.remove", about="レポート.pdf 7") == "Removing レポート.pdf 7"
    assert Speaker("ar")("search.page", page="٣") == "صفحة ٣"


def test_interface_language_follows_the_browser() -> None:
    assert [nearest_language(locale) for locale in ("pt-BR", "zh-Hant-TW", "AR", "sw", "", None)] == [
        "pt", "zh", "ar", "en", "en", "en",
    ]  # fmt: skip
    assert Speaker("de")("search.page", page=3) == "Seite 3"


def test_names_directions_and_numbers() -> None:
    assert [language_name(code) for code in ("ja", "ar", "th", "hi", "he")] == [
        "日本語", "العربية", "ไทย", "हिन्दी", "עברית",
    ]  # fmt: skip
    assert language_name("ja", reader="fr") == "Japonais"
    assert language_name("ka") == "ქართული"  # Georgian has no title case
    assert [language_name("zh-Hans"), language_name("zh-Hant")] == ["简体中文", "繁體中文"]
    assert language_name("und") == "—"
    assert language_name("xx-unknown") == "xx-unknown"
    assert [direction_of(code) for code in ("ar", "fa", "he", "ur", "ja", "nonsense")] == ["rtl"] * 4 + ["ltr"] * 2
    assert direction_of("ku", "Arab") == "rtl"
    assert direction_of("ar", "Latn") == "ltr"
    assert number(1234567, "de") == "1.234.567"
    assert day("2020-03-01T00:00:00Z", "de") == "01.03.2020"
    assert day(None, "de") == day("no date", "de") == ""


def test_text_of_documents_is_never_markup() -> None:
    written = str(tag("p", HOSTILE, title=HOSTILE, class_="a", hidden=None, open=True))
    assert "<img" not in written
    assert "<script" not in written
    assert '"alert' not in written
    assert written.startswith('<p title="&lt;img')
    assert 'class="a" open=""' in written
    assert "hidden" not in written
    assert "<img" not in str(marked(HOSTILE, [Span(0, 5, "sentence"), Span(2, 9, "word")]))


def test_labels_show_markdown_as_it_is() -> None:
    escaped = plain(HOSTILE)
    assert re.sub(r"\\(.)", r"\1", escaped) == HOSTILE
    assert not re.search(r"(?<!\\)[*_:\[\]$<>`!#]", escaped)


TEXTS = (
    "Wasser kocht. Es dampft.", "水が沸く。湯気が立つ。", "الماء يغلي. يتبخر.", "น้ำเดือด ไอน้ำลอย", "पानी उबलता है। भाप।",
    "👩\u200d👩\u200d👧 é e\u0301",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_marks_keep_every_character(text: str) -> None:
    spans = [Span(0, len(text) // 2, "sentence"), Span(1, 3, "word"), Span(len(text), len(text) + 9, "word")]
    html = str(marked(text, spans))
    assert re.sub(r"<[^>]+>", "", html) == text
    assert '<mark class="word">' in html
    assert '<mark class="sentence">' in html


def test_excerpt_begins_near_the_marked_sentence_and_leaves_out_the_title() -> None:
    filler = "Das ist ein Satz. " * 60
    text = "Titel\n" + filler + "Hier steht die Antwort. " + filler
    start = text.index("Hier")
    html = str(excerpt(text, [Span(start, start + 23, "sentence")], after=5))
    assert '<mark class="sentence">Hier steht die Antwort.</mark>' in html
    assert html.startswith("… ")
    assert len(re.sub(r"<[^>]+>", "", html)) < 420
    short = str(excerpt("Titel\nKurz.", [], after=5))
    assert short.strip() == "Kurz."
    assert str(excerpt("Titel", [], after=5)) == "Titel"


def test_excerpt_ends_with_a_whole_word_and_keeps_lines() -> None:
    shown = re.sub(r"<[^>]+>", "", str(excerpt("Überschrift\n\n\n" + "Donaudampfschifffahrt " * 40, [], limit=60)))
    assert shown == "Überschrift\nDonaudampfschifffahrt Donaudampfschifffahrt …"


def test_what_stands_above_a_passage_is_not_repeated_in_it() -> None:
    chunk = Chunk("d", 0, "# Tee\n\n## Wasser\nEs kocht.", title="Tee", headings=("Tee", "Wasser"), lang="de")
    assert chunk.text[title_end(chunk) :].strip() == "Es kocht."
    assert title_end(Chunk("d", 0, "Es kocht.", title="Tee", headings=("Wasser",))) == 0
    assert title_end(Chunk("d", 0, "Teekessel pfeifen.", title="Tee")) == 0
    assert title_end(Chunk("d", 0, "خبز البيت\nيخبز كل يوم", title="خبز")) == 0
    assert marked_title(Hit(1, 0.5, Chunk("d", 0, "Teekessel pfeifen.", title="Tee", lang="de"))) == "Tee"


def test_a_title_that_answers_is_marked_where_it_stands() -> None:
    chunk = Chunk("d", 0, "# 温泉の入り方\nまず体を洗う。", title="温泉の入り方", start=40, lang="ja")
    hit = Hit(
        1, 0.5, chunk, highlights=(Highlight(42, 48, HighlightKind.SENTENCE), Highlight(42, 44, HighlightKind.WORD))
    )
    assert marked_title(hit) == '<mark class="word">温泉</mark><mark class="sentence">の入り方</mark>'
    assert marked_title(Hit(1, 0.5, chunk)) == "温泉の入り方"
    elsewhere = Chunk("d", 1, "まず <体> を洗う。", title="<温泉>", lang="ja")
    marks = (Highlight(0, 3, HighlightKind.SENTENCE),)
    assert marked_title(Hit(1, 0.5, elsewhere, highlights=marks)) == "&lt;温泉&gt;"


def test_excerpt_never_cuts_a_grapheme() -> None:
    family = "👩‍👩‍👧"
    shown = re.sub(r"<[^>]+>", "", str(excerpt(family * 300, []))).removesuffix(" …")
    assert shown == truncate_graphemes(shown, len(shown))
    assert shown.replace(family, "") == ""


def test_whole_text_gives_what_neighbours_share_once() -> None:
    document = "Der erste Satz. Der zweite Satz. Der dritte Satz."
    cuts = [(0, 32), (16, 49)]
    chunks = [Chunk("d", n, document[a:b], start=a, end=b) for n, (a, b) in enumerate(cuts)]
    assert "".join(text for _, text in whole_text(chunks[::-1])) == document


def test_request_survives_its_url() -> None:
    request = Request(
        q="水 & água?", mode=Mode.DENSE, balance=0.3, lang=("ja", "ar"), folder=("a b",), since="2020-01-31", page=3,
        spoken="de", diverse=0.5, fold=False,
    )  # fmt: skip
    parameters = {k: v if isinstance(v, list) else [v] for k, v in request.as_parameters().items()}
    assert Request.from_parameters(parameters) == request
    assert Request().as_parameters() == {}


@pytest.mark.parametrize(
    "parameters",
    [{"mode": ["evil"]}, {"balance": ["NaN"]}, {"balance": ["x"]}, {"page": ["-5"]}, {"since": ["31.12.2020"]}],
)  # fmt: skip
def test_nonsense_in_the_url_counts_as_not_said(parameters: dict[str, list[str]]) -> None:
    assert Request.from_parameters(parameters) == Request()


def test_csv_is_safe_to_open_and_complete() -> None:
    chunk = Chunk("d", 0, "=HYPERLINK(1)", title='Zwei\nZeilen, "Zitat"', lang="de", source="ä.md")
    content = exports.as_csv([Hit(1, 0.5, chunk)]).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert rows[0]["text"] == "'=HYPERLINK(1)"
    assert rows[0]["title"] == 'Zwei\nZeilen, "Zitat"'
    assert exports.as_jsonl([Hit(1, 0.5, chunk)]).decode().count("\n") == 1


class Sent:
    def __init__(self, name: str, content: bytes = b"text") -> None:
        self.name, self.content = name, content

    def getvalue(self) -> bytes:
        return self.content


def test_upload_kinds_are_what_the_indexer_reads() -> None:
    assert set(files.UPLOAD_KINDS) == set(SUPPORTED)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd.txt", "passwd.txt"), ("C:\\x\\böse.md", "böse.md"), (".hidden.txt", "hidden.txt"),
        ("a\x00b\n.txt", "a_b_.txt"), ("報告書.pdf", "報告書.pdf"), ("~$x.docx", "x.docx"), (".txt", "document.txt"),
    ],
)  # fmt: skip
def test_uploads_keep_their_names_within_the_folder(tmp_path: Path, name: str, kept: str) -> None:
    paths = files.save_uploads([Sent(name)], tmp_path / "uploads")
    assert [path.name for path in paths] == [kept]
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == [kept]


def test_names_of_runs_stay_within_their_folder() -> None:
    names = ["run-1", "médecine", "../../etc", "..", "v1.2", "a\x00b", "長" * 500]
    safe = [files.safe_folder_name(name) for name in names]
    assert safe[:6] == ["run-1", "médecine", "etc", "unnamed", "v1.2", "a_b"]
    assert 0 < len(safe[6].encode()) <= 255


def test_long_names_of_uploads_fit_on_the_disk(tmp_path: Path) -> None:
    (path,) = files.save_uploads([Sent("長" * 500 + ".txt")], tmp_path)
    assert path.suffix == ".txt"
    assert path.read_bytes() == b"text"


def test_uploads_of_like_names_are_told_apart(tmp_path: Path) -> None:
    long = "長" * 300
    names = ["a?b.md", "a*b.md", "A_B.md", "a_b (2).md", f"{long}一.txt", f"{long}二.txt", f"{long}二.txt"]
    paths = files.save_uploads([Sent(name, name.encode()) for name in names], tmp_path)
    assert [path.read_bytes().decode() for path in paths] == names
    assert [path.name for path in paths[:3]] == ["a_b.md", "a_b (2).md", "A_B (3).md"]
    assert paths[3].name == "a_b (2) (2).md"
    assert all(len(path.name.encode()) <= 255 for path in paths)
    again = files.save_uploads([Sent(f"{long}一.txt", b"new")], tmp_path)
    assert (again, paths[4].read_bytes()) == ([paths[4]], b"new")  # the same name is the same file


def test_uploads_are_limited_and_refused_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="kind that is not read"):
        files.save_uploads([Sent("a.txt"), Sent("b.exe")], tmp_path)
    monkeypatch.setattr(files, "MAX_UPLOAD_BYTES", 3)
    with pytest.raises(SourceError, match="at most"):
        files.save_uploads([Sent("a.txt")], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_allowed_folders_are_read(tmp_path: Path) -> None:
    allowed = tmp_path / "mine"
    (allowed / "sub").mkdir(parents=True)
    (allowed / "out").symlink_to(tmp_path)
    assert files.check_folder(str(allowed / "sub"), [allowed]) == allowed / "sub"
    for text in (str(tmp_path), str(allowed / ".."), str(allowed / "out"), "relative", "", str(allowed / "none")):
        with pytest.raises(SourceError):
            files.check_folder(text, [allowed])


def test_opening_a_file_never_leaves_the_roots(tmp_path: Path) -> None:
    root = tmp_path / "docs"
    (root / "de").mkdir(parents=True)
    (root / "de" / "a.txt").write_text("a")
    (tmp_path / "secret.txt").write_text("s")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert files.source_path("de/a.txt", [(str(root), "")]) == root / "de" / "a.txt"
    assert files.source_path("docs/de/a.txt", [(str(root), "docs/")]) == root / "de" / "a.txt"
    for source in ("../secret.txt", "link.txt", str(tmp_path / "secret.txt"), "de", "none.txt", "docs/../secret.txt"):
        assert files.source_path(source, [(str(root), "")]) is None


def test_a_file_is_that_of_the_folder_it_was_read_from(tmp_path: Path) -> None:
    """Of two files with one name, removing one deletes no upload of the other."""
    settings = load_settings(home=tmp_path / "home", index="default")
    uploads, docs = files.uploads_folder(settings), tmp_path / "docs"
    for folder in (uploads, docs):
        folder.mkdir(parents=True)
        (folder / "notes.md").write_text(str(folder))
    roots = [(str(docs), ""), (str(uploads), "default/")]
    assert files.source_path("notes.md", roots) == docs / "notes.md"
    assert files.source_path("default/notes.md", roots) == uploads / "notes.md"
    assert files.source_path("default-archive/notes.md", roots) is None
    files.delete_uploads(settings, [files.source_path("notes.md", roots), None])
    assert (docs / "notes.md").is_file()
    assert (uploads / "notes.md").is_file()
    files.delete_uploads(settings, [files.source_path("default/notes.md", roots)])
    assert not (uploads / "notes.md").exists()

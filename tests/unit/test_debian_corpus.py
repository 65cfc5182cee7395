"""The pure parts of the Debian corpus builder: names, text of a page, descriptions and queries."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from benchmarks.debian_corpus import (
    Page,
    build_queries,
    choose_keys,
    find_books,
    find_pages,
    is_query,
    is_wanted,
    language_tag,
    page_key,
    read_page,
    relevant_documents,
)
from benchmarks.manual_pages import clean_line, join_blocks, parse_blocks, split_description

MARKUP = """
<table class="head"><tr><td class="head-ltitle">LS(1)</td><td>コマンド</td></tr></table>
<div class="manual-text">
<section class="Sh"><h1 class="Sh">&#x540D;&#x524D;</h1>
<p class="Pp">ls, dir -
    &#x30C7;&#x30A3;&#x30EC;&#x30AF;&#x30C8;&#x30EA;&#x306E;&#x5185;&#x5BB9;&#x3092;&#x8868;&#x793A;&#x3059;&#x308B;&#x3002;</p>
</section>
<section class="Sh"><h1 class="Sh">説明</h1>
<p class="Pp">一覧表示します。
    要素は <b>ls</b>
    で  並べる &lt;b&gt; é e&#x301; 👩‍👩‍👧.</p>
<dl class="Bl-tag">
  <dt><b>-a</b>, <b>--all</b></dt>
  <dd>. で始まる要素を
      無視しない</dd>
  <dt><b>-b</b></dt>
  <dt><b>-c</b></dt>
  <dd><p class="Pp">zwei</p></dd>
</dl>
<pre>int  x;
  y();   
</pre>
</section></div>
<table class="foot"><tr><td>2021</td></tr></table>
"""


@pytest.mark.parametrize(
    ("folder", "tag"),
    [
        ("zh_CN", "zh-CN"), ("zh-tw", "zh-TW"), ("pt_BR", "pt-BR"), ("pt-br", "pt-BR"), ("de.UTF-8", "de"),
        ("ja-JP", "ja"), ("nb_NO", "nb"), ("sr@latin", "sr-Latn"), ("en", "en"),
    ],
)  # fmt: skip
def test_language_tag(folder: str, tag: str) -> None:
    assert language_tag(folder) == tag


@pytest.mark.parametrize(
    ("file", "key"),
    [("../man3/strcat.3.gz", "3/strcat"), ("man1/grep.1", "1/grep"), ("systemd.exec.5.gz", "5/systemd.exec")],
)
def test_page_key(file: str, key: str) -> None:
    assert page_key(file) == key


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("usr/share/man/ja/man1/ls.1.gz", True), ("usr/share/man/man3/strcat.3.gz", True), ("usr/bin/mandoc", True),
        ("usr/share/doc/debian-handbook/html/de-DE/apt.html", True), ("usr/bin/ls", False),
        ("usr/share/doc/debian-handbook/html/de-DE/images/x.png", False), ("usr/share/man/ja/man1/", False),
        ("usr/share/doc/debian-handbook/html/de-DE/Common_Content/x.html", False),
    ],
)  # fmt: skip
def test_only_pages_books_and_the_renderer_are_unpacked(name: str, wanted: bool) -> None:
    assert is_wanted(name) is wanted


def test_page_becomes_plain_text_with_unbroken_lines() -> None:
    description, blocks = split_description(parse_blocks(MARKUP))

    assert description == "ディレクトリの内容を表示する"
    assert join_blocks("ls(1)", blocks) == (
        "ls(1)\n\n説明\n\n一覧表示します。要素は ls で並べる <b> é e\u0301 👩‍👩‍👧.\n\n"
        "-a, --all\n. で始まる要素を無視しない\n\n-b\n-c\nzwei\n\nint  x;\n  y();\n"
    )


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("一覧を\n   表示する", "一覧を表示する"),
        ("列出\n目录，\n内容", "列出目录，内容"),
        ("한국어\n   문서", "한국어 문서"),
        ("в  сочетании\n с -l", "в сочетании с -l"),
        ("العربية\nעברית ไทย\nहिन्दी", "العربية עברית ไทย हिन्दी"),
        ("コマンド\u3000 ls", "コマンド ls"),
        ("mes\u00adsage\u200b", "message"),
    ],
)
def test_lines_are_joined_by_the_rules_of_their_script(raw: str, clean: str) -> None:
    assert clean_line(raw) == clean


@pytest.mark.parametrize(
    ("name_line", "description"),
    [
        ("ls - Verzeichnisinhalte auflisten", "Verzeichnisinhalte auflisten"),
        ("tar — das GNU-Archivprogramm.", "das GNU-Archivprogramm"),
        ("apt-get, apt - outil APT - ligne de commande", "outil APT - ligne de commande"),
        ("man -- 시스템 참고 설명서", "시스템 참고 설명서"),
    ],
)
def test_description_is_told_from_the_names(name_line: str, description: str) -> None:
    blocks = [("h1", "NAME"), ("p", name_line), ("h1", "TEXT"), ("p", "body")]
    assert split_description(blocks) == (description, [("h1", "TEXT"), ("p", "body")])


def test_several_descriptions_are_removed_but_give_no_query() -> None:
    blocks = [("h1", "NAME"), ("p", "a - eins zwei drei"), ("p", "b - vier fünf sechs"), ("h1", "TEXT"), ("p", "body")]
    assert split_description(blocks) == (None, [("h1", "TEXT"), ("p", "body")])


@pytest.mark.parametrize("blocks", [[], [("p", "only text")], [("h1", "NAME"), ("p", "no dash here"), ("h1", "TEXT")]])
def test_page_without_a_description_stays_whole(blocks: list[tuple[str, str]]) -> None:
    assert split_description(blocks) == (None, blocks)


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("list directory contents", "en", True), ("Verzeichnisinhalte auflisten", "de", False),
        ("ディレクトリの内容を表示", "ja", True), ("a b c d e f g h", "ja", False), ("列出目录内容", "zh-CN", False),
        ("显示一行文本或其他内容", "zh-CN", True), ("지정한 이름의 프로세스를 강제로", "ko", True),
        ("a / -", "en", False), ("", "en", False),
    ],
)  # fmt: skip
def test_queries_are_long_enough(text: str, lang: str, expected: bool) -> None:
    assert is_query(text, lang) is expected


def test_limit_takes_whole_pages_and_always_the_same() -> None:
    counts = {f"1/page{number}": number % 5 + 1 for number in range(200)}
    chosen = choose_keys(counts, 90)

    assert 90 <= sum(counts[key] for key in chosen) <= 94
    assert chosen == choose_keys(dict(reversed(counts.items())), 90)
    assert choose_keys(counts, 30) < chosen
    assert choose_keys(counts, 0) == set()


def _gz(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


def test_pages_and_aliases_are_found(tmp_path: Path) -> None:
    man = tmp_path / "manpages/usr/share/man"
    _gz(man / "man3/strcat.3.gz", ".TH STRCAT 3\n")
    _gz(man / "pt_BR/man3/strncat.3.gz", '.\\" comment\n.so man3/strcat.3\n')
    (man / "man3/strncat.3.gz").symlink_to("strcat.3.gz")
    _gz(tmp_path / "other/usr/share/man/man3/strncat.3.gz", ".TH STRNCAT 3\n")
    _gz(tmp_path / "other/usr/share/man/man3/strcat.3.gz", ".TH SECOND 3\n")
    pages = find_pages([tmp_path / "manpages", tmp_path / "other"])

    assert {where: page.alias_of for where, page in pages.items()} == {
        ("en", "3/strcat"): None,
        ("en", "3/strncat"): None,
        ("pt-BR", "3/strncat"): "3/strcat",
    }
    assert pages["en", "3/strcat"].path.is_relative_to(man)
    assert pages["en", "3/strcat"].id == "man/en/3/strcat.txt"
    assert read_page(tmp_path / "readme.gz") is None


def test_books_are_found(tmp_path: Path) -> None:
    for name in (
        "usr/share/doc/debian-handbook/html/zh-TW/apt.html",
        "usr/share/doc/debian-handbook/html/de-DE/apt.html",
        "usr/share/doc/debian-handbook/html/Common_Content/x.html",
        "usr/share/debian-reference/ch01.pt-br.html",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")

    assert {document for document, _ in find_books(tmp_path)} == {
        "handbook/zh-TW/apt.html",
        "handbook/de/apt.html",
        "reference/pt-BR/ch01.html",
    }


def test_alias_is_relevant_by_the_page_it_points_to() -> None:
    here = Path("x")
    pages = {
        ("en", "3/strcat"): Page("en", "3/strcat", here),
        ("en", "3/strncat"): Page("en", "3/strncat", here, alias_of="3/strcat"),
        ("ja", "3/strncat"): Page("ja", "3/strncat", here),
        ("de", "3/strncat"): Page("de", "3/strncat", here, alias_of="3/gone"),
    }

    assert relevant_documents(pages, {page.id for page in pages.values()}) == {
        "3/strcat": {"en": "man/en/3/strcat.txt"},
        "3/strncat": {"en": "man/en/3/strcat.txt", "ja": "man/ja/3/strncat.txt"},
    }


def _relevant(key: str, *langs: str) -> dict[str, str]:
    return {lang: f"man/{lang}/{key}.txt" for lang in langs}


def _ids(descriptions: dict[tuple[str, str], str], per_language: int = 100) -> list[object]:
    relevant = {key: _relevant(key, "de", "en", "ja") for _, key in descriptions}
    relevant["1/two"] = _relevant("1/two", "de", "en")
    queries = build_queries(
        descriptions, relevant, per_language=per_language, is_english=lambda text, lang: lang != "en" and "the" in text
    )
    return [query["id"] for query in queries]


def test_query_is_relevant_in_every_language() -> None:
    text = "Zeilen zählen und ausgeben"
    relevant = {"1/wc": _relevant("1/wc", "ja", "en", "de")}
    queries = build_queries({("de", "1/wc"): text}, relevant, per_language=1, is_english=lambda *_: False)

    assert queries == [{"id": "man/de/1/wc", "text": text, "lang": "de", "relevant": sorted(relevant["1/wc"].values())}]


def test_descriptions_that_are_no_queries_are_left_out() -> None:
    assert _ids({
        ("de", "1/wc"): "Zeilen zählen und ausgeben",
        ("de", "1/two"): "in nur zwei Sprachen",
        ("de", "1/short"): "zu kurz",
        ("de", "1/same"): "kopiert eine Datei", ("de", "1/again"): "Kopiert eine Datei",
        ("de", "1/english"): "count the lines quickly",
        ("de", "1/left"): "print current working place", ("en", "1/left"): "Print current working place",
    }) == ["man/de/1/wc", "man/en/1/left"]  # fmt: skip


def test_every_language_has_its_share_and_the_same_pages_first() -> None:
    descriptions = {(lang, f"1/p{n}"): f"{lang} satz nummer {n}" for lang in ("de", "en") for n in range(20)}
    ids = _ids(descriptions, per_language=5)

    assert len(ids) == 10
    assert {str(i).replace("man/de", "") for i in ids[:5]} == {str(i).replace("man/en", "") for i in ids[5:]}

"""Real files of every format, made by hand, for the tests of reading."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

SENTENCES = {
    "Latin, composed": "Le café est fermé à midi.",
    "Latin, decomposed": "Le cafe\u0301 est ferme\u0301.",
    "Cyrillic": "Библиотека открыта каждый день.",
    "Greek": "Η βιβλιοθήκη είναι ανοιχτή.",
    "Arabic": "المكتبة مفتوحة كل يوم.",
    "Hebrew": "הספרייה פתוחה בכל יום.",
    "Devanagari": "पुस्तकालय हर दिन खुला रहता है।",
    "Thai": "ห้องสมุดเปิดทุกวัน",
    "Chinese": "图书馆每天开放。",
    "Japanese": "図書館は毎日開いています。",
    "Korean": "도서관은 매일 문을 엽니다.",
    "emoji with a joiner": "Family 👩\u200d👩\u200d👧 reads.",
    "mixed direction": "The word שלום means peace.",
}
ALL = list(SENTENCES.values())
_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_CORE = (
    '<?xml version="1.0"?><cp:coreProperties xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties" '
    'xmlns:dcterms="http://purl.org/dc/terms/"><dc:title>{title}</dc:title>'
    "<dcterms:created>2024-05-01T08:00:00Z</dcterms:created></cp:coreProperties>"
)
_TYPES = (
    '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
_RELS = (
    '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="r1" Target="word/document.xml" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"/></Relationships>'
)


def make_zip(path: Path, parts: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def make_docx(
    path: Path, sentences: list[str], *, title: str = "", extra: dict[str, str | bytes] | None = None
) -> Path:
    heading = '<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Überschrift 見出し</w:t></w:r></w:p>'
    bold = '<w:p><w:r><w:rPr><w:b/></w:rPr><w:t xml:space="preserve">{}</w:t></w:r></w:p>'
    cells = "".join(f"<w:tc><w:p><w:r><w:t>{cell}</w:t></w:r></w:p></w:tc>" for cell in ("Zelle 1", "セル 2"))
    body = heading + "".join(bold.format(escape(text)) for text in sentences) + f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>"
    styles = (
        f'<w:styles xmlns:w="{_W}"><w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/>'
        "</w:style></w:styles>"
    )
    return make_zip(
        path,
        {
            "[Content_Types].xml": _TYPES,
            "_rels/.rels": _RELS,
            "word/document.xml": f'<w:document xmlns:w="{_W}"><w:body>{body}</w:body></w:document>',
            "word/styles.xml": styles,
            "docProps/core.xml": _CORE.format(title=escape(title)),
            **(extra or {}),
        },
    )


def make_pptx(path: Path, sentences: list[str]) -> Path:
    from pptx import Presentation

    deck = Presentation()
    deck.core_properties.title = "Vortrag 講演"
    for number, text in enumerate(sentences, 1):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = f"Slide {number}"
        slide.placeholders[1].text = text
    deck.slides[0].notes_slide.notes_text_frame.text = "Notiz für den Vortrag"
    deck.save(str(path))
    return path


def make_xlsx(path: Path, sentences: list[str]) -> Path:
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    sheet.title = "Первый лист"
    sheet.append(["number", "sentence", None])
    for number, text in enumerate(sentences, 1):
        sheet.append([number, text, None])
    book.save(path)
    return path


def make_odt(path: Path, sentences: list[str], *, doctype: str = "") -> Path:
    spaces = 'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" xmlns:meta="urn:oasis:names:tc:opendocument:xmlns:meta:1.0" xmlns:dc="http://purl.org/dc/elements/1.1/"'  # noqa: E501
    body = '<text:h text:outline-level="2">Überschrift 見出し</text:h>' + "".join(
        f"<text:p><text:span>{escape(text[:4])}</text:span>{escape(text[4:])}</text:p>" for text in sentences
    )
    body += (
        "<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes><text:p>a<text:s text:c='2'/>b</text:p>"
    )
    cell = "<table:table-cell><text:p>{}</text:p></table:table-cell>"
    body += f"<table:table><table:table-row>{cell.format('eins')}{cell.format('二')}</table:table-row></table:table>"
    head = f'<?xml version="1.0" encoding="UTF-8"?>{doctype}'
    return make_zip(
        path,
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f"{head}<office:document-content {spaces}><office:body><office:text>{body}</office:text>"
            "</office:body></office:document-content>",
            "meta.xml": f"{head}<office:document-meta {spaces}><office:meta><dc:title>Titel 題</dc:title>"
            "<dc:date>2024-05-01T10:00:00+02:00</dc:date></office:meta></office:document-meta>",
        },
    )


def make_epub(path: Path, sentences: list[str]) -> Path:
    chapter = '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><head><title>c</title></head><body><h2>{}</h2>{}</body></html>'
    opf = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        "<dc:title>Das Buch 本</dc:title><dc:creator>Müller</dc:creator><dc:date>2023-02-03</dc:date></metadata>"
        "<manifest>"
        '<item id="a" href="a.xhtml"/><item id="b" href="b%20b.xhtml"/></manifest>'
        '<spine><itemref idref="b"/><itemref idref="a"/></spine></package>'
    )
    paragraphs = "".join(f"<p><em>{escape(text)}</em></p>" for text in sentences)
    container = '<container><rootfiles><rootfile full-path="OPS/c.opf"/></rootfiles></container>'
    return make_zip(
        path,
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "OPS/c.opf": opf,
            "OPS/a.xhtml": chapter.format("Last chapter", "<p>The end.</p>"),
            "OPS/b b.xhtml": chapter.format("Первая глава", paragraphs),
        },
    )


def make_html(path: Path, sentences: list[str], *, charset: str = "utf-8") -> Path:
    paragraphs = "".join(f'<p>{escape(text)} <a href="http://example.org/x_y">ein_link</a></p>' for text in sentences)
    page = (
        f'<html><head><meta charset="{charset}"><title>Seite 頁</title><style>p {{}}</style></head><body>'
        f"<h1>Überschrift</h1><script>var hidden = 1;</script>{paragraphs}"
        "<table><tr><th>Name</th><th>Wert</th></tr><tr><td>a</td><td>2</td></tr></table></body></html>"
    )
    path.write_bytes(page.encode(charset, "xmlcharrefreplace"))
    return path


def make_rtf(path: Path, sentences: list[str]) -> Path:
    def units(text: str) -> str:
        raw = text.encode("utf-16-le")
        codes = (int.from_bytes(raw[i : i + 2], "little", signed=True) for i in range(0, len(raw), 2))
        return "".join(chr(code) if 31 < code < 128 else f"\\u{code}?" for code in codes)

    body = "\\par\n".join(map(units, sentences))
    path.write_text(f"{{\\rtf1\\ansi\\ansicpg1252{{\\info{{\\title Ein Titel}}}}{body}}}", encoding="ascii")
    return path


def make_eml(path: Path, sentences: list[str], *, html: bool = False) -> Path:
    from email.message import EmailMessage

    message = EmailMessage()
    message["Subject"] = "Grüße 挨拶"
    message["From"] = "Jörg <joerg@example.org>"
    message["Date"] = "Wed, 01 May 2024 10:00:00 +0200"
    if html:
        message.set_content("".join(f"<p><b>{text}</b></p>" for text in sentences), subtype="html")
    else:
        message.set_content("\n".join(sentences))
        message.add_attachment(b"\x00\x01", maintype="application", subtype="octet-stream", filename="a.bin")
    path.write_bytes(message.as_bytes())
    return path


def make_pdf(path: Path, lines: list[str], *, encrypted: bool = False) -> Path:
    """A PDF whose font maps each glyph to Unicode; right-to-left lines must come in visual order."""
    glyphs = {character: number for number, character in enumerate(sorted(set("".join(lines))), 1)}
    shown = "".join(
        f"1 0 0 1 40 {800 - 30 * row} Tm <{''.join(f'{glyphs[c]:04x}' for c in line)}> Tj\n"
        for row, line in enumerate(lines)
    )
    pairs = "".join(f"<{number:04x}> <{c.encode('utf-16-be').hex()}>\n" for c, number in glyphs.items())
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def\n"
        f"1 begincodespacerange <0000> <ffff> endcodespacerange\n{len(glyphs)} beginbfchar\n{pairs}endbfchar\n"
        "endcmap end end"
    )
    page = f"BT /F 12 Tf\n{shown}ET"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 800 850]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        f"<</Length {len(page)}>>stream\n{page}\nendstream",
        "<</Type/Font/Subtype/Type0/BaseFont/X/Encoding/Identity-H/DescendantFonts[6 0 R]/ToUnicode 7 0 R>>",
        "<</Type/Font/Subtype/CIDFontType2/BaseFont/X/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>"
        "/DW 600/FontDescriptor 9 0 R>>",
        f"<</Length {len(cmap)}>>stream\n{cmap}\nendstream",
        "<</Title(The title)/Author(An author)/CreationDate(D:20240501100000+02'00')>>",
        "<</Type/FontDescriptor/FontName/X/Flags 4/FontBBox[0 0 600 800]/ItalicAngle 0/Ascent 800/Descent 0/StemV 80>>",
        f"<</Filter/Standard/V 1/R 2/O<{'41' * 32}>/U<{'42' * 32}>/P -4>>",
    ]
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(f"{number} 0 obj{content}endobj\n".encode())
    start = out.tell()
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    lock = f"/Encrypt 10 0 R/ID[<{'43' * 16}><{'43' * 16}>]" if encrypted else ""
    size = len(objects) + 1
    out.write(
        f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer<</Size {size}/Root 1 0 R/Info 8 0 R{lock}>>\n"
        f"startxref\n{start}\n%%EOF".encode()
    )
    path.write_bytes(out.getvalue())
    return path

"""A hit as a card: title, language, source, passage, and why it is there."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from search.records import Chunk
from search.results import Explanation, Hit
from ui.components.language_marks import language_tag
from ui.components.markup import tag
from ui.components.passages import Span, excerpt, marked, passage
from ui.languages import day, direction_of, number
from ui.messages import Speaker

_OTHER_CHARS = 200


def hit_card(hit: Hit, languages: Sequence[str], say: Speaker) -> Markup:
    """The hit's HTML."""
    chunk = hit.chunk
    return tag(
        "article",
        tag("h2", marked_title(hit), lang=chunk.lang, dir=direction_of(chunk.lang, chunk.script)),
        where_line(chunk, languages, say),
        passage(chunk, excerpt(chunk.text, spans_of(hit), after=title_end(chunk))),
        also_in(hit.also_in, languages, say) if hit.also_in else None,
        class_="hit",
    )


def also_in(others: Sequence[Chunk], languages: Sequence[str], say: Speaker) -> Markup:
    """The translations that the hit stands for: their languages, and opened their titles and passages."""
    tags = tag("span", *[language_tag(chunk.lang, languages) for chunk in others], class_="languages")
    items = [
        tag(
            "li",
            tag("strong", title_of(chunk), lang=chunk.lang, dir=direction_of(chunk.lang, chunk.script)),
            where_line(chunk, languages, say),
            passage(chunk, excerpt(chunk.text, (), after=title_end(chunk), limit=_OTHER_CHARS)),
        )
        for chunk in others
    ]  # fmt: skip
    return tag("details", tag("summary", say("hit.also_in"), tags), tag("ul", *items), class_="also")


def title_of(chunk: Chunk) -> str:
    """The document's title, else its file's name, else its id."""
    return chunk.title or chunk.source.rpartition("/")[2] or chunk.document_id


def marked_title(hit: Hit) -> Markup:
    """The title, marked where it is the beginning of the passage, and what answers is in it."""
    text, title = hit.chunk.text, title_of(hit.chunk)
    begins = _text_begins(text)
    if not _is_line(text, begins, title):
        return marked(title, ())
    return marked(title, [Span(span.start - begins, span.end - begins, span.kind) for span in spans_of(hit)])


def title_end(chunk: Chunk) -> int:
    """Where the passage's own text begins, when it begins with the title or the heading that stand above it."""
    end = 0
    for above in (chunk.title, chunk.headings[-1] if chunk.headings else ""):
        begins = _text_begins(chunk.text, end)
        if above and _is_line(chunk.text, begins, above):
            end = begins + len(above)
    return end


def _is_line(text: str, start: int, line: str) -> bool:
    """Whether `line` stands in the text from `start` to the end of a line, and is not the start of other words."""
    return text.startswith(line, start) and not text[start + len(line) :].split("\n", 1)[0].strip("#* \t\r")


def _text_begins(text: str, start: int = 0) -> int:
    """Where the first words are, from `start` on, behind the signs of a heading or a list."""
    return len(text) - len(text[start:].lstrip("#* \n"))


def where_line(chunk: Chunk, languages: Sequence[str], say: Speaker) -> Markup:
    """Language, section, source and date."""
    parts = [language_tag(chunk.lang, languages)]
    if chunk.headings and chunk.headings[-1] != chunk.title:
        parts.append(tag("bdi", chunk.headings[-1], lang=chunk.lang))
    parts.append(tag("bdi", chunk.source or chunk.document_id))
    if written := day(chunk.date, say.language):
        parts.append(tag("time", written, datetime=chunk.date))
    dotted = Markup(' <span aria-hidden="true">·</span> ').join(parts)
    return tag("div", dotted, class_="where")


def spans_of(hit: Hit) -> list[Span]:
    """What to mark, in characters of the passage."""
    return [Span(mark.start - hit.chunk.start, mark.end - hit.chunk.start, mark.kind) for mark in hit.highlights]


def explanation(why: Explanation, score: float, say: Speaker) -> Markup:
    """Where the score comes from."""
    rows = [
        (say("why.meaning"), why.dense_rank, why.dense_score),
        (say("why.words"), why.lexical_rank, why.lexical_score),
    ]
    if why.rerank_rank is not None:
        rows.append((say("why.reranker"), why.rerank_rank, why.rerank_score))
    head = tag("tr", *[tag("th", say(key), scope="col") for key in ("why.list", "why.rank", "why.score")])
    body = [
        tag("tr", tag("th", name, scope="row"), tag("td", _shown(rank, say)), tag("td", _shown(value, say)))
        for name, rank, value in rows
    ]
    together = tag("td", number(round(score, 4), say.language))
    total = tag("tr", tag("th", say("why.total"), scope="row"), tag("td", ""), together)
    return tag("table", tag("thead", head), tag("tbody", *body, total), class_="rows")


def _shown(value: float | None, say: Speaker) -> str:
    return "—" if value is None else number(round(value, 3), say.language)

"""Queries from templates: what people type about a title, a heading or a few words, in each language's own phrases."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files

import regex
from pydantic import BaseModel, ConfigDict, ValidationError

from search.errors import SettingsError
from search.records import UNDETERMINED
from search.text import dominant_script, has_spaces_between_words, normalize
from training.synthesis.documents import SourceDocument, SyntheticQuery
from training.synthesis.keywords import Keywords

KEYWORDS_PER_QUERY = (2, 4)
_TOPIC_WORDS, _TOPIC_CHARACTERS = 3, 12
_LONGEST_TOPIC = 100
_ENDS = "?؟？;；!！.。।…"
_BREAK = re.compile(r"[:：,，、،(（–—]")
_STEP = re.compile(r"^\s*\d+\s*[.):、।]", re.MULTILINE)
_WORDS = regex.compile(r"[\p{L}\p{M}]+")


class Form(StrEnum):
    """Kinds of queries."""

    TITLE = "title"
    HEADING = "heading"
    DEFINITION = "definition"
    HOW_TO = "how_to"
    KEYWORD = "keyword"
    QUESTION = "question"
    CODE_SWITCHED = "code_switched"


ABOUT_TITLE = (Form.TITLE, Form.DEFINITION, Form.QUESTION)
"""They ask for a whole document, so that only its first passage gets them."""

PLACEHOLDERS: dict[Form, str] = {
    **dict.fromkeys(Form, "{topic}"),
    Form.HEADING: "{heading}",
    Form.KEYWORD: "{keywords}",
}
"""What a frame of each form must hold; frames of headings may hold `{topic}`, the document's title, as well."""

BARE = {form: PLACEHOLDERS[form] for form in (Form.TITLE, Form.HEADING, Form.KEYWORD)}
"""Frames that need no words; the only ones for documents in a language without a template file."""


class Templates(BaseModel):
    """The frames of one language. A slot stands where the language needs no inflection of what is put in.

    `asking` are words that make a title a question already.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    script: str
    asking: tuple[str, ...]
    frames: dict[Form, tuple[str, ...]]


@lru_cache(maxsize=1)
def load_templates() -> dict[str, Templates]:
    """The template files of the package by BCP-47 code.

    Raises:
        SettingsError: A file does not fit; names it.
    """
    loaded = {}
    for file in sorted((files(__package__) / "templates").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            try:
                found = Templates.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
            except (ValidationError, tomllib.TOMLDecodeError) as error:
                raise SettingsError(f"template file {file.name}: {error}") from error
            loaded[file.name.removesuffix(".toml")] = found
    return loaded


@dataclass(frozen=True, slots=True)
class TemplateOptions:
    """What to make.

    Args:
        forms: Kinds of queries to choose from.
        query_langs: Languages that queries may be in; empty for all. A document in another language gets code-switched
            queries only.
        per_document: Queries for each passage, of different forms as far as these go; 1 or more.
        seed: Chooses forms, frames and languages; the same passages get the same queries.

    Raises:
        SettingsError: A value is out of range, or a language has no templates.
    """

    forms: tuple[Form, ...] = tuple(Form)
    query_langs: tuple[str, ...] = ()
    per_document: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.forms or self.per_document < 1:
            raise SettingsError("forms and per_document: give at least one form and one query per document.")
        if unknown := sorted(set(self.query_langs) - set(load_templates())):
            raise SettingsError(
                f"no templates for {', '.join(unknown)}; there are some for {' '.join(load_templates())}. Use "
                f"--endpoint for other languages."
            )


def iter_template_queries(documents: Sequence[SourceDocument], *, options: TemplateOptions) -> Iterator[SyntheticQuery]:
    """Queries for passages in their order, none twice for the same document.

    Costs one pass of the tokenizer for the word frequencies. A passage that gives no topic for a form (no title, no
    heading, no telling words) gets fewer queries.
    """
    keywords = Keywords(documents)
    begun: set[str] = set()
    made: set[tuple[str, str]] = set()
    for number, document in enumerate(documents):
        rng = random.Random(f"{options.seed}\t{number}\t{document.id}")
        writer = _Writer(document, keywords, rng, options, first=document.id not in begun)
        begun.add(document.id)
        left = options.per_document
        for query in writer.queries():
            if (document.id, query.query) not in made:
                made.add((document.id, query.query))
                yield query
                left -= 1
            if left == 0:
                break


class _Writer:
    """Writes the queries of one passage."""

    def __init__(
        self, document: SourceDocument, keywords: Keywords, rng: random.Random, options: TemplateOptions, *, first: bool
    ) -> None:
        self.document, self.rng = document, rng
        self.langs = options.query_langs or tuple(load_templates())
        self.own = document.lang in self.langs or (not options.query_langs and document.lang != UNDETERMINED)
        self.forms = [form for form in options.forms if first or form not in ABOUT_TITLE]
        self.words = keywords.top(document, KEYWORDS_PER_QUERY[1] + 2)
        self.title = _as_topic(document.title)
        heading = _as_topic(document.headings[-1]) if document.headings else ""
        self.heading = heading if heading != self.title else ""

    def queries(self) -> Iterator[SyntheticQuery]:
        """Forms in random order, then again with other frames; ends after two rounds."""
        forms = self.rng.sample(self.forms, len(self.forms))
        for form in forms * 2:
            langs = [self.document.lang] if self.own and form is not Form.CODE_SWITCHED else []
            if form is Form.CODE_SWITCHED:
                langs = [lang for lang in self.langs if lang != self.document.lang]
            if langs and (query := self._write(form, self.rng.choice(langs))):
                yield query

    def _write(self, form: Form, lang: str) -> SyntheticQuery | None:
        slots = self._slots(form)
        known = load_templates().get(lang)
        bare = (BARE[form],) if form in BARE else ()
        stands_alone = form is Form.TITLE and not _subject(self.title, self.document.lang)
        frames = known.frames[form] if known and not stands_alone else bare
        usable = [frame for frame in frames if all(slots.get(slot, "") for slot in _slots_of(frame))]
        if not usable:
            return None
        query = self.rng.choice(usable).format(**slots)
        return SyntheticQuery(" ".join(query.split()), form, lang, self.document)

    def _slots(self, form: Form) -> dict[str, str]:
        words = self.words[: self.rng.randint(*KEYWORDS_PER_QUERY)]
        match form:
            case Form.TITLE:
                return {"topic": self.title}
            case Form.KEYWORD:
                return {"keywords": " ".join(words) if len(words) >= KEYWORDS_PER_QUERY[0] else ""}
            case Form.HEADING:
                return {"heading": self.heading, "topic": self.title}
            case Form.CODE_SWITCHED:
                return {"topic": self.title or " ".join(words[:2])}
        subject = _subject(self.title, self.document.lang)
        fits = {Form.DEFINITION: _is_term(subject), Form.HOW_TO: len(_STEP.findall(self.document.text)) > 1}
        return {"topic": subject if fits.get(form, True) else ""}


def _as_topic(title: str) -> str:
    """A title or heading in one line; empty when it is too long to be asked for."""
    title = " ".join(title.split()).rstrip(":;,–— ")
    return title if len(title) <= _LONGEST_TOPIC and any(map(str.isalpha, title)) else ""


def _subject(title: str, lang: str) -> str:
    """What a title is about: all before a colon, comma or bracket; nothing of a title that is a question itself."""
    subject = _BREAK.split(title, maxsplit=1)[0].strip()
    known = load_templates().get(lang)
    text = normalize(title)
    spaced = has_spaces_between_words(known.script) if known else True
    words = set(_WORDS.findall(text)) if spaced and lang != "ko" else None
    asking = map(normalize, known.asking if known else ())
    asks = any(word in words if words is not None else word in text for word in asking)
    return "" if asks or title.endswith(tuple(_ENDS)) else subject


def _is_term(subject: str) -> bool:
    """Whether a subject may be a term that someone would ask the meaning of."""
    spaced = has_spaces_between_words(dominant_script(subject))
    return len(subject.split()) <= _TOPIC_WORDS if spaced else len(subject) <= _TOPIC_CHARACTERS


def _slots_of(frame: str) -> Collection[str]:
    return [slot for slot in ("topic", "heading", "keywords") if f"{{{slot}}}" in frame]

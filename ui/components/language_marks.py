"""Languages in colour: the same colour for a language wherever it shows, always beside its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from ui.components.markup import tag
from ui.languages import direction_of, language_name, number

_COLOURS = (
    "#0c718e", "#fa8c58", "#35cb90", "#9c3201", "#ae93fc", "#777f02", "#94489c", "#0abdfb", "#aa7b7d", "#b6ac18",
    "#f284bf", "#6772d5", "#569d9d", "#0d6d3a", "#764d5d", "#c15d0b", "#514e9f", "#24a25b", "#b64464", "#715706",
    "#bb6cc2", "#9baed5", "#bea37e", "#e26a72", "#1792d4", "#716c92", "#c6870d", "#517d67", "#838cbb", "#89bba7",
    "#839960", "#926747",
)  # fmt: skip
"""Each as far as can be, in OKLab, from those before it; legible on white and on dark."""
UNKNOWN = "hsl(200, 8%, 55%)"


def colour_of(language: str, languages: Sequence[str]) -> str:
    """Colour of a language, by its place among the languages of the index."""
    known = next((name for name in (language, language.partition("-")[0]) if name in languages), None)
    return UNKNOWN if known is None else colour_at(languages.index(known))


def colour_at(place: int) -> str:
    """The colour of that number; beyond the 32nd they come again."""
    return _COLOURS[place % len(_COLOURS)]


def language_tag(language: str, languages: Sequence[str]) -> Markup:
    """The language's name in itself, with its colour."""
    name = tag("bdi", language_name(language), lang=language, dir=direction_of(language))
    return tag("span", _dot(language, languages), name, class_="lang-tag")


def language_names(languages: Iterable[str]) -> Markup:
    """Names in themselves, in one line."""
    names = [tag("bdi", language_name(lang), lang=lang, dir=direction_of(lang)) for lang in languages]
    return Markup(", ").join(names)


def language_spread(found: Iterable[str], languages: Sequence[str], *, label: str, reader: str) -> Markup:
    """A bar of how often each language occurs, with its key; the bar itself is for the eye only."""
    counts = sorted(Counter(found).items(), key=lambda item: (-item[1], item[0]))
    bar = [tag("span", style=f"flex:{count};background:{colour_of(lang, languages)}") for lang, count in counts]
    key = [
        tag("li", _dot(lang, languages), tag("bdi", language_name(lang), lang=lang), " ", number(count, reader))
        for lang, count in counts
    ]
    return Markup("{}{}").format(
        tag("div", *bar, class_="spread", aria_hidden="true"), tag("ul", *key, class_="spread-key", aria_label=label)
    )


def language_bars(counts: Mapping[str, int], languages: Sequence[str], *, reader: str) -> Markup:
    """One bar for each language, longest first."""
    longest = max(counts.values(), default=1)
    cells: list[Markup] = []
    for lang, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        filled = tag("span", style=f"width:{100 * count / longest:.1f}%;background:{colour_of(lang, languages)}")
        cells += [
            tag("span", tag("bdi", language_name(lang), lang=lang), " ", _in_reader(lang, reader)),
            tag("span", filled, class_="bar", aria_hidden="true"),
            tag("span", number(count, reader), class_="count"),
        ]
    return tag("div", *cells, class_="bars")


def _in_reader(lang: str, reader: str) -> Markup | None:
    name = language_name(lang, reader=reader)
    return tag("small", name) if name != language_name(lang) else None


def _dot(language: str, languages: Sequence[str]) -> Markup:
    return tag("i", style=f"background:{colour_of(language, languages)}", aria_hidden="true")

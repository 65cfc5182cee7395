"""Languages in colour: the same colour for a language wherever it shows, always beside its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from ui.components.markup import tag
from ui.languages import direction_of, language_name, number

_GOLDEN_ANGLE = 137.508
_LIGHTNESS = (46, 58, 40)
UNKNOWN = "hsl(200, 8%, 55%)"


def colour_of(language: str, languages: Sequence[str]) -> str:
    """Colour of a language, by its place among the languages of the index."""
    if language not in languages:
        return UNKNOWN
    return colour_at(languages.index(language))


def colour_at(place: int) -> str:
    """The colour of that number; those of neighbouring numbers are far apart."""
    hue = (200 + place * _GOLDEN_ANGLE) % 360
    return f"hsl({hue:.0f}, 52%, {_LIGHTNESS[place % 3]}%)"


def language_tag(language: str, languages: Sequence[str]) -> Markup:
    """The language's name in itself, with its colour."""
    name = tag("bdi", language_name(language), lang=language, dir=direction_of(language))
    return tag("span", _dot(language, languages), name, class_="lang-tag")


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

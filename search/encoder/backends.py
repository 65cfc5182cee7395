"""What runs the network: token ids in, unit vectors out."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from search.encoder.manifest import read_modules
from search.errors import EncoderError
from search.records import Vectors

logger = logging.getLogger(__name__)

CPU_BATCH_TOKENS = 4096
GPU_BATCH_TOKENS = 65536
CPU_LENGTH_STEP = 8
GPU_LENGTH_STEP = 64
"""Fewer lengths make larger batches, which a GPU needs. Its last bits may depend on their size all the same."""

TOKEN_OUTPUT = "token_embeddings"
"""Where sentence-transformers' modules keep the vectors that are pooled."""

TokenIds: TypeAlias = npt.NDArray[np.int64]


class Backend(Protocol):
    """Runs one batch; may be called from several threads at once."""

    @property
    def name(self) -> str:
        """Name to ask for it by."""

    @property
    def batch_tokens(self) -> int:
        """How many tokens, padding included, a batch may hold."""

    @property
    def length_step(self) -> int:
        """Texts are padded to a multiple of so many tokens; a batch holds texts of one padded length."""

    def forward(self, token_ids: TokenIds, mask: TokenIds) -> Vectors:
        """Pooled vectors (B, D) float32 of padded `token_ids` (B, L); `mask` (B, L) is 1 on tokens, 0 on padding."""


@runtime_checkable
class TokenBackend(Backend, Protocol):
    """A backend that also gives what was pooled: a vector for every token."""

    def forward_tokens(self, token_ids: TokenIds, mask: TokenIds) -> Vectors:
        """Vectors (B, L, D) float32 of every token, in its context and before pooling; those of padding mean nothing.

        Raises:
            EncoderError: The encoder has none, since it is no transformer.
        """


class TorchBackend:
    """sentence-transformers' own modules, so that pooling, projections and normalisation are the folder's business.

    A static encoder, which only looks its pieces up in a table, is run here as well.
    """

    def __init__(
        self, folder: Path, *, name: str = "torch", device: str | None = None, threads: int | None = None
    ) -> None:
        import torch

        self.name = name
        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        dtype = torch.bfloat16 if name == "torch-bf16" else torch.float32
        self.model = load_sentence_transformer(folder, device=device or ("cuda" if has_gpu() else "cpu"), dtype=dtype)
        self._device = self.model.device
        self._is_static = is_static(folder)
        on_network = self._device.type == "cpu" and not self._is_static
        self.batch_tokens = CPU_BATCH_TOKENS if on_network else GPU_BATCH_TOKENS
        self.length_step = CPU_LENGTH_STEP if on_network else GPU_LENGTH_STEP

    def forward(self, token_ids: TokenIds, mask: TokenIds) -> Vectors:
        """Pooled vectors (B, D) float32."""
        return self._run(token_ids, mask, "sentence_embedding")

    def forward_tokens(self, token_ids: TokenIds, mask: TokenIds) -> Vectors:
        """Vectors (B, L, D) float32 of every token; see TokenBackend."""
        return self._run(token_ids, mask, TOKEN_OUTPUT)

    def _run(self, token_ids: TokenIds, mask: TokenIds, output: str) -> Vectors:
        torch = self._torch
        inputs = {"input_ids": token_ids, "attention_mask": mask}
        if self._is_static:
            ends = np.cumsum(mask.sum(axis=1))
            inputs = {"input_ids": token_ids[mask == 1], "offsets": np.concatenate([[0], ends[:-1]])}
        with torch.inference_mode():
            features = {name: torch.from_numpy(array) for name, array in inputs.items()}
            features = self.model({name: tensor.to(self._device) for name, tensor in features.items()})
            if output not in features:
                raise no_token_vectors(self.name)
            return np.asarray(features[output].float().cpu().numpy(), dtype=np.float32)


def is_static(folder: Path) -> bool:
    """Whether a SentenceTransformer folder holds a vector for each piece of text and no network (StaticEmbedding)."""
    return str(read_modules(folder)[0]["type"]).endswith("StaticEmbedding")


def no_token_vectors(name: str) -> EncoderError:
    """The error for a network without vectors of tokens."""
    return EncoderError(
        f"this encoder gives no vectors of single tokens with the backend {name!r}: late interaction and marked words "
        "need a transformer on the backend openvino or torch; search with `--rerank none`"
    )


def has_gpu() -> bool:
    """Whether torch can use an NVIDIA GPU; torch, slow to import, is asked only where there is a driver."""
    driver = Path("/proc/driver/nvidia/version").exists() or Path("/dev/dxg").exists() or shutil.which("nvidia-smi")
    if not driver:
        return False
    import torch

    return bool(torch.cuda.is_available())


def load_sentence_transformer(folder: Path, *, device: str, dtype: Any) -> Any:
    """The SentenceTransformer in `folder`, in evaluation mode, never running code from the folder.

    Raises:
        EncoderError: The folder is damaged or needs what is not installed.
    """
    from sentence_transformers import SentenceTransformer

    try:
        with quiet_transformers():
            model = SentenceTransformer(
                str(folder),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": dtype},
            )
    except Exception as error:  # the libraries below raise anything from KeyError to SafetensorError
        raise EncoderError(
            f"{folder}: sentence-transformers cannot load it ({type(error).__name__}: {error}). "
            "Save or download the encoder again; encoders that bring their own code are not run."
        ) from error
    return model.eval()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no load reports on stderr while a model is loaded."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # upstream has no annotations
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # as above

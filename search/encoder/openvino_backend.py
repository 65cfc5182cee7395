"""OpenVINO: the fastest way measured to run an encoder on a CPU (`results/encoder-backends.md`)."""

from __future__ import annotations

import logging
import os
import queue
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from search.encoder.backends import (
    CPU_BATCH_TOKENS,
    CPU_LENGTH_STEP,
    TOKEN_OUTPUT,
    TokenIds,
    TorchBackend,
    no_token_vectors,
    quiet_transformers,
)
from search.encoder.cache import build_once
from search.errors import EncoderError
from search.records import Vectors

logger = logging.getLogger(__name__)

GRAPH_FILE = "graph.xml"
"""Pooled vectors and those of the tokens; `model.xml` of earlier versions, with the pooled ones only, is replaced."""
PROBE_COSINE = 0.999
SHAPES_KEPT = 100
"""Code for so many shapes of batches is kept. By default it is 5,000, each of 1 MB: a server that runs for long grows
by gigabytes. With 100 it grows by 120 MB, for 4 % more time where every batch has another shape."""
_importing = threading.Lock()


class OpenVinoBackend:
    """Runs the graph exported from the torch modules; `bf16` where the CPU computes in it natively, else `f32`."""

    def __init__(self, graph: Path, *, name: str = "openvino", threads: int | None = None) -> None:
        self.name = name
        self.batch_tokens, self.length_step = CPU_BATCH_TOKENS, CPU_LENGTH_STEP
        core = import_openvino().Core()
        native_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = "bf16" if name == "openvino" and native_bf16 else "f32"
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.precision,
            "ENABLE_CPU_PINNING": False,  # pinned, two processes of one thread share a core while another is idle
            "CPU_RUNTIME_CACHE_CAPACITY": str(SHAPES_KEPT),
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            self._compiled = core.compile_model(str(graph), "CPU", options)
        except RuntimeError as error:
            raise EncoderError(f"{graph}: OpenVINO cannot load it ({error})") from error
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()

    def forward(self, token_ids: TokenIds, mask: TokenIds) -> Vectors:
        """Pooled vectors (B, D) float32."""
        return self._run(token_ids, mask, 0)

    def forward_tokens(self, token_ids: TokenIds, mask: TokenIds) -> Vectors:
        """Vectors (B, L, D) float32 of every token; see TokenBackend."""
        if len(self._compiled.outputs) < 2:
            raise no_token_vectors(self.name)
        return self._run(token_ids, mask, 1)

    def _run(self, token_ids: TokenIds, mask: TokenIds, output: int) -> Vectors:
        try:  # as many requests as calls at one time: one for every thread of a server would hold memory for each
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            request.infer([token_ids, mask], share_inputs=True)
            return np.array(request.get_output_tensor(output).data, dtype=np.float32)
        finally:
            self._idle.put(request)


def import_openvino() -> Any:
    """The module, imported so that it reports nothing, by default it sends usage data to its maker, and for threads.

    Its table of NumPy's types is filled at first use, in which two threads would wait for each other for ever: one
    for the interpreter, with the table's lock, the other for the table. So it is filled here, by one.
    """
    with _importing:
        if "openvino" not in sys.modules:
            blocked = sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # not importable
            try:
                import openvino  # noqa: F401
            finally:
                if blocked is None:
                    del sys.modules["openvino_telemetry"]
        module = sys.modules["openvino"]
        module.Type.f32.to_dtype()
        return module


def load_openvino(folder: Path, target: Path, *, name: str, threads: int | None = None) -> OpenVinoBackend:
    """The encoder in `folder` through its graph in `target`, which is exported when it is missing or unreadable.

    Raises:
        EncoderError: The encoder cannot be exported, or the exported graph computes something else.
    """
    build_once(target, lambda work: export_graph(folder, work), is_complete=_has_graph)
    try:
        return OpenVinoBackend(target / GRAPH_FILE, name=name, threads=threads)
    except EncoderError as error:
        logger.warning("%s; exporting it again", error)
        shutil.rmtree(target, ignore_errors=True)
        build_once(target, lambda work: export_graph(folder, work), is_complete=_has_graph)
        return OpenVinoBackend(target / GRAPH_FILE, name=name, threads=threads)


def _has_graph(target: Path) -> bool:
    return (target / GRAPH_FILE).is_file() and (target / GRAPH_FILE).with_suffix(".bin").is_file()


def export_graph(folder: Path, target: Path) -> None:
    """Export the encoder in `folder` into `target`: some 15 s, in a process of its own.

    So the 1.5 GB that torch takes for it are given back, and what the converter does to logging stays there.

    Raises:
        EncoderError: The encoder cannot be exported, or the exported graph computes something else.
    """
    logger.info("exporting %s for OpenVINO (once)", folder)
    code = f"import sys; from pathlib import Path; from {__name__} import _export; _export(*map(Path, sys.argv[1:]))"
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", code, str(folder.absolute()), str(target / GRAPH_FILE)]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, env={**os.environ, "PYTHONPATH": path}
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise EncoderError(f"{folder}: cannot be exported for OpenVINO ({reason})")


def _export(folder: Path, graph: Path) -> None:
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            features = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
            pooled = features["sentence_embedding"]
            return (pooled, features[TOKEN_OUTPUT]) if TOKEN_OUTPUT in features else pooled

    openvino = import_openvino()
    reference = TorchBackend(folder, device="cpu")
    token_ids = np.linspace(0, len(reference.model.tokenizer) - 1, 48, dtype=np.int64).reshape(2, 24)
    mask = np.ones_like(token_ids)
    mask[1, 9:] = 0
    example = {"input_ids": torch.from_numpy(token_ids), "attention_mask": torch.from_numpy(mask)}
    with quiet_transformers(), warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(Pooled(reference.model), example_input=example)
    openvino.save_model(model, str(graph), compress_to_fp16=True)
    for rows in (slice(0, 2), slice(1, 2)):
        ids, used = token_ids[rows], mask[rows]
        _compare(reference.forward(ids, used), OpenVinoBackend(graph).forward(ids, used), folder)


def _compare(expected: Vectors, got: Vectors, folder: Path) -> None:
    cosine = (expected * got).sum(1) / (np.linalg.norm(expected, axis=1) * np.linalg.norm(got, axis=1))
    if not np.all(cosine >= PROBE_COSINE):
        raise EncoderError(
            f"{folder}: the OpenVINO export differs from torch (cosine {cosine.min():.4f}, allowed {PROBE_COSINE})"
        )

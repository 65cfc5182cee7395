"""Compare what can run the encoder on this machine: speed, closeness to torch fp32, and retrieval quality.

    python benchmarks/encoder_backends.py --data FOLDER --data FOLDER --out results/encoder-backends.jsonl

Each FOLDER holds a retrieval set in the BEIR layout: `corpus.jsonl.gz` and `queries.jsonl.gz` (`_id`, `lang`, `title`,
`text`) and `qrels.tsv`. Candidates whose package is missing are named and left out. Timings go round the candidates
several times and the best of each counts, so that other load on the machine falls on all of them alike.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.encoder.backends import CPU_BATCH_TOKENS, CPU_LENGTH_STEP, Backend, TokenIds, TorchBackend
from search.encoder.encoding import Encoder
from search.encoder.loading import load_tokenizer, resolve
from search.encoder.openvino_backend import GRAPH_FILE, OpenVinoBackend, import_openvino, load_openvino
from search.records import Vectors

REFERENCE = "torch"
PASSAGE_TOKENS = 128
TIMED_PASSAGES = 128
TIMED_QUERIES = 40


class OnnxBackend:
    """ONNX Runtime over an exported graph."""

    def __init__(self, path: Path, name: str) -> None:
        import onnxruntime

        self.name = name
        self.batch_tokens, self.length_step = CPU_BATCH_TOKENS, CPU_LENGTH_STEP
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def forward(self, token_ids: TokenIds, mask: TokenIds) -> Vectors:
        """Pooled vectors (B, D) float32."""
        return np.asarray(self._session.run(None, {"input_ids": token_ids, "attention_mask": mask})[0], np.float32)


@dataclass(frozen=True)
class RetrievalSet:
    """Documents, queries and which documents answer which query."""

    name: str
    documents: dict[str, tuple[str, str]]
    queries: dict[str, tuple[str, str]]
    qrels: dict[str, set[str]]


def main() -> None:
    """Measure every candidate and write one JSON row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="multilingual-e5-small")
    parser.add_argument("--data", type=Path, action="append", required=True, help="retrieval set; may be repeated")
    parser.add_argument("--queries", type=int, default=1500, help="at most this many queries of each set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="comma-separated candidates besides the reference; default: all")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines file to append to")
    args = parser.parse_args()
    sets = [read_retrieval_set(folder, args.queries) for folder in args.data]
    with tempfile.TemporaryDirectory() as work:
        encoders = load_candidates(args.encoder, Path(work), args.only.split(",") if args.only else [])
        speeds = measure_speed(
            encoders,
            texts=passages(encoders[REFERENCE], sets),
            queries=[text for _lang, text in sets[0].queries.values()][:TIMED_QUERIES],
            rounds=args.rounds,
        )
        rows = list(measure_quality(encoders, sets))
    with args.out.open("a", encoding="utf-8") as file:
        for row in rows:
            row = {**row, **speeds[row["backend"]], **provenance(args.data)}
            print(json.dumps(row), file=file)
            print({key: row[key] for key in row if key not in ("command", "commit", "machine", "versions")})


def read_retrieval_set(folder: Path, limit: int) -> RetrievalSet:
    """The set in `folder`, with `limit` queries spread evenly over it."""
    documents = {
        row["_id"]: (row.get("lang", "und"), f"{row['title']}\n{row['text']}" if row.get("title") else row["text"])
        for row in read_rows(folder / "corpus.jsonl.gz")
    }
    queries = {row["_id"]: (row.get("lang", "und"), row["text"]) for row in read_rows(folder / "queries.jsonl.gz")}
    step = max(1, len(queries) // limit)
    queries = dict(list(queries.items())[::step][:limit])
    qrels: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, score = line.split("\t")
        if float(score) > 0:
            qrels.setdefault(query, set()).add(document)
    return RetrievalSet(folder.name, documents, queries, qrels)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a gzipped JSON lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def load_candidates(name: str, work: Path, only: list[str]) -> dict[str, Encoder]:
    """An encoder for every candidate that can run here."""
    folder, manifest = resolve(name, work)
    tokenizer, pad_id = load_tokenizer(folder)
    graph = work / "graph"
    makers: dict[str, Callable[[], Backend]] = {
        REFERENCE: lambda: TorchBackend(folder, device="cpu"),
        "torch-bf16": lambda: TorchBackend(folder, name="torch-bf16", device="cpu"),
        "openvino-f32": lambda: load_openvino(folder, graph, name="openvino-f32"),
        "openvino": lambda: load_openvino(folder, graph, name="openvino"),
        "openvino-int8-weights": lambda: openvino_int8(graph / GRAPH_FILE, work, "openvino-int8-weights"),
        "onnx-fp32": lambda: OnnxBackend(export_onnx(folder, work), "onnx-fp32"),
        "onnx-int8": lambda: onnx_int8(export_onnx(folder, work), work, "onnx-int8", ["MatMul"]),
        "onnx-int8-embeddings": lambda: onnx_int8(
            export_onnx(folder, work), work, "onnx-int8-embeddings", ["MatMul", "Gather"]
        ),
    }
    encoders = {}
    for candidate, make in makers.items():
        if only and candidate not in (*only, REFERENCE):
            continue
        try:
            encoders[candidate] = Encoder(manifest, tokenizer=tokenizer, pad_id=pad_id, backend=make())
        except ImportError as error:
            print(f"{candidate}: left out, {error}", file=sys.stderr)
    return encoders


def export_onnx(folder: Path, work: Path) -> Path:
    """The encoder as an ONNX graph with pooling and normalisation in it."""
    import torch

    path = work / "model.onnx"
    if path.exists():
        return path
    model = TorchBackend(folder, device="cpu").model

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return self.model({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]

    names = ["input_ids", "attention_mask"]
    example = (torch.ones(2, 16, dtype=torch.long), torch.ones(2, 16, dtype=torch.long))
    axes = {name: {0: "batch", 1: "length"} for name in names} | {"vectors": {0: "batch"}}
    torch.onnx.export(
        Pooled(),
        example,
        str(path),
        input_names=names,
        output_names=["vectors"],
        dynamic_axes=axes,
        opset_version=18,
        dynamo=False,
    )
    return path


def onnx_int8(source: Path, work: Path, name: str, operators: list[str]) -> OnnxBackend:
    """The ONNX graph with int8 weights and activations quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = work / f"{name}.onnx"
    quantize_dynamic(
        str(source),
        str(path),
        weight_type=QuantType.QInt8,
        op_types_to_quantize=operators,
        per_channel="Gather" not in operators,
        extra_options={"MatMulConstBOnly": True},
    )
    return OnnxBackend(path, name)


def openvino_int8(graph: Path, work: Path, name: str) -> OpenVinoBackend:
    """The OpenVINO graph with weights in int8, one scale per channel."""
    import nncf

    openvino = import_openvino()
    model = nncf.compress_weights(openvino.Core().read_model(str(graph)), mode=nncf.CompressWeightsMode.INT8_SYM)
    path = work / "int8.xml"
    openvino.save_model(model, str(path))
    return OpenVinoBackend(path, name=name)


def passages(encoder: Encoder, sets: list[RetrievalSet]) -> list[str]:
    """Texts of about 128 tokens, cut from documents long enough, spread over the sets' languages."""
    texts = []
    for retrieval_set in sets:
        for _lang, text in retrieval_set.documents.values():
            offsets = encoder.tokenizer.encode(text, add_special_tokens=False).offsets
            if len(offsets) >= PASSAGE_TOKENS:
                texts.append(text[: offsets[PASSAGE_TOKENS - 8][1]])
    return texts[:: max(1, len(texts) // TIMED_PASSAGES)][:TIMED_PASSAGES]


def measure_speed(
    encoders: dict[str, Encoder], *, texts: list[str], queries: list[str], rounds: int
) -> dict[str, dict[str, float]]:
    """Passages per second and milliseconds per query; best and median of the rounds."""
    rates: dict[str, list[float]] = {name: [] for name in encoders}
    latencies: dict[str, list[float]] = {name: [] for name in encoders}
    for encoder in encoders.values():
        encoder.encode_queries(queries)
        encoder.encode_documents(texts[:32])
    for _ in range(rounds):
        for name, encoder in encoders.items():
            start = time.perf_counter()
            encoder.encode_documents(texts)
            rates[name].append(len(texts) / (time.perf_counter() - start))
            for query in queries:
                start = time.perf_counter()
                encoder.encode_queries([query])
                latencies[name].append((time.perf_counter() - start) * 1000)
    return {
        name: {
            "passages_per_second": round(max(rates[name]), 1),
            "query_ms_p50": round(float(np.median(latencies[name])), 2),
            "query_ms_p95": round(float(np.percentile(latencies[name], 95)), 2),
        }
        for name in encoders
    }


def measure_quality(encoders: dict[str, Encoder], sets: list[RetrievalSet]) -> Iterator[dict[str, Any]]:
    """Closeness to the reference and nDCG@10: alone, and with the reference's query vectors."""
    reference: dict[str, tuple[Vectors, Vectors]] = {}
    for name, encoder in encoders.items():
        row: dict[str, Any] = {"backend": name}
        for data in sets:
            documents = encoder.encode_documents([text for _lang, text in data.documents.values()])
            queries = encoder.encode_queries([text for _lang, text in data.queries.values()])
            reference.setdefault(data.name, (documents, queries))
            expected, expected_queries = reference[data.name]
            cosine = np.sum(expected * documents, axis=1)
            alone = np.concatenate([encoder.encode_documents([t]) for _lang, t in list(data.documents.values())[:32]])
            row[data.name] = {
                "ndcg10_pooled": ndcg(data, documents, queries, within=False),
                "ndcg10_within_language": ndcg(data, documents, queries, within=True),
                "ndcg10_pooled_reference_queries": ndcg(data, documents, expected_queries, within=False),
                "cosine_mean": round(float(cosine.mean()), 5),
                "cosine_min": round(float(cosine.min()), 5),
                "cosine_alone_to_batch_min": round(float(np.sum(alone * documents[:32], axis=1).min()), 5),
            }
        yield row


def ndcg(data: RetrievalSet, documents: Vectors, queries: Vectors, *, within: bool) -> float:
    """Mean nDCG@10 in percent over the queries; with `within`, only documents in the query's language count."""
    ids = list(data.documents)
    place = {document: number for number, document in enumerate(ids)}
    langs = np.array([lang for lang, _text in data.documents.values()])
    scores = queries @ documents.T
    gains = []
    for row, (query, (lang, _text)) in enumerate(data.queries.items()):
        allowed = langs == lang if within else np.ones(len(ids), bool)
        relevant = np.zeros(len(ids), bool)
        relevant[[place[document] for document in data.qrels.get(query, ()) if document in place]] = True
        relevant &= allowed
        if not relevant.any():
            continue
        top = np.argsort(-np.where(allowed, scores[row], -np.inf), kind="stable")[:10]
        discounts = 1 / np.log2(np.arange(2, 12))
        gains.append((relevant[top] * discounts[: len(top)]).sum() / discounts[: relevant.sum()].sum())
    return round(100 * float(np.mean(gains)), 2)


def provenance(data: list[Path]) -> dict[str, Any]:
    """Command (data folders by name), commit, machine and versions."""
    from importlib.metadata import version

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    names = {str(folder): folder.name for folder in data}
    arguments = [names.get(argument, argument) for argument in sys.argv[1:]]
    return {
        "command": shlex.join(["python", "benchmarks/encoder_backends.py", *arguments]),
        "commit": commit.stdout.strip() or "uncommitted",
        "machine": f"{os.cpu_count()} cores {cpu.partition(': ')[2] or platform.processor()}",
        "versions": {name: version(name) for name in ("torch", "openvino", "onnxruntime")},
    }


if __name__ == "__main__":
    main()

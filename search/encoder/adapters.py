"""Encoders that are a base and a small adapter: low-rank updates, merged into the base once and cached.

An adapter is a folder as peft writes it (`adapter_model.safetensors`, `adapter_config.json`). Merging takes a second
and needs no torch: each adapted weight W (out, in) becomes W + alpha / rank * B A. A head that goes with it, or
comes alone, lies in the same folder: `modules.json` and the modules after the network, in place of the base's.

Source: Hu et al., 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.encoder.manifest import MODULES_FILE, read_modules
from search.errors import EncoderError

SHIPPED_ADAPTERS = Path(__file__).parent / "shipped"
WEIGHTS_FILE = "model.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_NOT_PLAIN = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out")


def merge_adapter(base: Path, adapter: Path, folder: Path) -> None:
    """Copy the encoder in `base` into the empty `folder`, with the adapter merged into its weights, and its head.

    Raises:
        EncoderError: The adapter is damaged, of another kind than LoRA, or made for another base.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    for item in base.iterdir():
        if item.is_dir():
            shutil.copytree(item, folder / item.name)
        elif item.name not in (WEIGHTS_FILE, "manifest.json"):
            shutil.copyfile(item, folder / item.name)
    updates = load_updates(adapter) if _has_updates(adapter) else {}
    try:
        tensors = load_file(base / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"{base}: no base to merge an adapter into ({error})") from error
    for name, update in updates.items():
        if name not in tensors or tensors[name].shape != update.shape:
            wanted = f"{name} of {'x'.join(map(str, update.shape))}"
            raise EncoderError(f"{adapter}: made for another base than {base.name} (no weight {wanted})")
        tensors[name] = (tensors[name].astype(np.float32) + update).astype(tensors[name].dtype)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    head = head_files(adapter)
    if head and len(read_modules(adapter)) > len(read_modules(base)):  # a checkpoint of training repeats the base's
        for path in head:
            (folder / path).parent.mkdir(exist_ok=True)
            shutil.copyfile(adapter / path, folder / path)


def head_files(folder: Path) -> list[Path]:
    """Files of the modules after the network, by their paths in the folder; none where it holds a network's alone.

    Raises:
        EncoderError: The list of modules cannot be read.
    """
    if not (folder / MODULES_FILE).is_file():
        return []
    places = [folder / str(module["path"]) for module in read_modules(folder)[1:] if module.get("path")]
    files = [path for place in places if place.is_dir() for path in place.iterdir() if path.is_file()]
    return [Path(MODULES_FILE), *sorted(path.relative_to(folder) for path in files)]


def _has_updates(adapter: Path) -> bool:
    """Whether there are updates, or should be; a head may come alone."""
    return any((adapter / name).is_file() for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG)) or not head_files(adapter)


def load_updates(adapter: Path) -> dict[str, npt.NDArray[np.float32]]:
    """What the adapter adds to each weight of its base, (out, in) float32 by the weight's name.

    Raises:
        EncoderError: The adapter cannot be read or is not plain LoRA.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        config: dict[str, Any] = json.loads((adapter / ADAPTER_CONFIG).read_text("utf-8"))
        tensors = load_file(adapter / ADAPTER_WEIGHTS)
        if config.get("peft_type") != "LORA" or (other := [key for key in _NOT_PLAIN if config.get(key)]):
            kind = config.get("peft_type") if config.get("peft_type") != "LORA" else ", ".join(other)
            raise ValueError(f"only plain LoRA can be merged, not {kind}")
        scale = float(config["lora_alpha"]) / int(config["r"])
        updates = {}
        for name, down in tensors.items():
            if name.endswith(".lora_A.weight"):
                up = tensors[name.replace(".lora_A.", ".lora_B.")]
                key = name.removeprefix(_PREFIX).replace(".lora_A.weight", ".weight")
                updates[key] = (scale * (up.astype(np.float32) @ down.astype(np.float32))).astype(np.float32)
        return updates
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, SafetensorError) as error:
        raise EncoderError(f"{adapter}: not an adapter that can be merged ({error})") from error


def fingerprint_adapted(base_fingerprint: str, adapter: Path) -> str:
    """Hash of an adapted encoder: that of its base, and the adapter's files.

    Raises:
        EncoderError: The adapter is not there.
    """
    digest = hashlib.sha256(base_fingerprint.encode())
    try:
        weights = [Path(ADAPTER_WEIGHTS), Path(ADAPTER_CONFIG)] if _has_updates(adapter) else []
        for name in (*weights, *head_files(adapter)):
            digest.update((adapter / name).read_bytes())
    except OSError as error:
        raise EncoderError(f"{adapter}: no adapter there ({error}); install the package again") from error
    return digest.hexdigest()[:32]

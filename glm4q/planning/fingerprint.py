"""What decides the bits of a KV cache: two runs of one fingerprint may share cached tokens."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from calculator.checkpoint.stored import StoredModel
from glm4q.kernels.cpu.extension import find_instruction_set
from glm4q.planning.file_digests import FileDigests
from glm4q.planning.machine import Machine, versions
from glm4q.planning.plan import RunPlan
from glm4q.planning.serving import list_serving

LAYOUT = 1
"""Another number makes all that was kept before foreign: for a change of what a cache holds."""
CONFIGS = ("config.json", "quantize_config.json")
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


@dataclass(frozen=True)
class Fingerprint:
    """Everything that decides a cache's bits, in a few named parts, and one digest of them."""

    weights: str
    """Every byte of the weights."""
    settings: str
    """config.json with its rotary settings, and how the weights are quantized."""
    tokenizer: str
    """What token ids mean. No bit of a cache depends on it, but a kept conversation does."""
    kv: str
    """The format of the cache."""
    kernels: str
    """Who computes, in which dtype, with which instruction set and versions."""

    @property
    def digest(self) -> str:
        """32 hexadecimal digits: the name under which caches of such runs are kept."""
        parts = [LAYOUT, self.weights, self.settings, self.kv, self.kernels]
        return _digest_of(parts)[:32]

    def difference(self, other: "Fingerprint") -> str | None:
        """Name the first thing in which another run differs, or return None."""
        names = {
            "weights": "other weights",
            "settings": "another config.json",
            "tokenizer": "another tokenizer",
            "kv": f"--kv {other.kv}",
            "kernels": f"other kernels: {other.kernels}",
        }
        return next(
            (text for name, text in names.items() if getattr(self, name) != getattr(other, name)),
            None,
        )


def weight_files(stored: StoredModel) -> list[Path]:
    """The files that hold a checkpoint's tensors."""
    return sorted({header.file for header in stored.tensors.values()})


def take_fingerprint(
    stored: StoredModel, run_plan: RunPlan, machine: Machine, digests: FileDigests
) -> Fingerprint:
    """Say what decides the bits of a run's cache. Raises OSError where a file cannot be read."""
    weights = digests.digest(weight_files(stored))
    by_name = {file.name: digest for file, digest in weights.items()}
    directory = stored.directory
    return Fingerprint(
        weights=_digest_of(by_name),
        settings=_digest_of([_digests_of(directory, CONFIGS), repr(stored.config)]),
        tokenizer=_digest_of(_digests_of(directory, TOKENIZERS)),
        kv=run_plan.memory.settings.kv,
        kernels=_name_kernels(run_plan, machine),
    )


def _name_kernels(run_plan: RunPlan, machine: Machine) -> str:
    """Name the kernels of all layers, and what their roundings may depend on."""
    names = []
    for device, layers in run_plan.layers.items():
        served = list_serving(run_plan.weights[device], layers)
        place = machine.places[device]
        card = torch.cuda.get_device_name(place) if place.type == "cuda" else ""
        kernels = "+".join(sorted({each.kernel for each in served}))
        names.append(
            f"{len(run_plan.memory.layers[device])} layers on {card or place.type} by {kernels}"
        )
    by = [f"{name} {version}" for name, version in versions().items() if name != "python"]
    dtype = str(machine.dtype).removeprefix("torch.")
    return ", ".join([*names, dtype, f"instruction set {find_instruction_set()}", *by])


def _digests_of(directory: Path, names: Iterable[str]) -> dict[str, str]:
    files = [directory / name for name in names] if directory.is_dir() else []
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()
    }


def _digest_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

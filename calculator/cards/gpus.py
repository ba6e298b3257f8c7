"""The cards of gpus.toml: their memory and speed by their data sheets, found by name."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from calculator.errors import OptionError

FILE = Path(__file__).with_name("gpus.toml")
MAX_NAME = 80
NEAREST = 4

PCIE_LANE = {"3.0": 0.985e9, "4.0": 1.969e9, "5.0": 3.938e9}
"""Bytes a second of one lane, by generation."""

# Words that name a maker or a family, and so no card.
_FAMILY = re.compile(
    r"\b(nvidia|geforce|amd|radeon|intel|apple|gpu|rtx|gtx|rx|arc|graphics|tesla|generation)\b"
)
_NUMBER_AND_WORD = re.compile(r"(?<=\d{4})(?=ti|super|xtx?|laptop)")


@dataclass(frozen=True)
class Gpu:
    """One card. Fields are those of gpus.toml, which explains them."""

    name: str
    vendor: str
    kind: str
    """desktop, laptop, workstation, data center or unified."""
    memory_gb: int
    reported_mib: int
    bus_bits: int
    memory_gbps: float
    fp32_tflops: float
    fp16_tflops: float
    tdp_watts: int
    year: int
    source: str
    aliases: tuple[str, ...] = ()
    compute_capability: str | None = None
    launch_usd: int | None = None
    pcie: str | None = None

    @property
    def bandwidth(self) -> float:
        """Bytes a second between memory and chip."""
        return self.bus_bits / 8 * self.memory_gbps * 1e9

    @property
    def reported_bytes(self) -> int:
        return self.reported_mib << 20

    @property
    def has_bf16(self) -> bool:
        """NVIDIA since Ampere, AMD since RDNA 3; Intel's and Apple's listed here."""
        if self.vendor == "NVIDIA":
            return float(self.compute_capability or 0) >= 8
        return not self.name.startswith("RX 6")

    @property
    def matrix_tflops(self) -> float:
        """The rate that prefill can use: float32 where float16 is slower."""
        return max(self.fp16_tflops, self.fp32_tflops)

    @property
    def pcie_bytes_per_second(self) -> float | None:
        """Of its link to the host, one way."""
        if self.pcie is None:
            return None
        generation, _, lanes = self.pcie.partition(" x")
        return PCIE_LANE[generation] * int(lanes)

    @property
    def runs_glm4q(self) -> bool:
        """glm4q's own kernels need CUDA."""
        return self.vendor == "NVIDIA"

    @property
    def notes(self) -> tuple[str, ...]:
        """What of this card changes the answer, in words."""
        notes = []
        if self.fp16_tflops < self.fp32_tflops:
            notes.append("fp16 at 1/64 rate: computes in float32, at its rate")
        if not self.has_bf16:
            notes.append("no bf16: weights and activations keep its size, sums are in float32")
        if self.kind == "unified":
            notes.append("unified memory: the system lives in it too; counted is the GPU's part")
        if self.vendor != "NVIDIA":
            notes.append(f"glm4q runs on CUDA: on {self.vendor} the bytes hold, but were never run")
        return tuple(notes)


@cache
def load_gpus() -> tuple[Gpu, ...]:
    """Every card, in the file's order."""
    tables: list[dict[str, Any]] = tomllib.loads(FILE.read_text(encoding="utf-8"))["gpu"]
    return tuple(Gpu(**{**table, "aliases": tuple(table.get("aliases", ()))}) for table in tables)


def find_gpu(name: str) -> Gpu:
    """The card of that name or alias, whatever its case and its maker's words.

    Raises OptionError with the nearest names.
    """
    if not name.strip() or len(name) > MAX_NAME:
        raise OptionError(f"gpu must be a card's name of 1 to {MAX_NAME} letters, or auto")
    wanted = normal_name(name)
    for gpu in load_gpus():
        if wanted in map(normal_name, (gpu.name, *gpu.aliases)):
            return gpu
    raise OptionError(f"no GPU {name!r} is known; the nearest are {', '.join(_nearest(wanted))}")


def normal_name(name: str) -> str:
    """Lower case, without makers and families, words apart.

    >>> normal_name("NVIDIA GeForce RTX 4060Ti 16 GB")
    '4060 ti 16gb'
    """
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
    words = re.sub(r"(rtx|gtx|rx)(?=\d)", "", words)
    words = re.sub(r"(?<=\d) gb\b", "gb", _NUMBER_AND_WORD.sub(" ", words))
    words = re.sub(r"\bmobile\b", "laptop", words)
    plain = " ".join(_FAMILY.sub(" ", words).split())
    return plain or words


def _nearest(wanted: str) -> list[str]:
    from difflib import SequenceMatcher  # only for those who mistype

    def likeness(gpu: Gpu) -> float:
        names = map(normal_name, (gpu.name, *gpu.aliases))
        return max(SequenceMatcher(None, wanted, name).ratio() for name in names)

    nearest = sorted(load_gpus(), key=likeness, reverse=True)[:NEAREST]
    return [gpu.name for gpu in nearest]


def matching_gpus(word: str | None) -> tuple[Gpu, ...]:
    """Return the cards whose name, alias, vendor or kind has the word; all without one."""
    if word is None:
        return load_gpus()
    wanted = normal_name(word)
    return tuple(
        gpu
        for gpu in load_gpus()
        if any(wanted in normal_name(name) for name in (gpu.name, *gpu.aliases))
        or word.lower() in (gpu.vendor.lower(), gpu.kind)
    )

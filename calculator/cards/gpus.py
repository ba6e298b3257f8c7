"""The cards of gpus.csv: their memory and speed by their data sheets, found by name.

The columns of gpus.csv are the fields of `Gpu`. How each number is found is in docs/cards.md.
"""

import csv
import re
from functools import cache
from pathlib import Path

from calculator.dataclass import dataclass
from calculator.errors import OptionError

FILE = Path(__file__).with_name("gpus.csv")
LEAST_CAPABILITY = 7.5
"""Turing: glm4q/kernels/cuda.py refuses older cards."""
NEEDED = f"CUDA and compute capability {LEAST_CAPABILITY}"
MAX_NAME = 80
NEAREST = 4

PCIE_LANE = {"3.0": 0.985e9, "4.0": 1.969e9, "5.0": 3.938e9}
"""Bytes a second of one lane, by generation."""

# Words that name a maker, a family or how a chip is mounted, and that no card needs.
_FAMILY = (
    r"\b(nvidia|geforce|amd|radeon|intel|apple|gpu|rtx|gtx|rx|arc|graphics|tesla|generation|grid"
    r"|edition|workstation)\b"
)
_MOUNTING = r"\b(sxm\d?|pcie|fhhl|oam|hbm\d?e?|gddr\d?x?)\b"
_NUMBER_AND_WORD = r"(?<=\d{4})(?=ti|super|xtx?|laptop|d\b|m\b|max)"
_SIZE = r"\b(\d+)gb\b"


@dataclass(frozen=True)
class Gpu:
    """One card, as gpus.csv lists it."""

    name: str
    vendor: str
    kind: str
    """desktop, laptop, workstation, data center or unified."""
    memory_gb: int
    reported_mib: int
    """What its driver reports as total memory; of unified memory the GPU's part."""
    bus_bits: int
    memory_gbps: float
    fp32_tflops: float
    fp16_tflops: float
    """Dense matrix rate with sums in float32."""
    tdp_watts: int
    """Board power; of Apple's chips an estimate."""
    year: int
    source: str
    aliases: tuple[str, ...] = ()
    compute_capability: str | None = None
    launch_usd: int | None = None
    """Price at launch in the United States."""
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
            return float(self.compute_capability or 0) >= 8.0
        return not self.name.startswith("RX 6")

    @property
    def matrix_tflops(self) -> float:
        """The rate that prefill can use: float32 where float16 is slower."""
        return max(self.fp16_tflops, self.fp32_tflops)

    @property
    def pcie_bytes_per_second(self) -> float | None:
        """Bytes a second that the link to the host moves in one direction."""
        if self.pcie is None:
            return None
        generation, _, lanes = self.pcie.partition(" x")
        return PCIE_LANE[generation] * int(lanes)

    @property
    def runs_glm4q(self) -> bool:
        """glm4q's own kernels need CUDA, and a compute capability that they are written for."""
        return self.vendor == "NVIDIA" and float(self.compute_capability or 0) >= LEAST_CAPABILITY

    @property
    def notes(self) -> tuple[str, ...]:
        """Properties of this card that change the answer, in words."""
        notes = []
        if self.fp16_tflops < self.fp32_tflops:
            notes.append("fp16 at 1/64 of the rate: it computes in float32")
        if not self.has_bf16:
            notes.append("no bf16: weights and activations keep its size, and sums are in float32")
        if self.kind == "unified":
            notes.append(
                "unified memory: the system needs a part of it, and only the GPU's part is counted"
            )
        if not self.runs_glm4q:
            here = (
                f"capability {self.compute_capability}" if self.compute_capability else self.vendor
            )
            notes.append(
                f"glm4q's kernels need {NEEDED}: on {here} its GGUF export serves in llama.cpp"
            )
        return tuple(notes)


@cache
def load_gpus() -> tuple[Gpu, ...]:
    """Return every card, in the file's order."""
    return tuple(map(_gpu, _rows().values()))


@cache
def _rows() -> dict[str, dict[str, str]]:
    """The lines of the file by the names of the cards."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def _gpu(row: dict[str, str]) -> Gpu:
    return Gpu(
        name=row["name"],
        vendor=row["vendor"],
        kind=row["kind"],
        memory_gb=int(row["memory_gb"]),
        reported_mib=int(row["reported_mib"]),
        bus_bits=int(row["bus_bits"]),
        memory_gbps=float(row["memory_gbps"]),
        fp32_tflops=float(row["fp32_tflops"]),
        fp16_tflops=float(row["fp16_tflops"]),
        tdp_watts=int(row["tdp_watts"]),
        year=int(row["year"]),
        source=row["source"],
        aliases=tuple(filter(None, row["aliases"].split("; "))),
        compute_capability=row["compute_capability"] or None,
        launch_usd=int(row["launch_usd"]) if row["launch_usd"] else None,
        pcie=row["pcie"] or None,
    )


@cache
def _by_name() -> dict[str, Gpu]:
    """Cards by their normal names and aliases."""
    names: dict[str, Gpu] = {}
    for gpu in load_gpus():
        for name in (gpu.name, *gpu.aliases):
            names.setdefault(normal_name(name), gpu)
    return names


def find_gpu(name: str) -> Gpu:
    """Return the card of that name or alias, however it is written.

    Raises OptionError with the nearest names.
    """
    if not name.strip() or len(name) > MAX_NAME:
        raise OptionError(f"gpu must be a card's name of 1 to {MAX_NAME} letters, or auto")
    if name in _rows():
        return _gpu(_rows()[name])  # without the other cards, and their names and aliases
    wanted = normal_name(name)
    plain = " ".join(re.sub(_MOUNTING, " ", wanted).split())
    for known in (wanted, plain):
        if known in _by_name():
            return _by_name()[known]
    if re.match(r"\d+ ?x ", wanted):
        raise OptionError(
            f"gpu {name!r} names several cards: give one (glm4q calc --gpus plans for several)"
        )
    nearest = ", ".join(_nearest(wanted))
    raise OptionError(
        f"no GPU {name!r} is known; the nearest are {nearest} (glm4q calc --list-gpus lists all)"
    )


def other_sizes(name: str, gpu: Gpu) -> tuple[Gpu, ...]:
    """Return cards that the name could also mean, because it does not say how much memory."""
    wanted = normal_name(name)
    if re.search(_SIZE, wanted):
        return ()
    base = _without_size(gpu)
    return tuple(other for other in load_gpus() if other != gpu and _without_size(other) == base)


def _without_size(gpu: Gpu) -> str:
    return " ".join(re.sub(_SIZE, " ", normal_name(gpu.name)).split())


def normal_name(name: str) -> str:
    """Return the name in lower case, without makers and families, its words apart.

    >>> normal_name("NVIDIA GeForce RTX 4060Ti 16 GB"), normal_name("3060 12G")
    ('4060 ti 16gb', '3060 12gb')
    """
    words = re.sub(r"[^a-z0-9+]+", " ", name.lower()).strip()
    words = re.sub(r"(rtx|gtx|rx)(?=\d)", "", words)
    words = re.sub(r"(?<=\d) ?g(i?b)?\b", "gb", re.sub(_NUMBER_AND_WORD, " ", words))
    words = re.sub(r"\bmobile\b", "laptop", words)
    words = re.sub(r"\bmaxq\b", "max q", words)
    plain = " ".join(re.sub(_FAMILY, " ", words).split())
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

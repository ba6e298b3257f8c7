"""The card of a question: by name, by its bytes, or as the driver reports it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from calculator.cards.gpus import Gpu, find_gpu, other_sizes
from calculator.cards.measured import receipt_of
from calculator.cards.roofline import HOST_BANDWIDTH, Rates
from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.options import parse_size


@dataclass(frozen=True)
class Card:
    """The memory of a card that a plan may fill."""

    name: str
    usable_bytes: int
    source: str
    """Where the bytes come from, in words that follow them."""
    arguments: tuple[str, ...]
    """The options that name the card again."""
    gpu: Gpu | None = None
    """Its data sheet; None where only bytes are known, and then the speed is not known."""
    host_bandwidth: float = HOST_BANDWIDTH
    """Bytes a second of the host's memory, for layers that run there."""

    @property
    def rates(self) -> Rates | None:
        return (
            replace(gpu_rates(self.gpu), host_bandwidth=self.host_bandwidth) if self.gpu else None
        )


def gpu_rates(gpu: Gpu) -> Rates:
    """Return what the card moves and computes: as a receipt measured it, or by its data sheet."""
    rates = Rates(
        bandwidth=gpu.bandwidth,
        flops=gpu.matrix_tflops * 1e12,
        bus_bandwidth=gpu.pcie_bytes_per_second,
    )
    receipt = receipt_of(gpu)
    if receipt is None:
        return rates
    return replace(
        rates, bandwidth=receipt.copy_rate, efficiency=receipt.shares, measured=receipt.date
    )


def card_of(gpu: Gpu) -> Card:
    """Return a listed card that nothing else uses."""
    arguments = ("--gpu", gpu.name)
    return Card(gpu.name, gpu.reported_bytes, "as its driver reports it", arguments, gpu)


def find_card(gpu: str | None, vram: str | None) -> Card | None:
    """Return the card that the options name, None where neither does. Raises OptionError.

    gpu: a name, or "auto" for the memory that the driver reports free on the first card.
    vram: its memory, in words; with both, the named card's speed and that memory.
    """
    named = None
    if gpu == "auto":
        if vram is not None:
            raise OptionError("vram is not for gpu auto, whose memory the driver tells")
        return detect_card()
    if gpu is not None:
        named = _named(gpu)
    if vram is None:
        return named
    size = parse_size(vram, "vram")
    if not 0 < size <= 1 << 50:
        raise OptionError(f"vram must be above 0 and at most 1048576 GiB, not {vram}")
    name = f"a card like {named.name}" if named else "a card"
    arguments = (*(named.arguments if named else ()), "--vram", vram)
    return Card(name, size, "as asked for", arguments, named.gpu if named else None)


def _named(name: str) -> Card:
    """The card of that name, with a word on what else the name could mean."""
    card = card_of(find_gpu(name))
    others = other_sizes(name, find_gpu(name))
    if not others:
        return card
    also = " and ".join(f"{other.memory_gb} GB (--gpu {other.name!r})" for other in others)
    return replace(card, source=f"{card.source}; it is also sold with {also}")


def find_machine_card() -> Card | None:
    """Return this machine's card, or None where there is no NVIDIA driver or it answers nothing."""
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return None
    try:
        return detect_card()
    except OptionError:
        return None


def detect_card() -> Card:
    """Return this machine's first NVIDIA card and its free memory, or raise OptionError."""
    import pynvml as nvml  # only for those who ask

    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        name = nvml.nvmlDeviceGetName(handle)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        held = _held_by_others(nvml, handle)
    except nvml.NVMLError as error:
        raise OptionError(f"gpu auto: the driver reports no card ({error}); name it") from None
    name = name.decode() if isinstance(name, bytes) else name
    return Card(
        name,
        int(memory.free),
        f"free now of {int(memory.total) >> 20:,} MiB, as the driver says; {held}",
        ("--gpu", "auto"),
        _known(name),
    )


def _held_by_others(nvml: Any, handle: Any) -> str:
    processes = [
        *nvml.nvmlDeviceGetComputeRunningProcesses(handle),
        *nvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
    ]
    held = {process.pid: process.usedGpuMemory or 0 for process in processes}
    if not held:
        return "no other process holds any"
    return f"{len(held)} other processes hold {sum(held.values()) >> 20:,} MiB"


def _known(name: str) -> Gpu | None:
    try:
        return find_gpu(name)
    except OptionError:
        return None

"""Bounds on speed from the bytes of the plan: no step is faster than its bytes or its sums allow.

A program reaches only a part of what a card's data sheet says. That part is a band with two ends,
and a speed is always printed as a band.
"""

from calculator.dataclass import dataclass
from calculator.memory.plan import MemoryPlan
from calculator.memory.settings import Device

DECODE_EFFICIENCY = (0.45, 0.85)
"""Decoding programs reach this share of the data sheet's bandwidth: 42 % (gpt-fast, INT4, A100) to
90 % (gpt-fast, bf16, RTX 4090), and most of them 61 % to 80 % (llama.cpp, GeForce)."""

PREFILL_EFFICIENCY = (0.25, 0.65)
"""Prefill is assumed to reach this share of the data sheet's matrix rate. llama.cpp's published
prefill lies within it."""

HOST_BANDWIDTH = 51.2e9
"""A host's memory is assumed to move this many bytes a second: two channels of DDR4-3200."""

SHORT_CONTEXT = 1024
"""Speed is printed at this depth and at the full context."""


@dataclass(frozen=True)
class Band:
    """A lower and an upper bound, in tokens per second."""

    low: float
    high: float


@dataclass(frozen=True)
class Rates:
    """What a machine can move and compute, and the share of it that decoding reaches."""

    bandwidth: float
    """Bytes a second of GPU memory: by the data sheet, or as the card copies."""
    flops: float
    """Multiply-adds count twice."""
    host_bandwidth: float = HOST_BANDWIDTH
    bus_bandwidth: float | None = None
    """Bytes a second between host and GPU."""
    efficiency: tuple[float, float] = DECODE_EFFICIENCY
    """The share of the bandwidth that decoding reaches: assumed, or measured by a receipt."""
    measured: str | None = None
    """The date of the receipt; None where the data sheet and the assumed share are taken."""


def decode_band(plan: MemoryPlan, rates: Rates, *, depth: int) -> Band:
    """Return tokens a second of each sequence with `depth` tokens in its cache."""
    gpu, host = (step_bytes(plan, device, depth=depth) for device in ("gpu", "host"))

    def speed(efficiency: float) -> float:
        moved = gpu / rates.bandwidth + host / rates.host_bandwidth
        computed = plan.settings.batch * _flops(plan, depth) / rates.flops
        return efficiency / max(moved, computed)

    return Band(*(speed(efficiency) for efficiency in rates.efficiency))


def streamed_decode_band(plan: MemoryPlan, rates: Rates, *, depth: int) -> Band | None:
    """Return decoding speed if each step sent the host's layers over the bus; None without one."""
    if rates.bus_bandwidth is None:
        return None
    gpu, host = (step_bytes(plan, device, depth=depth) for device in ("gpu", "host"))
    seconds = (gpu + host) / rates.bandwidth + host / rates.bus_bandwidth
    return Band(*(efficiency / seconds for efficiency in rates.efficiency))


def prefill_band(plan: MemoryPlan, rates: Rates, *, depth: int) -> Band:
    """Return prompt tokens a second, of all sequences, for a prompt of `depth` tokens."""
    chunk = min(plan.settings.prefill_chunk, depth) * plan.settings.batch
    computed = chunk * _flops(plan, depth // 2) / rates.flops  # half the prompt is there on average
    moved = step_bytes(plan, "gpu", depth=depth // 2) / rates.bandwidth
    moved += step_bytes(plan, "host", depth=depth // 2) / rates.host_bandwidth
    low, high = PREFILL_EFFICIENCY
    return Band(chunk * low / max(computed, moved), chunk * high / max(computed, moved))


def step_bytes(plan: MemoryPlan, device: Device, *, depth: int) -> int:
    """Return the bytes that one decode step reads: all weights, and the cache up to `depth`.

    A step reads only a few rows of the embedding, unless the head is tied to it.
    """
    has_head = any(term.name.startswith("head") for term in plan.weights)
    tied = plan.config.tie_word_embeddings and not has_head
    read = sum(
        term.bytes
        for term in plan.weights
        if term.device == device and (tied or term.name != "embedding")
    )
    cached = sum(term.bytes for term in plan.kv_cache if term.device == device)
    settings = plan.settings
    prefix = settings.shared_prefix
    cached_tokens = prefix + settings.batch * (settings.context - prefix)
    # Each sequence reads a shared prefix, though it is cached only once.
    return read + cached * settings.batch * min(depth, settings.context) // cached_tokens


def _flops(plan: MemoryPlan, depth: int) -> int:
    """Return what one token computes: twice each number of the linears, and attention."""
    config = plan.config
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    layer = config.hidden_size * (2 * queries + 2 * keys + 3 * config.intermediate_size)
    return 2 * config.num_hidden_layers * (layer + 2 * queries * depth)

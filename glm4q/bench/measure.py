"""Load a model as planned, run it at several depths, and say what it took."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from calculator.plan import MemoryPlan
from calculator.roofline import step_bytes
from calculator.stored import StoredModel
from glm4q.bench.bandwidth import measure_read_bandwidth
from glm4q.bench.serving import Serving, find_serving
from glm4q.bench.workload import Workload
from glm4q.cache import KVCache
from glm4q.generate import generate
from glm4q.loader import held_tensors
from glm4q.machine import Machine
from glm4q.memory import Memory
from glm4q.model import CausalLM
from glm4q.peak import peak_bytes, reset_peak
from glm4q.planning import load_as_planned
from glm4q.sampling import SamplingParams

TOKEN = 1
"""Every prompt is made of it: which token it is makes no difference to speed."""
ROWS = 256
"""Cached tokens that are random; the others repeat them."""
GREEDY = 0.0


@dataclass(frozen=True)
class Speed:
    """Medians at one depth."""

    depth: int
    prefill_seconds: float
    """Of the prompt, to its first new token."""
    decode_seconds: float
    """Of one token."""
    decode_bytes: int
    """That one token reads: weights but for the embedding, and the cache up to the depth."""


@dataclass(frozen=True)
class Held:
    """Bytes of the tensors that stay, beside what the plan says of them."""

    name: str
    held_bytes: int
    planned_bytes: int


@dataclass(frozen=True)
class Result:
    """All that was measured."""

    plan: MemoryPlan
    workload: Workload
    serving: tuple[Serving, ...]
    load_seconds: float
    speeds: tuple[Speed, ...]
    held: tuple[Held, ...]
    peak_bytes: int
    """While loading and running, beyond what the process held before; on a GPU, of the GPU."""
    planned_bytes: int
    read_bandwidth: float
    """Bytes a second."""

    def bandwidth_share(self, speed: Speed) -> float:
        """The part of the machine's bandwidth that decoding reaches."""
        return speed.decode_bytes / speed.decode_seconds / self.read_bandwidth


def measure(
    stored: StoredModel,
    workload: Workload,
    plan: MemoryPlan,
    machine: Machine,
    *,
    progress: Callable[[str], None] = lambda doing: None,
) -> Result:
    """Load and run a checkpoint. Raises OptionError, CheckpointError or KernelError."""
    device = machine.device
    before = _reset_peak(device)
    progress("loading")
    begun = time.perf_counter()
    model = load_as_planned(stored, plan, machine)
    _wait(device)
    load_seconds = time.perf_counter() - begun
    memory = Memory.allocate(plan, machine.places, machine.dtype)
    speeds = []
    for depth in workload.depths:
        progress(f"depth {depth:,}")
        speeds.append(_speed(model, memory, plan, workload, depth))
    peak = _peak(device) - before
    held = _held(model, memory, plan)
    del model, memory
    progress("reading memory")
    return Result(
        plan=plan,
        workload=workload,
        serving=find_serving(stored, device, machine.kernels),
        load_seconds=load_seconds,
        speeds=tuple(speeds),
        held=held,
        peak_bytes=peak,
        planned_bytes=plan.compute_bytes,
        read_bandwidth=measure_read_bandwidth(device),
    )


def fill(cache: KVCache, depth: int) -> None:
    """Make the cache hold random tokens: prefill would take long, and speed knows no difference."""
    for tensor in cache.tensors:
        block = tensor[:, :, :, : min(ROWS, depth)]
        if tensor.is_floating_point():
            block.uniform_(-1, 1)
        else:
            block.random_(0, 127)
        for start in range(ROWS, depth, ROWS):
            stop = min(start + ROWS, depth)
            tensor[:, :, :, start:stop] = block[:, :, :, : stop - start]
    cache.truncate(0)
    cache.advance(depth)


def _speed(
    model: CausalLM, memory: Memory, plan: MemoryPlan, workload: Workload, depth: int
) -> Speed:
    fill(memory.cache, depth)
    prompt = [TOKEN] * (depth + workload.prompt)
    last = [TOKEN] * (depth + 1)
    decode, runs = workload.decode, range(workload.runs)
    prefills = [_seconds(model, memory, prompt, depth=depth, tokens=1) for _ in runs]
    decodes = [_seconds(model, memory, last, depth=depth, tokens=decode) for _ in runs]
    # Medians of three or more: a first run, which warms caches, weighs nothing.
    return Speed(
        depth,
        statistics.median(prefills),
        statistics.median(decodes) / decode,
        step_bytes(plan, plan.settings.compute, depth=depth),
    )


def _seconds(
    model: CausalLM, memory: Memory, context: list[int], *, depth: int, tokens: int
) -> float:
    """Of running in what follows the depth, and choosing so many tokens."""
    memory.cache.truncate(depth)
    params = SamplingParams(temperature=GREEDY, max_tokens=tokens)
    begun = time.perf_counter()
    made = list(generate(model, memory, context, params))  # a chosen token waits for the GPU
    seconds = time.perf_counter() - begun
    if len(made) != tokens:
        raise RuntimeError(f"{len(made)} tokens were made, not {tokens}")
    return seconds


def _held(model: CausalLM, memory: Memory, plan: MemoryPlan) -> tuple[Held, ...]:
    weights = sum(tensor.nbytes for tensor in held_tensors(model).values())
    steps = sum(part.workspace.block.nbytes for part in memory.parts)
    planned = sum(arena.bytes for arena in plan.arenas.values())
    return (
        Held("weights", weights, plan.weights_bytes),
        Held("KV cache", memory.cache.nbytes, plan.kv_cache_bytes),
        Held("workspace", steps, planned),
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return reset_peak()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()

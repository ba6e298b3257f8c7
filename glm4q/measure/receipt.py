"""Is what a run holds what its plan says? Loads, fills the context, and compares, term by term."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from calculator.memory.plan import MemoryPlan
from calculator.memory.settings import Device
from glm4q.decode.batch import Batch
from glm4q.decode.generate import token_ids
from glm4q.decode.runner import Runner
from glm4q.decode.sampling import SamplingParams
from glm4q.decode.steps.graphs import WARM_UP
from glm4q.engine import LLM
from glm4q.measure.peaks import peak_of, process_bytes
from glm4q.memory.allocation import Memory
from glm4q.model.loader import held_tensors
from glm4q.planning.machine import versions

DECODED = 3
"""Tokens decoded behind the prefill chunk, each sampled in the way that takes the most memory."""

KV_TERMS = {
    "codes": "KV cache codes",
    "scales": "KV cache scales",
    "centers": "KV cache centres",
}
"""Which term counts a store's tensor; numbers that are no codes are the only term."""

LOOSE_SHARE, LOOSE_BYTES = 0.05, 8 << 20
"""How far a peak may stay below the plan."""


@dataclass(frozen=True)
class ReceiptLine:
    """One term: what the plan says, and what is held."""

    term: str
    device: Device
    predicted: int
    held: int
    is_peak: bool = False
    """Whether the memory comes and goes, so that the plan only bounds it from above, closely."""

    @property
    def residual(self) -> int:
        return self.held - self.predicted

    @property
    def is_true(self) -> bool:
        if not self.is_peak:
            return not self.residual
        loose = max(LOOSE_BYTES, round(self.predicted * LOOSE_SHARE))
        return -loose <= self.residual <= 0


@dataclass(frozen=True)
class Receipt:
    """What was compared, where and how."""

    command: str
    model: str
    settings: dict[str, Any]
    lines: tuple[ReceiptLine, ...]
    device: str
    dtype: str
    threads: int
    process_bytes: int | None
    """What the driver says that this process holds of the GPU; None on a CPU."""
    planned_bytes: int
    """All terms of the device that computes, also those that no tensor holds."""
    versions: dict[str, str]

    @property
    def is_true(self) -> bool:
        return all(line.is_true for line in self.lines)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        lines = [
            {**asdict(line), "residual": line.residual, "true": line.is_true} for line in self.lines
        ]
        return {**asdict(self), "lines": lines, "true": self.is_true}


def verify(llm: LLM, command: str) -> Receipt:
    """Allocate as planned, run a full prefill chunk at the end of the context, decode, compare."""
    runner = llm.new_runner()
    lines = [
        *_weights(llm),
        *_cache(llm.plan, runner.memory),
        *_workspace(llm, runner),
    ]
    device = llm.machine.device
    return Receipt(
        command=command,
        model=str(llm.directory),
        settings=asdict(llm.plan.settings),
        lines=tuple(lines),
        device=_device_name(device),
        dtype=str(llm.machine.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        process_bytes=process_bytes(device),
        planned_bytes=llm.plan.compute_bytes,
        versions=versions(),
    )


def _weights(llm: LLM) -> Iterator[ReceiptLine]:
    held = {name: tensor.nbytes for name, tensor in held_tensors(llm.model).items()}
    planned = {buffer.name for term in llm.plan.weights for buffer in term.buffers}
    for term in llm.plan.weights:
        yield ReceiptLine(
            term.name,
            term.device,
            term.bytes,
            sum(held.get(buffer.name, 0) for buffer in term.buffers),
        )
    if surplus := sum(size for name, size in held.items() if name not in planned):
        yield ReceiptLine("weights not planned", llm.machine.compute, 0, surplus)


def _cache(plan: MemoryPlan, memory: Memory) -> Iterator[ReceiptLine]:
    """The stores stand in the order of the plan's devices."""
    for device, stores in zip(plan.layers, memory.cache.stores, strict=True):
        held = [(kind, tensor.nbytes) for store in stores for kind, tensor in store.tensors.items()]
        for term in (term for term in plan.kv_cache if term.device == device):
            total = sum(size for kind, size in held if KV_TERMS.get(kind, term.name) == term.name)
            yield ReceiptLine(term.name, device, term.bytes, total)


def _workspace(llm: LLM, runner: Runner) -> Iterator[ReceiptLine]:
    """The blocks are exact; what operators and sampling take beside them is a peak."""
    plan, memory = llm.plan, runner.memory
    for device, part in zip(plan.layers, memory.parts, strict=True):
        yield ReceiptLine(
            "workspace", device, _bytes(plan, "workspace", device), part.workspace.nbytes
        )
    if memory.rows is not None:
        embedding = plan.settings.embedding
        planned = _bytes(plan, "embedding rows", embedding)
        yield ReceiptLine("embedding rows", embedding, planned, memory.rows.nbytes)
    transient = [term for term in plan.workspace if term.name in ("operators", "sampling")]
    _take_workspaces_of_libraries(runner, llm.machine.device)
    peak = peak_of(lambda: _fill_context(runner), llm.machine.device)
    planned = sum(term.bytes for term in transient)
    yield ReceiptLine("operators, sampling", plan.settings.compute, planned, peak, is_peak=True)


def _take_workspaces_of_libraries(runner: Runner, device: torch.device) -> None:
    """Multiply once, and record a step: at its first product cuBLAS takes memory of torch's.

    It keeps that, for plain work and for recorded work each. The plan has both in "allocator
    slack"; counted as a step's, they would fault a plan that is true.
    """
    if device.type == "cuda":
        one, cache = torch.ones(1, 1, device=device), runner.memory.cache
        torch.mm(one, one)
        for _ in range(min(WARM_UP + 1, cache.max_seq_len)):
            runner(torch.zeros(1, 1, dtype=torch.int64))
        cache.truncate(0)


def _fill_context(runner: Runner) -> None:
    """Run a full chunk at the end of the context, then single tokens up to its last place."""
    memory = runner.memory
    for tensor in memory.cache.tensors:
        tensor.zero_()  # touched, so that the system must really give it, and never infinite
    context = memory.cache.max_seq_len
    prompt = max(context - DECODED, 1)
    batch = Batch(runner)
    batch.rows[0].hold([0] * max(prompt - memory.chunk, 0))
    if prompt == context:
        runner(torch.zeros(1, prompt, dtype=torch.int64), [batch.rows[0].cache])
        return
    params = SamplingParams(
        temperature=1.0, top_p=0.9, top_k=50, min_p=0.01, max_tokens=DECODED, seed=0
    )
    for _ in token_ids(batch.stream(batch.join([0] * prompt, params))):  # raises what ends it
        pass


def _bytes(plan: MemoryPlan, name: str, device: Device) -> int:
    terms = (term for term in plan.workspace if (term.name, term.device) == (name, device))
    return sum(term.bytes for term in terms)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"

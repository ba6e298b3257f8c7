"""Load a model as planned, run it at several depths, and say what it took."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from calculator.cards.roofline import step_bytes
from calculator.checkpoint.stored import StoredModel
from calculator.memory.plan import MemoryPlan
from glm4q.decode.batch import Batch
from glm4q.decode.generate import token_ids
from glm4q.decode.row import Row
from glm4q.decode.runner import Runner
from glm4q.decode.sampling import SamplingParams
from glm4q.decode.steps.graphs import WARM_UP
from glm4q.engine import load_as_planned, new_runner
from glm4q.measure.bandwidth import measure_read_bandwidth
from glm4q.measure.peaks import reset_peak
from glm4q.measure.workload import Workload
from glm4q.memory.process import peak_bytes
from glm4q.model.loader import held_tensors
from glm4q.planning.machine import Machine
from glm4q.planning.plan import RunPlan
from glm4q.planning.serving import ServedLayers, list_serving

TOKEN = 1
"""Every prompt is made of it: which token it is makes no difference to speed."""
ROWS = 256
"""Cached tokens that are random; the others repeat them."""
GREEDY = 0.0
WARM_STEPS = WARM_UP + 2
"""Steps of one token after which a GPU has compiled, recorded and replayed what decoding needs."""
CPU_WARM_PROMPT = 4
"""Tokens of the one prompt that a CPU runs before it is measured: it compiles nothing, and has read
every weight from its file then."""


@dataclass(frozen=True)
class Speed:
    """Medians at one depth."""

    depth: int
    prefill_seconds: float
    """Seconds from the prompt to its first new token."""
    decode_seconds: float
    """Seconds of one token."""
    decode_bytes: int
    """Bytes that one token reads: weights except the embedding, and the cache up to the depth."""


@dataclass(frozen=True)
class HeldMemory:
    """Bytes of the tensors that stay, beside what the plan says of them."""

    name: str
    held_bytes: int
    planned_bytes: int


@dataclass(frozen=True)
class Result:
    """All that was measured."""

    plan: MemoryPlan
    workload: Workload
    serving: tuple[ServedLayers, ...]
    load_seconds: float
    cold_first_token_seconds: float | None
    """Seconds from the process's very first prompt to its first new token: on a GPU the kernels of
    a prompt are compiled, or read from the disk, meanwhile. None on a CPU, which compiles none.
    """
    speeds: tuple[Speed, ...]
    """Warm: what is compiled or recorded was so before."""
    held: tuple[HeldMemory, ...]
    peak_bytes: int
    """While loading and running, beyond what the process held before; on a GPU, of the GPU."""
    planned_bytes: int
    process_bytes: int
    """What the process held before it loaded: Python and torch; on a GPU, what torch held there."""
    read_bandwidth: float
    """Bytes a second."""

    @property
    def beyond_plan_bytes(self) -> int:
        """What the peak has beyond the plan: code of libraries, and what the heap keeps."""
        return max(self.peak_bytes - self.planned_bytes, 0)

    @property
    def resident_share(self) -> float:
        """The part of plan and process by which the peak is above them; below 0 where it is not."""
        expected = self.planned_bytes + self.process_bytes
        return (self.peak_bytes - self.planned_bytes) / expected

    def bandwidth_share(self, speed: Speed) -> float:
        """The part of the machine's bandwidth that decoding reaches.

        Above 1 where what a token reads lies in a cache, or other programs slow the plain reads.
        """
        return speed.decode_bytes / speed.decode_seconds / self.read_bandwidth


def measure(
    stored: StoredModel,
    workload: Workload,
    run_plan: RunPlan,
    machine: Machine,
    *,
    progress: Callable[[str], None] = lambda doing: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """Load and run a checkpoint. Raises OptionError, CheckpointError or KernelError.

    clock: of seconds; `time.process_time` on one thread tells what others on the machine disturb
    little.
    """
    device, plan = machine.device, run_plan.memory
    before = _reset_peak(device)
    progress("loading")
    begun = clock()
    model = load_as_planned(stored, run_plan)
    _wait(device)
    load_seconds = clock() - begun
    runner = new_runner(model, run_plan, machine)
    run = _SpeedRun(Batch(runner), plan, clock)
    speeds: list[Speed] = []
    cold: list[float] = []
    for depth in workload.depths:
        progress(f"depth {depth:,}")
        run.fill(depth)
        if not speeds or device.type == "cuda":
            cold.append(run.warm_up(workload, depth, is_cuda=device.type == "cuda"))
        speeds.append(run.speed(workload, depth))
    peak = _peak(device) - before
    held = _held(runner, plan)
    del run, runner, model
    progress("reading memory")
    return Result(
        plan=plan,
        workload=workload,
        serving=list_serving(run_plan.weights[machine.compute], run_plan.layers[machine.compute]),
        load_seconds=load_seconds,
        cold_first_token_seconds=cold[0] if device.type == "cuda" else None,
        speeds=tuple(speeds),
        held=held,
        peak_bytes=peak,
        planned_bytes=plan.compute_bytes,
        process_bytes=before,
        read_bandwidth=measure_read_bandwidth(device),
    )


def fill(row: Row, depth: int) -> None:
    """Make a row hold random tokens of a size that keys have: prefill would take long."""
    for tensor in row.cache.tensors:
        block = tensor[:, :, :, : min(ROWS, depth)]
        if tensor.dtype == torch.float16:
            block.uniform_(0.005, 0.015)  # scales
        elif tensor.is_floating_point():
            block.uniform_(-1, 1)
        else:
            block.random_(0, 127)
        for start in range(ROWS, depth, ROWS):
            stop = min(start + ROWS, depth)
            tensor[:, :, :, start:stop] = block[:, :, :, : stop - start]
    row.hold([TOKEN] * depth)


@dataclass(frozen=True)
class _SpeedRun:
    """Runs a model at depths that its cache is filled to."""

    batch: Batch
    plan: MemoryPlan
    clock: Callable[[], float]

    def fill(self, depth: int) -> None:
        """Have the cache hold random tokens up to the depth."""
        fill(self.batch.rows[0], depth)

    def warm_up(self, workload: Workload, depth: int, *, is_cuda: bool) -> float:
        """Run once, uncounted, what is measured at the depth. Return the seconds of the prompt.

        A GPU compiles kernels for the prompt's chunks and for the depth, and records chunks and a
        step as graphs. A CPU runs a short prompt and a token: a whole prompt would take it seconds.
        """
        prompt = workload.prompt if is_cuda else min(workload.prompt, CPU_WARM_PROMPT)
        seconds = self._seconds(depth, prompt, 1)
        for _ in range(WARM_UP if is_cuda else 0):  # then it is recorded
            self._seconds(depth, prompt, 1)
        tokens = min(workload.decode, WARM_STEPS if is_cuda else 1)
        for _ in range(0, WARM_STEPS if is_cuda else 1, tokens):
            self._seconds(depth, 1, tokens)
        return seconds

    def speed(self, workload: Workload, depth: int) -> Speed:
        """Measure a prompt and decoding after the depth, which the cache is filled to."""
        prompt, decode, runs = workload.prompt, workload.decode, range(workload.runs)
        prefills = [self._seconds(depth, prompt, 1) for _ in runs]
        decodes = [self._seconds(depth, 1, decode) for _ in runs]
        return Speed(
            depth,
            statistics.median(prefills),
            statistics.median(decodes) / decode,
            step_bytes(self.plan, self.plan.settings.compute, depth=depth),
        )

    def _seconds(self, depth: int, prompt: int, tokens: int) -> float:
        """Seconds to prefill so many tokens after the depth, and to choose so many."""
        self.batch.rows[0].hold([TOKEN] * depth)
        context = [TOKEN] * (depth + prompt)
        params = SamplingParams(temperature=GREEDY, max_tokens=tokens)
        begun = self.clock()
        # Choosing a token waits for the GPU.
        chosen = list(token_ids(self.batch.stream(self.batch.join(context, params))))
        seconds = self.clock() - begun
        if len(chosen) != tokens:
            raise RuntimeError(f"{len(chosen)} tokens were made, not {tokens}")
        return seconds


def _held(runner: Runner, plan: MemoryPlan) -> tuple[HeldMemory, ...]:
    weights = sum(tensor.nbytes for tensor in held_tensors(runner.model).values())
    workspaces = sum(part.workspace.nbytes for part in runner.memory.parts)
    planned = sum(arena.bytes for arena in plan.arenas.values())
    return (
        HeldMemory("weights", weights, plan.weights_bytes),
        HeldMemory("KV cache", runner.memory.cache.nbytes, plan.kv_cache_bytes),
        HeldMemory("workspace", workspaces, planned),
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

"""The timeline of one decode step on a card: which kernels run, how long, and the gaps between."""

import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import profile, supported_activities

from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat, assign_formats
from calculator.model.presets import PRESETS
from calculator.questions.fit import Wish
from glm4q.decode.runner import Runner
from glm4q.engine import load_as_planned, new_runner
from glm4q.measure.synthetic import open_synthetic
from glm4q.planning.machine import choose_machine
from glm4q.planning.plan import plan_run

LAYERS = 4
"""More of them are the same again."""
CONFIG = replace(PRESETS["glm-4-9b-chat"], num_hidden_layers=LAYERS)
FORMATS = WeightFormat(4, 128), WeightFormat(8, 128)
CONTEXT, KV = 4096, "int8"
PLAIN = 4
"""Steps before the timeline: the first compiles, the second records, the others replay."""
TIMED = 20


@dataclass(frozen=True)
class KernelTime:
    """One kernel in one step."""

    name: str
    launches: int
    seconds: float


def decode_timeline(trace: Path, config: ModelConfig = CONFIG) -> dict[str, Any]:
    """Decode by random weights; write the profiler's trace, and return what a step consists of.

    `seconds` is what a step takes by the clock of the host, `busy_seconds` what its kernels take by
    the card's: the rest are gaps.
    """
    with tempfile.TemporaryDirectory() as directory:
        stored = open_synthetic(Path(directory) / "model", config, assign_formats(config, *FORMATS))
        machine = choose_machine("cuda", "auto", "auto")
        run_plan = plan_run(stored, machine, Wish(context=CONTEXT, kv=KV), reserve=0)
        runner = new_runner(load_as_planned(stored, run_plan), run_plan, machine)
    prompt = min(runner.memory.chunk, CONTEXT // 2)
    runner(torch.ones(1, prompt, dtype=torch.int64))
    taken = [_step(runner) for _ in range(PLAIN + TIMED)][PLAIN:]
    with profile(activities=supported_activities()) as profiled:
        _step(runner)
    profiled.export_chrome_trace(str(trace))
    kernels = _kernels(profiled)
    return {
        "layers": config.num_hidden_layers,
        "cached": prompt,
        "seconds": median(taken),
        "busy_seconds": sum(kernel.seconds for kernel in kernels),
        "kernels": [asdict(kernel) for kernel in kernels],
    }


def _step(runner: Runner) -> float:
    """Decode a token, wait for it, and return the seconds."""
    begun = time.perf_counter()
    runner(torch.ones(1, 1, dtype=torch.int64))
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def _kernels(profiled: profile) -> list[KernelTime]:
    """What ran on the card, the longest first."""
    kernels = [
        KernelTime(event.key, event.count, event.self_device_time_total / 1e6)
        for event in profiled.key_averages()
        if event.device_type == DeviceType.CUDA
    ]
    return sorted(kernels, key=lambda kernel: -kernel.seconds)

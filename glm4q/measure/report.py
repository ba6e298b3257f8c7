"""What was measured, as sheets and sentences for a screen and as a record for a program."""

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from calculator.report.sheets import Sheet
from calculator.units import counted, human_bytes
from glm4q import __version__
from glm4q.measure.speed import Result, Speed
from glm4q.planning.devices import dtype_name
from glm4q.planning.machine import Machine, versions
from glm4q.planning.serving import ServedLayers

SCHEMA = "glm4q.bench/1"
NUMBERS = frozenset({
    "depth", "prefill, tokens/s", "decode, tokens/s", "a token reads", "share of bandwidth",
    "held", "planned", "layers",
})  # fmt: skip


BEYOND_PLAN = "libraries and heap, which no plan counts"
ABOVE_ALL = (
    "a share above 100 %: what a token reads lies in the processor's caches in part, or another "
    "program slowed the plain reads"
)


def sheets(result: Result) -> list[Sheet]:
    """All tables, in the order of interest."""
    shown = [_speed_sheet(result), _memory_sheet(result), _serving_sheet(result)]
    return [sheet for sheet in shown if sheet.rows]


def _speed_sheet(result: Result) -> Sheet:
    """A row for each depth."""
    return Sheet(
        "Speed",
        ("depth", "prefill, tokens/s", "decode, tokens/s", "a token reads", "share of bandwidth"),
        tuple(_speed_row(result, speed) for speed in result.speeds),
        NUMBERS,
    )


def _speed_row(result: Result, speed: Speed) -> tuple[str, ...]:
    return (
        f"{speed.depth:,}",
        f"{result.workload.prompt / speed.prefill_seconds:.1f}",
        f"{1 / speed.decode_seconds:.2f}",
        human_bytes(speed.decode_bytes),
        f"{result.bandwidth_share(speed):.0%}",
    )


def _memory_sheet(result: Result) -> Sheet:
    """What is held beside what was planned, and the peak beside the whole plan."""
    rows = [(each.name, f"{each.held_bytes:,}", f"{each.planned_bytes:,}") for each in result.held]
    rows.append((BEYOND_PLAN, f"{result.beyond_plan_bytes:,}", "0"))
    peak = "peak, with what comes and goes"
    return Sheet(
        "Memory, bytes",
        ("term", "held", "planned"),
        (*rows, (peak, f"{result.peak_bytes:,}", f"{result.planned_bytes:,}")),
        NUMBERS,
        totals=1,
    )


def _serving_sheet(result: Result) -> Sheet:
    """Who multiplies."""
    return Sheet(
        "Kernels",
        ("kernel", "layers", "of", "faster ones refuse"),
        tuple(
            (each.kernel, str(each.count), each.layers, "; ".join(each.refusals))
            for each in result.serving
        ),
        NUMBERS,
    )


def sentences(result: Result, machine: Machine) -> list[str]:
    """What the tables do not say."""
    work = result.workload
    notes = [
        _first_token_sentence(result),
        _peak_sentence(result),
        f"memory is read at {result.read_bandwidth / 1e9:.1f} GB/s by the best of several reads",
        f"medians of {work.runs}; {counted(work.decode, 'token')} decoded; "
        f"{dtype_name(machine.dtype)} on {machine_name(machine.device)}, "
        f"{counted(torch.get_num_threads(), 'thread')}, glm4q {__version__}, "
        f"torch {torch.__version__}",
    ]
    if any(round(result.bandwidth_share(speed), 2) > 1 for speed in result.speeds):
        notes.append(ABOVE_ALL)
    if any(work.depths):
        notes.append("the cache below a depth is filled with random numbers, not by a prefill")
    return notes


def _first_token_sentence(result: Result) -> str:
    """What a user waits for: loading, and the first token, warm and, on a GPU, cold."""
    first, cold = result.speeds[0], result.cold_first_token_seconds
    sentence = (
        f"load: {result.load_seconds:.1f} s; first token: {first.prefill_seconds:.2f} s "
        f"after a prompt of {result.workload.prompt} at depth {first.depth:,}"
    )
    if cold is None:
        return sentence
    return f"{sentence}; {cold:.2f} s the first time, when kernels are compiled or read from disk"


def _peak_sentence(result: Result) -> str:
    """The peak with all that the process held before, beside what can be expected."""
    peak, before = (
        human_bytes(size)
        for size in (result.peak_bytes + result.process_bytes, result.process_bytes)
    )
    return (
        f"peak with the process: {peak}, {result.resident_share:+.1%} beside the plan and the "
        f"{before} that the process held before it loaded"
    )


def record(result: Result, model: str, machine: Machine) -> dict[str, Any]:
    """What `glm4q bench --json` prints."""
    settings, work = result.plan.settings, result.workload
    return {
        "schema": SCHEMA,
        "model": model,
        "device": machine.device.type,
        "machine": machine_name(machine.device),
        "dtype": dtype_name(machine.dtype),
        "kv": settings.kv,
        "context": settings.context,
        "prompt_tokens": work.prompt,
        "decode_tokens": work.decode,
        "runs": work.runs,
        "depths": list(work.depths),
        "cache_filled_by": "random numbers",
        "prefill_tokens_per_second": [work.prompt / each.prefill_seconds for each in result.speeds],
        "decode_tokens_per_second": [1 / each.decode_seconds for each in result.speeds],
        "decode_bytes_per_token": [each.decode_bytes for each in result.speeds],
        "bandwidth_share": [result.bandwidth_share(each) for each in result.speeds],
        "read_bandwidth_bytes_per_second": result.read_bandwidth,
        "load_seconds": result.load_seconds,
        "time_to_first_token_seconds": result.speeds[0].prefill_seconds,
        "cold_time_to_first_token_seconds": result.cold_first_token_seconds,
        "peak_bytes": result.peak_bytes,
        "planned_bytes": result.planned_bytes,
        "beyond_plan_bytes": result.beyond_plan_bytes,
        "process_bytes": result.process_bytes,
        "beyond_plan_and_process": result.resident_share,
        "held": [asdict(each) for each in result.held],
        "kernels": [_serving_record(each) for each in result.serving],
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def _serving_record(serving: ServedLayers) -> dict[str, Any]:
    return {**asdict(serving), "refusals": list(serving.refusals)}


def machine_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's as the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

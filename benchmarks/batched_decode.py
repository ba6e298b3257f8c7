"""Answers decoded together beside one alone: tokens a second, by how many there are.

    python -m benchmarks.batched_decode CHECKPOINT [--counts 1 2 4 8] [--isa avx2] [--device cuda]
    python -m benchmarks.batched_decode CHECKPOINT --isa avx2 --peer ik-repacked --file FILE.gguf

With a peer, both programs are measured in turns, each in a process of its own; FILE has the same
integers as CHECKPOINT (`benchmarks.llama_speed` makes both).
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.llama_speed import AVX2, PEERS, worker
from benchmarks.machine import ask, describe_machine
from calculator.questions.fit import Wish
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM
from tests.instruction_sets import limit_to

PROMPT = 16
"""Tokens of the first; each other prompt is one longer than the one before it."""
ROUNDS = 5
CLOCKS = {"run": time.perf_counter, "cpu-time": time.process_time}


def seconds_per_step(llm: LLM, count: int, tokens: int, clock: Callable[[], float]) -> float:
    """The median of some rounds of steps that decode `count` answers, prompts not counted."""
    batch = llm.rows
    for number in range(count):
        prompt = [number + 3] * (PROMPT + number)
        batch.join(prompt, SamplingParams(temperature=0, max_tokens=tokens))
    while len(batch.step()) < count:
        pass
    times = []
    for _ in range(ROUNDS):
        begun = clock()
        for _ in range(tokens // (ROUNDS + 1)):
            batch.step()
        times.append((clock() - begun) / (tokens // (ROUNDS + 1)))
    return statistics.median(times)


def measure(options: argparse.Namespace) -> list[float]:
    """Seconds of a step for each count, in this process."""
    if options.isa is not None:
        limit_to(options.isa)
    if options.clock == "cpu-time":
        torch.set_num_threads(1)
    steps = []
    for count in options.counts:
        room = PROMPT + count + options.tokens
        wish = Wish(context=room, batch=count, draft_tokens=0)
        llm = LLM.load(options.checkpoint, device=options.device, wish=wish)
        steps.append(seconds_per_step(llm, count, options.tokens, CLOCKS[options.clock]))
        del llm
    return steps


def ask_glm4q(options: argparse.Namespace) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.batched_decode", str(options.checkpoint), "--json"]
    command += ["--tokens", str(options.tokens), "--clock", options.clock, "--counts"]
    command += map(str, options.counts)
    return list(ask(command if options.isa is None else [*command, "--isa", options.isa]))


def ask_peer(options: argparse.Namespace) -> list[float]:
    threads = 1 if options.clock == "cpu-time" else torch.get_num_threads()
    repacked = "-repacked" if options.peer == "ik-repacked" else ""
    counts = ",".join(map(str, options.counts))
    numbers = map(str, (options.tokens, ROUNDS, threads))
    command = [*worker(options.peer), f"together-{options.clock}{repacked}", str(options.file)]
    return list(ask([*command, counts, *numbers]))


def print_alone(counts: list[int], steps: list[float]) -> None:
    print("| together | ms a step | tokens/s | times one alone |\n|---:|---:|---:|---:|")
    for count, step in zip(counts, steps, strict=True):
        times = count / step * steps[0] / counts[0]
        print(f"| {count} | {step * 1e3:.2f} | {count / step:.1f} | {times:.2f} |")


def print_beside(options: argparse.Namespace) -> None:
    """Medians of rounds in turns."""
    rounds = [(ask_glm4q(options), ask_peer(options)) for _ in range(options.rounds)]
    print(f"| together | glm4q, tokens/s | {options.peer}, tokens/s | ratio |")
    print("|---:|---:|---:|---:|")
    for place, count in enumerate(options.counts):
        ours, theirs = (
            statistics.median(each[side][place] for each in rounds) for side in range(2)
        )
        print(f"| {count} | {count / ours:.1f} | {count / theirs:.1f} | {theirs / ours:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--isa", help="the newest instruction set that glm4q may use")
    parser.add_argument("--clock", choices=CLOCKS, default="run", help="cpu-time: of one thread")
    parser.add_argument("--device", default="cpu", help="without a peer")
    parser.add_argument("--peer", choices=[peer for peer in PEERS if peer != "built"])
    parser.add_argument("--file", type=Path, help="the peer's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="seconds of a step for each count")
    options = parser.parse_args()
    if options.isa is not None:
        os.environ.update(AVX2)  # for torch, in the processes that are asked
    if options.peer is not None:
        print_beside(options)
    elif options.json:
        print(json.dumps(measure(options)))
        return
    else:
        print_alone(options.counts, measure(options))
    print(describe_machine())


if __name__ == "__main__":
    main()

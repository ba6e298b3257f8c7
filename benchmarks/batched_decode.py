"""Answers decoded together beside one alone: tokens a second, by how many there are.

python -m benchmarks.batched_decode CHECKPOINT [--most 8] [--tokens 64]
"""

import argparse
import statistics
import time
from pathlib import Path

from benchmarks.machine import describe_machine
from calculator.questions.fit import Wish
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM

PROMPT = 16
"""Tokens of the first; each other prompt is one longer than the one before it."""
ROUNDS = 5


def seconds_per_step(llm: LLM, count: int, tokens: int) -> float:
    """The median of some rounds of steps that decode `count` answers, prompts not counted."""
    batch = llm.rows
    for number in range(count):
        prompt = [number + 3] * (PROMPT + number)
        batch.join(prompt, SamplingParams(temperature=0, max_tokens=tokens))
    while len(batch.step()) < count:
        pass
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(tokens // (ROUNDS + 1)):
            batch.step()
        times.append((time.perf_counter() - begun) / (tokens // (ROUNDS + 1)))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--most", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    print(describe_machine())
    print("| together | ms a step | tokens/s | times one alone |\n|---:|---:|---:|---:|")
    alone, count = 0.0, 1
    while count <= options.most:
        room = PROMPT + options.most + options.tokens
        wish = Wish(context=room, batch=count, draft_tokens=0)
        llm = LLM.load(options.checkpoint, device="cpu", wish=wish)
        step = seconds_per_step(llm, count, options.tokens)
        alone = alone or 1 / step
        print(f"| {count} | {step * 1e3:.2f} | {count / step:.1f} | {count / step / alone:.2f} |")
        count *= 2


if __name__ == "__main__":
    main()

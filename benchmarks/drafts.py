"""Answers with and without drafts, in turns, of the same loaded model: the ratio of their speeds.

python -m benchmarks.drafts CHECKPOINT [--isa avx2] [--rounds 5] [--cpu-time] [--device cuda]

Some prompts ask for what stands in them, others for what stands nowhere. A model of the demo's size
copies a passage and changes little of it, so where code is to be repeated with a change, the answer
is scripted: the model runs every step, and the token that is taken is the next one of the script.
Both ways of each prompt must give the same tokens. With --cpu-time one thread computes and its own
time counts, which other programs on the machine disturb little.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.machine import describe_machine
from calculator.questions.fit import Wish
from glm4q.decode.batch import Batch
from glm4q.decode.generate import token_ids
from glm4q.decode.sampling import SamplingParams
from glm4q.decode.token_runner import TokenRunner
from glm4q.engine import LLM
from glm4q.memory.allocation import Memory
from glm4q.memory.kv.cache import KVCache
from tests.instruction_sets import limit_to

ROUNDS = 5
TOKENS = 192
"""The most of an answer that the model chooses; a scripted one has its own length."""
LARGEST_BIAS = 100.0

PASSAGE = (
    "The lighthouse at Cape Wrath was built in 1828 by Robert Stevenson. It stands 20 metres tall, "
    "on a cliff of 121 metres, and was manned until 1998. Its light is seen from 22 nautical "
    "miles away. A road of 18 kilometres leads to it from the Kyle of Durness, which visitors "
    "cross by a small ferry. Cape Wrath is the most north-westerly point of mainland Britain, and "
    "its name comes from a Norse word for a turning point."
)
CODE = '''\
def area(width, height):
    """The area of a rectangle."""
    return width * height


def volume(width, height, depth):
    """The volume of a box."""
    return area(width, height) * depth


def surface(width, height, depth):
    """The surface of a box."""
    sides = area(width, height) + area(width, depth) + area(height, depth)
    return 2 * sides


def paint(width, height, depth, litres_per_square_metre):
    """The paint that the outside of a box takes."""
    return surface(width, height, depth) * litres_per_square_metre
'''
CHANGED = CODE.replace("height", "tall")


@dataclass(frozen=True)
class Case:
    """A prompt, and the answer where the model is not to choose it."""

    name: str
    quotes: bool
    prompt: str
    script: str | None = None
    temperature: float = 0.0


CASES = (
    Case("a passage, word for word", True, f"Repeat this text word for word:\n\n{PASSAGE}"),
    Case(
        "code with a parameter renamed (scripted)",
        True,
        f"Rename the parameter height to tall:\n\n{CODE}",
        CHANGED,
    ),
    Case("a story", False, "Write a short story about a dog that learns to sail."),
    Case("an explanation", False, "Explain why the sky is blue and sunsets are red."),
    Case(
        "a story at temperature 1.3",
        False,
        "Write a short story about a cat and a key.",
        temperature=1.3,
    ),
    Case("a letter", False, "Write a letter to a friend about a week in the mountains."),
)


class Asked:
    """A runner that counts its steps, and whose likeliest token is the script's where there is one.

    It runs every step all the same.
    """

    mixed = None
    recorded_prompts = ()

    def __init__(self, runner: TokenRunner, memory: Memory, text: Sequence[int] | None) -> None:
        """text: the prompt and its scripted answer."""
        self._runner, self.memory, self._text = runner, memory, text
        self.find_overflow = runner.find_overflow
        self.steps = self.guesses = 0

    @torch.inference_mode()
    def __call__(self, input_ids: Tensor, caches: Sequence[KVCache], /, last: int = 1) -> Tensor:
        logits = self._runner(input_ids, caches, last)
        self.steps += 1
        self.guesses += last - 1
        for row, place in enumerate(range(caches[0].length - last + 1, caches[0].length + 1)):
            if self._text is not None and place < len(self._text):
                logits[row, self._text[place]] += LARGEST_BIAS
        return logits


@dataclass(frozen=True)
class Answered:
    """One answer."""

    tokens: tuple[int, ...]
    seconds: float
    """From its first token to its last."""
    steps: int
    guesses: int

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return (len(self.tokens) - 1) / self.seconds


class Way:
    """A batch that answers one case, with drafts or without; what it measures is kept."""

    def __init__(self, llm: LLM, case: Case, draft_tokens: int, clock: Callable[[], float]) -> None:
        message = f"<|im_start|>user\n{case.prompt}<|im_end|>\n<|im_start|>assistant\n"
        self._prompt = llm.tokenizer.encode_prompt(message)
        script = None if case.script is None else llm.tokenizer.encode(case.script)
        text = None if script is None else [*self._prompt, *script]
        memory = replace(llm.rows.runner.memory, draft_tokens=draft_tokens)
        self._asked = Asked(llm.rows.runner, memory, text)
        self._clock, self._batch = clock, Batch(self._asked, clock=clock)
        # A scripted answer ends with its script, whatever the model would say.
        stop = frozenset[int]() if script else llm.stop_token_ids
        most = TOKENS if script is None else len(script)
        self._params = SamplingParams(
            case.temperature, seed=1, max_tokens=most, stop_token_ids=stop
        )

    def answer(self) -> Answered:
        """Answer the prompt from an empty cache."""
        self._batch.rows[0].forget()
        stream = token_ids(self._batch.stream(self._batch.join(self._prompt, self._params)))
        tokens = [next(stream)]
        before, begun = (self._asked.steps, self._asked.guesses), self._clock()
        tokens += stream
        seconds = self._clock() - begun
        return Answered(
            tuple(tokens), seconds, self._asked.steps - before[0], self._asked.guesses - before[1]
        )


def row_of(case: Case, pairs: Sequence[tuple[Answered, Answered]]) -> str:
    """A line of the table: medians of all rounds. pairs: without drafts, and with them."""
    ratio = statistics.median(drafted.rate / plain.rate for plain, drafted in pairs)
    plain, drafted = (
        statistics.median(each.rate for each in way) for way in zip(*pairs, strict=True)
    )
    tokens = sum(len(answer.tokens) - 1 for _, answer in pairs)
    steps = sum(answer.steps for _, answer in pairs)
    guesses = sum(answer.guesses for _, answer in pairs)
    share = f"{(tokens - steps) / guesses:.0%}" if guesses else "no guesses"
    kind = "yes" if case.quotes else "no"
    return (
        f"| {case.name} | {kind} | {plain:.1f} | {drafted:.1f} | {ratio:.2f} "
        f"| {tokens / steps:.2f} | {share} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--isa", help="the newest instruction set: avx2 ...")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    clock = time.perf_counter
    if asked.cpu_time:
        torch.set_num_threads(1)
        clock = time.process_time
    if asked.isa:
        limit_to(asked.isa)
    llm = LLM.load(asked.checkpoint, device=asked.device, wish=Wish(context=2048))
    most = llm.rows.runner.memory.draft_tokens
    print(
        "| answer | quotes | plain, tokens/s | with drafts | ratio | tokens a step | right guesses "
        "|\n"
        "|---|---|---:|---:|---:|---:|---:|"
    )
    for case in CASES:
        ways = [Way(llm, case, draft_tokens, clock) for draft_tokens in (0, most)]
        pairs = [(ways[0].answer(), ways[1].answer()) for _ in range(asked.rounds)]
        if len({answer.tokens for pair in pairs for answer in pair}) != 1:
            sys.exit(f"{case.name}: the answers are not the same")
        print(row_of(case, pairs), flush=True)
    print(f"\n{describe_machine()}")


if __name__ == "__main__":
    main()

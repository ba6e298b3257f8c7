"""What a schema costs decoding: time in masks beside the time of all steps, for one answer.

    python -m benchmarks.grammar_cost CHECKPOINT [--runs 5]

The schema has strings of any text, numbers, enumerations and arrays. Answers are sampled at
temperature 1. Reading the vocabulary, once for each model, and compiling are shown apart.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import describe_machine
from calculator.questions.fit import Wish
from glm4q import LLM, SamplingParams
from glm4q.decode.answer import Token
from glm4q.decode.sampling import Constraint
from glm4q.text.grammar.grammar import Grammar, joined

TEXT = {"type": "string", "minLength": 40, "maxLength": 160}
PERSON = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["teacher", "farmer", "nurse"]},
        "tags": {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 4},
    },
    "required": ["name", "age", "kind", "tags"],
    "additionalProperties": False,
}
PROMPT = "Describe a person as JSON."


@dataclass
class Timed:
    """A constraint whose time is measured."""

    inner: Constraint
    seconds: float = 0.0
    calls: int = 0

    @property
    def complete(self) -> bool:
        return self.inner.complete

    @property
    def finished(self) -> bool:
        return self._timed(lambda: self.inner.finished)

    def mask(self, logits: Tensor) -> Tensor:
        self.calls += 1
        return self._timed(lambda: self.inner.mask(logits))

    def accept(self, token: int) -> None:
        self._timed(lambda: self.inner.accept(token))

    def draft(self, guess: Sequence[int], most: int) -> list[int]:
        return self._timed(lambda: self.inner.draft(guess, most))

    def _timed(self, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = work()
        self.seconds += time.perf_counter() - begun
        return result


def measure(llm: LLM, source: str, seed: int) -> tuple[int, float, float]:
    """Return the tokens of one answer, the seconds of its masks, and those of its decoding."""
    constraint = Timed(llm.grammars.constraint(source))
    params = SamplingParams(seed=seed, max_tokens=600, stop_token_ids=llm.stop_token_ids)
    prompt = llm.tokenizer.prefix_ids + llm.tokenizer.encode(PROMPT)
    answer = llm.rows.join(prompt, params, constraint=constraint)
    tokens, begun, masked = 0, 0.0, 0.0
    for event in llm.rows.stream(answer):
        if isinstance(event, Token):
            tokens += 1
            if tokens == 1:  # the prompt has run
                begun, masked = time.perf_counter(), constraint.seconds
    return tokens - 1, constraint.seconds - masked, time.perf_counter() - begun


def main() -> None:
    """Print a line for each answer, and the share of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    print(describe_machine())
    llm = LLM.load(asked.checkpoint, device=asked.device, wish=Wish(context=2048, draft_tokens=0))
    begun = time.perf_counter()
    source = joined("start: @answer", {"answer": Grammar.from_json_schema(PERSON)})
    llm.grammars.constraint(source)
    print(f"vocabulary and schema: {time.perf_counter() - begun:.2f} s, once")
    tokens, masks, steps = 0, 0.0, 0.0
    for seed in range(asked.runs):
        own = measure(llm, source, seed)
        tokens, masks, steps = tokens + own[0], masks + own[1], steps + own[2]
        print(f"{own[0]:5} tokens: {1e3 * own[1] / own[0]:.3f} of {1e3 * own[2] / own[0]:.2f} ms")
    per_token = f"{1e3 * masks / tokens:.3f} of {1e3 * steps / tokens:.2f} ms a token"
    print(f"masks of {llm.plan.config.vocab_size:,} tokens: {masks / steps:.1%} ({per_token})")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()

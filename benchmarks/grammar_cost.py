"""What a grammar costs decoding: time in masks beside the time of all steps, for some answers.

    python -m benchmarks.grammar_cost CHECKPOINT [--runs 5]

Two grammars: a schema with strings of any text, numbers, enumerations and arrays; and free text in
which calls of two tools may come, whose arguments must match. Answers are sampled at temperature 1.
Reading the vocabulary, once for each model, and compiling are shown apart.
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
from glm4q.chat.reply_grammar import ReplyConstraints, ReplyGrammar
from glm4q.chat.reply_start import ReplyStart
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
PLACE = {"type": "object", "properties": {"city": TEXT, "days": {"type": "integer"}}}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PLACE}},
    {"type": "function", "function": {"name": "add_person", "parameters": PERSON}},
]
PROMPT = "Describe a person as JSON."
MOST_TOKENS = 600


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


def schema(llm: LLM) -> Constraint:
    """An answer that matches a schema."""
    source = joined("start: @answer", {"answer": Grammar.from_json_schema(PERSON)})
    return llm.grammars.constraint(source)


def text_or_call(llm: LLM) -> Constraint:
    """Free text, and calls whose arguments match: what a conversation with tools has."""
    reply = ReplyGrammar.free(TOOLS, "metadata", strict=["get_weather", "add_person"])
    start = ReplyStart(role_line=True, thinking=False)
    return ReplyConstraints(llm.grammars, reply)(start)


GRAMMARS: dict[str, Callable[[LLM], Constraint]] = {
    "schema": schema,
    "text or call": text_or_call,
}


def measure(llm: LLM, inner: Constraint, seed: int) -> tuple[int, float, float]:
    """Return the tokens of one answer, the seconds of its masks, and those of its decoding."""
    constraint = Timed(inner)
    # Free text goes on to the limit: with an end of its own it would be short.
    endless = dict.fromkeys(llm.stop_token_ids, -100.0)
    params = SamplingParams(seed=seed, max_tokens=MOST_TOKENS, logit_bias=endless, loop_guard=False)
    prompt = llm.tokenizer.prefix_ids + llm.tokenizer.encode(PROMPT)
    answer = llm.rows.join(prompt, params, constraint=constraint)
    tokens, begun, masked = 0, 0.0, 0.0
    for event in llm.rows.stream(answer):
        if isinstance(event, Token):
            tokens += 1
            if tokens == 1:  # the prompt has run
                begun, masked = time.perf_counter(), constraint.seconds
    return tokens - 1, constraint.seconds - masked, time.perf_counter() - begun


def show(llm: LLM, name: str, runs: int) -> None:
    """Print a line for each answer, and the share of all."""
    begun = time.perf_counter()
    GRAMMARS[name](llm)
    print(f"{name}: compiled in {time.perf_counter() - begun:.2f} s, once")
    tokens, masks, steps = 0, 0.0, 0.0
    for seed in range(runs):
        own = measure(llm, GRAMMARS[name](llm), seed)
        tokens, masks, steps = tokens + own[0], masks + own[1], steps + own[2]
        print(f"{own[0]:5} tokens: {1e3 * own[1] / own[0]:.3f} of {1e3 * own[2] / own[0]:.2f} ms")
    per_token = f"{1e3 * masks / tokens:.3f} of {1e3 * steps / tokens:.2f} ms a token"
    vocabulary = llm.plan.config.vocab_size
    print(f"{name}: masks of {vocabulary:,} tokens: {masks / steps:.1%} ({per_token})")


def main() -> None:
    """Measure both grammars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    print(describe_machine())
    llm = LLM.load(asked.checkpoint, device=asked.device, wish=Wish(context=2048, draft_tokens=0))
    begun = time.perf_counter()
    llm.grammars.constraint(joined("start: @text", {"text": Grammar.from_regex("a")}))
    print(f"vocabulary: {time.perf_counter() - begun:.2f} s, once")
    for name in GRAMMARS:
        show(llm, name, asked.runs)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()

"""A small model in every format, and how it is run on a card and on the host."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import BF16, WeightFormat
from calculator.questions.fit import Wish
from glm4q.decode.answer import Token
from glm4q.decode.generate import generate, generate_batch, token_ids
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import load_as_planned, new_runner
from glm4q.planning.machine import choose_machine
from glm4q.planning.plan import plan_run
from quantize.by_bitsandbytes import write_by_bitsandbytes
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.glm4q.memories import prefill

CONFIG = replace(
    tiny.BASE,
    vocab_size=96,
    hidden_size=128,
    intermediate_size=192,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
)
"""Heads of which an INT4 cache makes groups, and rows that every format divides."""


def save_checkpoints(directory: Path, formats: Sequence[tuple[WeightFormat, WeightFormat]]) -> None:
    """Save the same weights in bf16 and in each format of layers and head, by name."""
    plain = directory / "bf16"
    tiny.save_checkpoint(tiny.transformers_model(CONFIG), plain)
    for linear, head in formats:
        recipe = Recipe(linear, head)
        quantize_checkpoint(StoredModel.open(plain), directory / name_of(linear, head), recipe)


def save_bitsandbytes(directory: Path, weights: str) -> None:
    """Save them as bitsandbytes makes them: nf4 or llm-int8."""
    if not (directory / weights).exists():
        write_by_bitsandbytes(StoredModel.open(directory / "bf16"), directory / weights, weights)


def name_of(linear: WeightFormat, head: WeightFormat = BF16) -> str:
    return f"{linear} {head}".replace(" ", "-")


class Run:
    """A checkpoint loaded as the product loads it, with one memory."""

    def __init__(
        self, directory: Path, device: str, wish: Wish, *, dtype: str = "auto", kernel: str = "auto"
    ) -> None:
        self.machine = choose_machine(device, dtype, kernel)
        stored = StoredModel.open(directory)
        run_plan = plan_run(stored, self.machine, wish, reserve=0)
        self.plan, self.model = run_plan.memory, load_as_planned(stored, run_plan)
        self.runner = new_runner(self.model, run_plan, self.machine)
        self.memory = self.runner.memory

    def answer(self, prompt: Sequence[int], params: SamplingParams) -> Iterator[int]:
        """The tokens of one answer, as they come."""
        return token_ids(generate(self.runner, prompt, params))

    def answers(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[list[int]]:
        """Answers that are decoded together."""
        answers: list[list[int]] = [[] for _ in prompts]
        every = [params] * len(prompts)
        for place, event in generate_batch(self.runner, prompts, every):
            if isinstance(event, Token):
                answers[place].append(event.token)
        return answers

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Compute the logits of each token after the first chunk, in float32 on the host."""
        chunk = self.memory.chunk
        logits = [prefill(self.runner, list(tokens[:chunk])).cpu().clone()]
        for token in tokens[chunk:]:
            step = self.runner(torch.tensor([[token]]))
            logits.append(step[0].cpu().clone())
        return torch.stack(logits)

    def forget(self) -> None:
        """Start anew with an empty cache."""
        self.memory.cache.truncate(0)

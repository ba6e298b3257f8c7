"""A small model in every format, and how it is run on a card and on the host."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import BF16, WeightFormat
from calculator.questions.fit import Wish
from glm4q.decode.batch import generate_batch
from glm4q.decode.generate import generate, prefill
from glm4q.decode.sampling import SamplingParams
from glm4q.memory.allocation import Memory
from glm4q.model.decoder import CausalLM
from glm4q.planning.machine import choose_machine
from glm4q.planning.plan import load_as_planned, plan_run
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny

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
    """The same weights in bf16 and in each format of layers and head, by name."""
    plain = directory / "bf16"
    tiny.save_checkpoint(tiny.transformers_model(CONFIG), plain)
    for linear, head in formats:
        recipe = Recipe(linear, head)
        quantize_checkpoint(StoredModel.open(plain), directory / name_of(linear, head), recipe)


def name_of(linear: WeightFormat, head: WeightFormat = BF16) -> str:
    return f"{linear} {head}".replace(" ", "-")


class Run:
    """A checkpoint loaded as the product loads it, with one memory."""

    def __init__(
        self, directory: Path, device: str, wish: Wish, *, dtype: str = "auto", kernel: str = "auto"
    ) -> None:
        self.machine = choose_machine(device, dtype, kernel)
        stored = StoredModel.open(directory)
        self.plan = plan_run(stored, self.machine, wish, reserve=0).question.plan
        self.model: CausalLM = load_as_planned(stored, self.plan, self.machine)
        self.memory = Memory.allocate(self.plan, self.machine.places, self.machine.dtype)

    def answer(self, prompt: Sequence[int], params: SamplingParams) -> Iterator[int]:
        """The tokens of one answer, as they come."""
        return generate(self.model, self.memory, prompt, params)

    def answers(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[list[int]]:
        """Answers that are decoded together."""
        found: list[list[int]] = [[] for _ in prompts]
        every = [params] * len(prompts)
        for place, token in generate_batch(self.model, self.memory, prompts, every):
            found[place].append(token)
        return found

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Of each token after the first chunk, one after another, float32 on the host."""
        chunk = self.memory.chunk
        made = [prefill(self.model, self.memory, tokens[:chunk]).cpu().clone()]
        for token in tokens[chunk:]:
            step = self.model(torch.tensor([[token]]), self.memory)
            made.append(step[0].cpu().clone())
        return torch.stack(made)

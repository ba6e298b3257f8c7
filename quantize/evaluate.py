"""How well a model predicts a text: perplexity over windows of it."""

from dataclasses import dataclass
from math import exp
from pathlib import Path

import torch
from torch.nn import functional as F

from calculator.errors import OptionError
from glm4q.engine import LLM

LOGITS_AT_ONCE = 128
"""Positions whose logits are in memory at once."""


@dataclass(frozen=True)
class Evaluation:
    """One checkpoint on one text."""

    directory: Path
    weights_bytes: int
    """What its weights take in memory, by the plan."""
    tokens: int
    """Tokens that were predicted."""
    perplexity: float


def evaluate(llm: LLM, text: str, window: int) -> Evaluation:
    """Perplexity of `text` in windows of that many tokens, each predicted from its own start.

    Raises OptionError where the text is too short.
    """
    token_ids = llm.tokenizer.encode(text)
    if len(token_ids) < 2:
        raise OptionError(f"the text has {len(token_ids)} tokens, and at least 2 are needed")
    prefix = llm.tokenizer.prefix_ids
    total, predicted = 0.0, 0
    for start in range(0, len(token_ids) - 1, window):
        part = token_ids[start : start + window]
        if len(part) > 1:
            total += negative_log_likelihood(llm, [*prefix, *part], len(prefix) + 1)
            predicted += len(part) - 1
    return Evaluation(llm.directory, llm.plan.weights_bytes, predicted, exp(total / predicted))


def negative_log_likelihood(llm: LLM, token_ids: list[int], first: int) -> float:
    """-log p of all tokens from place `first` on, each given those before it."""
    input_ids = torch.tensor([token_ids], device=llm.device)
    states = llm.model.hidden_states(input_ids, llm.new_cache(len(token_ids)))[0]
    total = 0.0
    for start in range(first - 1, len(token_ids) - 1, LOGITS_AT_ONCE):
        stop = min(start + LOGITS_AT_ONCE, len(token_ids) - 1)
        logits = llm.model.logits(states[start:stop])
        total += F.cross_entropy(logits, input_ids[0, start + 1 : stop + 1], reduction="sum").item()
    return total

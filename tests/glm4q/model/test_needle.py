"""What the trained demo model finds again in a long text, it finds with an INT8 cache as well."""

from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from glm4q.memory.allocation import Memory
from glm4q.model.decoder import CausalLM
from glm4q.text.tokenizer import Tokenizer
from tests.glm4q.memories import CPU, load_on_cpu, plan_on_cpu, prefill, runner_of

NEEDLES = {
    "Alice": "4172",
    "Bruno": "8391",
    "Clara": "2756",
    "David": "6043",
}
LETTERS = 1_600
"""Text about other things: 400 tokens, in which the model finds every number in float32."""
FOUND_AT_LEAST = 3


def _haystack() -> str:
    """Put a needle after each quarter of the text."""
    text = "\n".join(topics[name] for name in sorted(topics)[1::2])[:LETTERS]
    size = LETTERS // len(NEEDLES)
    pieces = [text[start : start + size] for start in range(0, LETTERS, size)]
    needles = [f"\nThe secret number of {name} is {number}.\n" for name, number in NEEDLES.items()]
    return "".join(piece + needle for piece, needle in zip(pieces, needles, strict=True))


def _answers(model: CausalLM, tokenizer: Tokenizer, kv: str) -> dict[str, str]:
    """Ask the model for each number, and take the likeliest tokens."""
    haystack = tokenizer.encode(_haystack() + "\nNow the list of all numbers.")
    plan = plan_on_cpu(model.config, len(haystack) + 40, chunk=512, kv=kv)
    memory = Memory.allocate(plan, {"host": CPU}, torch.float32)
    runner = runner_of(model, memory)
    prefill(runner, haystack)
    answers = {}
    for name in NEEDLES:
        memory.cache.truncate(len(haystack))
        token_ids = tokenizer.encode(f"\nThe secret number of {name} is")
        said: list[int] = []
        for _ in range(6):
            token_ids = [int(prefill(runner, token_ids).argmax())]
            said += token_ids
        answers[name] = tokenizer.decode(said)
    return answers


@pytest.mark.demo
def test_needles_are_found_with_int8(demo_checkpoint: Path) -> None:
    model = load_on_cpu(StoredModel.open(demo_checkpoint))
    tokenizer = Tokenizer.from_directory(demo_checkpoint)
    exact = _answers(model, tokenizer, "fp32")
    found = [name for name, number in NEEDLES.items() if number in exact[name]]
    assert len(found) >= FOUND_AT_LEAST, exact
    rounded = _answers(model, tokenizer, "int8")
    for name in found:
        assert NEEDLES[name] in rounded[name], rounded

"""Load a checkpoint as the options ask, for the commands that answer with it."""

import sys
from pathlib import Path

from calculator.memory.settings import parse_device
from calculator.options import parse_count, parse_size, parse_tokens
from calculator.questions.fit import Wish
from glm4q.commands.process.signals import ending_at_once_on_interrupt
from glm4q.engine import LLM
from glm4q.kernels.cpu.extension import slow_note
from glm4q.terminal.screen.console import Console


def make_wish(
    context: str | None,
    kv: str | None,
    embedding: str | None,
    gpu_layers: str | None,
    prefill_chunk: str,
    *,
    draft_tokens: int = 0,
    batch: int = 1,
) -> Wish:
    """Read the memory options, as they were typed. Raises OptionError."""
    return Wish(
        context=parse_tokens(context) if context else None,
        kv=kv,
        embedding=parse_device(embedding, "embedding"),
        prefill_chunk=parse_count(prefill_chunk, "prefill chunk"),
        gpu_layers="auto" if gpu_layers == "auto" else parse_count(gpu_layers, "gpu layers"),
        draft_tokens=draft_tokens,
        batch=batch,
    )


def load(
    model: Path, wish: Wish, reserve: int | None, *, device: str, dtype: str, kernel: str
) -> LLM:
    """Load a checkpoint while the terminal says so, and warn if its kernels are slow here."""
    with ending_at_once_on_interrupt(), Console(file=sys.stderr).status(f"loading {model}"):
        llm = LLM.load(model, device=device, dtype=dtype, kernel=kernel, wish=wish, reserve=reserve)
    if note := slow_note({tensor.device for tensor in llm.model.state_dict().values()}):
        print(f"glm4q: {note}", file=sys.stderr)
    return llm


def parse_reserve(reserve: str | None) -> int | None:
    """Read the memory that is left to other programs; None takes the default."""
    return parse_size(reserve, "reserve") if reserve else None

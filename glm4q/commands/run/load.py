"""Load a checkpoint as the options ask, for the commands that answer with it."""

import sys
from collections.abc import Callable
from pathlib import Path

from rich.text import Text

from calculator.checkpoint.stored import StoredModel
from calculator.memory.settings import parse_device
from calculator.options import parse_count, parse_size, parse_tokens
from calculator.questions.fit import Wish
from glm4q.commands.options.compute import Compute
from glm4q.commands.options.memory import Memory
from glm4q.commands.process.signals import ending_at_once_on_interrupt, stops_stay_stops
from glm4q.decode.batch import Batch
from glm4q.engine import LLM
from glm4q.kernels.cpu.extension import slow_note
from glm4q.planning.plan import check_room
from glm4q.terminal.screen.console import Console


def make_wish(memory: Memory, *, draft_tokens: int | None = None, batch: int = 1) -> Wish:
    """Read the memory options, as they were typed. Raises OptionError."""
    layers = memory.gpu_layers
    return Wish(
        context=parse_tokens(memory.context) if memory.context else None,
        kv=memory.kv,
        embedding=parse_device(memory.embedding, "embedding"),
        prefill_chunk=parse_count(memory.prefill_chunk, "prefill chunk"),
        gpu_layers="auto" if layers == "auto" else parse_count(layers, "gpu layers"),
        draft_tokens=draft_tokens,
        batch=batch,
    )


def print_note(text: str) -> None:
    """Print a line on standard error, so that a pipe gets only the output."""
    print(f"glm4q: {text}", file=sys.stderr, flush=True)


def load(
    model: Path,
    wish: Wish,
    reserve: int | None,
    compute: Compute,
    note: Callable[[str], None] = print_note,
) -> LLM:
    """Load a checkpoint while the terminal says so, and note if its kernels are slow here."""
    status = Console(file=sys.stderr).status(Text(f"loading {model}"))
    with ending_at_once_on_interrupt(), stops_stay_stops(), status:
        llm = LLM.load(model, **vars(compute), wish=wish, reserve=reserve)
    if slow := slow_note({tensor.device for tensor in llm.model.state_dict().values()}):
        note(slow)
    return llm


def reloader(llm: LLM) -> Callable[[], Batch]:
    """Make a function that loads a model as it was planned, once its memory was given back.

    The function keeps nothing of the model itself, and records its steps as those of the first one
    were. It raises MemoryFullError.
    """
    directory, machine, run_plan = llm.directory, llm.machine, llm.run_plan

    def reload() -> Batch:
        check_room(run_plan, machine)
        again = LLM.load_as_planned(StoredModel.open(directory), machine, run_plan)
        again.record_all()
        return again.rows

    return reload


def parse_reserve(reserve: str | None) -> int | None:
    """Read the memory that is left to other programs; None takes the default."""
    return parse_size(reserve, "reserve") if reserve else None

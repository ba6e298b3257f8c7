"""`glm4q chat` without a question: what it tells the terminal about the run, and its start."""

import os
from dataclasses import replace

import torch
from prompt_toolkit.application import get_app

from calculator.questions.solve import kv_choices, max_context
from glm4q.chat.completions.token_choices import token_choices
from glm4q.chat.session import ChatSession
from glm4q.chat.sessions.keeper import SessionKeeper
from glm4q.commands.run.keeping import Running
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM
from glm4q.memory.process import resident_bytes
from glm4q.terminal.commands import BY_NAME
from glm4q.terminal.figures import footer
from glm4q.terminal.keyboard.completion import QuestionCompleter
from glm4q.terminal.keyboard.input import EditorReader, LineReader, Reader, can_edit
from glm4q.terminal.loop import Terminal
from glm4q.terminal.screen.console import Console
from glm4q.terminal.screen.reply import Think
from glm4q.terminal.state import Run, State
from glm4q.terminal.user_directories import state_directory


def converse(
    running: Running,
    keeper: SessionKeeper,
    session: ChatSession,
    params: SamplingParams,
    *,
    think: Think,
    verbose: bool,
) -> None:
    """Chat in the terminal until the user leaves."""
    run = describe_run(running)
    state = State(session, params, Console(), run, keeper, think=think, verbose=verbose)
    Terminal(state, _reader(state)).run()


def describe_run(running: Running) -> Run:
    """Collect what the terminal shows about a loaded model."""
    llm = running.llm
    place = llm.machine.places[llm.machine.compute]

    def with_cache(kv: str, context: int | None) -> Run:
        running.change_cache(kv, context)
        return describe_run(running)

    return Run(
        model=str(llm.directory),
        plan=llm.fit.sentence(),
        kv=llm.fit.settings.kv,
        planned_bytes=llm.plan.compute_bytes,
        held_bytes=lambda: held_bytes(place),
        count_tokens=lambda text: len(llm.tokenizer.encode(text)),
        token_choices=lambda record: [*token_choices(llm.tokenizer, record)],
        larger_cache=lambda tokens: larger_cache(llm, tokens),
        with_cache=with_cache,
    )


def held_bytes(device: torch.device) -> int:
    """Measure this process: torch's allocations on a GPU, and resident memory on the host."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return resident_bytes()


def larger_cache(llm: LLM, tokens: int) -> tuple[str, int] | None:
    """Find the finest format of the KV cache with room for so many tokens on this device.

    Returns its name and the most tokens that it has room for; None where no format has.
    """
    question, usable = llm.fit.question, llm.fit.usable_bytes
    for kv in kv_choices(question.subject.config):
        changed = question.with_settings(replace(question.settings, kv=kv))
        if (most := max_context(changed, usable)) >= tokens:
            return kv, most
    return None


def _reader(state: State) -> Reader:
    if not can_edit(os.environ.get("TERM", "")):
        return LineReader()
    return EditorReader(
        state_directory() / "history",
        QuestionCompleter(tuple(BY_NAME)),
        lambda: footer(state, get_app().output.get_size().columns),
    )

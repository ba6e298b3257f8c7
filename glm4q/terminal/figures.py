"""Figures of a chat in words: the line after an answer, the footer, /stats and /show."""

from calculator.errors import ContextFullError
from calculator.units import counted, human_bytes
from glm4q.chat.session import ChatSession
from glm4q.terminal.settings import written
from glm4q.terminal.state import State

NEARLY_FULL = 0.85
"""From this share of the context on, each answer ends with a warning."""


def status(session: ChatSession) -> str:
    """Say in one line: tokens of the answer, speed, and how full the context is."""
    answer = session.last_answer
    used = f"context {session.context_used:,} of {session.context_size:,}"
    if answer is None or not answer.tokens:
        return used
    endings = {"length": ", cut at the limit", "repetition": ", stopped because it repeated itself"}
    ended = endings.get(answer.finish_reason, "")
    return (
        f"{counted(answer.tokens, 'token')}{ended}, {answer.tokens_per_second:.1f} tokens/s, "
        f"first after {answer.prefill_seconds:.2f} s, {used}"
    )


def details(session: ChatSession) -> str:
    """Say all that is known about the last answer: /stats and --verbose."""
    answer = session.last_answer
    if answer is None:
        return "There is no answer yet."
    read = answer.prompt_tokens - answer.cached_tokens
    speed = read / answer.prefill_seconds if answer.prefill_seconds else 0.0
    lines = (
        f"prompt     {counted(answer.prompt_tokens, 'token')}, "
        f"{answer.cached_tokens:,} of them kept from before",
        f"read       {counted(read, 'token')} at {speed:.1f} tokens/s",
        f"first      after {answer.prefill_seconds:.2f} s",
        f"answer     {counted(answer.tokens, 'token')} at {answer.tokens_per_second:.1f} tokens/s",
        f"ended by   {answer.finish_reason}",
        f"context    {session.context_used:,} of {session.context_size:,}",
    )
    return "\n".join(lines)


def warning(session: ChatSession) -> str:
    """Say that the context is nearly full, or is full; empty while there is room."""
    left = session.context_size - session.context_used
    if left > session.context_size * (1 - NEARLY_FULL):
        return ""
    if left <= session.least_answer:
        return (
            "The context is full: /drop forgets the oldest questions, /summary puts a summary in "
            "their place, /reset forgets all."
        )
    return (
        f"The context is nearly full: {counted(left, 'token')} left; /drop forgets the oldest "
        "questions, /summary puts a summary in their place."
    )


def repetition(session: ChatSession) -> str:
    """Say what helps where an answer was stopped because it repeated itself; else empty."""
    answer = session.last_answer
    if answer is None or answer.finish_reason != "repetition":
        return ""
    return (
        "The answer repeated itself without end. /set repetition_penalty 1.1 or a higher "
        "temperature helps; /set loop_guard off lets it go on."
    )


def context_full(state: State, full: ContextFullError) -> str:
    """Say by how many tokens a question is too long, and what can be done."""
    session, run = state.session, state.run
    needed = full.tokens + session.least_answer
    over = counted(needed - full.room, "token")
    answer = counted(session.least_answer, "token")
    lines = [
        f"The question does not fit: with it, and an answer of {answer}, the conversation is "
        f"{over} over the context of {full.room:,}."
    ]
    if session.messages:
        lines += [
            "/drop forgets the oldest half of the questions, and asks this one again; the system "
            "prompt and the tools stay.",
            "/summary does the same, and puts a summary in their place.",
        ]
    else:
        lines.append("It is the only one: ask a shorter question, or name fewer files.")
    if larger := run.larger_cache(needed):
        kv, most = larger
        lines.append(
            f"/kv {kv} goes on with a cache of that format, which has room for {most:,} tokens: it "
            "reads the conversation again, and asks this question."
        )
    return "\n".join(lines)


def show(state: State) -> str:
    """Say what runs, with which settings: /show."""
    session, run = state.session, state.run
    held = f"{human_bytes(run.held_bytes())} now, {human_bytes(run.planned_bytes)} planned"
    lines = (
        f"model      {run.model}",
        f"plan       {run.plan}",
        f"memory     {held}",
        f"settings   {written(state.params)}",
        f"system     {session.system or 'none'}",
        f"messages   {len(session.messages)}",
        f"context    {session.context_used:,} of {session.context_size:,} tokens",
    )
    return "\n".join(lines)


def footer(state: State, width: int) -> str:
    """Write the line under the prompt; what a narrow window has no room for is left out."""
    session, run, answer = state.session, state.run, state.session.last_answer
    parts = [f"context {session.context_used:,} of {session.context_size:,}"]
    if answer is not None and answer.tokens > 1:
        parts.append(f"{answer.tokens_per_second:.1f} tokens/s")
    parts.append(f"memory {human_bytes(run.held_bytes())}, plan {human_bytes(run.planned_bytes)}")
    line = f" {parts[0]}"
    for part in parts[1:]:
        if len(line) + len(part) + 4 <= width:
            line += f" · {part}"
    return line[: max(width - 1, 0)]

"""Commands that make room in a full context: forget, summarize, or use another KV cache."""

from calculator.errors import OptionError
from calculator.options import parse_tokens
from calculator.units import counted
from glm4q.chat.summary import summarize
from glm4q.terminal.screen.progress import with_progress
from glm4q.terminal.screen.reply import ReplyView
from glm4q.terminal.session_commands import questions
from glm4q.terminal.state import State


def drop(state: State, argument: str) -> str | None:
    """/drop: forget the oldest questions with their answers, as many as asked for, or half."""
    count, start, end = _oldest(state, "/drop", argument)
    messages = state.session.messages
    state.session.rewind([*messages[:start], *messages[end:]])
    state.note(f"{counted(count, 'question')} forgotten, with what was answered.")
    return _pending(state)


def summary(state: State, argument: str) -> str | None:
    """/summary: let the model summarize the oldest questions, and go on from the summary."""
    count, start, end = _oldest(state, "/summary", argument)
    session, before = state.session, state.session.context_used
    view = ReplyView(state.console, state.console, raw=state.raw, think="hide")
    events = summarize(session, start, end, state.params)
    try:
        view.show(with_progress(events, state.console, session.prompt_progress))
    except KeyboardInterrupt:
        state.note("stopped; nothing is replaced")
        return None
    state.note(
        f"The summary stands for {counted(count, 'question')} now: the conversation takes "
        f"{session.context_used:,} tokens instead of {before:,}."
    )
    return _pending(state)


def change_cache(state: State, argument: str) -> str | None:
    """/kv FORMAT: go on with a KV cache of another format, and with as much context as fits."""
    kv, _, tokens = argument.partition(" ")
    if not kv:
        raise OptionError(
            f"/kv needs a format, as in /kv int8 or /kv int8 32k; now it is {state.run.kv}"
        )
    context = parse_tokens(tokens.strip()) if tokens.strip() else None
    with state.keeper.cache_changes():
        state.run = state.run.with_cache(kv, context)
    state.leave_room()
    again = " The conversation is read again with the next question."
    state.note(f"{state.run.plan}.{again if state.session.messages else ''}")
    return _pending(state)


def _oldest(state: State, command: str, argument: str) -> tuple[int, int, int]:
    """Return how many questions are meant, and where they begin and end among the messages.

    What stands before the first question, such as tools, is not among them.
    """
    messages = state.session.messages
    places = questions(messages)
    if not places:
        raise OptionError("there is no question yet")
    if argument and not (argument.isdecimal() and 1 <= int(argument) <= len(places)):
        raise OptionError(f"{command} takes a number from 1 to {len(places)}, not {argument}")
    count = int(argument) if argument else (len(places) + 1) // 2
    return count, places[0], [*places, len(messages)][count]


def _pending(state: State) -> str | None:
    """Take the question that did not fit, to ask it again."""
    question, state.pending = state.pending, ""
    return question or None

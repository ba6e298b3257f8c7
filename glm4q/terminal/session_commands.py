"""Commands that keep conversations, go back to them, or go on from an earlier place."""

from collections.abc import Sequence

from calculator.errors import OptionError
from calculator.units import counted
from glm4q.chat.messages import Message
from glm4q.terminal.state import State


def save(state: State, name: str) -> None:
    """/save NAME: keep the conversation; without a name, under the last one."""
    keeper = state.keeper
    name = name or keeper.name or ""
    if not name:
        raise OptionError("/save needs a name, as in /save book")
    if not state.session.messages:
        raise OptionError("there is nothing to save yet")
    problem = keeper.save(name)
    state.note(f"Saved as {name}: {counted(len(state.session.messages), 'message')}.")
    if problem:
        state.say(problem, "yellow")


def load(state: State, name: str) -> None:
    """/load NAME: go on with a kept conversation; without a name, list them."""
    if not name:
        names = ", ".join(state.keeper.directory.names()) or "none"
        raise OptionError(f"/load needs a name; the kept conversations are {names}")
    problem = state.keeper.load(name)
    state.branches.clear()
    say_loaded(state, name, problem)


def say_loaded(state: State, name: str, problem: str | None) -> None:
    """Say what was loaded, and what of it has to be read again."""
    session = state.session
    _, cached = session.row()
    state.note(
        f"{name}: {counted(len(session.messages), 'message')}, "
        f"{counted(cached, 'token')} of its cache come from disk."
    )
    if problem:
        state.say(problem, "yellow")


def branch(state: State, name: str) -> None:
    """/branch NAME: go on under another name, from here or where that branch was left."""
    if not name:
        lines = [
            f"{'* ' if each == state.branch else '  '}{each}"
            for each in sorted({state.branch, *state.branches})
        ]
        state.say("\n".join(lines))
        return
    if name == state.branch:
        raise OptionError(f"the conversation is on the branch {name} already")
    state.branches[state.branch] = state.session.conversation
    left, state.branch = state.branch, name
    if (conversation := state.branches.pop(name, None)) is None:
        state.note(f"The branch {name} begins here; /branch {left} goes back.")
        return
    state.session.resume(conversation)
    count = counted(len(conversation.messages), "message")
    state.note(f"On the branch {name}: {count}.")


def undo(state: State, _: str) -> None:
    """/undo: forget the last question and its answer."""
    state.note(f"Forgotten: {shortened(take_last_question(state))}")


def retry(state: State, _: str) -> str:
    """/retry: answer the last question again."""
    return take_last_question(state)


def edit(state: State, text: str) -> str | None:
    """/edit TEXT: ask this instead of the last question; alone, edit that question."""
    question = take_last_question(state)
    if text:
        return text
    state.draft = question
    state.note("Change the question and send it; the conversation goes on from before it.")
    return None


def take_last_question(state: State) -> str:
    """Remove the last question from the conversation, with all that came after it."""
    messages = state.session.messages
    places = questions(messages)
    if not places:
        raise OptionError("there is no question yet")
    state.session.rewind(messages[: places[-1]])
    return str(messages[places[-1]]["content"])


def questions(messages: Sequence[Message]) -> list[int]:
    """Return the places of the user's questions."""
    return [place for place, message in enumerate(messages) if message["role"] == "user"]


def shortened(text: str) -> str:
    """Return the beginning of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."

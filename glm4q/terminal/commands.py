"""The commands of a chat: what begins with a slash."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calculator.errors import OptionError
from glm4q.terminal import figures, make_room, session_commands, settings
from glm4q.terminal.keyboard import clipboard, files
from glm4q.terminal.state import State
from glm4q.terminal.token_table import show_tokens

Action = Callable[[State, str], str | None]
"""Does what a command says with its argument; returns a question to ask, if there is one."""

KEYS = """\
\"\"\"              begins and ends a message of several lines; Alt-Enter begins a new line
@PATH            in a question puts a text file before it
Ctrl-C stops an answer and keeps the conversation; Ctrl-R searches the history."""


@dataclass(frozen=True)
class Command:
    """A name, what stands behind it, and what it does."""

    name: str
    argument: str
    summary: str
    act: Action
    aliases: Sequence[str] = ()


class Leave(Exception):
    """The user leaves the chat."""


def _help(state: State, _: str) -> None:
    lines = [f"{f'{each.name} {each.argument}':<16} {_described(each)}" for each in COMMANDS]
    state.say("\n".join([*lines, KEYS]))


def _described(command: Command) -> str:
    aliases = f" ({', '.join(command.aliases)})" if command.aliases else ""
    return f"{command.summary}{aliases}"


def _reset(state: State, _: str = "") -> None:
    state.session.reset()
    state.pending = ""
    state.note("The conversation is forgotten.")


def _set_system(state: State, text: str) -> None:
    state.session.system = text or None
    _reset(state)


def _set(state: State, argument: str) -> None:
    name, _, value = argument.partition(" ")
    if not name:
        state.say(settings.written(state.params))
        return
    state.params = settings.with_setting(state.params, name, value)
    name = name.replace("-", "_")
    state.note(f"{name} is {value.strip()}.")


def _toggle_raw(state: State, _: str) -> None:
    state.raw = not state.raw
    state.note(f"Answers are shown {'as plain text' if state.raw else 'with styles'}.")


def _file(state: State, argument: str) -> str:
    if not argument:
        raise OptionError("/file needs a path, as in /file notes.txt")
    path = Path(os.path.expanduser(argument.strip('"')))
    text = files.read_text(path)
    state.note(files.counts({path: state.run.count_tokens(text)}))
    return files.with_files("", {path: text})


def _copy(state: State, _: str) -> None:
    answers = [each["content"] for each in state.session.messages if each["role"] == "assistant"]
    if not answers:
        raise OptionError("there is no answer to copy")
    state.note(clipboard.copy(answers[-1], state.console))


def _leave(state: State, _: str) -> None:
    raise Leave


COMMANDS = (
    Command("/help", "", "this list", _help, ("/?",)),
    Command("/set", "NAME VALUE", "change a sampling setting; alone, list them", _set),
    Command(
        "/show", "", "model, plan, memory, settings, tokens", lambda s, _: s.say(figures.show(s))
    ),
    Command(
        "/stats", "", "figures of the last answer", lambda s, _: s.say(figures.details(s.session))
    ),
    Command("/tokens", "", "the last answer's tokens, and how likely each was", show_tokens),
    Command("/file", "PATH", "send a text file", _file),
    Command("/copy", "", "copy the last answer", _copy),
    Command("/undo", "", "forget the last question and its answer", session_commands.undo),
    Command("/retry", "", "answer the last question again", session_commands.retry),
    Command(
        "/edit", "[TEXT]", "ask this instead; alone, edit the last question", session_commands.edit
    ),
    Command(
        "/branch",
        "[NAME]",
        "go on under another name, or go back to one; alone, list them",
        session_commands.branch,
    ),
    Command("/save", "[NAME]", "keep the conversation on disk", session_commands.save),
    Command("/load", "NAME", "go on with a kept conversation", session_commands.load),
    Command(
        "/drop", "[N]", "forget the N oldest questions; half of them without N", make_room.drop
    ),
    Command(
        "/summary",
        "[N]",
        "put a summary in the place of the N oldest questions; of half of them without N",
        make_room.summary,
    ),
    Command(
        "/kv",
        "FORMAT",
        "go on with a KV cache of another format, and as much context as fits",
        make_room.change_cache,
    ),
    Command("/raw", "", "show answers as plain text, or with styles again", _toggle_raw),
    Command("/system", "TEXT", "set the system prompt and start anew; alone, drop it", _set_system),
    Command("/reset", "", "forget the conversation", _reset, ("/clear",)),
    Command("/exit", "", "leave, as Ctrl-D does", _leave, ("/quit", "/bye")),
)
BY_NAME = {name: each for each in COMMANDS for name in (each.name, *each.aliases)}

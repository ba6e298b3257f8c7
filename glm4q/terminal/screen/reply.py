"""A reply in the terminal: the answer, the thinking before it, calls of tools and their results."""

import json
from collections.abc import Generator
from contextlib import closing
from typing import Literal

from rich.console import Console

from calculator.errors import OptionError
from glm4q.chat.completions.completion import ChatEvent
from glm4q.chat.replies import Text, Thinking
from glm4q.chat.tool_messages import ToolResult
from glm4q.terminal.screen.answer import CONTROL_PICTURES, AnswerWriter
from glm4q.tools.calls import BadCall, ToolCall

MOST_LINES = 12
"""Lines of a result that are shown; the model reads all of it."""

Think = Literal["show", "hide"]


def parse_think(text: str) -> Think:
    """Read what --think says. Raises OptionError."""
    match text:
        case "show" | "hide":
            return text
    raise OptionError(f"--think must be show or hide, not {text!r}")


class ReplyView:
    """Shows the events of replies. Answers go to one console, all else to another.

    The two are one in a conversation; a pipe gets the answer alone.
    """

    def __init__(
        self, console: Console, notes: Console, *, raw: bool = False, think: Think = "show"
    ) -> None:
        self._console, self._notes = console, notes
        self._raw, self._think = raw, think

    def show(self, events: Generator[ChatEvent]) -> None:
        """Show a reply with all its rounds. Closes the events, whatever happens."""
        with closing(events):
            event = next(events, None)
            while event is not None:
                if isinstance(event, Text | Thinking):
                    event = self._write(event, events)
                    continue
                self._say(event)
                event = next(events, None)

    def _write(self, event: ChatEvent | None, events: Generator[ChatEvent]) -> ChatEvent | None:
        """Write text as long as it comes. Returns the first event that is none."""
        thought = False
        with closing(AnswerWriter(self._console, raw=self._raw)) as writer:
            while isinstance(event, Text | Thinking):
                if isinstance(event, Thinking):
                    if self._think == "show":
                        thought = True
                        writer.think(event.text)
                else:
                    if thought:
                        writer.end_thinking()
                        thought = False
                    writer.write(event.text)
                event = next(events, None)
        return event

    def _say(self, event: ToolCall | BadCall | ToolResult) -> None:
        if isinstance(event, ToolCall):
            note = f"{event.name} is called with\n{call_text(event)}"
        elif isinstance(event, BadCall):
            note = f"a call cannot be read: {event.reason}"
        elif isinstance(event.call, ToolCall):
            note = f"{event.call.name} gives\n{_first_lines(event.text)}"
        else:
            return  # the reason is shown already
        self._notes.print(
            note.translate(CONTROL_PICTURES), style="dim", highlight=False, markup=False
        )


def call_text(call: ToolCall) -> str:
    """Return the arguments as a person reads them: code, for instance, with its line breaks."""
    lines = []
    for name, value in call.arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(f"  {name}: {text}" if "\n" not in text else f"  {name}:\n{_indented(text)}")
    return "\n".join(lines) or "  nothing"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _first_lines(text: str) -> str:
    lines = text.splitlines()
    shown = "\n".join(f"  {line[:200]}" for line in lines[:MOST_LINES])
    more = len(lines) - MOST_LINES
    return f"{shown}\n  ... and {more} more lines" if more > 0 else shown

"""The chat in a terminal: a prompt, streamed Markdown, a status line, and slash commands."""

from collections.abc import Callable

from rich.console import Console

from calculator.errors import Glm4qError
from calculator.units import counted
from glm4q.chat.session import ChatSession
from glm4q.decode.sampling import SamplingParams
from glm4q.terminal.reply import ReplyView, Think

HELP = """\
/help            this list
/reset           forget the conversation
/system TEXT     set the system prompt and start anew; without TEXT, drop it
/exit            leave, as Ctrl-D does
Ctrl-C stops an answer and keeps the conversation."""


class Terminal:
    """Reads questions and shows answers until the user leaves."""

    def __init__(
        self,
        session: ChatSession,
        params: SamplingParams,
        console: Console,
        *,
        think: Think = "show",
    ) -> None:
        self._session, self._params, self._console = session, params, console
        self._view = ReplyView(console, console, think=think)
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: self._say(HELP),
            "/reset": lambda _: self._reset(),
            "/system": self._set_system,
        }

    def run(self) -> None:
        """Read and answer questions until /exit or Ctrl-D."""
        self._say("/help lists what you can type.", style="dim")
        while (line := self._read()) is not None:
            if not line:
                continue
            name, _, argument = line.partition(" ")
            if name == "/exit":
                return
            if name in self._commands:
                self._commands[name](argument.strip())
            elif name.startswith("/") and name[1:].isalpha():
                self._say(f"{name} is not a command; /help lists them")
            else:
                self._answer(line)

    def _read(self) -> str | None:
        """Read a line of input. It is empty after Ctrl-C, and None at the end of input."""
        try:
            return input("> ").strip()
        except KeyboardInterrupt:
            self._console.print()
            return ""
        except EOFError:
            self._console.print()
            return None

    def _answer(self, question: str) -> None:
        try:
            self._view.show(self._session.stream(question, self._params))
        except KeyboardInterrupt:
            self._say("stopped", style="dim")
        except Glm4qError as error:
            self._say(str(error), style="red")
            return
        self._say(status(self._session), style="dim")

    def _say(self, text: str, style: str = "") -> None:
        """Print the program's own words: no Markdown, and no colours but the style's."""
        self._console.print(text, style=style, highlight=False, markup=False)

    def _reset(self) -> None:
        self._session.reset()
        self._say("The conversation is forgotten.", style="dim")

    def _set_system(self, text: str) -> None:
        self._session.system = text or None
        self._reset()


def status(session: ChatSession) -> str:
    """Say in one line: tokens of the answer, speed, and how full the context is."""
    answer = session.last_answer
    used = f"context {session.context_used:,} of {session.context_size:,}"
    if answer is None or not answer.tokens:
        return used
    ended = ", cut at the limit" if answer.finish_reason == "length" else ""
    return (
        f"{counted(answer.tokens, 'token')}{ended}, {answer.tokens_per_second:.1f} tokens/s, "
        f"first after {answer.prefill_seconds:.2f} s, {used}"
    )

"""What a chat in a terminal knows while it runs, and how it speaks to the user."""

from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console

from glm4q.chat.completions.answer_record import AnswerRecord
from glm4q.chat.completions.token_choices import TokenChoice
from glm4q.chat.session import ChatSession
from glm4q.chat.sessions.keeper import SessionKeeper
from glm4q.chat.transcript import Conversation
from glm4q.decode.sampling import SamplingParams
from glm4q.terminal.screen.reply import Think

LEAST_ANSWER = 32
"""Tokens: who reads a shorter answer does not see that the context is full."""


@dataclass(frozen=True)
class Run:
    """The model that answers, and what is known about its run."""

    model: str
    plan: str
    """One line: context, format of the KV cache, places."""
    kv: str
    """The format of the KV cache."""
    planned_bytes: int
    """Bytes that the plan gives to the device that computes."""
    held_bytes: Callable[[], int]
    """Measures the bytes that the run has now on that device."""
    count_tokens: Callable[[str], int]
    token_choices: Callable[[AnswerRecord], list[TokenChoice]]
    """Lists the tokens of an answer whose settings asked for their probabilities."""
    larger_cache: Callable[[int], tuple[str, int] | None]
    """Finds a format of the KV cache with room for so many tokens, and its most tokens."""
    with_cache: Callable[[str, int | None], "Run"]
    """Goes on with another cache: its format, and its tokens or as many as fit. Raises Glm4qError
    where it does not fit; then the cache is the old one, and empty.
    """


@dataclass
class State:
    """A chat between two questions: the commands change it."""

    session: ChatSession
    params: SamplingParams
    console: Console
    run: Run
    keeper: SessionKeeper
    think: Think = "show"
    raw: bool = False
    """Show the answer's characters without styles and wrapping."""
    verbose: bool = False
    """Show all figures after each answer."""
    pending: str = ""
    """The question that did not fit into the context; /drop and /summary ask it again."""
    draft: str = ""
    """What the next prompt begins with: a question to change."""
    branch: str = "main"
    branches: dict[str, Conversation] = field(default_factory=dict)
    """The other branches, where each was left."""

    def __post_init__(self) -> None:
        self.leave_room()

    def leave_room(self) -> None:
        """Let no question fill the context so far that its answer is hardly one."""
        self.session.least_answer = min(LEAST_ANSWER, self.session.context_size // 4)

    def say(self, text: str, style: str = "") -> None:
        """Print the program's own words: no Markdown, and no colours but the style's."""
        self.console.print(text, style=style, highlight=False, markup=False)

    def note(self, text: str) -> None:
        """Print something of less importance than an answer."""
        self.say(text, "dim")

    def fail(self, text: str) -> None:
        """Print what is wrong, in one line."""
        self.say(text, "red")

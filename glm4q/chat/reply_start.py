"""A prompt, and where it leaves the model: in the line of its role, or in its thinking."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from glm4q.chat.messages import Message
from glm4q.chat.replies import THINK, ReplyParser
from glm4q.decode.sampling import Constraint, SamplingParams
from glm4q.tools.calls import CallStyle


@dataclass(frozen=True)
class ReplyStart:
    """How a reply to a prompt begins."""

    role_line: bool
    """The prompt ends with `<|assistant|>`: a newline, or the name of a tool, comes first."""
    thinking: bool
    """The prompt ends inside `<think>`."""

    @classmethod
    def of(cls, prompt: str) -> Self:
        """Read the end of a prompt."""
        return cls(not prompt.endswith("\n"), prompt.rstrip().endswith(THINK))

    def parser(
        self,
        tools: Collection[str],
        stop: Sequence[str],
        style: CallStyle,
        natives: Collection[str] = (),
    ) -> ReplyParser:
        """Return what reads the reply. tools: names that were offered; stop: strings that end it.

        style and natives: how the template writes calls, and GLM-4's own tools among the names.
        """
        return ReplyParser(
            tools=tools,
            thinking=self.thinking,
            role_line=self.role_line,
            stop=stop,
            style=style,
            natives=natives,
        )


class Constrain(Protocol):
    """Makes what a reply must match, from where its prompt leaves the model."""

    @property
    def must_match(self) -> bool:
        """Whether an answer that is cut before it matches is an error."""

    def __call__(self, start: ReplyStart) -> Constraint:
        """Begin a reply."""


@dataclass(frozen=True)
class Prompt:
    """A conversation that waits for a reply, and how the reply is to be."""

    messages: list[Message]
    text: str
    token_ids: list[int]
    params: SamplingParams
    constrain: Constrain | None

"""The family's chat protocols as one table: prompts, tools, calls, observations and stop ids.

A dialect serves a checkpoint whose template is missing or wrong. It writes what transformers
renders from the authors' template, down to the newlines before each tool: the templates have more,
but `trim_blocks` eats one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from calculator.errors import OptionError, TokenizerError
from glm4q.chat.messages import Message, Tool
from glm4q.chat.offers.listed import listed_offer
from glm4q.chat.offers.sections import NATIVE_TOOLS, Z1_INTRODUCTION, SectionOffer
from glm4q.tools.calls import CallStyle

ROLES = ("system", "user", "assistant", "observation")


class Offer(Protocol):
    """Writes the content of the system message that offers tools."""

    def __call__(self, tools: list[Any], content: str | None) -> str:
        """content: what the message says itself."""


@dataclass(frozen=True)
class Dialect:
    """How one generation of the family writes a prompt. Called, it renders one."""

    name: str
    control_tokens: frozenset[str]
    """A tokenizer without these cannot speak it."""
    stop_tokens: frozenset[str]
    """Tokens that end a reply. The family has no token for the end of a message: the role that
    comes next ends it.
    """
    prefix: str = "[gMASK]<sop>"
    offer: Offer = field(default_factory=SectionOffer)
    """How tools are offered."""
    natives: frozenset[str] = frozenset()
    """Kinds of tools that the offer describes itself; see Tool.native."""
    style: CallStyle = "metadata"
    """How calls are written."""
    joins_content: bool = False
    """The offer and the content of a system message are one message."""
    before_content: str = "\n"
    """Ends the line of the role."""
    system_first: bool = False
    """System messages stand before all others, and only the assistant's metadata is written."""
    writes_empty: bool = False
    """A message without content is written too."""
    hides_thinking: bool = False
    """Content is what follows the last </think>, without white space around it."""
    reply: str = "<|assistant|>"
    """Ends the prompt."""

    def __call__(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None,
        add_generation_prompt: bool,
    ) -> str:
        """Render the prompt."""
        prompt = [self.prefix]
        for message in self._ordered(with_tools(messages, tools)):
            if "tools" in message:
                content = message.get("content")
                offered = self._offer(message["tools"], content)
                prompt.append(f"<|system|>{self.before_content}{offered}")
                if self.joins_content:
                    continue
            if message.get("content") or (self.writes_empty and "content" in message):
                prompt.append(self._say(message))
        if add_generation_prompt:
            prompt.append(self.reply)
        return "".join(prompt)

    def _ordered(self, messages: list[Message]) -> list[Message]:
        if not self.system_first:
            return messages
        return sorted(messages, key=lambda message: message["role"] != "system")

    def _offer(self, tools: Any, content: Any) -> str:
        if not isinstance(tools, list):
            raise TokenizerError(f"tools must be a list of functions, not {type(tools).__name__}")
        return self.offer(tools, content if isinstance(content, str) else None)

    def _say(self, message: Message) -> str:
        role, content = message["role"], message["content"]
        if role not in ROLES:
            raise TokenizerError(f"{self.name} knows the roles {', '.join(ROLES)}, not {role!r}")
        if not isinstance(content, str):
            raise TokenizerError(
                f"{self.name} reads content as text, not as {type(content).__name__}"
            )
        if self.hides_thinking and role != "system":
            content = content.split("</think>")[-1].strip()
        metadata = message.get("metadata", "")
        if self.system_first and role != "assistant":
            metadata = ""
        return f"<|{role}|>{metadata}{self.before_content}{content}"


def with_tools(messages: Sequence[Message], tools: Sequence[Tool] | None) -> list[Message]:
    """GLM-4 reads tools from a system message."""
    return [{"role": "system", "tools": tools}, *messages] if tools else [*messages]


def stop_token_ids(control_tokens: Mapping[str, int]) -> frozenset[int]:
    """Return the tokens that end a reply in the dialects that a tokenizer can speak.

    control_tokens: the tokenizer's, with their ids. Some checkpoints state fewer or none.
    """
    spoken = [each for each in DIALECTS.values() if control_tokens.keys() >= each.control_tokens]
    names = {token for dialect in spoken for token in dialect.stop_tokens}
    return frozenset(control_tokens[token] for token in names if token in control_tokens)


GLM4_TOKENS = frozenset({"[gMASK]", "<sop>", "<|user|>", "<|assistant|>"})
GLM4_STOP_TOKENS = frozenset({"<|endoftext|>", "<|user|>", "<|observation|>"})
GLM4 = Dialect(
    "glm-4",
    GLM4_TOKENS,
    GLM4_STOP_TOKENS,
    offer=SectionOffer(natives=NATIVE_TOOLS),
    natives=frozenset(NATIVE_TOOLS),
)

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            "chatglm3",
            frozenset({"[gMASK]", "sop", "<|user|>", "<|assistant|>"}),
            frozenset({"</s>", "<|user|>", "<|observation|>"}),
            prefix="[gMASK]sop",
            writes_empty=True,
            before_content="\n ",  # its tokenizer begins each text with a space
            offer=listed_offer,
            style="python",
            joins_content=True,
        ),
        GLM4,
        Dialect(
            "glm-4-0414",
            GLM4_TOKENS,
            GLM4_STOP_TOKENS,
            offer=SectionOffer(introduction="", before_tool="\n\n"),
            system_first=True,
            writes_empty=True,
        ),
        Dialect(
            "glm-z1",
            GLM4_TOKENS,
            GLM4_STOP_TOKENS,
            offer=SectionOffer(introduction=Z1_INTRODUCTION),
            system_first=True,
            writes_empty=True,
            hides_thinking=True,
            reply="<|assistant|>\n<think>",
        ),
    )
}


def find_dialect(name: str) -> Dialect:
    """Return the dialect of this name. Raises OptionError."""
    if name not in DIALECTS:
        raise OptionError(f"--dialect must be {', '.join(DIALECTS)}, not {name!r}")
    return DIALECTS[name]

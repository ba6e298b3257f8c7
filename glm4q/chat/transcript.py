"""The text of a conversation beside the token ids in which it was really produced.

A model may spell a text in other tokens than the tokenizer would. A later prompt that begins as the
conversation does takes over its ids, so that a row of the cache which holds them serves again: also
after the last question was forgotten, asked anew or changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from glm4q.chat.messages import Message
from glm4q.text.tokenizer import Tokenizer


@dataclass
class Transcript:
    """A conversation as text and as tokens, with the places where both may be cut."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cuts: list[tuple[int, int]] = field(default_factory=list)
    """Characters and tokens up to the end of each prompt and each reply."""

    def encode(self, prompt: str, tokenizer: Tokenizer) -> list[int]:
        """Encode a prompt; what it shares with the conversation has the ids that it had there."""
        for characters, tokens in reversed(self.cuts):
            if prompt.startswith(self.text[:characters]):
                added = prompt[characters:]
                # Behind a control token nothing can merge with what stands before it.
                if not added or added.startswith(tuple(tokenizer.control_tokens)):
                    more = tokenizer.encode_prompt(added) if added else []
                    return self.token_ids[:tokens] + more
        return tokenizer.encode_prompt(prompt)

    def begin(self, prompt: str, prompt_ids: Sequence[int]) -> None:
        """Go on from a prompt; what it does not begin with is dropped."""
        prompt_ids = list(prompt_ids)
        self.cuts = [
            (characters, tokens)
            for characters, tokens in self.cuts
            if prompt.startswith(self.text[:characters])
            and prompt_ids[:tokens] == self.token_ids[:tokens]
        ]
        self.text, self.token_ids = prompt, prompt_ids
        self._cut()

    def end(self, reply: str) -> None:
        """Add the text of a reply whose tokens were added one by one."""
        self.text += reply
        self._cut()

    def copy(self) -> "Transcript":
        """Return a transcript that can go on by itself."""
        return Transcript(self.text, [*self.token_ids], [*self.cuts])

    def _cut(self) -> None:
        cut = len(self.text), len(self.token_ids)
        if cut not in self.cuts:
            self.cuts.append(cut)


@dataclass(frozen=True)
class Conversation:
    """What a session knows between two questions."""

    system: str | None
    messages: tuple[Message, ...]
    transcript: Transcript

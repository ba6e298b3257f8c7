"""A conversation: messages on one side, the token ids in the cache on the other.

The cache keeps the tokens that were really produced. A later prompt that begins with the text of
those before it takes over their ids, so nothing that is cached is computed, or tokenized, again.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import torch

from calculator.errors import MemoryFullError, OptionError
from glm4q.chat.messages import Message
from glm4q.chat.template import ChatTemplate
from glm4q.decode.generate import LanguageModel, generate
from glm4q.decode.sampling import SamplingParams
from glm4q.memory.allocation import Memory
from glm4q.text.tokenizer import Tokenizer


@dataclass
class Answer:
    """What one answer took; filled while it is streamed."""

    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that were in the cache already."""
    tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    finish_reason: str = "interrupted"
    """stop (the model ended it), length (max_tokens or the context did), or interrupted."""

    @property
    def tokens_per_second(self) -> float:
        """Speed of decoding, after the first token."""
        return (self.tokens - 1) / self.decode_seconds if self.tokens > 1 else 0.0


class ChatSession:
    """Asks, streams, and remembers."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        memory: Memory,
        *,
        stop_token_ids: frozenset[int],
        system: str | None = None,
        params: SamplingParams = SamplingParams(),  # noqa: B008 - immutable
    ) -> None:
        self._model, self._tokenizer, self._template = model, tokenizer, template
        self._memory, self._cache = memory, memory.cache
        self._stop_token_ids = stop_token_ids
        self.system, self.params = system, params
        self.last_answer: Answer | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the conversation; the system prompt stays."""
        self.messages: list[Message] = []
        self._text = ""  # what the token ids below spell
        self._token_ids: list[int] = []  # the first `cache.length` of them are in the cache
        self._cache.truncate(0)

    @property
    def context_used(self) -> int:
        """Tokens of the conversation so far."""
        return len(self._token_ids)

    @property
    def context_size(self) -> int:
        return self._cache.max_seq_len

    def ask(self, question: str, params: SamplingParams | None = None) -> Generator[str]:
        """Stream the answer in pieces of whole characters, by the session's params if not given.

        Closing the iterator or interrupting it keeps what was said. Raises OptionError where the
        conversation no longer fits, the session then being as before; MemoryFullError where the
        device's memory was taken by others meanwhile, what was said till then being kept.
        """
        messages = [*self.messages, {"role": "user", "content": question}]
        prompt = self._template.render(self._with_system(messages))
        token_ids = self._token_ids_of(prompt)
        if len(token_ids) >= self.context_size:
            raise OptionError(
                f"the conversation takes {len(token_ids)} tokens, and the context holds "
                f"{self.context_size}; start anew, or with a longer context"
            )
        return self._stream(messages, prompt, token_ids, params or self.params)

    def _stream(
        self, messages: list[Message], prompt: str, token_ids: list[int], params: SamplingParams
    ) -> Generator[str]:
        # At least the last token is run again: its logits are not cached.
        known = min(_common_prefix(self._token_ids, token_ids), len(token_ids) - 1)
        self._cache.truncate(min(known, self._cache.length))
        answer = Answer(len(token_ids), self._cache.length)
        self.last_answer = answer
        self._token_ids, self._text = list(token_ids), prompt
        reply = ""
        try:
            for piece in self._tokenizer.stream(self._counted(token_ids, params, answer)):
                shown = piece if reply else _without_role_line(piece, prompt)
                reply += piece
                if shown:
                    yield shown
        except torch.OutOfMemoryError:
            raise MemoryFullError(
                "the device has no memory left: another program took it; the conversation is kept "
                "up to here, so close that program and ask again"
            ) from None
        finally:
            if answer.tokens:
                content = _without_role_line(reply, prompt)
                self.messages = [*messages, {"role": "assistant", "content": content}]
                self._text += reply

    def _counted(
        self, token_ids: list[int], params: SamplingParams, answer: Answer
    ) -> Iterator[int]:
        """The model's tokens, noted in the session and the answer as they come."""
        params = replace(params, stop_token_ids=params.stop_token_ids | self._stop_token_ids)
        room = self.context_size - len(token_ids)
        limit = room if params.max_tokens is None else min(room, params.max_tokens)
        begun = time.perf_counter()
        for token in generate(self._model, self._memory, token_ids, params):
            now = time.perf_counter()
            if not answer.tokens:
                answer.prefill_seconds, begun = now - begun, now
            answer.decode_seconds = now - begun
            answer.tokens += 1
            self._token_ids.append(token)
            yield token
        answer.finish_reason = "length" if answer.tokens == limit else "stop"

    def _with_system(self, messages: list[Message]) -> list[Message]:
        return [{"role": "system", "content": self.system}, *messages] if self.system else messages

    def _token_ids_of(self, prompt: str) -> list[int]:
        """The prompt's ids; those of the conversation so far as they were produced."""
        added = prompt.removeprefix(self._text)
        # Behind a control token nothing can merge with what stands before it.
        ended = added.startswith(tuple(self._tokenizer.control_tokens))
        if self._text and added != prompt and ended:
            return self._token_ids + self._tokenizer.encode_prompt(added)
        return self._tokenizer.encode_prompt(prompt)


def _without_role_line(reply: str, prompt: str) -> str:
    """GLM-4 begins a plain answer with the newline that ends its role's line."""
    return reply if prompt.endswith("\n") else reply.removeprefix("\n")


def _common_prefix(first: list[int], second: list[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(first), len(second)))

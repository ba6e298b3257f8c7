"""A conversation: messages on one side, token ids on the other.

A session keeps the tokens that were really produced. A later prompt that begins with the text of
those before it takes over their ids; so a row of the batch that still holds them computes nothing
twice. Several conversations share the rows of one batch.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import torch

from calculator.errors import MemoryFullError, OptionError
from glm4q.chat.messages import Message
from glm4q.chat.template import ChatTemplate
from glm4q.decode.answer import Answer, FinishReason
from glm4q.decode.batch import Batch
from glm4q.decode.generate import token_ids
from glm4q.decode.sampling import SamplingParams
from glm4q.text.tokenizer import Tokenizer


@dataclass
class AnswerRecord:
    """What one answer took; filled while it is streamed."""

    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that were in the cache already."""
    tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    finish_reason: FinishReason = "cancelled"
    """Cancelled until the answer has ended in another way."""

    @property
    def tokens_per_second(self) -> float:
        """Speed of decoding, after the first token."""
        return (self.tokens - 1) / self.decode_seconds if self.tokens > 1 else 0.0


class ChatSession:
    """Asks, streams, and remembers."""

    def __init__(
        self,
        batch: Batch,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        stop_token_ids: frozenset[int],
        system: str | None = None,
        params: SamplingParams = SamplingParams(),  # noqa: B008 - immutable
    ) -> None:
        self._batch, self._tokenizer, self._template = batch, tokenizer, template
        self._stop_token_ids = stop_token_ids
        self.system, self.params = system, params
        self.last_answer: AnswerRecord | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the conversation; the system prompt stays."""
        self.messages: list[Message] = []
        self._text = ""  # what the token ids below spell
        self._token_ids: list[int] = []

    @property
    def context_used(self) -> int:
        """Tokens of the conversation so far."""
        return len(self._token_ids)

    @property
    def context_size(self) -> int:
        """Tokens that a conversation may have."""
        return self._batch.room

    def ask(self, question: str, params: SamplingParams | None = None) -> Generator[str]:
        """Stream the answer in pieces of whole characters, by the session's params if not given.

        Closing the iterator or interrupting it keeps what was said. Raises OptionError where the
        conversation no longer fits, the session then being as before; MemoryFullError where the
        device's memory was taken by others meanwhile, what was said till then being kept.
        """
        messages = [*self.messages, {"role": "user", "content": question}]
        prompt = self._template.render(self._with_system(messages))
        prompt_ids = self._token_ids_of(prompt)
        if len(prompt_ids) >= self.context_size:
            raise OptionError(
                f"the conversation takes {len(prompt_ids)} tokens, and the context holds "
                f"{self.context_size}; start anew, or with a longer context"
            )
        return self._stream(messages, prompt, prompt_ids, params or self.params)

    def _stream(
        self, messages: list[Message], prompt: str, prompt_ids: list[int], params: SamplingParams
    ) -> Generator[str]:
        stop_token_ids = params.stop_token_ids | self._stop_token_ids
        answer = self._batch.join(prompt_ids, replace(params, stop_token_ids=stop_token_ids))
        record = AnswerRecord(answer.prompt_tokens, answer.cached_tokens)
        self.last_answer = record
        self._token_ids, self._text = list(prompt_ids), prompt
        reply = ""
        try:
            for piece in self._tokenizer.stream(self._counted(answer, record)):
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
            self._batch.cancel(answer)
            record.finish_reason = answer.finish_reason or "cancelled"
            if record.tokens:
                content = _without_role_line(reply, prompt)
                self.messages = [*messages, {"role": "assistant", "content": content}]
                self._text += reply

    def _counted(self, answer: Answer, record: AnswerRecord) -> Iterator[int]:
        """Yield the model's tokens, noted in the session and the record as they come."""
        begun = time.perf_counter()
        for token in token_ids(self._batch.stream(answer)):
            now = time.perf_counter()
            if not record.tokens:
                record.prefill_seconds, begun = now - begun, now
            record.decode_seconds = now - begun
            record.tokens += 1
            self._token_ids.append(token)
            yield token

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

"""A text that goes on: a prompt without a chat around it."""

import threading
from collections.abc import Generator, Sequence

from calculator.errors import ContextFullError, OptionError
from glm4q.chat.completions.answer_record import AnswerRecord
from glm4q.chat.completions.completion import ChatEvent, CompletionStream
from glm4q.chat.replies import Text
from glm4q.chat.reply_grammar import cut_error
from glm4q.chat.stop_strings import StopStrings
from glm4q.decode.batch import Batch
from glm4q.decode.sampling import Constraint, SamplingParams
from glm4q.text.tokenizer import Tokenizer


class PlainText:
    """Goes on from prompts, in the rows that conversations use as well."""

    def __init__(self, batch: Batch, tokenizer: Tokenizer, vocab_size: int) -> None:
        """vocab_size: how many tokens the model knows."""
        self._batch, self._tokenizer, self._vocab_size = batch, tokenizer, vocab_size

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Return the tokens of a prompt; tokens are taken as they are.

        Raises OptionError where a token is none of the model's or where there are none, and
        ContextFullError where they leave no room for an answer.
        """
        if isinstance(prompt, str):
            token_ids = self._tokenizer.prefix_ids + self._tokenizer.encode(prompt)
        else:
            token_ids = [*prompt]
            for token in token_ids:
                if not isinstance(token, int) or not 0 <= token < self._vocab_size:
                    known = f"the model has the tokens 0 to {self._vocab_size - 1}"
                    raise OptionError(f"prompt: {known}, not {token!r}")
        if not token_ids:
            raise OptionError("prompt: it needs at least one token")
        if len(token_ids) >= self._batch.room:
            raise ContextFullError(
                f"the prompt takes {len(token_ids)} tokens, and the context holds "
                f"{self._batch.room}",
                tokens=len(token_ids),
                room=self._batch.room,
            )
        return token_ids

    def stream(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams,
        *,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
    ) -> CompletionStream:
        """Begin to stream what follows a prompt. stop: strings that end it.

        constraint: says which tokens may come. Raises what `encode` raises.
        """
        token_ids, cancelled = self.encode(prompt), threading.Event()
        record = AnswerRecord(len(token_ids), 0)
        return CompletionStream(
            self._stream(token_ids, params, StopStrings(stop), constraint, record, cancelled),
            record=lambda: record,
            messages=tuple,
            cancel=cancelled.set,
        )

    def _stream(
        self,
        token_ids: list[int],
        params: SamplingParams,
        stop: StopStrings,
        constraint: Constraint | None,
        record: AnswerRecord,
        cancelled: threading.Event,
    ) -> Generator[ChatEvent]:
        answer = self._batch.join(token_ids, params, constraint=constraint)
        record.cached_tokens = answer.cached_tokens
        try:
            events = self._batch.stream(answer, cancelled.is_set)
            for piece in self._tokenizer.stream(record.count(events)):
                if certain := stop.feed(piece):
                    yield Text(certain)
                if stop.reached:
                    return
            if rest := stop.rest():
                yield Text(rest)
            if answer.cut:
                raise cut_error(answer)
        finally:
            self._batch.cancel(answer)
            record.end("stop" if stop.reached else answer.finish_reason)

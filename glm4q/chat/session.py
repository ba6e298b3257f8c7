"""A conversation: messages on one side, token ids on the other.

A session keeps the tokens that were really produced. A later prompt that begins with the text of
those before it takes over their ids; so a row of the batch that still holds them computes nothing
twice. Several conversations share the rows of one batch.
"""

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from calculator.errors import ContextFullError, MemoryFullError, ToolError
from glm4q.chat.completions.answer_record import AnswerRecord
from glm4q.chat.completions.completion import ChatEvent, CompletionStream, text_of
from glm4q.chat.messages import Message
from glm4q.chat.replies import ReplyEvent
from glm4q.chat.reply_grammar import cut_error
from glm4q.chat.reply_record import ASSISTANT, ReplyRecord, read_reply
from glm4q.chat.reply_start import Constrain, Prompt, ReplyStart
from glm4q.chat.template import ChatTemplate
from glm4q.chat.tool_messages import (
    INTERRUPTED,
    Consent,
    ToolResult,
    call_message,
    result_message,
    run_call,
)
from glm4q.chat.transcript import Conversation, Transcript
from glm4q.decode.answer import Answer
from glm4q.decode.batch import Batch
from glm4q.decode.prefixes.prefix_store import Restored
from glm4q.decode.row import Row
from glm4q.decode.sampling import SamplingParams
from glm4q.text.tokenizer import Tokenizer
from glm4q.tools.calls import BadCall, ToolCall
from glm4q.tools.functions import Toolbox

MOST_ROUNDS = 16
"""Replies to one question at most: a model that goes on calling tools has lost its way."""

MOST_CORRECTIONS = 2
"""How often, for one question, the model reads that its call cannot be read."""


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
        toolbox: Toolbox | None = None,
        consent: Consent = lambda call: True,
        stop: Sequence[str] = (),
        constrain: Constrain | None = None,
        constrain_first: Constrain | None = None,
    ) -> None:
        """toolbox: what the model may call; consent: asked before each call runs; stop: strings
        that end an answer and are not part of it; constrain: makes what each reply must match;
        constrain_first: the same for the first reply to a question, where that differs.
        """
        self._batch, self._tokenizer, self._template = batch, tokenizer, template
        self._stop_token_ids = stop_token_ids
        self.system, self.params = system, params
        self.last_answer: AnswerRecord | None = None
        self.least_answer = 1
        """Tokens that must be left for an answer; a prompt that leaves fewer does not fit."""
        self._answer: Answer | None = None
        self._cancelled = threading.Event()
        self._toolbox, self._consent = toolbox or Toolbox([]), consent
        self._stop, self._constrain = stop, constrain
        self._constrain_first = constrain_first or constrain
        self._assistant_id = tokenizer.control_tokens.get(ASSISTANT)
        if self._toolbox.names:  # a template that takes no tools is refused before a question
            template.render([{"role": "user", "content": ""}], tools=self._toolbox.offers)
        self.reset()

    def reset(self) -> None:
        """Forget the conversation; the system prompt stays."""
        self.messages: list[Message] = []
        self._transcript = Transcript()
        self._counted_tokens: int | None = 0

    @property
    def conversation(self) -> Conversation:
        """The conversation so far, to go back to or to keep."""
        return Conversation(self.system, tuple(self.messages), self._transcript.copy())

    def resume(self, conversation: Conversation) -> None:
        """Go on from a conversation; this one is forgotten."""
        self.system = conversation.system
        self._transcript = conversation.transcript.copy()
        self.rewind(conversation.messages)

    def rewind(self, messages: Sequence[Message]) -> None:
        """Go on from other messages, such as the first ones of this conversation.

        Tokens of what they share with it stay, and are not run again.
        """
        self.messages, self._counted_tokens = [*messages], None

    def row(self) -> tuple[Row, int]:
        """Return the row that holds most of the conversation, and how many tokens of it."""
        token_ids = self._transcript.token_ids
        row = max(self._batch.rows, key=lambda each: each.shared(token_ids))
        return row, row.shared(token_ids)

    def restore(self, tail: str) -> Restored:
        """Put kept tokens into a free row; see `Batch.restore`."""
        return self._batch.restore(tail)

    @property
    def context_used(self) -> int:
        """Tokens of the conversation so far."""
        if self._counted_tokens is None:
            counted = self.count_tokens(self.messages, is_prompt=False) if self.messages else 0
            self._counted_tokens = counted
        return self._counted_tokens

    @property
    def context_size(self) -> int:
        """Tokens that a conversation may have."""
        return self._batch.room

    def prompt_progress(self) -> tuple[int, int]:
        """Return how many tokens of the newest prompt have been run, and how many are to run.

        Tokens that were in the cache before count in neither. Any thread may ask.
        """
        answer = self._answer
        if answer is None:
            return 0, 0
        total = answer.prompt_tokens - answer.cached_tokens
        return max(0, min(total, answer.row.cache.length - answer.cached_tokens)), total

    def ask(self, question: str, params: SamplingParams | None = None) -> Generator[str]:
        """Stream the text of the answer in pieces of whole characters; see `stream`."""
        return text_of(self.stream(question, params))

    def stream(self, question: str, params: SamplingParams | None = None) -> Generator[ChatEvent]:
        """Stream the answer: its text, what the model thinks, its calls and their results.

        params: the session's if not given. Closing the iterator or interrupting it keeps the answer
        so far. Raises ContextFullError where the conversation no longer fits: then the session is
        as before. Raises MemoryFullError where other programs have taken the device's memory: then
        the answer so far is kept. Raises ToolError where the model calls tools without end, and
        AnswerCutError where an answer ends before it matches what it must match.
        """
        return self.answer([*self.messages, {"role": "user", "content": question}], params)

    def answer(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        free: bool = False,
    ) -> Generator[ChatEvent]:
        """Stream the answer to a conversation, which takes the place of this one; see `stream`.

        free: the answer need not match what answers must match.
        """
        self._cancelled = threading.Event()
        first, others = (None, None) if free else (self._constrain_first, self._constrain)
        return self._rounds(self._prompt([*messages], params or self.params, first), others)

    def complete(
        self, messages: Sequence[Message], params: SamplingParams | None = None
    ) -> CompletionStream:
        """Begin the answer to a conversation, for whoever reads it as a whole; see `answer`."""
        events = self.answer(messages, params)
        self.messages, cancelled = [*messages], self._cancelled
        return CompletionStream(
            events,
            record=lambda: self.last_answer or AnswerRecord(0, 0),
            messages=lambda: tuple(self.messages),
            cancel=cancelled.set,
        )

    def cancel(self) -> None:
        """End the answer that is streamed, before its next step. Any thread may ask for that."""
        self._cancelled.set()

    def count_tokens(self, messages: Sequence[Message], *, is_prompt: bool = True) -> int:
        """Count the tokens of messages, system prompt, tools, and the beginning of a reply.

        is_prompt: a reply is to follow; otherwise a question is. Raises TokenizerError where the
        template refuses the messages.
        """
        text = self._render(messages, add_generation_prompt=is_prompt)
        return len(self._transcript.encode(text, self._tokenizer))

    def _prompt(
        self, messages: list[Message], params: SamplingParams, constrain: Constrain | None
    ) -> Prompt:
        text = self._render(messages)
        token_ids = self._transcript.encode(text, self._tokenizer)
        if len(token_ids) + self.least_answer > self.context_size:
            raise ContextFullError(
                f"the conversation takes {len(token_ids)} tokens, and the context holds "
                f"{self.context_size}; start anew, or with a longer context",
                tokens=len(token_ids),
                room=self.context_size,
            )
        return Prompt(messages, text, token_ids, params, constrain)

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return self._template.render(
            [*system, *messages],
            tools=self._toolbox.offers or None,
            add_generation_prompt=add_generation_prompt,
        )

    def _rounds(self, prompt: Prompt, following: Constrain | None) -> Generator[ChatEvent]:
        """Yield replies and results of calls, one after another, until a reply calls nothing.

        following: makes what the replies behind the first must match.
        """
        corrections, cancelled = 0, self._cancelled
        for _ in range(MOST_ROUNDS):
            calls: list[ToolCall | BadCall] = []
            with closing(self._reply(prompt)) as events:
                for event in events:
                    if isinstance(event, ToolCall | BadCall):
                        calls.append(event)
                    yield event
            corrections += sum(isinstance(call, BadCall) for call in calls)
            for call in calls:
                yield self._run(call)
            if not calls or corrections > MOST_CORRECTIONS or cancelled.is_set():
                return
            prompt = self._prompt(self.messages, prompt.params, following)
        raise ToolError(
            f"the model has called tools {MOST_ROUNDS} times for one question, and is stopped"
        )

    def _run(self, call: ToolCall | BadCall) -> ToolResult:
        """Run a call, and remember it with its result, also where it is interrupted."""
        result = ToolResult(call, INTERRUPTED)
        try:
            result = run_call(call, self._toolbox, self._consent, self._cancelled.is_set)
        finally:
            style, call_id = self._template.call_style, f"call_{len(self.messages)}"
            pair = call_message(call, style, call_id), result_message(result, style, call_id)
            self.rewind([*self.messages, *pair])
        return result

    def _reply(self, prompt: Prompt) -> Generator[ReplyEvent]:
        stop_token_ids = prompt.params.stop_token_ids | self._stop_token_ids
        start = ReplyStart.of(prompt.text)
        answer = self._batch.join(
            prompt.token_ids,
            replace(prompt.params, stop_token_ids=stop_token_ids),
            constraint=prompt.constrain(start) if prompt.constrain else None,
        )
        self._answer = answer
        record = AnswerRecord(answer.prompt_tokens, answer.cached_tokens)
        self.last_answer = record
        self._transcript.begin(prompt.text, prompt.token_ids)
        self._counted_tokens = len(prompt.token_ids)
        tools, style = self._toolbox, self._template.call_style
        reply = ReplyRecord(start.parser(tools.names, self._stop, style, tools.natives))
        try:
            tokens = self._counted(answer, record)
            separator = self._assistant_id if tools.names else None
            yield from read_reply(tokens, reply, self._tokenizer, separator)
            yield from reply.finish(whole=answer.finish_reason == "stop")
            if answer.cut and prompt.constrain is not None and prompt.constrain.must_match:
                raise cut_error(answer)
        except MemoryFullError:
            raise MemoryFullError(
                "the device has no memory left: another program took it; the conversation is kept "
                "up to here, so close that program and ask again"
            ) from None
        finally:
            self._batch.cancel(answer)
            self._answer = None  # its row may be given back
            record.end("stop" if reply.stopped else answer.finish_reason)
            if record.tokens:
                self.messages = [*prompt.messages, *reply.messages()]
                self._transcript.end(reply.raw)

    def _counted(self, answer: Answer, record: AnswerRecord) -> Iterator[int]:
        """Yield the model's tokens, noted in the session and the record as they come."""
        events = self._batch.stream(answer, self._cancelled.is_set)
        for token in record.count(events):
            self._transcript.token_ids.append(token)
            self._counted_tokens = len(self._transcript.token_ids)
            yield token

"""The Python API: a model's name or directory in, answers out (docs/python.md shows how)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, overload

from calculator.errors import OptionError
from glm4q.chat.completions.completion import Completion, CompletionStream
from glm4q.chat.completions.plain import PlainText
from glm4q.chat.completions.together import complete_together
from glm4q.chat.messages import Message, read_messages
from glm4q.chat.reply_grammar import ReplyConstraints, ReplyGrammar, honoured, refuse_stop_strings
from glm4q.chat.session import ChatSession
from glm4q.chat.template import ChatTemplate
from glm4q.chat.tool_messages import Consent
from glm4q.decode.sampling import Constraint, SamplingParams
from glm4q.engine.loaded import LoadedModel
from glm4q.text.generation_config import read_sampling_params
from glm4q.text.grammar.compiler import GrammarCompiler
from glm4q.text.grammar.grammar import Schema, joined, read_schema
from glm4q.tools.functions import AUTO, Tool, Toolbox


@dataclass(frozen=True)
class LLM(LoadedModel):
    """A loaded model that answers questions, goes on from texts, and holds conversations."""

    def session(
        self,
        system: str | None = None,
        params: SamplingParams | None = None,
        *,
        tools: Iterable[Tool | Callable[..., object]] = (),
        consent: Consent = lambda call: True,
        tool_choice: str = AUTO,
        dialect: str | None = None,
        stop: Sequence[str] = (),
        schema: Schema | None = None,
    ) -> ChatSession:
        """Begin a conversation, in whatever row of the batch is free when it asks.

        params: how questions are answered that name nothing else; the authors' own if None. tools:
        functions that the model may call; consent: asked before each call runs. tool_choice:
        required, or a tool's name, where the first reply to each question must be a call. dialect:
        the protocol that is used in place of the checkpoint's own template. stop: strings that end
        an answer and are not part of it. schema: a JSON schema, a pydantic model or a Grammar that
        each answer matches. Raises TokenizerError without a template, ConfigError where the
        authors' settings are wrong, GrammarError for a schema that cannot be honoured, and
        OptionError.
        """
        if system is not None and not system.strip():
            raise OptionError("the system prompt is empty")
        params = self._checked(params)
        control_tokens = self.tokenizer.control_tokens
        template = ChatTemplate.from_directory(self.directory, control_tokens, dialect)
        offered = [tool if isinstance(tool, Tool) else Tool.from_function(tool) for tool in tools]
        toolbox = Toolbox(offered, template.natives)
        return ChatSession(
            self.rows,
            self.tokenizer,
            template,
            stop_token_ids=self.stop_token_ids,
            system=system,
            params=params,
            toolbox=toolbox,
            consent=consent,
            stop=stop,
            constrain=self._constrain(schema, toolbox, template, stop),
            constrain_first=self._constrain_choice(tool_choice, toolbox, template),
        )

    @cached_property
    def grammars(self) -> GrammarCompiler:
        """What makes the constraints of answers. Its first one takes a second or two."""
        vocab_size = self.plan.config.vocab_size
        return GrammarCompiler(self.tokenizer, vocab_size, self.stop_token_ids)

    def _checked(self, params: SamplingParams | None) -> SamplingParams:
        """Return settings that the model can follow; its authors' own in the place of None."""
        params = read_sampling_params(self.directory) if params is None else params
        params.check_tokens(self.plan.config.vocab_size)
        return params

    def _constrain_text(self, schema: Schema, stop: Sequence[str]) -> Constraint:
        refuse_stop_strings(stop)
        return self.grammars.constraint(joined("start: @text", {"text": read_schema(schema)}))

    def _constrain(
        self, schema: Schema | None, toolbox: Toolbox, template: ChatTemplate, stop: Sequence[str]
    ) -> ReplyConstraints | None:
        """What each reply matches: the schema, and arguments of calls the tools' parameters."""
        offers, style = toolbox.offers, template.call_style
        if schema is not None:
            refuse_stop_strings(stop)
            reply = ReplyGrammar.with_tools(read_schema(schema), offers, style)
        elif toolbox.names - toolbox.natives:
            strict, _ = honoured(offers, style)
            reply = ReplyGrammar.free(offers, style, strict=strict)
        else:
            return None
        return ReplyConstraints(self.grammars, reply)

    def _constrain_choice(
        self, tool_choice: str, toolbox: Toolbox, template: ChatTemplate
    ) -> ReplyConstraints | None:
        """What the first reply to a question matches where it must be a call."""
        if tool_choice == AUTO:
            return None
        offers = toolbox.chosen(tool_choice)
        reply = ReplyGrammar.with_tools(None, offers, template.call_style)
        return ReplyConstraints(self.grammars, reply)

    @overload
    def chat(
        self,
        messages: str | Sequence[Message],
        params: SamplingParams | None = None,
        *,
        tools: Iterable[Tool | Callable[..., object]] = (),
        consent: Consent = ...,
        tool_choice: str = AUTO,
        dialect: str | None = None,
        stop: Sequence[str] = (),
        schema: Schema | None = None,
        stream: Literal[False] = False,
    ) -> Completion: ...

    @overload
    def chat(
        self,
        messages: str | Sequence[Message],
        params: SamplingParams | None = None,
        *,
        tools: Iterable[Tool | Callable[..., object]] = (),
        consent: Consent = ...,
        tool_choice: str = AUTO,
        dialect: str | None = None,
        stop: Sequence[str] = (),
        schema: Schema | None = None,
        stream: Literal[True],
    ) -> CompletionStream: ...

    def chat(
        self,
        messages: str | Sequence[Message],
        params: SamplingParams | None = None,
        *,
        tools: Iterable[Tool | Callable[..., object]] = (),
        consent: Consent = lambda call: True,
        tool_choice: str = AUTO,
        dialect: str | None = None,
        stop: Sequence[str] = (),
        schema: Schema | None = None,
        stream: bool = False,
    ) -> Completion | CompletionStream:
        """Answer a question, or the last message of a conversation; nothing is remembered.

        messages: as in OpenAI's API. stream: return at once what gives the answer piece by piece.
        The other arguments, and what is raised, are those of `session`; ContextFullError is raised
        where the messages leave no room for an answer.
        """
        session = self.session(
            params=params,
            tools=tools,
            consent=consent,
            tool_choice=tool_choice,
            dialect=dialect,
            stop=stop,
            schema=schema,
        )
        answer = session.complete(read_messages(messages))
        return answer if stream else answer.completion()

    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        stop: Sequence[str] = (),
        schema: Schema | None = None,
        stream: Literal[False] = False,
    ) -> Completion: ...

    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        stop: Sequence[str] = (),
        schema: Schema | None = None,
        stream: Literal[True],
    ) -> CompletionStream: ...

    def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        stop: Sequence[str] = (),
        schema: Schema | None = None,
        stream: bool = False,
    ) -> Completion | CompletionStream:
        """Go on from a text, or from token ids, without a chat around it.

        Raises OptionError, GrammarError, and ContextFullError where the prompt leaves no room.
        """
        params = self._checked(params)
        plain = PlainText(self.rows, self.tokenizer, self.plan.config.vocab_size)
        answer = plain.stream(
            prompt,
            replace(params, stop_token_ids=params.stop_token_ids | self.stop_token_ids),
            stop=stop,
            constraint=None if schema is None else self._constrain_text(schema, stop),
        )
        return answer if stream else answer.completion()

    def batch(
        self,
        conversations: Iterable[str | Sequence[Message]],
        params: SamplingParams | None = None,
        *,
        stop: Sequence[str] = (),
        schema: Schema | None = None,
    ) -> list[Completion]:
        """Answer several questions or conversations, and return the answers in their order.

        As many are decoded in the same steps as there are rows (`Wish(batch=8)`). All prompts are
        checked before the first begins; otherwise this is `chat` for each of them.
        """
        answers = [
            self.session(params=params, stop=stop, schema=schema).complete(read_messages(messages))
            for messages in conversations
        ]
        return complete_together(answers, len(self.rows.rows))

    def count_tokens(self, messages: str | Sequence[Message]) -> int:
        """Count the tokens that a question or a conversation takes as a prompt of `chat`."""
        return self.session().count_tokens(read_messages(messages))

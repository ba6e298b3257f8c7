"""What the server serves: a model's name, its words, and the settings of whoever runs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from calculator.errors import Glm4qError
from calculator.questions.question import Question
from glm4q.chat.template import ChatTemplate
from glm4q.decode.sampling import SamplingParams
from glm4q.server.errors import ApiError
from glm4q.server.request.protocol import sampling_params
from glm4q.server.request.requests import Sampled
from glm4q.text.grammar.compiler import GrammarCompiler
from glm4q.text.tokenizer import Tokenizer
from glm4q.tools.calls import CallStyle


@dataclass(frozen=True)
class ServedModel:
    """A model as requests see it."""

    name: str
    directory: str
    """Where its files are, which no answer says."""
    tokenizer: Tokenizer
    grammars: GrammarCompiler
    template: ChatTemplate | None
    """None where the checkpoint has none: it completes text, and does not chat."""
    params: SamplingParams
    """The authors' own settings."""
    stop_token_ids: frozenset[int]
    context: int
    """Tokens of a prompt and its answer."""
    vocab_size: int
    question: Question
    """The plan of the run."""
    created: int

    def choices(self, asked: Sampled, max_tokens: int | None) -> list[SamplingParams]:
        """How each choice of a request is sampled. Raises ApiError."""
        stops = self.params.stop_token_ids | self.stop_token_ids
        own = replace(self.params, stop_token_ids=stops)
        return sampling_params(asked, own, max_tokens, vocab_size=self.vocab_size)

    @property
    def call_style(self) -> CallStyle:
        """How the template writes calls."""
        return "metadata" if self.template is None else self.template.call_style

    def chat_prompt(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> tuple[str, list[int]]:
        """Write a prompt, of any length; return its text and its tokens. Raises ApiError."""
        if self.template is None:
            raise ApiError(400, f"{self.name} has no chat template; /v1/completions takes text")
        try:
            text = self.template.render(messages, tools=tools or None)
        except Glm4qError as error:
            raise ApiError(400, self.without_path(error), param="messages") from None
        return text, self.tokenizer.encode_prompt(text)

    def prompt(self, prompt: str | Sequence[int]) -> list[int]:
        """The tokens of a text that is no chat; tokens are taken as they are. Raises ApiError."""
        if isinstance(prompt, str):
            token_ids = self.tokenizer.prefix_ids + self.tokenizer.encode(prompt)
        else:
            token_ids = self.known_tokens(prompt, "prompt")
        return self.with_room(token_ids, "prompt")

    def known_tokens(self, token_ids: Sequence[int], param: str) -> list[int]:
        """The tokens, of which the model knows each. Raises ApiError."""
        for token_id in token_ids:
            if not 0 <= token_id < self.vocab_size:
                message = f"{param}: token ids are 0 to {self.vocab_size - 1}, not {token_id}"
                raise ApiError(400, message, param=param, code="invalid_value")
        return list(token_ids)

    def without_path(self, error: Glm4qError) -> str:
        """An error's message for a client: the model's name stands for its directory."""
        return str(error).replace(self.directory, self.name)

    def with_room(self, token_ids: list[int], param: str) -> list[int]:
        """Return the tokens of a prompt that leaves room for an answer. Raises ApiError."""
        if not token_ids:
            raise ApiError(400, f"{param}: a prompt needs at least one token", param=param)
        if len(token_ids) >= self.context:
            message = (
                f"{param}: the prompt takes {len(token_ids)} tokens, and the context holds "
                f"{self.context} with the answer; glm4q serve --context gives more where it fits"
            )
            raise ApiError(400, message, param=param, code="context_length_exceeded")
        return token_ids

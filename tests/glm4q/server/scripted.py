"""A decoder that says what a test scripts, and a server around it on a free port."""

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import uvicorn

from calculator.cards.card import Card
from calculator.checkpoint.stored import StoredModel
from calculator.errors import Glm4qError
from calculator.memory.settings import Settings
from calculator.questions.question import Question
from calculator.questions.subject import find_subject
from glm4q.chat.template import ChatTemplate
from glm4q.decode.answer import End, Event, Token
from glm4q.decode.sampling import Constraint, LogProbabilities, Sampler, SamplingParams
from glm4q.server.app import make_app
from glm4q.server.guard import LOOPBACK, Rules
from glm4q.server.listen import KEEP_ALIVE_SECONDS, configure, listen
from glm4q.server.operation.log import AnswerLog
from glm4q.server.operation.metrics import Metrics
from glm4q.server.served import ServedModel
from glm4q.server.service import Service
from glm4q.server.worker import Worker
from glm4q.text.grammar.compiler import GrammarCompiler
from glm4q.text.tokenizer import Tokenizer

NAME = "scripted"
CONTEXT = 2000
VOCAB_SIZE = 288


@dataclass(eq=False)
class ScriptedAnswer:
    left: list[int]
    tokens: int | None
    cached_tokens: int = 0
    given: int = 0
    log_probabilities: int | None = None


@dataclass
class ScriptedDecoder:
    """Each answer says the same text, byte by byte: a token of the test's tokenizer is a byte.

    A step runs one token of every answer. While `gate` is not set, steps give nothing.
    """

    script: list[int]
    rows: int = 2
    first_scripts: list[list[int]] = field(default_factory=list)
    """What the next answers say, one each, before `script` is said."""
    begin: list[int] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    answers: list[ScriptedAnswer] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)
    cancelled: int = 0
    failure: Glm4qError | None = None
    loaded: bool = True
    load_failure: Glm4qError | None = None
    cached_tokens: int = 0
    """What each prompt is to have in the cache."""
    longest_pause: float = 0.25

    @property
    def free(self) -> int:
        return self.rows - len(self.answers)

    @property
    def kept_tokens(self) -> int:
        return sum(map(len, self.prompts))

    @property
    def row_tokens(self) -> list[int]:
        return [len(prompt) for prompt in self.prompts[-self.rows :]]

    def held(self) -> dict[str, int]:
        return {"weights": 6 << 30, "KV cache": 300 << 20, "workspace": 70 << 20}

    def unload(self) -> None:
        assert not self.answers
        self.loaded = False

    def load(self) -> None:
        if self.load_failure is not None:
            raise self.load_failure
        self.loaded = True

    def join(
        self, prompt: Sequence[int], params: SamplingParams, constraint: Constraint | None
    ) -> ScriptedAnswer:
        """An answer that must match something says `begin`, and then goes on at random."""
        assert self.loaded
        self.prompts.append(list(prompt))
        self.params.append(params)
        script = self.first_scripts.pop(0) if self.first_scripts else list(self.script)
        if constraint is not None:
            script = _random_tokens(constraint, self.begin, params.stop_token_ids)
        answer = ScriptedAnswer(script, params.max_tokens, self.cached_tokens)
        answer.log_probabilities = params.log_probabilities
        self.answers.append(answer)
        return answer

    def cancel(self, answer: Any) -> None:
        if answer in self.answers:
            self.answers.remove(answer)
            self.cancelled += 1

    def step(self) -> list[tuple[Hashable, Event]]:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        if not self.gate.wait(0.01):
            return []
        return [event for answer in list(self.answers) for event in self._next(answer)]

    def _next(self, answer: ScriptedAnswer) -> list[tuple[Hashable, Event]]:
        if answer.tokens is not None and answer.given == answer.tokens:
            return [(answer, self._end(answer, End("length")))]
        if not answer.left:
            return [(answer, self._end(answer, End("stop")))]
        answer.given += 1
        token, count = answer.left.pop(0), answer.log_probabilities
        if count is None:
            return [(answer, Token(token))]
        likely = [(token + other, -0.5 - other) for other in range(count)]
        return [(answer, Token(token, LogProbabilities(-0.5, tuple(likely))))]

    def _end(self, answer: ScriptedAnswer, end: End) -> End:
        self.answers.remove(answer)
        return end


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    url: str
    decoder: ScriptedDecoder
    tokenizer: Tokenizer
    worker: Worker

    def says(self, text: str) -> None:
        """Let later answers say this."""
        self.decoder.script = byte_tokens(self.tokenizer, text.encode())

    def says_first(self, text: str) -> None:
        """Let one answer more say this before others say what `says` was told."""
        self.decoder.first_scripts.append(byte_tokens(self.tokenizer, text.encode()))

    def begins(self, text: str) -> None:
        """Let later answers that must match something begin so."""
        self.decoder.begin = byte_tokens(self.tokenizer, text.encode())

    @property
    def last_prompt(self) -> str:
        """The text of the latest prompt, without its control tokens."""
        return self.tokenizer.decode(self.decoder.prompts[-1])


class StandInTemplate:
    """Writes messages and tools as a test can read them."""

    call_style = "tool_calls"

    def __init__(self, thinks: bool) -> None:
        self._end = "[assistant]<think>\n" if thinks else "[assistant]"

    def render(self, messages: Sequence[Any], *, tools: Any = None) -> str:
        text = "".join(f"[{message['role']}]{message['content']}" for message in messages)
        return f"{'[tools]' if tools else ''}{text}{self._end}"


@contextmanager
def serving(
    checkpoint: Path,
    text: str | bytes,
    *,
    rows: int = 2,
    queue: int = 8,
    rules: Rules = Rules(LOOPBACK),  # noqa: B008 - immutable
    ping_seconds: float = 5.0,
    send_seconds: float = 60.0,
    silent: bool = False,
    thinks: bool = False,
    idle_seconds: float | None = None,
    time_limit: float | None = None,
    card: Card | None = None,
    context: int = CONTEXT,
    silent_seconds: int = KEEP_ALIVE_SECONDS,
) -> Iterator[Running]:
    """Serve a model that always says `text`. silent: it says nothing until the gate is set.

    thinks: the prompt ends inside `<think>`. context: tokens of a prompt and its answer.
    """
    tokenizer = Tokenizer.from_directory(checkpoint)
    raw = text.encode() if isinstance(text, str) else text
    decoder = ScriptedDecoder(byte_tokens(tokenizer, raw), rows)
    if not silent:
        decoder.gate.set()
    metrics = Metrics()
    worker = Worker(
        decoder,
        queue=queue,
        watches=(metrics, AnswerLog()),
        idle_seconds=idle_seconds,
        time_limit=time_limit,
    )
    worker.start()
    service = Service(
        _served(checkpoint, tokenizer, context, thinks=thinks), worker, ping_seconds, send_seconds
    )
    listener = listen("127.0.0.1", 0)
    app = make_app(service, rules, metrics, card)
    server = uvicorn.Server(configure(app, silent_seconds))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_for(lambda: server.started)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield Running(url, decoder, tokenizer, worker)
    finally:
        server.should_exit = True
        decoder.gate.set()
        thread.join(10)
        worker.stop()
        listener.close()


def _random_tokens(constraint: Constraint, begin: Sequence[int], ends: frozenset[int]) -> list[int]:
    """What random logits say behind a beginning, until they end the answer or must."""
    sampler = Sampler(SamplingParams(seed=5), torch.device("cpu"), constraint=constraint)
    tokens = list(begin)
    for token in tokens:
        constraint.accept(token)
    while not constraint.finished:
        token = sampler(torch.randn(VOCAB_SIZE)).token
        if token in ends:
            break
        tokens.append(token)
    return tokens


def byte_tokens(tokenizer: Tokenizer, raw: bytes) -> list[int]:
    """One token for each byte, also where a byte alone is no character."""
    return [cast(int, tokenizer.token_id(LETTERS[byte])) for byte in raw]


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until it is so; fail where it never is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to be in time"
        time.sleep(0.005)


def _served(checkpoint: Path, tokenizer: Tokenizer, context: int, *, thinks: bool) -> ServedModel:
    config = StoredModel.open(checkpoint).config
    subject = find_subject("glm-4-9b-chat", weights="int4", group_size=None, lm_head=None)
    return ServedModel(
        name=NAME,
        directory=str(checkpoint),
        tokenizer=tokenizer,
        grammars=GrammarCompiler(tokenizer, config.vocab_size, [256]),
        template=cast(ChatTemplate, StandInTemplate(thinks)),
        params=SamplingParams(temperature=0.8, top_p=0.8),
        stop_token_ids=frozenset([256]),
        context=context,
        vocab_size=config.vocab_size,
        question=Question(subject, Settings(context=8192)),
        created=1,
    )


def _letters() -> list[str]:
    """GPT-2's letter for each byte, as tokenizers' ByteLevel writes them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


LETTERS = _letters()

"""Conversations: what is remembered, what is computed again, what an interruption leaves."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import tokenizers
import torch
from tokenizers import pre_tokenizers
from tokenizers.models import BPE

from calculator.errors import MemoryFullError, OptionError
from glm4q.chat.session import ChatSession
from glm4q.chat.template import ChatTemplate, JinjaRenderer
from glm4q.decode.batch import Batch
from glm4q.decode.sampling import SamplingParams
from glm4q.memory.kv.cache import KVCache
from glm4q.text.tokenizer import Tokenizer
from tests.glm4q.scripted import ScriptedRunner, small_memory

GREEDY = SamplingParams(temperature=0)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tokenizer() -> Tokenizer:
    """Bytes, and one merge "ab", so that "a", "b" said apart are not what "ab" encodes to."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: rank for rank, token in enumerate([*alphabet, "ab"])}
    backend = tokenizers.Tokenizer(BPE(vocabulary, [("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|assistant|>"])
    return Tokenizer(backend)


def _session(model: ScriptedRunner, template: str = CHATML) -> ChatSession:
    control_tokens = TOKENIZER.control_tokens
    return ChatSession(
        Batch(model),
        TOKENIZER,
        ChatTemplate(JinjaRenderer(template, {}, name=Path("test")), control_tokens),
        stop_token_ids=frozenset({control_tokens["<|im_end|>"]}),
    )


TOKENIZER = _tokenizer()
A, B = TOKENIZER.encode("a") + TOKENIZER.encode("b")
END = TOKENIZER.control_tokens["<|im_end|>"]


def _model(*script: int, room: int = 200) -> ScriptedRunner:
    return ScriptedRunner([*script], TOKENIZER.vocab_size, small_memory(room))


def test_second_turn_runs_only_what_is_new() -> None:
    model = _model(A, B, END, A, END)
    session = _session(model)
    assert "".join(session.ask("hello", GREEDY)) == "ab"
    first_turn = [token for run in model.seen for token in run]
    model.seen.clear()
    assert "".join(session.ask("more", GREEDY)) == "a"
    # The answer stays the tokens a, b that were produced, though "ab" would encode to one.
    added = TOKENIZER.encode_prompt(
        "<|im_end|>\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n"
    )
    assert model.seen == [added, [A]]
    assert session.last_answer
    assert session.last_answer.cached_tokens == len(first_turn)
    assert session.last_answer.finish_reason == "stop"


def test_messages_alternate_and_reset_forgets() -> None:
    session = _session(_model(A, END))
    session.system = "be brief"
    list(session.ask("hello", GREEDY))
    assert [dict(message) for message in session.messages] == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "a"},
    ]
    session.reset()
    assert session.messages == []
    assert session.context_used == 0


def test_stopped_answer_is_kept_and_continued_from() -> None:
    model = _model(A, B, A, B, END)
    session = _session(model)
    pieces = session.ask("hello", GREEDY)
    assert next(pieces) + next(pieces) == "ab"
    pieces.close()
    assert session.messages[-1]["content"] == "ab"
    assert session.last_answer
    assert session.last_answer.finish_reason == "cancelled"
    model.script, model.seen = [A, END], []
    list(session.ask("more", GREEDY))
    # b was yielded but not yet run when the answer was stopped.
    assert model.seen[0][:2] == [B, END]


def test_interruption_before_the_first_token_leaves_no_question() -> None:
    class Interrupted(ScriptedRunner):
        def __call__(self, *_: object, **__: object) -> torch.Tensor:
            raise KeyboardInterrupt

    session = _session(Interrupted([], TOKENIZER.vocab_size, small_memory(200)))
    with pytest.raises(KeyboardInterrupt):
        list(session.ask("hello", GREEDY))
    assert session.messages == []


def test_conversation_longer_than_the_context_is_refused_and_kept() -> None:
    session = _session(_model(A, END, room=60))
    list(session.ask("hi", GREEDY))
    before = session.messages
    with pytest.raises(OptionError, match="the context holds 60"):
        session.ask("x" * 60, GREEDY)
    assert session.messages == before


def test_answer_ends_where_the_context_does() -> None:
    prompt = len(TOKENIZER.encode_prompt("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"))
    session = _session(_model(*[A] * 9, room=prompt + 3))
    assert "".join(session.ask("hi", GREEDY)) == "aaa"
    assert session.last_answer
    assert session.last_answer.finish_reason == "length"


def test_newline_that_ends_the_role_line_is_not_part_of_the_answer() -> None:
    """GLM-4's prompt ends in <|assistant|>; the model itself writes the newline."""
    glm = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    )
    (newline,) = TOKENIZER.encode("\n")
    model = _model(newline, A, newline, B, END, B, END)
    session = _session(model, template=glm)
    assert "".join(session.ask("hi", GREEDY)) == "a\nb"
    assert session.messages[-1]["content"] == "a\nb"
    list(session.ask("more", GREEDY))
    first = next(run for run in model.seen[5:] if len(run) > 1)
    assert first == TOKENIZER.encode_prompt("<|im_start|>user\nmore<|im_start|>assistant")


class FullModel(ScriptedRunner):
    """Another program takes the device's memory after a few passes."""

    passes = 3

    def __call__(
        self, input_ids: torch.Tensor, caches: Sequence[KVCache], /, last: int = 1
    ) -> torch.Tensor:
        self.passes -= 1
        if self.passes == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().__call__(input_ids, caches, last)


def test_out_of_memory_ends_the_answer_and_not_the_session() -> None:
    model = FullModel([A, B, A, END], TOKENIZER.vocab_size, small_memory(200))
    session = _session(model)
    answer = session.ask("hello", GREEDY)
    pieces: list[str] = []
    with pytest.raises(MemoryFullError, match="no memory left"):
        pieces.extend(answer)
    assert "".join(pieces) == "ab"
    assert session.messages[-1] == {"role": "assistant", "content": "ab"}
    assert "".join(session.ask("again", GREEDY)) == "a"


def test_what_is_asked_again_or_changed_shares_the_tokens_that_were_produced() -> None:
    """After two answers the second question is changed, then asked as it was."""
    model = _model(A, B, END, A, END, B, END, B, END)
    session = _session(model)
    list(session.ask("hello", GREEDY))
    before = session.conversation
    list(session.ask("more", GREEDY))
    session.resume(before)
    model.seen.clear()
    list(session.ask("less", GREEDY))
    # "a", "b" of the first answer were produced apart: encoded anew they would be one token.
    assert model.seen[0] == TOKENIZER.encode_prompt("less<|im_end|>\n<|im_start|>assistant\n")
    session.messages = session.messages[:-2]  # as /retry does
    model.seen.clear()
    list(session.ask("less", GREEDY))
    assert len(model.seen[0]) == 1

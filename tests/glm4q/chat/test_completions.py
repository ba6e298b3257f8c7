"""Answers of the Python API: whole, streamed, cancelled, several at once."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from calculator.errors import ContextFullError, OptionError, TokenizerError
from calculator.questions.fit import Wish
from glm4q import LLM, SamplingParams
from tests.chat_checkpoint import END

GREEDY = SamplingParams(temperature=0, max_tokens=12, logit_bias={END: -100})
QUESTION = {"role": "user", "content": "Hello"}


@pytest.fixture(scope="module")
def llm(chat_checkpoint: Path) -> LLM:
    wish = Wish(context=512, batch=2)
    return LLM.load(chat_checkpoint, device="cpu", dtype="fp32", wish=wish)


def test_a_question_is_answered_as_in_a_conversation(llm: LLM) -> None:
    answer = llm.chat("Hello", GREEDY)
    session = llm.session(params=GREEDY)
    assert answer.text == "".join(session.ask("Hello"))
    assert answer.messages == tuple(session.messages)
    again = llm.chat([*answer.messages, QUESTION], GREEDY)
    assert again.record.cached_tokens > 0
    assert again.record.finish_reason == "length"
    assert again.record.tokens == 12


def test_tokens_are_counted_before_they_are_asked(llm: LLM) -> None:
    count = llm.count_tokens("Hello")
    assert count == llm.chat([QUESTION], GREEDY).record.prompt_tokens


def test_pieces_of_a_stream_are_the_text(llm: LLM) -> None:
    stream = llm.chat("Hello", GREEDY, stream=True)
    assert "".join(stream) == stream.completion().text == llm.chat("Hello", GREEDY).text


def test_another_thread_ends_an_answer(llm: LLM) -> None:
    """Also one that goes on from a text; what has come stays, and the rows are free."""
    endless = replace(GREEDY, max_tokens=None)
    for stream in (
        llm.chat("Hello", endless, stream=True),
        llm.generate("Hello", endless, stream=True),
    ):
        pieces = iter(stream)
        first = next(pieces)
        thread = threading.Thread(target=stream.cancel)
        thread.start()
        thread.join()
        assert not list(pieces)
        answer = stream.completion()
        assert answer.text == first
        assert answer.record.finish_reason == "cancelled"
    assert llm.rows.free == 2


def test_a_closed_stream_keeps_what_has_come(llm: LLM) -> None:
    stream = llm.chat("Hello", GREEDY, stream=True)
    first = next(iter(stream))
    stream.close()
    assert stream.completion().messages == (QUESTION, {"role": "assistant", "content": first})


def test_a_text_goes_on_as_transformers_goes_on(llm: LLM, chat_checkpoint: Path) -> None:
    prompt = llm.tokenizer.encode("It was a dark and")
    model = transformers.AutoModelForCausalLM.from_pretrained(chat_checkpoint, dtype="float32")
    token_ids = list(prompt)
    with torch.inference_mode():
        for _ in range(8):
            logits = model(torch.tensor([token_ids])).logits[0, -1]
            logits[END] -= 100
            token_ids.append(int(logits.argmax()))
    answer = llm.generate("It was a dark and", replace(GREEDY, max_tokens=8))
    assert answer.text == llm.tokenizer.decode(token_ids[len(prompt) :])
    assert llm.generate(prompt, replace(GREEDY, max_tokens=8)).text == answer.text
    assert answer.messages == ()


def test_a_stop_string_ends_a_text(llm: LLM) -> None:
    whole = llm.generate("Hello", GREEDY).text
    stop = whole[4:6]
    answer = llm.generate("Hello", GREEDY, stop=[stop])
    assert answer.text == whole[: whole.index(stop)]
    assert answer.record.finish_reason == "stop"


def test_several_at_once_are_each_as_alone(llm: LLM) -> None:
    questions = ["Hello", "Who are you?", "What is GPTQ?", "Why?", "x" * 100]
    together = llm.batch(questions, GREEDY)
    assert [answer.text for answer in together] == [
        llm.chat(question, GREEDY).text for question in questions
    ]
    assert len({answer.text for answer in together}) > 1
    assert llm.rows.free == 2


def test_log_probabilities_come_with_the_record(llm: LLM) -> None:
    record = llm.chat("Hello", replace(GREEDY, log_probabilities=3)).record
    assert len(record.chosen) == record.tokens
    for token in record.chosen:
        assert token.log_probabilities is not None
        (likeliest, value), *others = token.log_probabilities.top
        assert len(others) == 2
        if likeliest == token.token:
            assert token.log_probabilities.picked == value
    assert not llm.chat("Hello", GREEDY).record.chosen


def test_what_cannot_be_is_refused_before_anything_is_computed(llm: LLM) -> None:
    with pytest.raises(ContextFullError):
        llm.batch(["Hello", "long " * 200], GREEDY)
    with pytest.raises(ContextFullError, match="the prompt takes 600 tokens"):
        llm.generate([5] * 600)
    with pytest.raises(OptionError, match="the model has the tokens 0 to 287, not 288"):
        llm.generate([288])
    with pytest.raises(OptionError, match="at least one token"):
        llm.generate("")
    with pytest.raises(TokenizerError, match="messages must be a question, or dicts"):
        llm.chat([])
    with pytest.raises(TokenizerError, match="must have a role of one word"):
        llm.chat([{"content": "Hello"}])
    with pytest.raises(OptionError, match="would cut answers that must match"):
        llm.generate("Hello", schema={"type": "integer"}, stop=["1"])
    assert llm.rows.free == 2


def test_a_text_matches_a_schema(llm: LLM) -> None:
    answer = llm.generate("Hello", replace(GREEDY, temperature=1.5), schema={"enum": ["a", "bc"]})
    assert answer.text in ('"a"', '"bc"')

"""A summary in the place of the oldest questions: what it leaves, and what leaves all as it was."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from calculator.errors import OptionError, ToolError
from glm4q import LLM, SamplingParams
from glm4q.chat.completions.completion import ChatEvent
from glm4q.chat.reply_grammar import ReplyConstraints, ReplyGrammar
from glm4q.chat.session import ChatSession
from glm4q.chat.summary import REQUEST, summarize
from glm4q.text.grammar.grammar import Grammar
from tests.chat_checkpoint import END

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def llm(chat_checkpoint: Path) -> LLM:
    return LLM.load(chat_checkpoint, context=600, kv="int8")


@pytest.fixture(scope="module")
def params(llm: LLM) -> SamplingParams:
    """Answers of letters: bytes that are no text would be more tokens in the next prompt."""
    letters = dict.fromkeys(llm.tokenizer.encode(LETTERS), 100)
    return SamplingParams(temperature=0, max_tokens=40, logit_bias={**letters, END: -100})


@pytest.fixture
def session(llm: LLM, params: SamplingParams) -> ChatSession:
    answers = Grammar.from_regex("a{30}")
    session = llm.session("Be brief.", params, tools=[weather], schema=answers)
    for question in ("first " * 20, "second " * 4, "third"):
        "".join(session.ask(question))
    return session


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def finish(events: Generator[ChatEvent]) -> None:
    for _ in events:
        pass


def test_it_stands_for_the_oldest_questions(session: ChatSession, params: SamplingParams) -> None:
    """It need not match what answers must match, and the next answer does so again."""
    before, used = [*session.messages], session.context_used
    finish(summarize(session, 0, 2, params))
    request, summary, *rest = session.messages
    assert request == {"role": "user", "content": REQUEST}
    assert summary["role"] == "assistant"
    assert summary["content"].strip()
    assert not summary["content"].startswith("aaa")
    assert rest == before[2:]
    assert session.system == "Be brief."
    assert session.context_used < used
    assert "".join(session.ask("fourth")) == "a" * 30
    assert session.last_answer is not None
    assert session.last_answer.prompt_tokens == session.context_used - session.last_answer.tokens


def test_what_is_interrupted_leaves_all_as_it_was(
    session: ChatSession, params: SamplingParams
) -> None:
    before, used = session.conversation, session.context_used
    events = summarize(session, 0, 2, params)
    next(events)
    events.close()
    assert session.conversation == before
    assert session.context_used == used


def test_a_call_is_no_summary_and_does_not_run(
    llm: LLM, session: ChatSession, params: SamplingParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = session.conversation
    calls = ReplyGrammar.with_tools(None, session._toolbox.offers, "metadata")
    session._constrain_first = ReplyConstraints(llm.grammars, calls)
    monkeypatch.setattr(session._toolbox, "run", pytest.fail)
    answer = session.answer
    monkeypatch.setattr(session, "answer", lambda messages, params, free: answer(messages, params))
    with pytest.raises(ToolError, match="the model called a tool instead"):
        finish(summarize(session, 0, 2, replace(params, logit_bias={END: -100})))
    assert session.conversation == before


def test_a_short_question_needs_none(llm: LLM, params: SamplingParams) -> None:
    session = llm.session(params=params)
    "".join(session.ask("Hi"))
    with pytest.raises(OptionError, match="too short for a summary"):
        finish(summarize(session, 0, 2, params))


def test_no_room_for_a_summary_is_told(llm: LLM, params: SamplingParams) -> None:
    session = llm.session(params=params)
    "".join(session.ask("long " * 104))
    before = session.conversation
    with pytest.raises(OptionError, match="leave no room for a summary"):
        finish(summarize(session, 0, 2, params))
    assert session.conversation == before


def test_what_is_forgotten_is_no_part_of_the_context(llm: LLM, params: SamplingParams) -> None:
    """The figures of the footer follow at once, not with the next answer."""
    session = llm.session(params=params)
    "".join(session.ask("first"))
    one = session.context_used
    "".join(session.ask("second"))
    two = session.context_used
    session.rewind(session.messages[:2])
    assert abs(session.context_used - one) <= 1
    "".join(session.ask("second"))
    assert session.context_used == two
    assert session.last_answer is not None
    assert session.last_answer.cached_tokens >= one - 1

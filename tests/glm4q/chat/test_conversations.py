"""Several conversations share one loaded model: each answers as if it were alone."""

from pathlib import Path

import pytest

from calculator.questions.fit import Wish
from glm4q.chat.session import ChatSession
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM

GREEDY = SamplingParams(temperature=0, max_tokens=6)
FIRST = ("Name three colours.", "Which of them is warm?", "Thank you.")
SECOND = ("What is GPTQ?", "And AWQ?", "Which is better?")


def _load(directory: Path, rows: int) -> LLM:
    wish = Wish(context=400, batch=rows)
    return LLM.load(directory, device="cpu", dtype="fp32", wish=wish)


def _ask(chat: ChatSession, question: str) -> tuple[str, int, int]:
    """The answer, the tokens that the conversation had before, and those that were cached."""
    before = chat.context_used
    answer = "".join(chat.ask(question))
    assert chat.last_answer
    return answer, before, chat.last_answer.cached_tokens


@pytest.fixture(scope="module")
def alone(chat_checkpoint: Path) -> tuple[list[str], list[str]]:
    """The answers of two models that have one conversation each."""
    first, second = (
        [_ask(chat, question)[0] for question in questions]
        for chat, questions in (
            (_load(chat_checkpoint, 1).session(params=GREEDY), FIRST),
            (_load(chat_checkpoint, 1).session(params=GREEDY), SECOND),
        )
    )
    assert first != second
    return first, second


def test_interleaved_conversations_keep_their_rows(
    chat_checkpoint: Path, alone: tuple[list[str], list[str]]
) -> None:
    llm = _load(chat_checkpoint, 2)
    chats = llm.session(params=GREEDY), llm.session(params=GREEDY)
    for number, questions in enumerate(zip(FIRST, SECOND, strict=True)):
        for chat, question, answers in zip(chats, questions, alone, strict=True):
            answer, before, cached = _ask(chat, question)
            assert answer == answers[number]
            # The last token of an answer was picked, and not run.
            assert cached == before - 1 if number else cached < 20
    assert llm.rows.free == 2


def test_conversations_that_share_one_row_answer_the_same(
    chat_checkpoint: Path, alone: tuple[list[str], list[str]]
) -> None:
    llm = _load(chat_checkpoint, 1)
    chats = llm.session(params=GREEDY), llm.session(params=GREEDY)
    for number, questions in enumerate(zip(FIRST, SECOND, strict=True)):
        for chat, question, answers in zip(chats, questions, alone, strict=True):
            assert _ask(chat, question)[0] == answers[number]


def test_answers_that_are_streamed_at_the_same_time_are_those_alone(
    chat_checkpoint: Path, alone: tuple[list[str], list[str]]
) -> None:
    llm = _load(chat_checkpoint, 2)
    first, second = llm.session(params=GREEDY), llm.session(params=GREEDY)
    pieces: tuple[list[str], list[str]] = [], []
    streams = [first.ask(FIRST[0]), second.ask(SECOND[0])]
    going = [0, 1]
    while going:
        for number in list(going):
            piece = next(streams[number], None)
            if piece is None:
                going.remove(number)
            else:
                pieces[number].append(piece)
    assert ["".join(each) for each in pieces] == [alone[0][0], alone[1][0]]

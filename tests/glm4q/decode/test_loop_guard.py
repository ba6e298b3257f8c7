"""What counts as a loop: a text again and again, and nothing that somebody may have asked for."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from glm4q.decode.answer import End
from glm4q.decode.batch import Batch
from glm4q.decode.loop_guard import LoopGuard
from glm4q.decode.sampling import SamplingParams
from tests import tiny
from tests.glm4q.memories import memory_on_cpu
from tests.glm4q.scripted import ScriptedRunner

SENTENCE = [*range(10, 30)]
PARAGRAPH = [*range(10, 90)]
PROMPT = [1, 2, 3]
LONG = replace(tiny.BASE, max_position_embeddings=1024)


def stops_at(answer: Sequence[int], prompt: Sequence[int] = PROMPT) -> int | None:
    """How many tokens of an answer come before the guard ends it; None if it does not."""
    guard = LoopGuard(prompt)
    token_ids = [*prompt]
    for count, token in enumerate(answer, 1):
        token_ids.append(token)
        if guard.repeats(token_ids):
            return count
    return None


@pytest.mark.parametrize(
    ("run", "most"),
    [(SENTENCE, 24 * 20 + 16), (PARAGRAPH, 8 * 80 + 16), ([5], 768 + 16), ([5, 6, 7], 768 + 16)],
    ids=["a sentence", "a paragraph", "one token", "three tokens"],
)
def test_a_loop_is_stopped_whatever_came_before(run: list[int], most: int) -> None:
    introduction = random.Random(1).sample(range(100, 1000), 333)
    place = stops_at([*introduction, *run * 2000])
    assert place is not None
    assert place - len(introduction) <= most


def rows(count: int, width: int) -> list[int]:
    """A matrix of zeros: brackets, zeros and commas."""
    return [50, *[51, 52] * width, 53] * count


@pytest.mark.parametrize(
    "answer",
    [
        [5] * 700,
        [5, 6] * 350,
        rows(32, 32),
        rows(60, 60),
        SENTENCE * 20,
        PARAGRAPH * 7,
        [token for number in range(400) for token in (50, 100 + number, 51, 52, 53)],
        [token for number in range(90) for token in (*SENTENCE, 100 + number)],
    ],
    ids=[
        "700 digits",
        "ha ha",
        "a matrix of 32 x 32 zeros",
        "a matrix of 60 x 60 zeros",
        "20 equal records",
        "a refrain",
        "a table with numbered rows",
        "lines of code that differ in one token",
    ],
)
def test_what_people_ask_for_is_no_loop(answer: list[int]) -> None:
    assert stops_at(answer) is None


def test_a_line_that_the_prompt_has_may_be_written_a_hundred_times() -> None:
    """As in: write "I will not talk in class" a hundred times."""
    line = [*range(10, 19)]
    assert stops_at(line * 85, [1, 2, *line, 3]) is None
    assert stops_at([7, *line * 85], [1, *line]) is None
    assert stops_at(line * 85) is not None
    assert stops_at(line * 200, [1, 2, *line, 3]) is not None


def test_an_answer_ends_with_the_reason() -> None:
    for loop_guard in (True, False):
        runner = ScriptedRunner([7] * 1000, 97, memory_on_cpu(LONG, 1000, chunk=64))
        batch = Batch(runner)
        params = SamplingParams(temperature=0, max_tokens=900, loop_guard=loop_guard)
        *tokens, end = batch.stream(batch.join([1, 2], params))
        expected = (768, "repetition") if loop_guard else (900, "length")
        assert isinstance(end, End)
        assert (len(tokens), end.reason) == expected
        assert batch.free == 1

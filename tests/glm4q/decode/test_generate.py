"""Generation over a scripted model: what is run, what is yielded, when it stops."""

from collections.abc import Iterator

import pytest

from glm4q.decode.answer import End
from glm4q.decode.batch import Batch
from glm4q.decode.generate import generate, token_ids
from glm4q.decode.sampling import SamplingParams
from tests.glm4q.scripted import ScriptedRunner, small_memory

GREEDY = SamplingParams(temperature=0, stop_token_ids=frozenset({9}))


def test_stops_at_a_stop_token_and_does_not_yield_it() -> None:
    model = ScriptedRunner([4, 5, 9, 6], 10, small_memory(20))
    *tokens, end = generate(model, [1, 2], GREEDY)
    assert list(token_ids(tokens)) == [4, 5]
    assert isinstance(end, End)
    assert end.reason == "stop"
    assert model.seen == [[1, 2], [4], [5]]


def test_max_tokens_bounds_the_answer_and_the_work() -> None:
    model = ScriptedRunner([4, 5, 6, 7], 10, small_memory(20))
    params = SamplingParams(temperature=0, max_tokens=2)
    *tokens, end = generate(model, [1], params)
    assert list(token_ids(tokens)) == [4, 5]
    assert isinstance(end, End)
    assert end.reason == "length"
    assert model.seen == [[1], [4]]  # the last token's own logits are never needed


def test_a_full_cache_ends_the_answer() -> None:
    model = ScriptedRunner([4] * 9, 10, small_memory(5))
    assert list(token_ids(generate(model, [1, 2, 3], GREEDY))) == [4, 4]


def test_cached_tokens_are_not_run_again_and_chunks_bound_the_rest() -> None:
    model = ScriptedRunner([0, 0, 9], 10, small_memory(20, chunk=2))
    prompt = [1, 2, 3, 4, 5, 6, 7, 8]
    batch = Batch(model)
    batch.rows[0].hold(prompt[:3])
    answer = batch.join(prompt, GREEDY)
    assert answer.cached_tokens == 3
    assert list(token_ids(batch.stream(answer))) == []
    assert model.seen == [[4, 5], [6, 7], [8]]


class CountedPrompt(list[int]):
    """A prompt that counts how many of its tokens were looked at."""

    looks = 0

    def __iter__(self) -> Iterator[int]:
        self.looks += len(self)
        return super().__iter__()

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        found = super().__getitem__(place)
        self.looks += len(found) if isinstance(place, slice) else 1
        return found


@pytest.mark.parametrize("draft_tokens", [0, 4])
def test_the_context_is_looked_at_before_the_first_token_alone(draft_tokens: int) -> None:
    prompt = CountedPrompt([1, 2, 3] * 20)
    params = SamplingParams(1.0, repetition_penalty=1.1, seed=1, max_tokens=60)
    model = ScriptedRunner([4, 5, 6] * 60, 10, small_memory(200, draft_tokens=draft_tokens))
    answer = token_ids(generate(model, prompt, params))
    next(answer)
    before = prompt.looks
    assert before >= 60
    assert len(list(answer)) == 59
    assert prompt.looks == before

"""Guessing from the context, and that guesses change nothing but the number of steps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import NumericError, OptionError
from calculator.memory.settings import Settings
from calculator.questions.fit import Wish
from glm4q.decode.batch import Batch
from glm4q.decode.draft import Lookup
from glm4q.decode.generate import generate, token_ids
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM
from glm4q.memory.allocation import Memory
from glm4q.memory.kv.cache import KVCache
from glm4q.model.decoder import CausalLM
from tests.glm4q.memories import load_on_cpu, memory_on_cpu, runner_of
from tests.glm4q.scripted import small_memory

GREEDY = SamplingParams(temperature=0, stop_token_ids=frozenset({9}))


# The index


def next_tokens(lookup: Lookup, count: int) -> list[int]:
    place = lookup.find()
    return [] if place is None else lookup.read(place, count)


def test_what_followed_the_last_tokens_before() -> None:
    lookup = Lookup([1, 2, 3, 4, 5, 1, 2])
    assert next_tokens(lookup, 3) == [3, 4, 5]
    lookup.append(7)
    assert next_tokens(lookup, 3) == []


def test_a_longer_run_wins_and_then_the_latest_place() -> None:
    assert next_tokens(Lookup([0, 1, 2, 3, 9, 1, 2, 4, 0, 1, 2]), 1) == [3]
    assert next_tokens(Lookup([7, 1, 2, 3, 8, 1, 2, 4, 0, 1, 2]), 1) == [4]


def test_a_run_that_reaches_the_end_goes_on_as_it_began() -> None:
    assert next_tokens(Lookup([5, 1, 2, 1, 2, 1, 2]), 5) == [1, 2, 1, 2, 1]


# Generation


class Countdown:
    """Says after each token the next of a fixed text; remembers how much each pass ran."""

    mixed = None
    recorded_prompts = ()

    def __init__(self, text: Sequence[int], vocab_size: int, memory: Memory) -> None:
        self.text, self.memory, self.passes = text, memory, list[int]()
        self._vocab_size = vocab_size

    def __call__(self, input_ids: Tensor, caches: Sequence[KVCache], /, last: int = 1) -> Tensor:
        (cache,) = caches
        self.passes.append(input_ids.shape[1])
        cache.check_room(input_ids.shape[1])
        cache.advance(input_ids.shape[1])
        ends = range(cache.length - last + 1, cache.length + 1)
        logits = torch.zeros(last, self._vocab_size)
        for row, end in enumerate(ends):
            logits[row, self.text[end]] = 10.0
        return logits

    def find_overflow(self, token_ids: Sequence[int], cache: KVCache, /) -> NumericError:
        return NumericError("the script")


def test_right_guesses_save_steps_and_wrong_ones_are_dropped() -> None:
    text = [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 8, 1, 2, 9, 9, 9, 9, 9]
    model = Countdown(text, 10, small_memory(30, draft_tokens=4))
    batch = Batch(model)
    assert list(token_ids(batch.stream(batch.join(text[:8], GREEDY)))) == text[8:14]
    # [2 | 3 4 5 6] finds 8 instead of 6, and so on.
    assert len(model.passes) < 1 + 6
    assert batch.rows[0].cache.length <= 14


def test_drafts_end_where_the_answer_and_the_cache_do() -> None:
    text = [1, 2] * 20
    params = replace(GREEDY, max_tokens=5)
    model = Countdown(text, 10, small_memory(40, draft_tokens=4))
    assert list(token_ids(generate(model, text[:8], params))) == text[8:13]
    model = Countdown(text, 10, small_memory(11, draft_tokens=4))
    assert list(token_ids(generate(model, text[:8], GREEDY))) == text[8:11]


def test_an_answer_that_is_closed_leaves_no_guess_in_the_cache() -> None:
    text = [1, 2] * 20
    batch = Batch(Countdown(text, 10, small_memory(40, draft_tokens=4)))
    answer = batch.join(text[:8], GREEDY)
    events = batch.stream(answer)
    for _ in range(3):
        next(events)
    events.close()
    (row,) = batch.rows
    assert answer.finish_reason == "cancelled"
    assert row.token_ids == text[: len(row.token_ids)]
    assert 8 + 2 <= row.cache.length <= len(row.token_ids)


def test_nothing_that_is_done_for_a_token_grows_with_the_context() -> None:
    """Every look at the index, and every token that goes into it, is counted."""

    def looks(context: int) -> int:
        lookup = Lookup(list(range(context)))
        counted = CountingDict(lookup._places)
        lookup._places = counted
        for token in range(50):
            lookup.append(token)
            next_tokens(lookup, 4)
        return counted.looks

    assert looks(20_000) == looks(200)


class CountingDict(dict[tuple[int, ...], int]):
    """Counts what is asked of it."""

    looks = 0

    def get(self, *key: object) -> int | None:  # type: ignore[override]
        self.looks += 1
        return super().get(*key)  # type: ignore[call-overload]

    def __setitem__(self, key: tuple[int, ...], value: int) -> None:
        self.looks += 1
        super().__setitem__(key, value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draft_tokens": -1}, "draft_tokens must be 0 to 7, not -1"),
        ({"draft_tokens": 8}, "draft_tokens must be 0 to 7, not 8"),
        ({"draft_tokens": 4, "batch": 2}, "draft_tokens must be 0 for a batch of 2"),
    ],
)
def test_impossible_drafts_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Settings(**settings)  # type: ignore[arg-type]


# Real models: test_rows_alike.py compares the bits of their steps.


@pytest.mark.parametrize("kv", ["bf16", "int8"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_answers_are_those_without_drafts(
    tiny_checkpoint: Path, kv: str, temperature: float
) -> None:
    """With a seed a token is drawn from its own logits by its own number, whatever was guessed."""
    model = load_on_cpu(StoredModel.open(tiny_checkpoint), dtype=torch.bfloat16)
    prompt = torch.randint(97, (6,)).tolist() * 4
    for seed in range(2):
        params = SamplingParams(temperature, top_k=3, repetition_penalty=0.7, seed=seed)
        alone, drafting = (
            CountingRunner(
                model,
                memory_on_cpu(model.config, 100, kv=kv, draft_tokens=most, dtype=torch.bfloat16),
            )
            for most in (0, 5)
        )
        assert drafting.answer(prompt, params) == alone.answer(prompt, params)
        assert drafting.passes < alone.passes


class CountingRunner:
    """Counts the passes that an answer takes."""

    mixed = None
    recorded_prompts = ()

    def __init__(self, model: CausalLM, memory: Memory) -> None:
        self._runner, self.memory = runner_of(model, memory), memory
        self.find_overflow = self._runner.find_overflow
        self.passes = 0

    def __call__(self, input_ids: Tensor, caches: Sequence[KVCache], /, last: int = 1) -> Tensor:
        self.passes += 1
        return self._runner(input_ids, caches, last)

    def answer(self, prompt: list[int], params: SamplingParams) -> list[int]:
        return list(token_ids(generate(self, prompt, params)))


TEXT = (
    "The lighthouse at Cape Wrath was built in 1828 by Robert Stevenson. It stands 20 metres tall, "
    "on a cliff of 121 metres, and was manned until 1998."
)


@pytest.mark.demo
def test_the_demo_models_answers_are_those_without_drafts(demo_checkpoint: Path) -> None:
    llm = LLM.load(demo_checkpoint, device="cpu", wish=Wish(context=200))
    prompt = llm.tokenizer.encode_prompt(
        f"<|im_start|>user\nRepeat this text: {TEXT}<|im_end|>\n<|im_start|>assistant\n"
    )
    greedy = SamplingParams(0, max_tokens=30, stop_token_ids=llm.stop_token_ids)
    for params in (greedy, replace(greedy, temperature=0.8, top_p=0.9, seed=1)):
        memory = llm.new_runner().memory
        alone = CountingRunner(llm.model, replace(memory, draft_tokens=0))
        drafting = CountingRunner(llm.model, memory)
        assert drafting.answer(prompt, params) == alone.answer(prompt, params)
        assert drafting.passes < alone.passes

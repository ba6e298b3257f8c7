"""Guessing from the context, and that guesses change nothing but the number of steps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.memory.settings import Settings
from calculator.questions.fit import Wish
from glm4q.decode.draft import Drafter, Lookup
from glm4q.decode.generate import generate
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM
from glm4q.memory.allocation import Memory
from glm4q.model.decoder import CausalLM
from tests.glm4q.memories import load_on_cpu, memory_on_cpu
from tests.glm4q.scripted import small_memory

GREEDY = SamplingParams(temperature=0, stop_token_ids=frozenset({9}))


# The index


def test_what_followed_the_last_tokens_before() -> None:
    lookup = Lookup([1, 2, 3, 4, 5, 1, 2])
    assert lookup.next_tokens(3) == [3, 4, 5]
    lookup.append(7)
    assert lookup.next_tokens(3) == []


def test_a_longer_run_wins_and_then_the_latest_place() -> None:
    assert Lookup([0, 1, 2, 3, 9, 1, 2, 4, 0, 1, 2]).next_tokens(1) == [3]
    assert Lookup([7, 1, 2, 3, 8, 1, 2, 4, 0, 1, 2]).next_tokens(1) == [4]


def test_a_run_that_reaches_the_end_goes_on_as_it_began() -> None:
    assert Lookup([5, 1, 2, 1, 2, 1, 2]).next_tokens(5) == [1, 2, 1, 2, 1]


def test_a_draft_grows_with_success_and_failures_make_it_rare() -> None:
    drafter = Drafter([1, 2] * 4, most=8)
    drafter.judge(8, 1)
    assert len(drafter.draft(99)) == 2
    drafter.judge(2, 2)
    assert len(drafter.draft(99)) == 4
    assert len(drafter.draft(3)) == 3
    drafted = 0
    for _ in range(1000):
        draft = drafter.draft(99)
        drafted += len(draft)
        drafter.judge(len(draft), 0)
    assert drafted < 30  # of 1000 steps


# Generation


class Countdown:
    """Says after each token the next of a fixed text; remembers how much each pass ran."""

    def __init__(self, text: Sequence[int], vocab_size: int) -> None:
        self.text, self.passes = text, list[int]()
        self._vocab_size = vocab_size

    def __call__(self, input_ids: Tensor, memory: Memory, /, last: int = 1) -> Tensor:
        self.passes.append(input_ids.shape[1])
        memory.cache.reserve(input_ids.shape[1])
        memory.cache.advance(input_ids.shape[1])
        ends = range(memory.cache.length - last + 1, memory.cache.length + 1)
        logits = torch.zeros(last, self._vocab_size)
        for row, end in enumerate(ends):
            logits[row, self.text[end]] = 10.0
        return logits


def test_right_guesses_save_steps_and_wrong_ones_are_dropped() -> None:
    text = [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 8, 1, 2, 9, 9, 9, 9, 9]
    model = Countdown(text, 10)
    memory = small_memory(30, draft_tokens=4)
    assert list(generate(model, memory, text[:8], GREEDY)) == text[8:14]
    # [2 | 3 4 5 6] finds 8 instead of 6, and so on.
    assert len(model.passes) < 1 + 6
    assert memory.cache.length <= 14


def test_drafts_end_where_the_answer_and_the_cache_do() -> None:
    text = [1, 2] * 20
    params = replace(GREEDY, max_tokens=5)
    model = Countdown(text, 10)
    assert list(generate(model, small_memory(40, draft_tokens=4), text[:8], params)) == text[8:13]
    model = Countdown(text, 10)
    assert list(generate(model, small_memory(11, draft_tokens=4), text[:8], GREEDY)) == text[8:11]


def test_an_answer_that_is_closed_leaves_no_guess_in_the_cache() -> None:
    text = [1, 2] * 20
    memory = small_memory(40, draft_tokens=4)
    answer = generate(Countdown(text, 10), memory, text[:8], GREEDY)
    for _ in range(3):
        next(answer)
    answer.close()  # type: ignore[attr-defined]
    assert memory.cache.length == 8 + 2


def test_nothing_that_is_done_for_a_token_grows_with_the_context() -> None:
    """Every look at the index, and every token that goes into it, is counted."""

    def looks(context: int) -> int:
        lookup = Lookup(list(range(context)))
        counted = CountingDict(lookup._places)
        lookup._places = counted
        for token in range(50):
            lookup.append(token)
            lookup.next_tokens(4)
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
        ({"draft_tokens": -1}, "draft_tokens must be 0 to 31, not -1"),
        ({"draft_tokens": 32}, "draft_tokens must be 0 to 31, not 32"),
        ({"draft_tokens": 4, "batch": 2}, "draft_tokens must be 0 for a batch of 2"),
    ],
)
def test_impossible_drafts_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Settings(**settings)  # type: ignore[arg-type]


# Real models: the rounding of a step of several tokens is not that of several steps, so float32.


@pytest.mark.parametrize("kv", ["fp32", "int8"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_answers_are_those_without_drafts(
    tiny_checkpoint: Path, kv: str, temperature: float
) -> None:
    model = load_on_cpu(StoredModel.open(tiny_checkpoint))
    prompt = torch.randint(97, (6,)).tolist() * 4
    for seed in range(5):
        params = SamplingParams(temperature, top_k=3, repetition_penalty=0.7, seed=seed)
        alone, drafting = (
            CountingModel(model, memory_on_cpu(model.config, 100, kv=kv, draft_tokens=most))
            for most in (0, 5)
        )
        assert drafting.answer(prompt, params) == alone.answer(prompt, params)
        assert drafting.passes < alone.passes


class CountingModel:
    """A model with its memory; counts the passes that an answer takes."""

    def __init__(self, model: CausalLM, memory: Memory) -> None:
        self._model, self._memory = model, memory
        self.passes = 0

    def __call__(self, input_ids: Tensor, memory: Memory, /, last: int = 1) -> Tensor:
        self.passes += 1
        logits: Tensor = self._model(input_ids, memory, last)
        return logits

    def answer(self, prompt: list[int], params: SamplingParams) -> list[int]:
        return list(generate(self, self._memory, prompt, params))


TEXT = (
    "The lighthouse at Cape Wrath was built in 1828 by Robert Stevenson. It stands 20 metres tall, "
    "on a cliff of 121 metres, and was manned until 1998."
)


@pytest.mark.demo
@pytest.mark.parametrize("question", [f"Repeat this text: {TEXT}", f"Summarize this text: {TEXT}"])
def test_the_demo_models_answers_are_those_without_drafts(
    demo_checkpoint: Path, question: str
) -> None:
    llm = LLM.load(
        demo_checkpoint, device="cpu", dtype="fp32", wish=Wish(context=200, draft_tokens=6)
    )
    prompt = llm.tokenizer.encode_prompt(
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    greedy = SamplingParams(0, max_tokens=30, stop_token_ids=llm.stop_token_ids)
    for params in (greedy, replace(greedy, temperature=0.8, top_p=0.9, seed=1)):
        alone = CountingModel(llm.model, replace(llm.new_memory(), draft_tokens=0))
        drafting = CountingModel(llm.model, llm.new_memory())
        assert drafting.answer(prompt, params) == alone.answer(prompt, params)
        assert drafting.passes < alone.passes

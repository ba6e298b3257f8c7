"""How many tokens are guessed: as many as pay, by what guesses were worth and what steps cost."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import pytest
from torch import Tensor

from calculator.memory.settings import MAX_DRAFT_TOKENS
from glm4q.decode.batch import Batch
from glm4q.decode.draft import Drafter
from glm4q.decode.generate import token_ids
from glm4q.decode.pace.step_costs import FORGOTTEN, TRIALS, StepCosts
from glm4q.decode.sampling import SamplingParams
from glm4q.memory.kv.cache import KVCache
from tests import tiny
from tests.glm4q.decode.test_lookup import Countdown
from tests.glm4q.memories import memory_on_cpu

VOCABULARY = 50


def costs_of(seconds: Callable[[int], float]) -> StepCosts:
    """Costs that were measured, of every number of tokens."""
    costs = StepCosts()
    for tokens in range(1, MAX_DRAFT_TOKENS + 2):
        for _ in range(TRIALS):
            costs.note(tokens, seconds(tokens))
    return costs


def say(drafter: Drafter, text: Sequence[int]) -> int:
    """Let an answer say a text token by token. Returns how many tokens were guessed in all."""
    guessed = 0
    for token in text:
        guessed += len(drafter.draft(100))
        drafter.append(token)
    return guessed


# What steps cost


def test_the_least_of_the_latest_measurements_counts() -> None:
    costs = StepCosts()
    for seconds in (9.0, 1.0, 1.2, 1.1):
        costs.note(1, seconds)
    for seconds in (50.0, 2.5, 2.0):
        costs.note(4, seconds)
    assert costs.ratios(3) == pytest.approx([1 + 1 / 3, 1 + 2 / 3, 2.0])
    assert costs.ratios(7)[-1] == pytest.approx(2.0 + 4 / 3)


def test_few_measurements_are_not_believed_and_old_ones_are_forgotten() -> None:
    costs = StepCosts()
    first = costs.ratios(7)
    for _ in range(TRIALS):
        costs.note(1, 1.0)
    for _ in range(TRIALS - 1):
        costs.note(8, 100.0)  # it compiles
        assert costs.ratios(7) == first
    costs.note(8, 3.0)
    assert costs.ratios(7)[-1] == 3.0
    for _ in range(FORGOTTEN):
        costs.note(1, 1.0)
    assert costs.ratios(7) == first


# How many are guessed


def test_a_text_that_repeats_is_guessed_as_far_as_steps_are_cheap() -> None:
    text = Random(1).sample(range(VOCABULARY), VOCABULARY)
    for seconds, longest in ((lambda tokens: 1 + 0.1 * tokens, MAX_DRAFT_TOKENS), (float, 0)):
        drafter = Drafter(text, MAX_DRAFT_TOKENS, costs_of(seconds))
        assert drafter.draft(100) == [], "nothing has been seen before"
        say(drafter, text[:12])
        assert len(drafter.draft(100)) == longest
        assert len(drafter.draft(3)) == min(longest, 3)


def test_wrong_guesses_end_and_quoting_brings_them_back() -> None:
    """What is not verified is judged as well, so no step is lost to find out."""
    random = Random(2)
    prompt = [random.randrange(VOCABULARY) for _ in range(2000)]
    drafter = Drafter(prompt, MAX_DRAFT_TOKENS, costs_of(lambda tokens: 1 + 0.25 * (tokens - 1)))
    say(drafter, [random.randrange(VOCABULARY) for _ in range(200)])
    assert say(drafter, [random.randrange(VOCABULARY) for _ in range(200)]) < 10
    assert say(drafter, prompt[500:530]) > 30


def test_a_changed_word_does_not_end_a_quotation() -> None:
    """What follows it is guessed from where the quoted text goes on."""
    text = Random(5).sample(range(VOCABULARY), VOCABULARY)
    drafter = Drafter(text, MAX_DRAFT_TOKENS, costs_of(lambda tokens: 1 + 0.1 * tokens))
    say(drafter, text[:12])
    say(drafter, [VOCABULARY])
    assert drafter.draft(2) == text[13:15]
    drafter.append(VOCABULARY + 1)  # it was no single word
    assert drafter.draft(2) == []


# Answers, on a clock by which steps of more tokens take longer


class Timed(Countdown):
    """Says a text; each step takes the seconds of its tokens."""

    seconds = 0.0

    def __call__(self, input_ids: Tensor, caches: Sequence[KVCache], /, last: int = 1) -> Tensor:
        self.seconds += 1.0 if last == 1 else 1.0 + 0.2 * (last - 1)
        return super().__call__(input_ids, caches, last)


def seconds_of(text: list[int], prompt: int, draft_tokens: int) -> float:
    """The seconds of an answer that says what is behind the prompt."""
    config = replace(tiny.BASE, max_position_embeddings=4096)
    memory = memory_on_cpu(config, len(text) + 1, chunk=512, draft_tokens=draft_tokens)
    runner = Timed([*text, 0], VOCABULARY, memory)
    batch = Batch(runner, clock=lambda: runner.seconds)
    params = SamplingParams(temperature=0, max_tokens=len(text) - prompt)
    assert list(token_ids(batch.stream(batch.join(text[:prompt], params)))) == text[prompt:]
    return runner.seconds


def test_an_answer_that_quotes_comes_2_5_times_as_fast() -> None:
    random = Random(3)
    prompt = [random.randrange(VOCABULARY) for _ in range(400)]
    text = [*prompt, *prompt[30:330], 7, *prompt[100:300]]
    assert seconds_of(text, 400, 0) > 2.5 * seconds_of(text, 400, MAX_DRAFT_TOKENS)


def test_an_answer_that_does_not_quote_loses_nothing() -> None:
    """Its pairs of tokens stand in the prompt, followed by something else."""
    random = Random(4)
    text = [random.randrange(VOCABULARY) for _ in range(3000)]
    plain, drafted = (seconds_of(text, 2000, most) for most in (0, MAX_DRAFT_TOKENS))
    assert drafted * 0.98 <= plain

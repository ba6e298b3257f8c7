"""A long prompt comes in chunks, so that running answers wait no longer than a bound."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from glm4q.decode.answer import Answer
from glm4q.decode.batch import Batch
from glm4q.decode.pace.pause_bound import FIRST_TOKENS, LEAST_TOKENS, PauseBound
from glm4q.decode.sampling import SamplingParams
from glm4q.memory.kv.cache import KVCache
from tests import tiny
from tests.glm4q.memories import memory_on_cpu
from tests.glm4q.scripted import ScriptedRunner

ROOM, CHUNK = 3000, 512
STEP = 0.01
LONG = replace(tiny.BASE, head_dim=64, max_position_embeddings=ROOM)


class TimedRunner(ScriptedRunner):
    """A step takes 10 ms; a prompt takes longer a token, the more tokens stand before it."""

    def __init__(self, kv: str) -> None:
        super().__init__([], 97, memory_on_cpu(LONG, ROOM, batch=3, chunk=CHUNK, kv=kv))
        self.now = 0.0
        self.chunks: list[int] = []

    def __call__(self, input_ids: Tensor, caches: Sequence[KVCache], /, last: int = 1) -> Tensor:
        tokens = input_ids.shape[1]
        if tokens > 1:
            self.chunks.append(tokens * len(caches))
            before = caches[0].length
            self.now += tokens * len(caches) * 0.001 * (1 + before / 1000)
        self.now += STEP
        for cache in caches:
            cache.advance(tokens)
        logits = torch.zeros(last * len(caches), 97)
        logits[:, 5] = 1.0
        return logits


def _batch(seconds: float | None, kv: str = "bf16") -> tuple[TimedRunner, Batch]:
    runner = TimedRunner(kv)
    batch = Batch(runner, clock=lambda: runner.now)
    batch.pause = None if seconds is None else PauseBound(seconds)
    return runner, batch


def _pauses(runner: TimedRunner, batch: Batch, going: Answer, until: Answer) -> list[float]:
    """Seconds between tokens of a running answer until another has its first token."""
    pauses, last = [], runner.now
    while not until.tokens:
        if any(answer is going for answer, _ in batch.step()):
            pauses.append(runner.now - last)
            last = runner.now
    return pauses


def test_a_running_answer_pauses_no_longer_than_the_bound() -> None:
    runner, batch = _batch(0.2)
    going = batch.join([1, 2], SamplingParams(temperature=0))
    batch.step()
    long = batch.join([1] * 2000, SamplingParams(temperature=0))
    pauses = _pauses(runner, batch, going, long)
    assert max(pauses) <= 0.2
    # The bound is used: the median chunk takes most of what it leaves.
    assert sorted(pauses)[len(pauses) // 2] > 0.12
    assert runner.chunks[1] == FIRST_TOKENS
    assert runner.chunks[-2] < runner.chunks[3]  # a token takes longer behind many others


def test_without_a_bound_or_without_others_a_prompt_runs_in_whole_chunks() -> None:
    for seconds, with_others in ((None, True), (0.05, False)):
        runner, batch = _batch(seconds)
        if with_others:
            batch.join([1, 2], SamplingParams(temperature=0))
            batch.step()
            runner.chunks.clear()
        long = batch.join([1] * 1500, SamplingParams(temperature=0))
        while not long.tokens:
            batch.step()
        assert runner.chunks == [512, 512, 476]


def test_a_bound_that_cannot_be_kept_gives_the_least_chunks_and_goes_on() -> None:
    runner, batch = _batch(0.001)
    batch.join([1, 2], SamplingParams(temperature=0))
    batch.step()
    long = batch.join([1] * 200, SamplingParams(temperature=0))
    while not long.tokens:
        batch.step()
    assert set(runner.chunks[2:-1]) == {LEAST_TOKENS}


def test_the_bound_that_nobody_gives_follows_the_speed_of_steps() -> None:
    bound = PauseBound()
    assert bound.seconds == 0.2
    bound.note_step(0.02)
    assert bound.seconds == 0.2
    bound.note_step(0.15)
    assert bound.seconds == 0.75


def test_one_slow_step_does_not_make_the_chunks_beside_running_answers_too_long() -> None:
    """Steps without a prompt are not measured again before the end of a long one."""
    bound, tokens, seconds = PauseBound(0.2), 0, []
    bound.note_step(0.01)
    bound.note_step(0.15)  # another program had the machine
    for _ in range(40):
        tokens = bound.tokens(CHUNK)
        seconds.append(0.01 + 0.001 * tokens)
        bound.note_mixed(tokens, seconds[-1])
    assert max(seconds) <= 0.2
    assert seconds[-1] > 0.14  # the bound is used


def test_prompts_are_read_together_while_their_products_take_no_longer_than_a_step() -> None:
    bound = PauseBound()
    assert bound.together(CHUNK) == CHUNK  # nothing was measured yet
    bound.note_step(0.01)
    for _ in range(10):
        bound.note_mixed(20, 0.01 + 20 * 0.0005)
    assert bound.together(CHUNK) == pytest.approx(20, abs=1)
    for _ in range(20):  # a card, on which tokens cost nearly nothing
        bound.note_chunk(200, 0.0101)
    assert bound.together(CHUNK) == CHUNK


def test_a_short_prompt_does_not_wait_for_the_end_of_a_long_one_and_both_end() -> None:
    runner, batch = _batch(None)
    long = batch.join([1] * 2900, SamplingParams(temperature=0, max_tokens=1))
    batch.step()
    short = batch.join([1] * 100, SamplingParams(temperature=0, max_tokens=1))
    batch.step()
    batch.step()
    assert short.tokens == 1
    assert not long.tokens
    while long.finish_reason is None:
        batch.step()
    assert runner.chunks.count(512) == 5


def test_prompts_that_come_together_are_read_together() -> None:
    runner, batch = _batch(None)
    answers = [
        batch.join([number] * (20 + number), SamplingParams(temperature=0, max_tokens=2))
        for number in range(3)
    ]
    batch.step()
    assert runner.chunks == [60]  # 20 tokens of each
    while any(answer.finish_reason is None for answer in answers):
        batch.step()
    assert [answer.prompt_tokens for answer in answers] == [20, 21, 22]
    assert all(answer.tokens == 2 for answer in answers)


def test_what_decides_an_int4_caches_centres_is_cut_as_for_an_answer_alone() -> None:
    runner, batch = _batch(0.001, "int4")
    prompts = [[number] * (600 + 20 * number) for number in range(3)]
    answers = [batch.join(prompt, SamplingParams(temperature=0)) for prompt in prompts]
    while not all(answer.tokens for answer in answers):
        batch.step()
    assert sorted(runner.chunks)[-3:] == [CHUNK] * 3  # whole, though the bound is far below
    assert sum(runner.chunks) == sum(map(len, prompts))

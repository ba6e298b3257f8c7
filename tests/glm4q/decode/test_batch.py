"""Answers decoded together are those decoded alone; sequences come and go meanwhile."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import MemoryFullError, OptionError
from calculator.questions.fit import Wish
from glm4q.decode.answer import End, Event, Token
from glm4q.decode.batch import Batch
from glm4q.decode.generate import generate, generate_batch, token_ids
from glm4q.decode.runner import Runner
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM
from glm4q.memory.kv.cache import KVCache
from glm4q.model.decoder import CausalLM
from tests import tiny
from tests.glm4q.memories import load_on_cpu, memory_on_cpu, runner_of

GREEDY = SamplingParams(temperature=0, max_tokens=12, stop_token_ids=frozenset({9}))


@pytest.fixture
def model(tiny_checkpoint: Path) -> CausalLM:
    return load_on_cpu(StoredModel.open(tiny_checkpoint))


def _prompts(lengths: Sequence[int]) -> list[list[int]]:
    return [torch.randint(97, (length,)).tolist() for length in lengths]


def _together(
    runner: Runner, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]
) -> list[list[int]]:
    answers: list[list[Event]] = [[] for _ in prompts]
    for index, event in generate_batch(runner, prompts, params):
        answers[index].append(event)
    return [list(token_ids(events)) for events in answers]


def _alone(runner: Runner, prompt: Sequence[int], params: SamplingParams) -> list[int]:
    return list(token_ids(generate(runner, prompt, params)))


def _said(event: Event) -> int | str:
    """A token, or the reason of the end."""
    return event.token if isinstance(event, Token) else event.reason


@pytest.mark.parametrize("kv", ["fp32", "int8"])
def test_each_answer_is_the_one_alone(model: CausalLM, kv: str) -> None:
    prompts = _prompts([1, 17, 5, 30, 2, 9, 11])
    params = [
        replace(GREEDY, temperature=temperature, seed=seed, max_tokens=tokens, top_p=0.9)
        for seed, (temperature, tokens) in enumerate(
            [(0, 12), (1, 3), (0.5, 20), (0, None), (1, 25), (1, 8), (0.3, 1)]
        )
    ]
    several = runner_of(model, memory_on_cpu(tiny.BASE, 40, batch=3, chunk=8, kv=kv))
    together = _together(several, prompts, params)
    alone = runner_of(model, memory_on_cpu(tiny.BASE, 40, chunk=8, kv=kv))
    for prompt, own, answer in zip(prompts, params, together, strict=True):
        assert answer == _alone(alone, prompt, own)
    assert len(together[3]) == 10 or 9 in together[3]  # the row was full


def test_rows_of_every_kv_format_hold_what_they_would_alone() -> None:
    config = replace(tiny.BASE, head_dim=64)
    model = CausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    prompts = _prompts([11, 4])
    for kv in ("bf16", "k8v4", "int4"):
        several = runner_of(model, memory_on_cpu(config, 30, batch=2, kv=kv))
        together = _together(several, prompts, [GREEDY, GREEDY])
        for prompt, answer in zip(prompts, together, strict=True):
            alone = runner_of(model, memory_on_cpu(config, 30, kv=kv))
            assert answer == _alone(alone, prompt, GREEDY)


def test_a_row_that_left_is_taken_anew_while_others_go_on(model: CausalLM) -> None:
    first, second, third = _prompts([6, 9, 4])
    batch = Batch(runner_of(model, memory_on_cpu(tiny.BASE, 40, batch=2)))
    said: dict[object, list[int | str]] = {}

    def run(steps: int) -> None:
        for _ in range(steps):
            for answer, event in batch.step():
                said.setdefault(answer, []).append(_said(event))

    going, gone = batch.join(first, GREEDY), batch.join(second, GREEDY)
    with pytest.raises(OptionError, match="all 2 rows of the batch are taken"):
        batch.join(third, GREEDY)
    run(5)
    batch.cancel(gone)
    assert gone.finish_reason == "cancelled"
    assert batch.free == 1
    late = batch.join(third, GREEDY)
    run(20)
    assert batch.free == 2
    alone = runner_of(model, memory_on_cpu(tiny.BASE, 40))
    for answer, prompt in ((going, first), (late, third)):
        assert said[answer] == [_said(event) for event in generate(alone, prompt, GREEDY)]


def test_a_long_prompt_does_not_hold_up_the_others(model: CausalLM) -> None:
    short, long = _prompts([1, 20])
    batch = Batch(runner_of(model, memory_on_cpu(tiny.BASE, 40, batch=2, chunk=4)))
    params = replace(GREEDY, stop_token_ids=frozenset())
    first, other = batch.join(short, params), batch.join(long, params)
    for _ in range(4):
        assert [answer for answer, _ in batch.step()] == [first]
    assert [answer for answer, _ in batch.step()] == [first, other]


@pytest.mark.parametrize("length", [0, 40])
def test_a_prompt_that_leaves_no_room_is_refused(model: CausalLM, length: int) -> None:
    batch = Batch(runner_of(model, memory_on_cpu(tiny.BASE, 40, batch=2)))
    with pytest.raises(OptionError, match=f"the prompt takes {length} tokens"):
        batch.join([3] * length, GREEDY)
    assert batch.free == 2


def test_settings_that_cannot_be_honoured_end_their_answer_alone(model: CausalLM) -> None:
    prompt = _prompts([6])[0]
    batch = Batch(runner_of(model, memory_on_cpu(tiny.BASE, 40, batch=2)))
    good = batch.join(prompt, GREEDY)
    bad = batch.join(prompt, replace(GREEDY, logit_bias={97: 1.0}))
    (end,) = batch.stream(bad)
    assert isinstance(end, End)
    assert end.reason == "error"
    assert "the model has the tokens 0 to 96, not 97" in str(end.error)
    assert batch.free == 1
    alone = runner_of(model, memory_on_cpu(tiny.BASE, 40))
    assert [*batch.stream(good)] == [*generate(alone, prompt, GREEDY)]


@pytest.mark.demo
def test_the_demo_models_answers_together_are_those_alone(
    quantized_demo: Callable[[int], Path],
) -> None:
    directory = quantized_demo(4)
    llm = LLM.load(directory, device="cpu", dtype="fp32", wish=Wish(context=100, batch=3))
    questions = ["What is the capital of France?", "Name three colours.", "What is 2 + 2?"]
    prompts = [
        llm.tokenizer.encode_prompt(
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        for question in questions
    ]
    params = [
        SamplingParams(temperature, seed=1, max_tokens=12, stop_token_ids=llm.stop_token_ids)
        for temperature in (0, 0, 0.8)
    ]
    together = _together(llm.new_runner(), prompts, params)
    alone = LLM.load(directory, device="cpu", dtype="fp32", wish=Wish(context=100))
    for prompt, own, answer in zip(prompts, params, together, strict=True):
        assert answer == _alone(alone.new_runner(), prompt, own)


class FullForPrompts(Runner):
    """The device has no memory for more than one token at once."""

    def __call__(
        self, input_ids: Tensor, caches: Sequence[KVCache] | None = None, last: int = 1
    ) -> Tensor:
        if input_ids.shape[1] > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().__call__(input_ids, caches, last)


def test_out_of_memory_ends_the_answer_that_ran_and_the_others_go_on(model: CausalLM) -> None:
    memory = memory_on_cpu(tiny.BASE, 40, batch=2, chunk=8)
    expected = _alone(runner_of(model, memory), [1, 2, 3], GREEDY)
    batch = Batch(FullForPrompts(model, memory, runner_of(model, memory).kernels))
    first = batch.join([1, 2, 3], GREEDY)
    batch.step()
    second = batch.join(list(range(10)), GREEDY)
    assert list(token_ids(batch.stream(first))) == expected
    assert second.finish_reason == "error"
    with pytest.raises(MemoryFullError, match="no memory left"):
        list(token_ids(second.events))
    assert batch.free == 2

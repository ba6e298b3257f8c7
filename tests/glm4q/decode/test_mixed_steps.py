"""A step of answers that go on and prompts gives each the bits that it has in a step without the
others.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import KV_FORMATS, WeightFormat
from glm4q.decode.answer import Token
from glm4q.decode.batch import Batch
from glm4q.decode.row import Row
from glm4q.decode.runner import Runner
from glm4q.decode.sampling import SamplingParams
from glm4q.kernels.cpu.extension import extension
from glm4q.measure.speed import fill
from glm4q.memory.kv.cache import KVCache
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.glm4q.memories import load_on_cpu, memory_of, runner_of, written

pytestmark = pytest.mark.skipif(extension() is None, reason="the native extension was not built")

CONFIG = tiny.LONG
DECODING = (5, 900, 7600)
"""Lengths of answers: behind a few tokens, in a second range of the cache, where ranges double."""
PROMPTED = (3, 700)
ROOM, CHUNK = 7700, 64


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("mixed") / "dense"
    tiny.save_checkpoint(tiny.transformers_model(CONFIG), directory)
    return directory


@pytest.fixture(scope="module", params=[4, 8])
def stored(request: pytest.FixtureRequest, dense: Path) -> StoredModel:
    made = dense.with_name(f"int{request.param}")
    quantize_checkpoint(StoredModel.open(dense), made, Recipe(WeightFormat(request.param, 32)))
    return StoredModel.open(made)


def _runner(stored: StoredModel, kv: str, batch: int = len(DECODING) + len(PROMPTED)) -> Runner:
    dtype = torch.bfloat16
    memory = memory_of(stored, ROOM, dtype=dtype, kv=kv, batch=batch, chunk=CHUNK)
    return runner_of(load_on_cpu(stored, dtype=dtype), memory)


def _filled(runner: Runner) -> list[KVCache]:
    caches = [runner.memory.cache.row(row) for row in range(runner.memory.cache.batch)]
    for cache, length in zip(caches, (*DECODING, *PROMPTED), strict=True):
        fill(Row(cache), length)
    return caches


def _written(caches: Sequence[KVCache]) -> list[Tensor]:
    return [tensor.clone() for cache in caches for tensor in written(cache)]


@pytest.mark.parametrize("kv", KV_FORMATS)
def test_rows_have_the_bits_of_separate_steps(
    kv: str, instruction_set: str, stored: StoredModel
) -> None:
    runner = _runner(stored, kv)
    assert runner.mixed is not None
    caches = _filled(runner)
    decoding, prompted = caches[: len(DECODING)], caches[len(DECODING) :]
    for tokens in (2, 25):
        newest = torch.randint(CONFIG.vocab_size, (len(DECODING), 1))
        prompts = torch.randint(CONFIG.vocab_size, (len(PROMPTED), tokens))
        lengths = [cache.length for cache in caches]
        separate = [runner(newest, decoding).clone(), runner(prompts, prompted).clone()]
        kept = _written(caches)
        for cache, length in zip(caches, lengths, strict=True):
            cache.truncate(length)
        together = runner.mixed(newest, decoding, prompts, prompted)
        assert torch.equal(together, torch.cat(separate)), tokens
        assert all(map(torch.equal, kept, _written(caches)))


def _answers(runner: Runner, *, mixed: bool) -> list[list[int]]:
    """Answers to prompts that come while others are answered."""
    if not mixed:
        runner.mixed = None
    batch, answers = Batch(runner), []
    for number in range(8):
        prompt = [(7 * number + place) % 90 for place in range(6 + 5 * number)]
        if batch.free:
            answers.append(batch.join(prompt, SamplingParams(temperature=0, max_tokens=12)))
        batch.step()
        batch.step()
    while any(answer.finish_reason is None for answer in answers):
        batch.step()
    return [
        [event.token for event in answer.events if isinstance(event, Token)] for answer in answers
    ]


@pytest.mark.parametrize("kv", ["bf16", "int4"])
def test_answers_are_those_of_separate_steps(kv: str, stored: StoredModel) -> None:
    answers = _answers(_runner(stored, kv), mixed=True)
    assert answers == _answers(_runner(stored, kv), mixed=False)
    assert len(answers) >= 5


def test_numbers_and_single_sequences_are_not_mixed(dense: Path, stored: StoredModel) -> None:
    """Numbers are multiplied in another order where there are many rows."""
    assert _runner(StoredModel.open(dense), "bf16").mixed is None
    assert _runner(stored, "bf16", batch=1).mixed is None

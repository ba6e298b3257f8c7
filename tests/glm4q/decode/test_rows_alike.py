"""Tokens that run in one step have the same bits as those that run alone: drafts change nothing.

The kernels of the CPU keep the order of every sum, whatever else the step has. What a GPU, or
torch's operators, would round otherwise runs token by token (glm4q/decode/runner.py).
"""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from calculator.memory.workspace import FEW_TOKENS
from calculator.model.formats import BF16, KV_FORMATS, WeightFormat
from glm4q.decode.row import Row
from glm4q.decode.runner import Runner
from glm4q.kernels.cpu.extension import extension
from glm4q.measure.speed import fill
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.glm4q.memories import load_on_cpu, memory_of, runner_of, written

pytestmark = pytest.mark.skipif(extension() is None, reason="the native extension was not built")

CONFIG = tiny.LONG
DEPTHS = (5, 508, 7676)
"""Behind a few tokens; where a second range of the cache begins; and where ranges double."""
ROOM = 7700
Checkpoint = Callable[[WeightFormat], StoredModel]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The same weights in each format."""
    directory = tmp_path_factory.mktemp("alike")
    tiny.save_checkpoint(tiny.transformers_model(CONFIG), directory / "dense")

    @cache
    def make(weight_format: WeightFormat) -> StoredModel:
        if not weight_format.is_quantized:
            return StoredModel.open(directory / "dense")
        made = directory / str(weight_format).replace(" ", "-")
        quantize_checkpoint(StoredModel.open(directory / "dense"), made, Recipe(weight_format))
        return StoredModel.open(made)

    return make


def _runner(stored: StoredModel, kv: str, dtype: torch.dtype) -> Runner:
    model = load_on_cpu(stored, dtype=dtype)
    memory = memory_of(stored, ROOM, dtype=dtype, kv=kv, chunk=64, draft_tokens=FEW_TOKENS - 1)
    return runner_of(model, memory)


def _check(runner: Runner) -> None:
    """Compare steps of several tokens with steps of one, from the same caches."""
    cache = runner.memory.cache
    for depth in DEPTHS:
        fill(Row(cache), depth)
        input_ids = torch.randint(CONFIG.vocab_size, (1, FEW_TOKENS))
        alone = torch.cat([runner(each).clone() for each in input_ids.split(1, 1)])
        kept = [tensor.clone() for tensor in written(cache)]
        for tokens in (2, 5, FEW_TOKENS):
            cache.truncate(depth)
            together = runner(input_ids[:, :tokens], last=tokens)
            assert torch.equal(together, alone[:tokens]), (depth, tokens)
        assert all(map(torch.equal, kept, written(cache)))


@pytest.mark.parametrize("kv", KV_FORMATS)
@pytest.mark.parametrize("bits", [4, 8])
def test_codes(bits: int, kv: str, instruction_set: str, checkpoint: Checkpoint) -> None:
    _check(_runner(checkpoint(WeightFormat(bits, 32)), kv, torch.bfloat16))


@pytest.mark.parametrize("kv", KV_FORMATS)
def test_numbers(kv: str, instruction_set: str, checkpoint: Checkpoint) -> None:
    _check(_runner(checkpoint(BF16), kv, torch.bfloat16))

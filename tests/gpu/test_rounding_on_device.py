"""GPTQ and coordinate descent on a CUDA device, by one launch for each block beside torch's loops.

With `--compiled-for 7.5`, 8.6 or 8.9 they run the kernels that such a card gets, on the card here.
"""

import time
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from quantize.methods import gptq
from quantize.methods.blocks import by_torch, by_triton, choose
from quantize.methods.blocks.choose import Blocks
from quantize.methods.codes import Codes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
CUDA = torch.device("cuda")
SHAPE = 512, 1024
FORMATS = [WeightFormat(4, 128), WeightFormat(4, 64, zero_bits=4), WeightFormat(8, 128)]
MOST_OF_THE_TIME = 0.2


def weight_and_factors() -> tuple[Tensor, gptq.Factors]:
    outputs, inputs = SHAPE
    x = torch.randn(2 * inputs, inputs, device=CUDA)
    return torch.randn(outputs, inputs, device=CUDA), gptq.factor(x.T @ x)


def quantize(
    blocks: Blocks, weight: Tensor, factors: gptq.Factors, weight_format: WeightFormat
) -> Codes:
    """All blocks of GPTQ, and all sweeps of the descent."""
    with patch.object(choose, "BLOCKS", (blocks,)):
        return gptq.quantize_rows(weight, factors, weight_format)


def output_error(weight: Tensor, codes: Codes, factors: gptq.Factors) -> float:
    """e H e^T, summed over rows."""
    change = (weight - codes.dequantize()).double()
    return float((change * (change @ factors.damped.double())).sum())


@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
def test_one_launch_for_each_block_rounds_as_torch_s_loops_do(weight_format: WeightFormat) -> None:
    """A number in the middle of two codes may get either, and then those after it differ."""
    weight, factors = weight_and_factors()
    assert choose.choose_blocks(weight) is by_triton
    ours, theirs = (
        quantize(blocks, weight, factors, weight_format) for blocks in (by_triton, by_torch)
    )
    assert (ours.codes == theirs.codes).float().mean() > 0.95
    errors = [output_error(weight, codes, factors) for codes in (ours, theirs)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
def test_one_launch_for_each_block_takes_under_a_fifth_of_the_time(
    weight_format: WeightFormat,
) -> None:
    weight, factors = weight_and_factors()
    seconds = []
    for blocks in (by_triton, by_torch):
        quantize(blocks, weight, factors, weight_format)  # compiles
        torch.cuda.synchronize()
        begun = time.perf_counter()
        quantize(blocks, weight, factors, weight_format)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    assert seconds[0] < MOST_OF_THE_TIME * seconds[1]

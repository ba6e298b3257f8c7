"""Packed words and GPTQ's layout."""

import pytest
import torch

from glm4q.weights.packing import QuantizedWeight, pack, unpack


@pytest.mark.parametrize("bits", [4, 8])
def test_unpack_is_the_inverse_of_pack(bits: int) -> None:
    codes = torch.randint(2**bits, (64, 5), dtype=torch.int32)
    assert torch.equal(unpack(pack(codes, bits), bits), codes)


def test_first_code_lies_in_the_lowest_bits() -> None:
    assert pack(torch.tensor([1, 2, 3, 4, 5, 6, 7, 15]), 4).tolist() == [0xF7654321 - 2**32]
    assert pack(torch.tensor([1, 2, 3, 255]), 8).tolist() == [0xFF030201 - 2**32]


def test_symmetric_v1_zero_word_is_sevens() -> None:
    """The word by which readers tell v1 from v2; a mix-up shows as an endless "!!!!"."""
    stored = torch.full((8,), 8 - 1, dtype=torch.uint8)
    assert pack(stored, 4).item() == 0x77777777


def test_dequantize_with_reordered_groups() -> None:
    codes = torch.randint(16, (32, 8), dtype=torch.int32)
    scales = torch.rand(4, 8).half()
    zeros = torch.randint(16, (4, 8), dtype=torch.int32)
    g_idx = torch.randint(4, (32,), dtype=torch.int32)
    weight = QuantizedWeight(4, pack(codes, 4), scales, pack(zeros.T, 4).T, g_idx)
    for row in range(32):
        group = g_idx[row]
        expected = (codes[row] - zeros[group]) * scales[group].float()
        assert torch.equal(weight.dequantize()[row], expected)


def test_columns_are_a_part_of_the_whole() -> None:
    codes = torch.randint(16, (32, 64), dtype=torch.int32)
    zeros = torch.randint(16, (1, 64), dtype=torch.int32)
    weight = QuantizedWeight(4, pack(codes, 4), torch.rand(1, 64).half(), pack(zeros.T, 4).T)
    part = weight.columns(32, 64)
    assert part.outputs == 32
    assert torch.equal(part.dequantize(), weight.dequantize()[:, 32:])

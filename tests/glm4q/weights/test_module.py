"""Which tensors are taken as finite."""

import pytest
import torch

from glm4q.weights.module import all_finite

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 700, 1023])
def test_one_number_that_is_not_finite_is_found(
    dtype: torch.dtype, value: float, place: int
) -> None:
    numbers = torch.randn(16, 64).to(dtype)
    assert all_finite(numbers)
    numbers.view(-1)[place] = value
    assert not all_finite(numbers)


def test_infinities_of_both_signs_do_not_cancel() -> None:
    assert not all_finite(torch.tensor([float("inf"), float("-inf"), 0.0]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sum_that_overflows_is_not_taken_for_a_number_that_did(dtype: torch.dtype) -> None:
    numbers = torch.full((1024,), torch.finfo(dtype).max, dtype=dtype)
    assert not numbers.sum().isfinite()
    assert all_finite(numbers)
    numbers[3] = float("nan")
    assert not all_finite(numbers)

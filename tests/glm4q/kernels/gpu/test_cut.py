"""How products are cut into tiles, for pieces of prompts that are filled up."""

from math import ceil

import pytest

from glm4q.decode.runner import RECORDED_PROMPTS
from glm4q.kernels.gpu.products.cut import FEW_ROWS, Cut

SHAPES = [(4096, 4096), (256, 4096), (27_392, 4096), (4096, 13_696)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_piece_that_is_filled_up_has_no_tile_more(shape: tuple[int, int]) -> None:
    """So a record of more tokens takes a card no longer than the piece alone."""
    for tokens in range(FEW_ROWS + 1, RECORDED_PROMPTS[-1] + 1):
        filled_up = next(each for each in RECORDED_PROMPTS if each >= tokens)
        alone, filled = (Cut.of(rows, *shape, bits=4, group=128) for rows in (tokens, filled_up))
        assert (filled.block_m, filled.splits) == (alone.block_m, alone.splits)
        assert ceil(filled_up / filled.block_m) == ceil(tokens / alone.block_m)

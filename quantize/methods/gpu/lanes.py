"""What the kernels of both methods share: a code from a number of steps, and the size of a tile."""

import triton
import triton.language as tl

from glm4q.kernels.gpu.numbers import round_half_even

WARP = 32


def columns_of_a_tile(columns: int) -> int:
    """The power of two that Triton wants, with a column at least for each lane of a warp."""
    return max(triton.next_power_of_2(columns), WARP)


@triton.jit
def nearest_code(steps, zero, LARGEST: tl.constexpr):
    """Round a number of steps from the zero point to a code, as torch.round does."""
    return tl.minimum(tl.maximum(round_half_even(steps) + zero, 0.0), LARGEST)

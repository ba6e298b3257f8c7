"""What the bits of float32 do for the kernels."""

import triton
import triton.language as tl

MAGIC_BITS = tl.constexpr(0x4B000000)
MAGIC = tl.constexpr(8388608.0)
"""2**23, whose mantissa has room for a code: `code | MAGIC_BITS` is MAGIC + code."""
ROUNDER = tl.constexpr(12582912.0)
"""1.5 * 2**23: added and taken away, it leaves the nearest whole number."""
EXPONENT = tl.constexpr(0x7F800000)
INVERSE_OF_ONE = tl.constexpr(2 * 0x3F800000)
"""Twice the bits of 1.0: the exponents of a number and of its inverse add up to this."""
SMALLEST = tl.constexpr(2.0**-100)


@triton.jit
def round_half_even(x):
    """Round as torch.round does; for numbers below 2**22."""
    return x + ROUNDER - ROUNDER


@triton.jit
def power_of_two(largest):
    """The power of two at or just below a number above zero."""
    power = (largest.to(tl.int32, bitcast=True) & EXPONENT).to(tl.float32, bitcast=True)
    return tl.maximum(power, SMALLEST)


@triton.jit
def inverse_of_power(power):
    """Return 1 / power for what `power_of_two` returns, by its exponent alone."""
    return (-(power.to(tl.int32, bitcast=True) - INVERSE_OF_ONE)).to(tl.float32, bitcast=True)

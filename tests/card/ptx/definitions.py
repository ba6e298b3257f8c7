"""What each instruction of one lane means, by the PTX manual, in numpy and Python's own numbers.

https://docs.nvidia.com/cuda/parallel-thread-execution/#instruction-set
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch

S16, S32, S64 = torch.int16, torch.int32, torch.int64
U16, U32, U64 = torch.uint16, torch.uint32, torch.uint64
F32, F64, BF16, F16, P = torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.bool
SIGNED = {16: S16, 32: S32, 64: S64}
UNSIGNED = {16: U16, 32: U32, 64: U64}
Definition = tuple[torch.dtype, tuple[torch.dtype, ...], Callable[..., Any]]
"""Result, inputs, and the result of one lane's numbers: wrapped or rounded by who asks."""


def bits_of(number: int, size: int) -> int:
    return number & ((1 << size) - 1)


def _truncated(a: int, b: int) -> int:
    """Division towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _upper_half(size: int) -> Callable[[int, int], int]:
    return lambda a, b: a * b >> size


def _shift_right(size: int) -> Callable[[int, int], int]:
    return lambda a, by: a >> min(by, size - 1) if a < 0 or by < size else 0


def _bit_field(a: int, start: int, length: int, *, signed: bool) -> int:
    start, length = start & 255, length & 255
    if length == 0:
        return 0
    sign = signed and bits_of(a, 32) >> min(start + length - 1, 31) & 1
    field = 0
    for place in range(32):
        inside = place < length and start + place < 32
        bit = bits_of(a, 32) >> (start + place) & 1 if inside else int(sign)
        field |= bit << place
    return field


def _permuted(a: int, b: int, selector: int) -> int:
    whole, word = b << 32 | a, 0
    for place in range(4):
        nibble = selector >> 4 * place & 15
        byte = whole >> 8 * (nibble & 7) & 255
        word |= (255 * (byte >> 7) if nibble & 8 else byte) << 8 * place
    return word


def _looked_up(a: int, b: int, c: int, table: int) -> int:
    """Bit by bit: of a table of eight, the entry that three bits number, a's the highest."""
    rows = [4 * (a >> at & 1) + 2 * (b >> at & 1) + (c >> at & 1) for at in range(32)]
    return sum((table >> row & 1) << at for at, row in enumerate(rows))


def whole_numbers() -> dict[str, Definition]:
    known: dict[str, Definition] = {}
    for size in (16, 32, 64):
        for letter, kind in (("s", SIGNED[size]), ("u", UNSIGNED[size])):
            two: dict[str, Callable[..., int]] = {
                "add": lambda a, b: a + b,
                "sub": lambda a, b: a - b,
                "mul.lo": lambda a, b: a * b,
                "min": min,
                "max": max,
            }
            for name, function in two.items():
                known[f"{name}.{letter}{size}"] = kind, (kind, kind), function
            known[f"mad.lo.{letter}{size}"] = kind, (kind,) * 3, lambda a, b, c: a * b + c
            known[f"shr.{letter}{size}"] = kind, (kind, U32), _shift_right(size)
            for sign, compared in COMPARED.items():
                same = letter == "u" and sign in ("eq", "ne")
                name = f"setp.{sign}.{'b' if same else letter}{size}"
                known[name] = P, (kind, kind), compared
        word = UNSIGNED[size]
        known[f"and.b{size}"] = word, (word, word), lambda a, b: a & b
        known[f"or.b{size}"] = word, (word, word), lambda a, b: a | b
        known[f"xor.b{size}"] = word, (word, word), lambda a, b: a ^ b
        known[f"not.b{size}"] = word, (word,), lambda a: ~a
        known[f"mov.b{size}"] = word, (word,), lambda a: a
        known[f"selp.b{size}"] = word, (word, word, P), lambda a, b, p: a if p else b
        known[f"shl.b{size}"] = word, (word, U32), lambda a, by, top=size: a << min(by, top)
    for name, kind in (("s32", S32), ("u32", U32), ("s64", S64)):
        known[f"div.{name}"] = kind, (kind, kind), _truncated
        known[f"rem.{name}"] = kind, (kind, kind), lambda a, b: a - b * _truncated(a, b)
    for letter, kinds in (("s", SIGNED), ("u", UNSIGNED)):
        for size in (16, 32):
            narrow, wide = kinds[size], kinds[2 * size]
            known[f"mul.wide.{letter}{size}"] = wide, (narrow, narrow), lambda a, b: a * b
            known[f"mul.hi.{letter}{size}"] = narrow, (narrow,) * 2, _upper_half(size)
            known[f"mad.wide.{letter}{size}"] = (
                wide,
                (narrow, narrow, wide),
                lambda a, b, c: a * b + c,
            )
    known["neg.s32"] = S32, (S32,), lambda a: -a
    known["neg.s64"] = S64, (S64,), lambda a: -a
    known["abs.s32"] = S32, (S32,), abs
    known["bfe.u32"] = U32, (U32, U32, U32), lambda a, b, c: _bit_field(a, b, c, signed=False)
    known["bfe.s32"] = S32, (S32, U32, U32), lambda a, b, c: _bit_field(a, b, c, signed=True)
    known["prmt.b32"] = U32, (U32, U32, U32), _permuted
    known["lop3.b32"] = U32, (U32, U32, U32, U32), _looked_up
    known["mov.pred"] = P, (P,), lambda a: a
    known["not.pred"] = P, (P,), lambda a: not a
    known["and.pred"] = P, (P, P), lambda a, b: a and b
    known["or.pred"] = P, (P, P), lambda a, b: a or b
    known["xor.pred"] = P, (P, P), lambda a, b: a != b
    return known


COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def conversions() -> dict[str, Definition]:
    """Between whole numbers the low bits stay; floats round to nearest, whole ones towards zero."""
    known: dict[str, Definition] = {}
    for name, (to, source) in {
        "s64.s32": (S64, S32), "s64.s16": (S64, S16), "s32.s16": (S32, S16), "s32.s64": (S32, S64),
        "u16.u32": (U16, U32), "u16.u64": (U16, U64), "u32.u16": (U32, U16), "u32.u64": (U32, U64),
        "u64.u32": (U64, U32), "u64.u16": (U64, U16),
        "rn.f32.s16": (F32, S16), "rn.f32.u16": (F32, U16), "rn.f32.s32": (F32, S32),
        "rn.f32.u32": (F32, U32), "rn.f32.s64": (F32, S64),
        "rn.f64.s32": (F64, S32), "rn.f64.s64": (F64, S64),
        "rn.f16.s16": (F16, S16), "rn.f16.u16": (F16, U16), "rn.f16.s32": (F16, S32),
        "f32.bf16": (F32, BF16), "f32.f16": (F32, F16), "rn.bf16.f32": (BF16, F32),
        "rn.f16.f32": (F16, F32), "f64.f32": (F64, F32), "rn.f32.f64": (F32, F64),
    }.items():  # fmt: skip
        known[f"cvt.{name}"] = to, (source,), lambda a: a
    for name, (to, source) in {
        "s16.f32": (S16, F32), "u16.f32": (U16, F32), "s32.f32": (S32, F32), "u32.f32": (U32, F32),
        "s64.f32": (S64, F32), "s64.f64": (S64, F64),
    }.items():  # fmt: skip
        low, high = torch.iinfo(to).min, torch.iinfo(to).max
        known[f"cvt.rzi.{name}"] = (
            to,
            (source,),
            lambda a, low=low, high=high: _clamped(a, low, high),
        )
    return known


def _clamped(a: float, low: int, high: int) -> int:
    if math.isnan(a):
        return 0
    if math.isinf(a):
        return high if a > 0 else low
    return min(max(math.trunc(a), low), high)


def fused(a: float, b: float, c: float) -> Fraction | float:
    """a * b + c without rounding."""
    if not all(map(math.isfinite, (a, b, c))):
        return a * b + c
    return Fraction(a) * Fraction(b) + Fraction(c)


def _larger(a: float, b: float) -> float:
    return b if math.isnan(a) else a if math.isnan(b) else max(a, b)


def _smaller(a: float, b: float) -> float:
    return b if math.isnan(a) else a if math.isnan(b) else min(a, b)


def _exactly(function: Callable[..., Any]) -> Callable[..., Any]:
    """In fractions, where all numbers are finite."""

    def call(*numbers: float) -> Any:
        finite = all(map(math.isfinite, numbers))
        return function(*(map(Fraction, numbers) if finite else numbers))

    return call


def floats() -> dict[str, Definition]:
    known: dict[str, Definition] = {}
    for name, kind in (("f32", F32), ("f64", F64)):
        known[f"add.{name}"] = kind, (kind, kind), _exactly(lambda a, b: a + b)
        known[f"sub.{name}"] = kind, (kind, kind), _exactly(lambda a, b: a - b)
        known[f"mul.{name}"] = kind, (kind, kind), _exactly(lambda a, b: a * b)
        known[f"fma.rn.{name}"] = kind, (kind,) * 3, fused
        known[f"selp.{name}"] = kind, (kind, kind, P), lambda a, b, p: a if p else b
        for sign, compared in COMPARED.items():
            if sign == "ne":  # false where one is not a number; neu is true there
                known[f"setp.ne.{name}"] = P, (kind, kind), lambda a, b: a < b or a > b
                known[f"setp.neu.{name}"] = P, (kind, kind), compared
            else:
                known[f"setp.{sign}.{name}"] = P, (kind, kind), compared
        known[f"setp.nan.{name}"] = P, (kind, kind), lambda a, b: math.isnan(a) or math.isnan(b)
    known["neg.f32"] = F32, (F32,), lambda a: -a
    known["abs.f32"] = F32, (F32,), abs
    known["max.f32"] = F32, (F32, F32), _larger
    known["min.f32"] = F32, (F32, F32), _smaller
    known["max.f32.3"] = F32, (F32,) * 3, lambda a, b, c: _larger(_larger(a, b), c)
    known["min.f32.3"] = F32, (F32,) * 3, lambda a, b, c: _smaller(_smaller(a, b), c)
    known["add.f16"] = F16, (F16, F16), _exactly(lambda a, b: a + b)
    known["sub.f16"] = F16, (F16, F16), _exactly(lambda a, b: a - b)
    known["mul.f16"] = F16, (F16, F16), _exactly(lambda a, b: a * b)
    known["max.f16"] = F16, (F16, F16), _larger
    known["min.f16"] = F16, (F16, F16), _smaller
    known["fma.rn.f16"] = F16, (F16,) * 3, fused
    known["mul.bf16"] = BF16, (BF16, BF16), _exactly(lambda a, b: a * b)
    known["fma.rn.bf16"] = BF16, (BF16,) * 3, fused
    known["fma.rn.f32.bf16"] = F32, (BF16, BF16, F32), fused
    known["add.rn.f32.bf16"] = F32, (BF16, F32), _exactly(lambda a, c: a + c)
    known["sub.rn.f32.bf16"] = F32, (BF16, F32), _exactly(lambda a, c: a - c)
    return known


APPROXIMATIONS: dict[str, tuple[int, Callable[..., float], float]] = {
    "div.full.f32": (2, lambda a, b: a / b, 2.0**-22),
    "ex2.approx.f32": (1, lambda a: 2.0**a, 2.0**-22),
    "ex2.approx.ftz.f32": (1, lambda a: 2.0**a, 2.0**-22),
    "lg2.approx.f32": (1, math.log2, 2.0**-22),
    "rsqrt.approx.f32": (1, lambda a: a**-0.5, 2.0**-22.9),
    "rsqrt.approx.ftz.f32": (1, lambda a: a**-0.5, 2.0**-22.9),
    "sqrt.approx.f32": (1, math.sqrt, 2.0**-23),
    "sqrt.approx.ftz.f32": (1, math.sqrt, 2.0**-23),
    "rcp.approx.f32": (1, lambda a: 1 / a, 2.0**-23),
    "rcp.approx.ftz.f32": (1, lambda a: 1 / a, 2.0**-23),
}
"""Inputs, the exact function, and the largest relative error, rounding left aside."""

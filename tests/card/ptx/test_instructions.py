"""Every instruction that computes a lane alone, against its definition in the PTX manual."""

import math
import shutil
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

if shutil.which("c++") is None:
    pytest.skip("the PTX machine needs a C++ compiler", allow_module_level=True)

from tests.card.ptx.definitions import (
    APPROXIMATIONS,
    BF16,
    F16,
    F32,
    P,
    conversions,
    floats,
    whole_numbers,
)
from tests.card.ptx.machine import Options
from tests.card.ptx.records import opcodes
from tests.card.ptx.snippet import compute, run_text

EXACT = {**whole_numbers(), **conversions(), **floats()}
SPECIAL = 0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-40, 3e38, 65520.0, 0.5, -2.5
WHOLE = 0, 1, -1, 2, 5, 31, 32, 33, 63, 64, 200
SMALL = torch.uint32
"""Also holds shift counts and bit fields, so that its numbers are small half the time."""


def numbers(dtype: torch.dtype, place: int) -> Tensor:
    """32 numbers at random, some of them at the edges."""
    generator = torch.Generator().manual_seed(place)
    if dtype == P:
        return torch.rand(32, generator=generator) < 0.5
    if dtype.is_floating_point:
        scale = 10.0 ** torch.randint(-3, 4, (32,), generator=generator)
        numbers = torch.randn(32, generator=generator) * scale
        edges = torch.tensor(SPECIAL)[torch.randperm(len(SPECIAL), generator=generator)]
        numbers[: len(SPECIAL)] = edges
        return numbers.to(dtype)
    info = torch.iinfo(dtype)
    low, high = max(info.min, -(1 << 63)), min(info.max, (1 << 63) - 1)
    drawn = [int(torch.randint(low, high, (1,), generator=generator)) for _ in range(32)]
    order = torch.randperm(32, generator=generator).tolist()
    for at, edge in zip(order, [*WHOLE, info.min, info.max], strict=False):
        drawn[at] = edge
    if dtype == SMALL and place:
        drawn = [each % 70 if at % 2 else each for at, each in enumerate(drawn)]
    bits = 8 * dtype.itemsize
    wrapped = [each % (1 << bits) for each in drawn]
    signed = [each - (1 << bits) if each >> (bits - 1) else each for each in wrapped]
    kind = {16: torch.int16, 32: torch.int32, 64: torch.int64}[bits]
    return torch.tensor(signed, dtype=kind).view(dtype)


def rounded(number: Any, dtype: torch.dtype) -> float | int:
    """An exact result as the type holds it: wrapped, or to the nearest, ties to even."""
    if not dtype.is_floating_point:
        bits = 8 * dtype.itemsize
        wrapped = int(number) % (1 << bits)
        signed = torch.iinfo(dtype).min < 0
        return wrapped - (1 << bits) if signed and wrapped >> (bits - 1) else wrapped
    if not isinstance(number, Fraction):
        return torch.tensor(number, dtype=torch.float64).to(dtype).item()
    return _nearest(number, dtype)


def _nearest(number: Fraction, dtype: torch.dtype) -> float:
    """The nearest of the numbers around, by exact distances."""
    if dtype == torch.float64:
        return number.numerator / number.denominator
    try:
        guess = torch.tensor(number.numerator / number.denominator, dtype=torch.float64).to(dtype)
    except OverflowError:
        return math.copysign(math.inf, number)
    if not guess.isfinite():
        return guess.item()
    around = [guess.item()]
    kind = torch.int32 if dtype == F32 else torch.int16
    for step in (-1, 1):
        near = (guess.view(kind) + step).view(dtype)
        around += [near.item()] if near.isfinite() else []
    even = {each: int(torch.tensor(each, dtype=dtype).view(kind)) & 1 for each in around}
    return min(around, key=lambda each: (abs(Fraction(each) - number), even[each]))


def test_every_instruction_is_tested() -> None:
    names = set(opcodes())
    elsewhere = set(TOGETHER) | set(MOVED)
    assert names == set(EXACT) | set(APPROXIMATIONS) | elsewhere


@pytest.mark.parametrize("group", ["whole", "converted", "floating"])
def test_exact_instructions(group: str) -> None:
    chosen = {"whole": whole_numbers, "converted": conversions, "floating": floats}[group]()
    for name, (result, kinds, function) in chosen.items():
        inputs = [numbers(kind, place) for place, kind in enumerate(kinds)]
        if name.startswith(("div.", "rem.")):
            inputs[1] = torch.where(inputs[1].long() == 0, 3, inputs[1].long()).to(kinds[1])
        written = name.removesuffix(".3")
        (computed,) = compute(written, [result], *inputs)
        lanes = zip(*(each.tolist() for each in inputs), strict=True)
        for got, lane in zip(computed.tolist(), lanes, strict=True):
            exact = function(*lane)
            expected = bool(exact) if result == P else rounded(exact, result)
            same = got == expected or (math.isnan(got) and math.isnan(expected))
            assert same, f"{name}{lane}: {got}, not {expected}"


@pytest.mark.parametrize("name", APPROXIMATIONS)
def test_approximations_err_by_what_the_manual_allows_and_no_more(name: str) -> None:
    count, function, relative = APPROXIMATIONS[name]
    inputs = [
        torch.rand(32, generator=torch.Generator().manual_seed(at)) + 0.1 for at in range(count)
    ]
    out = torch.zeros(32)
    body = "mul.wide.u32 %d0, %r39, 4;\n" + "".join(
        f"add.s64 %d1, %d0, %d{39 - at};\nld.global.b32 %r{at}, [%d1];\n" for at in range(count)
    )
    body += f"{name} %r9, {', '.join(f'%r{at}' for at in range(count))};\n"
    body += f"add.s64 %d1, %d0, %d{39 - count};\nst.global.b32 [%d1], %r9;"
    exact = [function(*lane) for lane in zip(*(each.tolist() for each in inputs), strict=True)]
    errors = []
    for noisy in (False, True):
        run_text(body, *inputs, out, options=Options(noisy=noisy))
        wide = torch.tensor(exact, dtype=torch.float64)
        errors.append(float(((out.double() - wide) / wide).abs().max()))
    assert errors[0] <= 2.0**-24
    assert relative / 2 < errors[1] <= relative + 2.0**-24


def test_pairs_of_float32_in_64_bits() -> None:
    a, b, c = (torch.randn(64).view(torch.int64) for _ in range(3))
    wide = [each.view(torch.float32).double() for each in (a, b, c)]
    for name, inputs, expected in (
        ("add.f32x2", (a, b), wide[0] + wide[1]),
        ("sub.f32x2", (a, b), wide[0] - wide[1]),
        ("mul.f32x2", (a, b), wide[0] * wide[1]),
        ("fma.rn.f32x2", (a, b, c), wide[0] * wide[1] + wide[2]),
    ):
        (result,) = compute(name, [torch.int64], *inputs)
        assert torch.equal(result.view(torch.float32), expected.float())


@pytest.mark.parametrize(
    ("dtype", "names"),
    [
        (F16, ("add.f16", "sub.f16", "mul.f16", "max.f16", "min.f16", "fma.rn.f16")),
        (BF16, ("fma.rn.bf16",)),
    ],
)
def test_pairs_of_16_bits_in_32_bits(dtype: torch.dtype, names: tuple[str, ...]) -> None:
    a, b, c = (numbers(dtype, place).repeat(2) for place in range(3))
    words = [each.view(torch.int32) for each in (a, b, c)]
    for name in names:
        count = 3 if name.startswith("fma") else 2
        (pairs,) = compute(f"{name}x2", [torch.int32], *words[:count])
        (singly,) = compute(name, [dtype], *(each[:32].contiguous() for each in (a, b, c)[:count]))
        assert torch.equal(pairs.view(torch.int16)[:32], singly.view(torch.int16))


def test_two_numbers_are_rounded_into_one_register_the_first_above() -> None:
    a, b = torch.randn(32), torch.randn(32)
    for name, dtype in (("cvt.rn.bf16x2.f32", BF16), ("cvt.rn.f16x2.f32", torch.float16)):
        (result,) = compute(name, [torch.int32], a, b)
        low, high = result.view(dtype).unflatten(0, (-1, 2)).unbind(1)
        assert torch.equal(low, b.to(dtype))
        assert torch.equal(high, a.to(dtype))


def test_registers_are_packed_and_taken_to_pieces_lowest_first() -> None:
    words = torch.randint(-(2**31), 2**31, (64,), dtype=torch.int32)
    low, high = words[::2].contiguous(), words[1::2].contiguous()
    assert torch.equal(_moved("mov.b64 %d20, {%r0, %r1};", low, high), words.view(torch.int64))
    halves = words.view(torch.int16)[:64]
    pair = [halves[place::2].contiguous() for place in range(2)]
    result = _moved("mov.b32 %r20, {%h0, %h1};", *pair, out=torch.int32)
    assert torch.equal(result, halves.view(torch.int32))
    back = _moved("mov.b32 {%h10, %h11}, %r0; mov.b32 %r20, {%h11, %h10};", result, out=torch.int32)
    assert torch.equal(back.view(torch.int16).unflatten(0, (-1, 2)).flip(1).flatten(), halves)
    text = "mov.b64 {%r10, %r11}, %d0; mov.b64 %d20, {%r11, %r10};"
    back = _moved(text, words.view(torch.int64))
    assert torch.equal(back.view(torch.int32).unflatten(0, (-1, 2)).flip(1).flatten(), words)
    text = "mov.b64 {%h10, %h11, %h12, %h13}, %d0; mov.b64 %d20, {%h13, %h12, %h11, %h10};"
    back = _moved(text, words.view(torch.int64))
    four = words.view(torch.int16).unflatten(0, (-1, 4))
    assert torch.equal(back.view(torch.int16).unflatten(0, (-1, 4)).flip(1), four)


def _moved(text: str, *inputs: Tensor, out: torch.dtype = torch.int64) -> Tensor:
    kinds = {2: ("b16", "h"), 4: ("b32", "r"), 8: ("b64", "d")}
    result = torch.zeros(32, dtype=out)
    body = ""
    for place, tensor in enumerate(inputs):
        kind, letter = kinds[tensor.element_size()]
        body += f"mad.wide.u32 %d30, %r39, {tensor.element_size()}, %d{39 - place};\n"
        body += f"ld.global.{kind} %{letter}{place}, [%d30];\n"
    kind, letter = kinds[out.itemsize]
    body += f"{text}\nmad.wide.u32 %d30, %r39, {out.itemsize}, %d{39 - len(inputs)};\n"
    run_text(body + f"st.global.{kind} [%d30], %{letter}20;", *inputs, result)
    return result


def test_bytes_lie_in_wider_registers_with_their_sign_or_zeros_above() -> None:
    words = torch.randint(-(2**31), 2**31, (32,), dtype=torch.int32)
    low = words & 255
    signed = torch.where(low > 127, low - 256, low)
    halves = (words & 0xFFFF).to(torch.int16)
    for name, source, expected in (
        ("cvt.s8.s32", words, signed), ("cvt.u8.u32", words, low), ("cvt.s32.s8", words, signed),
        ("cvt.u32.u8", words, low), ("cvt.s8.s16", halves, signed), ("cvt.u8.u16", halves, low),
        ("cvt.s16.s8", halves, signed), ("cvt.u16.u8", halves, low),
    ):  # fmt: skip
        kind = torch.int16 if name.split(".")[1].endswith("16") or source is halves else torch.int32
        (result,) = compute(name, [kind], source)
        assert torch.equal(result.int(), expected.int()), name


def test_a_wider_register_gives_its_low_half() -> None:
    wide = torch.randint(-(2**62), 2**62, (32,))
    words = wide.to(torch.int32)
    assert torch.equal(compute("cvt.s64.s32", [torch.int64], wide)[0], words.long())
    assert torch.equal(compute("cvt.u64.u32", [torch.int64], wide)[0], wide & 0xFFFFFFFF)
    halves = words.to(torch.int16)
    assert torch.equal(compute("cvt.s32.s16", [torch.int32], words)[0], halves.int())
    assert torch.equal(compute("cvt.u32.u16", [torch.int32], words)[0], words & 0xFFFF)


TOGETHER = (
    "ldmatrix", "stmatrix",
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
    "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32",
    "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32",
    "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32",
    "bra", "ret", "exit", "bar.sync", "bar.warp.sync",
    "shfl.sync.bfly.b32", "shfl.sync.idx.b32", "shfl.sync.up.b32", "shfl.sync.down.b32",
    "vote.sync.ballot.b32", "vote.sync.any.pred", "vote.sync.all.pred",
    "redux.sync.max.s32", "redux.sync.min.s32", "redux.sync.add.s32",
    "redux.sync.max.u32", "redux.sync.or.b32",
    "ld.param", "ld.global", "st.global", "ld.shared", "st.shared",
    "cp.async", "cp.async.commit_group", "cp.async.wait_group", "cp.async.wait_all",
)  # fmt: skip
"""Tested where warps and memory are: test_warps.py and test_memory.py."""
MOVED = (
    "add.f16x2", "sub.f16x2", "mul.f16x2", "max.f16x2", "min.f16x2", "fma.rn.f16x2",
    "fma.rn.bf16x2",
    "add.f32x2", "sub.f32x2", "mul.f32x2", "fma.rn.f32x2", "cvt.rn.bf16x2.f32", "cvt.rn.f16x2.f32",
    "mov.b32.pack2", "mov.b64.pack2", "mov.b64.pack4",
    "mov.b32.unpack2", "mov.b64.unpack2", "mov.b64.unpack4",
    "cvt.s8.s32", "cvt.s8.s16", "cvt.s16.s8", "cvt.s32.s8",
    "cvt.u8.u32", "cvt.u8.u16", "cvt.u16.u8", "cvt.u32.u8",
    "cvt.s64.s32.low", "cvt.u64.u32.low", "cvt.s32.s16.low", "cvt.u32.u16.low",
    "div.rn.f32", "sqrt.rn.f32", "rcp.rn.f32",
)  # fmt: skip


def test_division_and_roots_round_once() -> None:
    a, b = torch.randn(32).abs(), torch.randn(32)
    (quotient,) = compute("div.rn.f32", [F32], a, b)
    assert torch.equal(quotient, (a.double() / b.double()).float())
    (root,) = compute("sqrt.rn.f32", [F32], a)
    assert torch.equal(root, a.double().sqrt().float())
    (inverse,) = compute("rcp.rn.f32", [F32], b)
    assert torch.equal(inverse, (1 / b.double()).float())

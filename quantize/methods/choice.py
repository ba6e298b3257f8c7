"""Quantize the linears of one stage by the method asked for, or by the one that does best."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from quantize.methods import awq, gptq, rtn
from quantize.methods.codes import Codes, split
from quantize.methods.moments import Moments


@dataclass(frozen=True)
class Linear:
    """One linear of a stage."""

    weight: Tensor
    """float32 [N, K]."""
    form: WeightFormat


@dataclass(frozen=True)
class Found:
    """A stage's linears, quantized."""

    method: str
    codes: dict[str, Codes]
    weights: dict[str, Tensor]
    """Dequantized, float32 [N, K], for the input as it was before `scales`."""
    scales: Tensor | None = field(default=None)
    """float32 [K], what the norm before is divided by."""


Linears = Mapping[str, Linear]
Method = Callable[[Linears, Moments, Tensor | None], Found]
"""(linears, moments of their input, weight of the norm before it if there is one) -> codes."""


def _rtn(linears: Linears, moments: Moments, norm: Tensor | None) -> Found:
    codes = {name: rtn.quantize(linear.weight, linear.form) for name, linear in linears.items()}
    return Found("rtn", codes, _dequantized(codes))


def _gptq(linears: Linears, moments: Moments, norm: Tensor | None) -> Found:
    targets = {name: moments.target(linear.weight) for name, linear in linears.items()}
    codes: dict[str, Codes] = {}
    # Rows of one format are one matrix: the Hessian is factored, and each input visited, once.
    for form in dict.fromkeys(linear.form for linear in linears.values()):
        names = [name for name, linear in linears.items() if linear.form == form]
        rows = torch.cat([targets[name] for name in names])
        found = gptq.quantize(rows, moments.hessian, form)
        codes |= zip(names, split(found, [len(targets[name]) for name in names]), strict=True)
    return Found("gptq", codes, _dequantized(codes))


def _awq(linears: Linears, moments: Moments, norm: Tensor | None) -> Found:
    importance, scales = moments.hessian.diagonal(), None
    if norm is not None:
        weights = [(linear.weight, linear.form) for linear in linears.values()]
        scales = awq.find_scales(weights, moments.hessian, norm)
    if scales is None:
        codes = {
            name: rtn.quantize(linear.weight, linear.form, importance)
            for name, linear in linears.items()
        }
        return Found("awq", codes, _dequantized(codes))
    codes = {
        name: rtn.quantize(linear.weight * scales, linear.form, importance / scales.square())
        for name, linear in linears.items()
    }
    weights_before = {name: weight / scales for name, weight in _dequantized(codes).items()}
    return Found("awq", codes, weights_before, scales)


METHODS: dict[str, Method] = {"rtn": _rtn, "gptq": _gptq, "awq": _awq}


def quantize_stage(
    method: str,
    linears: Linears,
    moments: Moments,
    held_out: Moments | None,
    norm: Tensor | None,
) -> Found:
    """By `method`; "auto" tries all and keeps the least output error on `held_out` samples.

    Raises CheckpointError where the calibration is of no use.
    """
    if method != "auto":
        return METHODS[method](linears, moments, norm)
    assert held_out is not None
    every = [run(linears, moments, norm) for run in METHODS.values()]
    return min(every, key=lambda found: _output_error(found, linears, held_out))


def _output_error(found: Found, linears: Linears, held_out: Moments) -> float:
    return sum(
        held_out.error(linear.weight, found.weights[name]) for name, linear in linears.items()
    )


def _dequantized(codes: Mapping[str, Codes]) -> dict[str, Tensor]:
    return {name: found.dequantize() for name, found in codes.items()}

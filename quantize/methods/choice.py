"""Quantize the linears of one stage by the method asked for, or by the one that does best."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from quantize.methods import awq, gptq, heads, rtn
from quantize.methods.codes import Codes, split
from quantize.methods.moments import Moments
from quantize.methods.shrinkage import UNCHECKED, Shrinkage, choose_shrinkage


@dataclass(frozen=True)
class Linear:
    """One linear of a stage."""

    weight: Tensor
    """float32 [N, K]."""
    weight_format: WeightFormat


@dataclass(frozen=True)
class QuantizedStage:
    """The quantized linears of a stage."""

    method: str
    codes: dict[str, Codes]
    weights: dict[str, Tensor]
    """Dequantized, float32 [N, K], for the input as it was before `scales`."""
    scales: Tensor | None = field(default=None)
    """float32 [K], what the norm before is divided by."""


Linears = Mapping[str, Linear]
Method = Callable[[Linears, Moments, Tensor | None, Shrinkage], QuantizedStage]
"""(linears, moments of their input, weight of the norm before it if there is one, how far the
moments are trusted) -> codes."""
CHECKED = ("gptq", "auto")
"""Methods that check their choices on samples that calibrate nothing."""


def _rtn(
    linears: Linears, moments: Moments, norm: Tensor | None, shrinkage: Shrinkage
) -> QuantizedStage:
    codes = {
        name: rtn.quantize(linear.weight, linear.weight_format) for name, linear in linears.items()
    }
    return QuantizedStage("rtn", codes, _dequantized(codes))


def _gptq(
    linears: Linears, moments: Moments, norm: Tensor | None, shrinkage: Shrinkage
) -> QuantizedStage:
    every = torch.cat([linear.weight for linear in linears.values()])
    every = moments.target(every, ridge=shrinkage.ridge, trust=shrinkage.trust)
    rows = every.split([len(linear.weight) for linear in linears.values()])
    targets = dict(zip(linears, rows, strict=True))
    codes: dict[str, Codes] = {}
    # Rows of one format are one matrix: the Hessian is factored, and each input visited, once.
    for weight_format in dict.fromkeys(linear.weight_format for linear in linears.values()):
        names = [name for name, linear in linears.items() if linear.weight_format == weight_format]
        factors = gptq.factor(moments.hessian, shrinkage.damping)
        by_heads = [name for name in names if name in moments.head_errors]
        if by_heads:
            rows = torch.cat([targets[name] for name in by_heads])
            errors = torch.cat([moments.head_errors[name] for name in by_heads])
            joined = heads.quantize(rows, errors, factors, weight_format)
            codes |= _by_name(joined, by_heads, targets)
        others = [name for name in names if name not in by_heads]
        if others:
            rows = torch.cat([targets[name] for name in others])
            joined = gptq.quantize_rows(rows, factors, weight_format)
            codes |= _by_name(joined, others, targets)
    return QuantizedStage("gptq", codes, _dequantized(codes))


def _by_name(joined: Codes, names: list[str], targets: Mapping[str, Tensor]) -> dict[str, Codes]:
    parts = split(joined, [len(targets[name]) for name in names])
    return dict(zip(names, parts, strict=True))


def _awq(
    linears: Linears, moments: Moments, norm: Tensor | None, shrinkage: Shrinkage
) -> QuantizedStage:
    importance, scales = moments.hessian.diagonal(), None
    if norm is not None:
        weights = [(linear.weight, linear.weight_format) for linear in linears.values()]
        scales = awq.find_scales(weights, moments.hessian, norm)
    if scales is None:
        codes = {
            name: rtn.quantize(linear.weight, linear.weight_format, importance)
            for name, linear in linears.items()
        }
        return QuantizedStage("awq", codes, _dequantized(codes))
    codes = {
        name: rtn.quantize(
            linear.weight * scales, linear.weight_format, importance / scales.square()
        )
        for name, linear in linears.items()
    }
    weights_before = {name: weight / scales for name, weight in _dequantized(codes).items()}
    return QuantizedStage("awq", codes, weights_before, scales)


METHODS: dict[str, Method] = {"rtn": _rtn, "gptq": _gptq, "awq": _awq}


def quantize_stage(
    method: str,
    linears: Linears,
    seen: Moments,
    unseen: Moments | None,
    norm: Tensor | None,
) -> QuantizedStage:
    """Quantize by `method`; "auto" keeps the one of least output error on `unseen` samples.

    How far sums are trusted is chosen by the unseen samples too; all but "auto" then calibrate on
    both, and leave the sums of both in `seen`. Raises CheckpointError where the calibration is of
    no use.
    """
    shrinkage = UNCHECKED
    if method in CHECKED and unseen is not None:
        weights = [linear.weight for linear in linears.values()]
        shrinkage = choose_shrinkage(seen, unseen, weights)
    if method != "auto":
        if unseen is not None:
            seen.merge(unseen)
        return METHODS[method](linears, seen, norm, shrinkage)
    assert unseen is not None
    # Rows that make up for each other have larger errors, which count less.
    alone = replace(seen, head_errors={})
    every = [run(linears, alone, norm, shrinkage) for run in METHODS.values()]
    best = min(every, key=lambda stage: _output_error(stage, linears, unseen))
    if best.method == "gptq" and seen.head_errors:
        return _gptq(linears, seen, norm, shrinkage)
    return best


def _output_error(stage: QuantizedStage, linears: Linears, unseen: Moments) -> float:
    return sum(unseen.error(linear.weight, stage.weights[name]) for name, linear in linears.items())


def _dequantized(codes: Mapping[str, Codes]) -> dict[str, Tensor]:
    return {name: each.dequantize() for name, each in codes.items()}

"""Scale inputs that carry much up before rounding, and the norm that makes them down, as AWQ does
(https://arxiv.org/abs/2306.00978): the same function, with finer steps where they count."""

from torch import Tensor

from calculator.model.formats import WeightFormat
from quantize.methods import rtn

POWERS = tuple(step / 10 for step in range(1, 11))


def find_scales(
    weights: list[tuple[Tensor, WeightFormat]], hessian: Tensor, norm: Tensor
) -> Tensor | None:
    """What to multiply the inputs' columns by, float32 [K], or None where plain rounding is best.

    weights: [N, K] each, of linears that share the input; norm: the weight, [K], of the norm that
    makes it. The answer divides the norm to numbers exact in its dtype.
    """
    size = hessian.diagonal().clamp(min=0).sqrt()
    if not (size > 0).all() or not (norm != 0).all():
        return None  # a dead input: its scale would be a guess
    best, best_error = None, _error(weights, hessian, None)
    for power in POWERS:
        wanted = size**power
        wanted /= (wanted.max() * wanted.min()).sqrt()
        scales = norm.float() / (norm.float() / wanted).to(norm.dtype).float()
        if not scales.isfinite().all():
            continue
        error = _error(weights, hessian, scales)
        if error < best_error:
            best, best_error = scales, error
    return best


def _error(
    weights: list[tuple[Tensor, WeightFormat]], hessian: Tensor, scales: Tensor | None
) -> float:
    total = 0.0
    for weight, weight_format in weights:
        if scales is None:
            quantized = rtn.quantize(weight, weight_format, hessian.diagonal()).dequantize()
        else:
            importance = hessian.diagonal() / scales.square()
            quantized = (
                rtn.quantize(weight * scales, weight_format, importance).dequantize() / scales
            )
        change = weight - quantized
        total += float((change * (change @ hessian)).sum())
    return total

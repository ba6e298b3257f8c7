"""Choose how far sums over calibration tokens are trusted, on samples that are not among them.

Sums over few tokens hold chance as well as the model: codes that fit them best are not the best for
other text. Damping shrinks the Hessian toward a multiple of the identity; a ridge and a factor
shrink the correction of earlier layers' errors. How much of each is best differs from linear to
linear by more than tenfold (inputs of down_proj are rare and large), so it is tried on samples that
the sums have not seen, by what rounding would cost there, which needs no rounding.
"""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from quantize.methods.gptq import LEAST_DAMPING, reversed_factor
from quantize.methods.moments import Moments, spread

SHARES = (LEAST_DAMPING, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""What is tried as damping and as ridge: shares of the mean of the Hessian's diagonal."""
PLACES = 256
"""Inputs, or rows of weights, by which a share is judged: more cost time and change little."""
INPUTS_TRIED = 2048
"""A share is tried on so many inputs: factoring all of down_proj's would take longer than to
quantize it."""
STEPS_OF_TRUST = 16
"""Trust is rounded to such parts, so that the last bits of a sum change no code."""


@dataclass(frozen=True)
class Shrinkage:
    """How far the sums of one stage are trusted."""

    damping: float
    """The share of the mean diagonal that is added to the Hessian's diagonal to round by it."""
    ridge: float
    """The same for the correction of earlier layers' errors."""
    trust: float
    """The factor of that correction, 0 to 1."""


UNCHECKED = Shrinkage(damping=0.1, ridge=0.1, trust=0.5)
"""Where all samples calibrate because there are too few to check."""


def choose_shrinkage(seen: Moments, unseen: Moments, weights: list[Tensor]) -> Shrinkage:
    """Choose for sums over calibrating samples, by sums over others.

    weights: [N, K] each, of the linears that share the input.
    """
    every = torch.cat(weights)
    rows = spread(len(every), PLACES, every.device)
    inputs = spread(len(seen.hessian), INPUTS_TRIED, every.device)
    known, other = (
        Sums(sums.hessian[inputs][:, inputs], sums.missing(every, rows)[:, inputs])
        for sums in (seen, unseen)
    )
    damping, least = SHARES[-1], inf
    best, most = (SHARES[-1], 0.0), 0.0
    for share in SHARES:
        lower, back = reversed_factor(known.hessian, share)
        if lower is None:
            continue
        elsewhere = Sums(other.hessian[back][:, back], other.missing[:, back])
        cost = _rounding_cost(lower, elsewhere.hessian)
        if cost < least:
            least, damping = cost, share
        trust, gain = _correction_gain(lower, known.missing[:, back], elsewhere)
        if gain > most:
            most, best = gain, (share, trust)
    return Shrinkage(damping, *best)


@dataclass(frozen=True)
class Sums:
    """Sums over some tokens, of some inputs of some rows of weights."""

    hessian: Tensor
    """[k, k]."""
    missing: Tensor
    """[n, k]."""


def _rounding_cost(lower: Tensor, hessian: Tensor) -> float:
    """What rounding by a factor of some tokens' Hessian costs where another Hessian is true.

    GPTQ rounds an input and lets those that follow make up for it by row i of U, the upper factor
    of the Hessian's inverse, divided by its diagonal. So an error e of that input costs
    e^2 (u H u^T) / u_ii^2. With inputs reversed U is the inverse of the lower factor.
    """
    places = spread(len(lower), PLACES, lower.device)
    ones = torch.zeros(len(lower), len(places), device=lower.device)
    ones[places, torch.arange(len(places), device=lower.device)] = lower.diagonal()[places]
    rows = torch.linalg.solve_triangular(lower.mT, ones, upper=True).T
    return float(((rows @ hessian) * rows).sum())


def _correction_gain(lower: Tensor, missing: Tensor, elsewhere: Sums) -> tuple[float, float]:
    """The trust in the ridge regression of what is missing, and how much it saves elsewhere.

    A change D of the weights saves 2 D m - D H D^T, which is largest for one multiple of D.
    """
    change = torch.cholesky_solve(missing.T, lower).T
    saved = float((change * elsewhere.missing).sum())
    cost = float((change * (change @ elsewhere.hessian)).sum())
    if not (0 < saved < inf and 0 < cost < inf):
        return 0.0, 0.0
    trust = round(min(saved / cost, 1.0) * STEPS_OF_TRUST) / STEPS_OF_TRUST
    return trust, trust * (2 * saved - trust * cost)

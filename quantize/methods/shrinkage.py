"""Choose how far sums over calibration tokens are trusted, on samples that are not among them.

Sums over few tokens hold chance as well as the model: codes that fit them best are not the best for
other text. Damping shrinks the Hessian toward a multiple of the identity; a ridge and a factor
shrink the correction of earlier layers' errors. How much of each is best differs from linear to
linear by more than tenfold (inputs of down_proj are rare and large), so it is tried on samples that
the sums have not seen, by what rounding would cost there, which needs no rounding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from quantize.methods.gptq import LEAST_DAMPING, inverse_root
from quantize.methods.moments import Moments

SHARES = (LEAST_DAMPING, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""What is tried as damping and as ridge: shares of the mean of the Hessian's diagonal."""
PLACES = 256
"""Inputs, or rows of weights, by which a share is judged: more cost time and change little."""
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
    damping = _choose_damping(seen.hessian, unseen.hessian)
    every = torch.cat(weights)
    rows = _spread(len(every), every.device)
    ridge, trust = _choose_trust(
        seen.missing(every, rows), unseen.missing(every, rows), seen.hessian, unseen.hessian
    )
    return Shrinkage(damping, ridge, trust)


def _choose_damping(seen: Tensor, unseen: Tensor) -> float:
    """The share whose factor loses least on the unseen Hessian.

    GPTQ rounds an input and lets those that follow make up for it by row i of the factor U, divided
    by its diagonal. So an error e of that input costs e^2 (u H u^T) / u_ii^2 where H is true.
    """
    least, best = inf, SHARES[-1]
    for share in SHARES:
        root, order = inverse_root(seen, share)
        if root is None:
            continue
        places = _spread(len(seen), seen.device)
        rows = root[places] / root[places, places][:, None]
        del root
        cost = float(((rows @ unseen[order][:, order]) * rows).sum())
        if cost >= least:
            break  # it only rises from here
        least, best = cost, share
    return best


def _choose_trust(
    seen: Tensor, unseen: Tensor, hessian: Tensor, unseen_hessian: Tensor
) -> tuple[float, float]:
    """The ridge and the trust that save most of what is missing, rows [n, K], where unseen.

    A change D of the weights saves 2 D m - D H D^T, which is largest for one multiple of D.
    """
    most, best = 0.0, (SHARES[-1], 0.0)
    for share, change in _changes(seen, hessian):
        saved = float((change * unseen).sum())
        cost = float((change * (change @ unseen_hessian)).sum())
        if not (0 < saved < inf and 0 < cost < inf):
            continue
        trust = round(min(saved / cost, 1.0) * STEPS_OF_TRUST) / STEPS_OF_TRUST
        gain = trust * (2 * saved - trust * cost)
        if gain > most:
            most, best = gain, (share, trust)
    return best


def _changes(missing: Tensor, hessian: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Yield each share with the ridge regression of what is missing."""
    for share in SHARES:
        damped = hessian.clone()
        damped.diagonal().add_(share * hessian.diagonal().mean())
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            yield share, torch.cholesky_solve(missing.T, factor).T


def _spread(size: int, device: torch.device) -> Tensor:
    """PLACES of `size` at most, evenly spread."""
    return torch.linspace(0, size - 1, min(size, PLACES), device=device).round().long()

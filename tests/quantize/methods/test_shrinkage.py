"""How far sums are trusted, held against what rounding really costs on other tokens."""

import pytest
import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from quantize.methods import gptq
from quantize.methods.moments import Moments
from quantize.methods.shrinkage import SHARES, choose_shrinkage

INPUTS, ROWS, CPU = 64, 256, torch.device("cpu")
INT4 = WeightFormat(4, 32)


@pytest.fixture
def mixing() -> Tensor:
    """Makes inputs correlated: a few directions carry more than the others."""
    common = torch.randn(4, INPUTS).T @ torch.randn(4, INPUTS) / INPUTS
    return torch.eye(INPUTS) + common


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(ROWS, INPUTS)


def tokens(count: int, mixing: Tensor) -> Tensor:
    """Inputs that are rare and large, as those of down_proj are."""
    return torch.randn(count, INPUTS) ** 3 @ mixing


def sums(source: Tensor, quantized: Tensor, lack: Tensor | None = None) -> Moments:
    result = Moments.zeros(INPUTS, None if lack is None else lack.shape[1], CPU)
    result.add(source, quantized, lack)
    return result


def test_factors_are_those_of_the_damped_hessian(mixing: Tensor) -> None:
    x = tokens(400, mixing)
    factors = gptq.factor(x.T @ x, 0.05)
    hessian = gptq.damped(x.T @ x, 0.05).double()[factors.order][:, factors.order]
    torch.testing.assert_close(factors.root, factors.root.triu())
    torch.testing.assert_close(factors.root.diagonal(), torch.ones(INPUTS))
    product = factors.root.double() * factors.sizes.double() @ factors.root.double().T
    torch.testing.assert_close(product, hessian, rtol=1e-4, atol=1e-3)
    assert (hessian.diagonal().diff() <= 0).all()  # by falling activation


@pytest.mark.parametrize("count", [80, 160, 2000])
def test_damping_is_near_the_best_on_tokens_that_chose_nothing(
    count: int, mixing: Tensor, weight: Tensor
) -> None:
    """Each share is tried by rounding in earnest, and judged on a third set of tokens."""
    x, y, z = (tokens(each, mixing) for each in (count, count // 3, 20_000))
    chosen = choose_shrinkage(sums(x, x), sums(y, y), [weight]).damping

    def cost(share: float) -> float:
        codes = gptq.quantize(weight, x.T @ x, INT4, share)
        return float((z @ (weight - codes.dequantize()).T).square().sum())

    costs = {share: cost(share) for share in SHARES}
    assert costs[chosen] < 1.1 * min(costs.values())
    if count == 80:  # hardly more tokens than inputs: little damping costs much
        assert chosen > SHARES[1]
        assert costs[chosen] < 0.9 * costs[SHARES[0]]


def test_correction_is_trusted_as_far_as_other_tokens_bear_it_out(
    mixing: Tensor, weight: Tensor
) -> None:
    x, y, z = (tokens(each, mixing) for each in (200, 100, 20_000))
    real = 0.2 * torch.randn(ROWS, INPUTS)

    def ahead(tokens: Tensor, noise: float) -> Tensor:
        return tokens @ real.T + noise * torch.randn(len(tokens), ROWS)

    trusts = []
    for noise in (0.0, 60.0):
        seen, unseen = (sums(each, each, ahead(each, noise)) for each in (x, y))
        chosen = choose_shrinkage(seen, unseen, [weight])
        target = seen.target(weight, ridge=chosen.ridge, trust=chosen.trust)
        wrong, nothing = (
            float((z @ (weight + real - each).T).square().sum()) for each in (target, weight)
        )
        assert wrong <= nothing  # few tokens never cost more than they bring
        trusts.append(chosen.trust)
    assert trusts[0] > 0.9
    assert trusts[1] < 0.5


def test_chance_alone_is_not_trusted(mixing: Tensor, weight: Tensor) -> None:
    x, y = (tokens(each, mixing) for each in (100, 2000))
    seen, unseen = (sums(each, each, torch.randn(len(each), ROWS)) for each in (x, y))
    chosen = choose_shrinkage(seen, unseen, [weight])
    target = seen.target(weight, ridge=chosen.ridge, trust=chosen.trust)
    free = seen.target(weight, ridge=0.01, trust=1.0)
    assert float((target - weight).norm()) < 0.2 * float((free - weight).norm())


def test_sums_of_both_sets_are_those_of_all_tokens(mixing: Tensor) -> None:
    x, y = tokens(50, mixing), tokens(70, mixing)
    every = torch.cat([x, y])
    for outputs in (None, 32):  # sums for any weight, and for one weight of 32 outputs
        merged, other, whole = (
            sums(each, each, None if outputs is None else each[:, :outputs])
            for each in (x, y, every)
        )
        merged.merge(other)
        assert merged.tokens == whole.tokens
        for name in ("hessian", "cross" if outputs is None else "lacking"):
            found, expected = getattr(merged, name), getattr(whole, name)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1.0)

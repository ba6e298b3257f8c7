"""Each sampling rule, on distributions small enough to reckon by hand."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from calculator.errors import OptionError
from glm4q.decode.likely import draw, draw_likely, keep_likely, likely_tokens, penalize
from glm4q.decode.sampling import Sampler, SamplingParams, pick_likeliest

CPU = torch.device("cpu")
LOGITS = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625]).log()


def _kept(**rules: float) -> list[int]:
    logits = keep_likely(LOGITS, SamplingParams(**rules))  # type: ignore[arg-type]
    return logits.isfinite().nonzero().flatten().tolist()


def test_temperature_zero_takes_the_likeliest() -> None:
    assert Sampler(SamplingParams(temperature=0), CPU)(torch.tensor([0.1, 3.0, 2.9])).token == 1


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.4, [0]), (0.5, [0]), (0.6, [0, 1]), (0.8, [0, 1, 2])]
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: list[int]) -> None:
    assert _kept(top_p=top_p) == kept


def test_top_k_and_min_p() -> None:
    assert _kept(top_k=2) == [0, 1]
    assert _kept(top_k=99) == [0, 1, 2, 3, 4]
    assert _kept(min_p=0.25) == [0, 1, 2]


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
@pytest.mark.parametrize(
    ("top_p", "top_k", "min_p"),
    [
        (0.8, 0, 0.0),
        (0.999, 0, 0.0),
        (1.0, 40, 0.0),
        (0.9, 700, 0.0),
        (1.0, 0, 0.05),
        (0.7, 60, 0.2),
    ],
)
def test_a_cpu_sorts_only_a_part_and_keeps_the_same_tokens(
    top_p: float, top_k: int, min_p: float, spread: float
) -> None:
    rules = SamplingParams(top_p=top_p, top_k=top_k, min_p=min_p)
    generator = torch.Generator().manual_seed(3)
    logits = spread * torch.randn(5000, generator=generator, dtype=torch.float64)
    expected = keep_likely(logits, rules)
    tokens, probabilities = likely_tokens(logits, rules)
    assert sorted(tokens.tolist()) == expected.isfinite().nonzero().flatten().tolist()
    shares = probabilities / probabilities.sum()
    torch.testing.assert_close(shares, expected.softmax(-1)[tokens], rtol=1e-4, atol=1e-8)


def test_a_token_that_may_not_come_is_never_drawn() -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf])
    generator = torch.Generator().manual_seed(1)
    for rules in (SamplingParams(), SamplingParams(top_p=0.99), SamplingParams(top_k=5)):
        drawn = Counter(int(draw_likely(logits, rules, generator)) for _ in range(200))
        assert set(drawn) == {1, 3}
        assert 60 < drawn[1] < 140


def test_the_likeliest_of_many_rows_are_those_of_each_alone() -> None:
    logits = torch.randn(4, 500)
    logits[2, 7] = torch.nan
    sampler = Sampler(SamplingParams(temperature=0), CPU)
    assert sampler.only_likeliest
    together = pick_likeliest(logits)
    assert [pick.finite for pick in together] == [True, True, False, True]
    for row in (0, 1, 3):
        assert together[row] == sampler(logits[row])
    for params in (SamplingParams(), SamplingParams(temperature=0, log_probabilities=1)):
        assert not Sampler(params, CPU).only_likeliest


def test_samples_follow_the_distribution() -> None:
    sampler = Sampler(SamplingParams(seed=1), CPU)
    counts = Counter(sampler(LOGITS).token for _ in range(4000))
    assert counts[0] / 4000 == pytest.approx(0.5, abs=0.03)
    assert counts[2] / 4000 == pytest.approx(0.125, abs=0.02)


def test_same_seed_same_tokens() -> None:
    def draw(seed: int) -> list[int]:
        sampler = Sampler(SamplingParams(seed=seed), CPU)
        return [sampler(LOGITS).token for _ in range(50)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_repetition_penalty_makes_seen_tokens_less_likely() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0])
    assert penalize(logits, torch.tensor([True, True, False]), 2.0).tolist() == [1.0, -4.0, 1.0]
    assert logits.tolist() == [2.0, -2.0, 1.0]


def test_tokens_of_the_prompt_and_picked_ones_are_penalized() -> None:
    params = SamplingParams(temperature=0, repetition_penalty=2.0)
    sampler = Sampler(params, CPU, [2])
    logits = torch.tensor([1.0, 1.5, 1.9, 0.6])
    assert [sampler(logits).token for _ in range(3)] == [1, 0, 2]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_copy_leaves_the_device(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each would be waited for; on a CPU there is nothing to wait for."""

    def draw_as_on_a_gpu(logits: torch.Tensor, *settings: Any) -> torch.Tensor:
        return draw(keep_likely(logits, settings[0]).softmax(-1), settings[1])

    monkeypatch.setattr("glm4q.decode.sampling.draw_likely", draw_as_on_a_gpu)
    params = SamplingParams(temperature, 0.9, 50, 0.01, repetition_penalty=1.1, seed=1)
    sampler = Sampler(params, CPU, [2])
    logits = torch.randn(1000)
    sampler(logits)
    copies: list[torch.Tensor] = []
    copy = torch.Tensor.tolist

    def counted(tensor: torch.Tensor) -> list[float]:
        copies.append(tensor)
        return copy(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        sampler(logits)
    assert len(copies) == 1
    waiting = {"_local_scalar_dense", "nonzero", "to_cpu", "multinomial", "equal"}
    keys = {event.key.removeprefix("aten::") for event in profiled.key_averages()}
    assert not keys & waiting


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_told(value: float, temperature: float) -> None:
    sampler = Sampler(SamplingParams(temperature), CPU)
    assert sampler(torch.randn(1000)).finite
    assert not sampler(torch.randn(1000).index_fill_(0, torch.tensor([7]), value)).finite


class OddTokens:
    """A constraint that lets odd tokens come, and notes what came."""

    complete, finished = True, False

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def draft(self, guess: Sequence[int], most: int) -> list[int]:
        return list(guess)

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        logits[::2] = -torch.inf
        return logits

    def accept(self, token: int) -> None:
        self.accepted.append(token)


def test_a_constraint_says_which_tokens_may_come() -> None:
    constraint = OddTokens()
    sampler = Sampler(SamplingParams(seed=1), CPU, constraint=constraint)
    logits = torch.randn(100)
    given = logits.clone()
    picked = [sampler(logits).token for _ in range(30)]
    assert all(token % 2 for token in picked)
    assert constraint.accepted == picked
    assert torch.equal(logits, given)


def test_log_probabilities_are_the_models_own() -> None:
    params = SamplingParams(temperature=0.1, log_probabilities=2, seed=1)
    found = Sampler(params, CPU)(LOGITS).log_probabilities
    assert found
    assert found.picked == pytest.approx(LOGITS[0].item())
    assert [token for token, _ in found.top] == [0, 1]
    assert [value for _, value in found.top] == pytest.approx(LOGITS[:2].tolist())
    assert Sampler(SamplingParams(), CPU)(LOGITS).log_probabilities is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("seed", -1),
        ("max_tokens", 0),
        ("log_probabilities", -1),
    ],
)
def test_impossible_values_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=name):
        SamplingParams(**{name: value})  # type: ignore[arg-type]


def test_draws_are_multinomial_s() -> None:
    """The same seed draws what torch.multinomial would: answers of earlier versions stand."""
    probabilities = torch.randn(50).softmax(-1)
    ours, theirs = (torch.Generator().manual_seed(3) for _ in range(2))
    found = [int(draw(probabilities, ours)) for _ in range(20)]
    assert found == [int(torch.multinomial(probabilities, 1, generator=theirs)) for _ in range(20)]
    assert len(set(found)) > 5


def test_presence_counts_a_token_once_and_frequency_each_time() -> None:
    """The context before the answer does not count; the model's own logits stay as they are."""
    logits = torch.tensor([3.0, 2.2, 1.9])
    present = Sampler(SamplingParams(temperature=0, presence_penalty=1.0), CPU, [0, 0])
    assert [present(logits).token for _ in range(4)] == [0, 1, 0, 0]
    frequent = Sampler(SamplingParams(temperature=0, frequency_penalty=1.0), CPU, [0, 0])
    assert [frequent(logits).token for _ in range(4)] == [0, 1, 0, 2]
    assert logits.tolist() == pytest.approx([3.0, 2.2, 1.9])


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
@pytest.mark.parametrize("value", [2.1, -3.0, float("nan")])
def test_penalties_have_the_bounds_of_openai(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"{name} must be -2 to 2"):
        SamplingParams(**{name: value})  # type: ignore[arg-type]


def test_a_bias_is_added_to_the_logits_of_its_tokens() -> None:
    logits = torch.tensor([3.0, 2.5, 1.9])
    params = SamplingParams(temperature=0, logit_bias={0: -1.0, 2: 0.7})
    sampler = Sampler(params, CPU)
    assert [sampler(logits).token for _ in range(2)] == [2, 2]
    assert logits.tolist() == pytest.approx([3.0, 2.5, 1.9])


def test_a_bias_of_a_token_that_the_model_lacks_is_refused() -> None:
    sampler = Sampler(SamplingParams(logit_bias={5: 1.0}), CPU)
    with pytest.raises(OptionError, match="tokens 0 to 4, not 5"):
        sampler(LOGITS)


@pytest.mark.parametrize("bias", [{-1: 1.0}, {1: 101.0}, {1: float("nan")}])
def test_a_bias_has_the_bounds_of_openai(bias: dict[int, float]) -> None:
    with pytest.raises(OptionError, match="logit_bias must give token ids a number"):
        SamplingParams(logit_bias=bias)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": "hot"}, "temperature must be a number, not 'hot'"),
        ({"top_p": None}, "top_p must be a number, not None"),
        ({"min_p": True}, "min_p must be a number, not True"),
        ({"top_k": 1.5}, "top_k must be a whole number, not 1.5"),
        ({"top_k": None}, "top_k must be a whole number, not None"),
        ({"max_tokens": "9"}, "max_tokens must be a whole number, not '9'"),
        ({"seed": 1.0}, "seed must be a whole number, not 1.0"),
    ],
    ids=str,
)
def test_settings_of_another_type_are_refused_by_name(
    setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        SamplingParams(**setting)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "settings", [{}, {"top_p": 0.9}, {"top_k": 5, "min_p": 0.1}, {"temperature": 0}]
)
def test_logits_that_are_not_finite_are_noticed_under_all_settings(
    settings: dict[str, Any], bad: float
) -> None:
    for logits in (
        torch.full((600,), bad),
        torch.arange(600.0).index_fill(0, torch.tensor(3), bad),
    ):
        assert not Sampler(SamplingParams(**settings), CPU)(logits).finite

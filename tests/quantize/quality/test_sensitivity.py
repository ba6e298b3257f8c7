"""What each matrix costs, against forward passes of transformers' model with one matrix rounded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.questions.widths.sensitivity import Sensitivity
from calculator.questions.widths.slots import Widths
from quantize.methods import rtn
from quantize.quality.sensitivity.by_divergence import measure
from quantize.quality.sensitivity.by_weights import weigh
from quantize.quality.sensitivity.workshop import Workshop
from tests import tiny

CPU = torch.device("cpu")
CONFIG = replace(tiny.BASE, vocab_size=96, num_hidden_layers=3)


class Killed(Exception):
    """Ends a measurement in its middle."""


@pytest.fixture
def model() -> PreTrainedModel:
    """Weights small enough that divergences grow with the square of the errors."""
    model = tiny.transformers_model(CONFIG)
    with torch.no_grad():
        model.lm_head.weight *= 0.5
    return model


@pytest.fixture
def stored(model: PreTrainedModel, tmp_path: Path) -> StoredModel:
    return StoredModel.open(tiny.save_checkpoint(model, tmp_path / "source"))


@pytest.fixture
def token_ids() -> Tensor:
    return torch.randint(96, (4, 48), generator=torch.Generator().manual_seed(3))


def _measure(
    stored: StoredModel,
    token_ids: Tensor,
    output: Path,
    listener: Callable[[int, int], None] = lambda done, of: None,
) -> Sensitivity:
    workshop = Workshop(output, {"asked": 1})
    with workshop.locked():
        widths = Widths(stored.config, "32")
        return measure(stored, widths, token_ids, workshop, device=CPU, listener=listener)


def _divergence(model: PreTrainedModel, ids: Tensor, names: list[str], bits: int) -> float:
    """The mean KL divergence when these modules are rounded, by transformers' own model."""
    format_ = Widths(CONFIG, "32").format(bits)
    modules = [model.get_submodule(name) for name in names]
    before = [module.weight.data for module in modules]
    with torch.no_grad():
        expected = model(ids).logits.log_softmax(-1)
        for module in modules:
            module.weight.data = rtn.quantize(module.weight.data, format_).dequantize()
        actual = model(ids).logits.log_softmax(-1)
        for module, weight in zip(modules, before, strict=True):
            module.weight.data = weight
    return float((expected.exp() * (expected - actual)).sum(-1).mean())


def test_costs_are_near_the_divergence_of_each_matrix_alone(
    model: PreTrainedModel, stored: StoredModel, token_ids: Tensor, tmp_path: Path
) -> None:
    sensed = _measure(stored, token_ids, tmp_path / "out")
    direct = {
        (slot.name, bits): _divergence(
            model, token_ids, [weight.module for weight in slot.weights], bits
        )
        for slot in Widths(CONFIG, "32").slots
        for bits in sensed.costs[slot.name]
    }
    ratios = sorted(sensed.costs[name][bits] / cost for (name, bits), cost in direct.items())
    assert 0.4 < ratios[0] <= ratios[-1] < 2.5
    assert ratios[len(ratios) // 2] == pytest.approx(1, abs=0.25)
    # The costliest matrices are those that are the costliest alone.
    narrow = [(cost, name) for (name, bits), cost in direct.items() if bits == 4]
    ours = sorted(((cost.get(4, 0.0), name) for name, cost in sensed.costs.items()), reverse=True)
    assert {name for _, name in ours[:4]} == {name for _, name in sorted(narrow)[-4:]}


@pytest.mark.parametrize("tied", [False, True])
def test_a_measurement_that_was_cut_off_goes_on_to_the_same_numbers(
    tied: bool, token_ids: Tensor, tmp_path: Path
) -> None:
    model = tiny.transformers_model(replace(CONFIG, tie_word_embeddings=tied))
    stored = StoredModel.open(tiny.save_checkpoint(model, tmp_path / "source"))
    whole = _measure(stored, token_ids, tmp_path / "whole")
    seen: list[int] = []

    def kill(done: int, of: int) -> None:
        seen.append(done)
        if len(seen) == 2:
            raise Killed

    with pytest.raises(Killed) as killed:
        _measure(stored, token_ids, tmp_path / "cut", kill)
    kept = tmp_path / ".cut.sensitivity"
    assert killed.value.__notes__ == [
        f"what is measured is kept in {kept}; the same command goes on"
    ]
    again = _measure(stored, token_ids, tmp_path / "cut", lambda done, of: seen.append(done))
    assert seen == [1, 2, 3]
    assert again == whole
    # What came to its end is not measured again, and no states are left.
    assert _measure(stored, token_ids, tmp_path / "cut", kill) == whole
    assert [file.name for file in kept.iterdir()] == ["progress.json"]


def test_another_run_for_the_same_output_waits_outside(tmp_path: Path) -> None:
    with (
        Workshop(tmp_path / "out", {}).locked(),
        pytest.raises(OptionError, match=r"another run is making \S+out$"),
        Workshop(tmp_path / "out", {}).locked(),
    ):
        pass


def test_weights_alone_say_how_much_of_each_matrix_is_lost(
    stored: StoredModel, model: PreTrainedModel, tmp_path: Path
) -> None:
    workshop = Workshop(tmp_path / "out", {})
    widths = Widths(stored.config, "32")
    with workshop.locked():
        weighed = weigh(stored, widths, workshop, lambda done, of: None)
    weight = model.model.layers[2].mlp.gate_up_proj.weight.data
    for bits in (4, 8):
        rounded = rtn.quantize(weight, widths.format(bits)).dequantize()
        share = (weight - rounded).square().sum() / weight.square().sum()
        cost = weighed.costs["model.layers.2.mlp.gate_up_proj"][bits]
        assert cost == pytest.approx(float(share), rel=1e-4)

"""Costs as samples show them: how far the logits go when matrices of one layer are rounded.

Each layer is rounded once as a whole, and the states that leave it go through the layers behind it
as the source has them: one forward pass a layer measures its KL divergence. A layer's divergence
is divided among its matrices by the squares of what each of them, rounded alone, changes in the
states behind the layer; small divergences add up and grow with the square of the error. The same
rule gives the cost of a finer width: the divergence at 4 bits, times the ratio of the squared
errors, each input weighed by its squared activation. The head is rounded and measured by itself.

All is computed in float32: in bfloat16 the differences would drown in rounding.
"""

from collections.abc import Mapping
from itertools import product

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import NumericError
from calculator.memory.making import NUMBERS_AT_ONCE, POSITIONS_AT_ONCE
from calculator.questions.widths.sensitivity import Sensitivity
from calculator.questions.widths.slots import HEAD_BITS, HEAD_SLOT, Widths
from glm4q.kernels.choose import choose_weight_kernels
from glm4q.model.decoder import DecoderLayer
from glm4q.model.loader import load_layer
from quantize.calibrate.passes import attention_without_cache, pass_workspace, ready_step
from quantize.calibrate.stages import STAGES, Stage
from quantize.quality.evaluate import LayerListener
from quantize.quality.predictor import ComputeSettings, Predictor, Windows
from quantize.quality.sensitivity.rounding import errors_of, round_weight
from quantize.quality.sensitivity.workshop import Workshop

SAMPLES, TOKENS = 4, 128
"""The most samples, and tokens of each, that go through every layer once for each layer before."""
NARROW = 4
SOURCE = "source"
"""The name of the states that no rounding has touched; others have the number of their layer."""


def choose_samples(token_ids: Tensor) -> Tensor:
    """Return the beginnings of samples that lie evenly among the calibration's, [S, T]."""
    samples = min(SAMPLES, len(token_ids))
    rows = [number * len(token_ids) // samples for number in range(samples)]
    return token_ids[rows, :TOKENS]


def measure(
    stored: StoredModel,
    widths: Widths,
    token_ids: Tensor,
    workshop: Workshop,
    *,
    device: torch.device,
    listener: LayerListener,
) -> Sensitivity:
    """Measure what each matrix costs on samples, [S, T]. Raises NumericError."""
    samples, tokens = token_ids.shape
    about = {"measured_on": {"samples": samples, "tokens": tokens}}
    costs = workshop.read_costs()
    if costs is None:
        costs = _measure(stored, widths, token_ids, workshop, device, listener)
        workshop.finish(costs)
    return Sensitivity("divergence", widths.group_size, widths.symmetric, costs, about)


def _measure(
    stored: StoredModel,
    widths: Widths,
    token_ids: Tensor,
    workshop: Workshop,
    device: torch.device,
    listener: LayerListener,
) -> dict[str, dict[int, float]]:
    how = ComputeSettings(device, torch.float32)
    ends = _Ends(stored, Windows(tuple(token_ids), 1), how)
    layers = _Layers(stored, widths, token_ids, device)
    done, records = workshop.read()
    if done:
        states = {name: x.to(device) for name, x in workshop.states(done).items()}
    else:
        ends.begin()
        states = {SOURCE: torch.cat(ends.states)}
    for layer in range(done, stored.config.num_hidden_layers):
        records.append(layers.advance(layer, states))
        workshop.write(records, states)
        listener(layer + 1, stored.config.num_hidden_layers)
    divergences, of_head = ends.divergences(states, widths)
    costs: dict[str, dict[int, float]] = {}
    for layer, record in enumerate(records):
        for name, (share, ratio) in record.items():
            cost = divergences[str(layer)] * share
            costs[f"model.layers.{layer}.{name}"] = {4: cost, 8: cost * ratio}
    if of_head is not None:
        costs[HEAD_SLOT] = {8: of_head}
    return costs


class _Layers:
    """Takes all states through one layer after the other, and rounds each layer on the way."""

    def __init__(
        self, stored: StoredModel, widths: Widths, token_ids: Tensor, device: torch.device
    ) -> None:
        self._stored, self._config = stored, stored.config
        self._formats = {bits: widths.format(bits) for bits in (4, 8)}
        self._samples, self._tokens = token_ids.shape
        dtype = torch.float32
        self._kernels = choose_weight_kernels(stored.formats, device=device, dtype=dtype)
        self._workspace = pass_workspace(
            self._config, batch=self._samples, tokens=self._tokens, dtype=dtype, device=device
        )
        self._attend = attention_without_cache(self._config, self._tokens, device)

    @torch.inference_mode()
    def advance(self, layer: int, states: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
        """Take all states a layer further, and add those of this layer rounded to NARROW bits.

        Returns each slot's share of the layer's divergence, and the ratio of its error at 8 bits.
        """
        module = load_layer(self._stored, layer, self._kernels)
        before = states[SOURCE]
        importances = self._importances(module, before)
        for name, x in states.items():
            states[name] = self._through(module, x, layer)
        changes: dict[str, float] = {}
        ratios: dict[str, float] = {}
        rounded: dict[str, Tensor] = {}
        for stage, importance in zip(STAGES, importances, strict=True):
            name = _slot_name(stage)
            narrow, ratios[name] = self._round(module, stage, importance)
            source = _put(module, narrow)
            change = self._through(module, before, layer) - states[SOURCE]
            changes[name] = float(change.double().square().sum())
            _put(module, source)
            rounded |= narrow
        _put(module, rounded)
        states[str(layer)] = self._through(module, before, layer)
        whole = sum(changes.values())
        return {
            name: (change / whole if whole else 0.0, ratios[name])
            for name, change in changes.items()
        }

    def _round(
        self, module: DecoderLayer, stage: Stage, importance: Tensor
    ) -> tuple[dict[str, Tensor], float]:
        """Return a stage's weights at NARROW bits, and the ratio of the errors at 8 bits to it."""
        narrow: dict[str, Tensor] = {}
        errors = dict.fromkeys(self._formats, 0.0)
        for name in stage.linears:
            weight = module.get_parameter(f"{name}.weight").data
            narrow[name] = round_weight(weight, self._formats[NARROW], importance)
            for bits, error in errors_of(weight, self._formats, importance).by_bits.items():
                errors[bits] += error
        return narrow, errors[8] / errors[NARROW] if errors[NARROW] else 0.0

    def _importances(self, module: DecoderLayer, x: Tensor) -> list[Tensor]:
        """Return the sum of squares of each stage's inputs over all tokens."""
        step = ready_step(self._config, self._workspace, self._tokens, self._samples)
        squares, feed = [], x
        for stage in STAGES:
            x, feed = (each.clone() for each in stage.feed(module, x, feed, step, self._attend))
            squares.append(feed.flatten(0, 1).square().sum(0))
        return squares

    def _through(self, module: DecoderLayer, x: Tensor, layer: int) -> Tensor:
        step = ready_step(self._config, self._workspace, self._tokens, self._samples)
        step["hidden_states"].copy_(x)
        module(step, self._attend)
        if not step["hidden_states"].isfinite().all():
            raise NumericError(f"layer {layer} of {self._stored.directory}")
        return step["hidden_states"].clone()


class _Ends(Predictor):
    """The embedding, and the head, which compares all states with the source's."""

    @torch.inference_mode()
    def divergences(
        self, states: Mapping[str, Tensor], widths: Widths
    ) -> tuple[dict[str, float], float | None]:
        """Return each state's KL divergence from the source's, and that of the rounded head.

        The last is None where the head is the embedding, which stays as it is.
        """
        names, samples = [SOURCE, *(name for name in states if name != SOURCE)], len(states[SOURCE])
        self.states = [sample for name in names for sample in states[name].split(1)]
        self.finish()
        sums, positions = dict.fromkeys(names[1:], 0.0), 0
        of_source: list[tuple[int, int, int, Tensor]] = []
        for sample, (start, stop) in product(range(samples), _runs(states[SOURCE].shape[1])):
            expected = self.log_probabilities(sample, start, stop)
            for number, name in enumerate(names[1:], start=1):
                actual = self.log_probabilities(number * samples + sample, start, stop)
                sums[name] += _divergence(expected, actual)
            positions += stop - start
            if start == 0:  # the head's own rounding is seen on some places: logits are large
                of_source.append((sample, start, stop, expected))
        divergences = {name: total / positions for name, total in sums.items()}
        if self.stored.config.tie_word_embeddings:
            return divergences, None
        self._round_head(widths)
        of_head = [
            _divergence(expected, self.log_probabilities(sample, start, stop)) / (stop - start)
            for sample, start, stop, expected in of_source
        ]
        return divergences, sum(of_head) / len(of_head)

    def _round_head(self, widths: Widths) -> None:
        weight = self._ends.lm_head.weight.data
        rows = max(NUMBERS_AT_ONCE // weight.shape[1], 1)
        for part in weight.split(rows):
            part.copy_(round_weight(part, widths.format(HEAD_BITS[0])))


def _runs(tokens: int) -> list[tuple[int, int]]:
    starts = range(0, tokens, POSITIONS_AT_ONCE)
    return [(start, min(start + POSITIONS_AT_ONCE, tokens)) for start in starts]


def _divergence(expected: Tensor, actual: Tensor) -> float:
    return float((expected.exp() * (expected - actual)).sum(-1).double().sum())


def _slot_name(stage: Stage) -> str:
    """Return the name of a stage's slot within a layer."""
    joined = len(stage.linears) > 1
    return "self_attn.qkv_proj" if joined else stage.linears[0]


def _put(module: DecoderLayer, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put weights in their places, and return those that were there."""
    before = {}
    for name, weight in weights.items():
        parameter = module.get_parameter(f"{name}.weight")
        before[name], parameter.data = parameter.data, weight
    return before

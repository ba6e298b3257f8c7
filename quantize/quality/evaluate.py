"""Measure how well checkpoints predict a text, and how far they are from their source."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp
from pathlib import Path

from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.memory.making import POSITIONS_AT_ONCE
from quantize.quality.predictor import ComputeSettings, Predictor, Windows


@dataclass(frozen=True)
class Divergence:
    """How far a checkpoint is from the one that it is compared with."""

    kl_divergence: float
    """The divergence of its next-token distribution from the other's, in nats; mean of tokens."""
    top_1_agreement: float
    """The share of places where both find the same token likeliest."""
    layer_errors: tuple[float, ...]
    """|h' - h|^2 / |h|^2 of the hidden states after each layer."""


@dataclass(frozen=True)
class Evaluation:
    """One checkpoint on one text."""

    directory: Path
    weights_bytes: int
    """Bytes that its weights take in memory."""
    tokens: int
    """Tokens that were predicted."""
    perplexity: float
    divergence: Divergence | None = None


LayerListener = Callable[[int, int], None]
"""Is called after each layer with the number of layers done, and of all layers."""


def evaluate(
    checkpoints: list[StoredModel],
    windows: Windows,
    how: ComputeSettings,
    *,
    against: StoredModel | Predictor | None = None,
    listener: LayerListener = lambda done, of: None,
) -> list[Evaluation]:
    """Predict the windows by each checkpoint; `against` comes first in the answer if it is given.

    One layer of one model is in memory at a time, and at the end the heads. against: a model, or
    what predicts by it. Raises OptionError where it is a model of another shape.
    """
    first = [against] if isinstance(against, Predictor) else []
    models = [against.stored if isinstance(against, Predictor) else against] if against else []
    subjects = [*models, *checkpoints]
    for stored in subjects:
        if windows.largest_id >= stored.config.vocab_size:
            raise OptionError(
                f"{stored.directory} has no token {windows.largest_id}, which the text has: its "
                f"vocab_size is {stored.config.vocab_size}"
            )
    for stored in subjects if against else ():
        _refuse_another(stored, subjects[0])
    predictors = [*first, *(Predictor(each, windows, how) for each in subjects[len(first) :])]
    for predictor in predictors:
        predictor.begin()
    layers = max(stored.config.num_hidden_layers for stored in subjects)
    errors: list[list[float]] = [[] for _ in subjects]
    for layer in range(layers):
        for predictor, layer_errors in zip(predictors, errors, strict=True):
            if layer < predictor.stored.config.num_hidden_layers:
                predictor.advance(layer)
                if against:
                    layer_errors.append(_relative_error(predictors[0].states, predictor.states))
        listener(layer + 1, layers)
    for predictor in predictors:
        predictor.finish()
    measure = predictors[0] if against else None
    return [
        _evaluation(
            predictor, windows, None if predictor is measure else measure, tuple(layer_errors)
        )
        for predictor, layer_errors in zip(predictors, errors, strict=True)
    ]


def _evaluation(
    predictor: Predictor, windows: Windows, measure: Predictor | None, errors: tuple[float, ...]
) -> Evaluation:
    loss = divergence = agreed = 0.0
    for window, start, stop in _runs(windows):
        log_probabilities = predictor.log_probabilities(window, start, stop)
        wanted = windows.token_ids[window][start + 1 : stop + 1].to(log_probabilities.device)
        loss -= log_probabilities.gather(1, wanted[:, None]).double().sum().item()
        if measure:
            reference = measure.log_probabilities(window, start, stop)
            divergence += (
                (reference.exp() * (reference - log_probabilities)).sum(-1).double().sum().item()
            )
            agreed += (reference.argmax(-1) == log_probabilities.argmax(-1)).sum().item()
    tokens = windows.tokens
    difference = Divergence(divergence / tokens, agreed / tokens, errors) if measure else None
    directory = predictor.stored.directory
    return Evaluation(directory, predictor.weights_bytes, tokens, exp(loss / tokens), difference)


def _runs(windows: Windows) -> Iterator[tuple[int, int, int]]:
    """Yield (window, start, stop) for places whose next token is predicted."""
    for window, token_ids in enumerate(windows.token_ids):
        last = len(token_ids) - 1
        for start in range(windows.first - 1, last, POSITIONS_AT_ONCE):
            yield window, start, min(start + POSITIONS_AT_ONCE, last)


def _relative_error(expected: list[Tensor], actual: list[Tensor]) -> float:
    wrong = sum(
        (x.double() - y.double()).square().sum() for x, y in zip(expected, actual, strict=True)
    )
    return float(wrong / sum(x.double().square().sum() for x in expected))


def _refuse_another(stored: StoredModel, against: StoredModel) -> None:
    for name in ("vocab_size", "num_hidden_layers", "hidden_size"):
        ours, theirs = getattr(stored.config, name), getattr(against.config, name)
        if ours != theirs:
            raise OptionError(
                f"{stored.directory} cannot be compared with {against.directory}: its {name} is "
                f"{ours}, not {theirs}"
            )

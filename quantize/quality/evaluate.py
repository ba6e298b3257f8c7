"""Measure how well checkpoints predict a text, and how far they are from their source."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
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
    texts: "tuple[Evaluation, ...]" = ()
    """The same for each of several texts, where these were asked for."""


LayerListener = Callable[[int, int], None]
"""Is called after each layer with the number of layers done, and of all layers."""


def evaluate(
    checkpoints: list[StoredModel],
    windows: Windows,
    how: ComputeSettings,
    *,
    against: StoredModel | Predictor | None = None,
    texts: Sequence[int] = (),
    listener: LayerListener = lambda done, of: None,
) -> list[Evaluation]:
    """Predict the windows by each checkpoint; `against` comes first in the answer if it is given.

    One layer of one model is in memory at a time, and at the end the heads. against: a model, or
    what predicts by it. texts: how many windows each text has, where the windows are of several
    texts; each is then evaluated by itself as well. Raises OptionError where `against` is a model
    of another shape.
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
            predictor,
            windows,
            None if predictor is measure else measure,
            tuple(layer_errors),
            texts,
        )
        for predictor, layer_errors in zip(predictors, errors, strict=True)
    ]


@dataclass
class _Sums:
    """Sums over the tokens of some windows."""

    tokens: int = 0
    loss: float = 0.0
    divergence: float = 0.0
    agreed: float = 0.0

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.tokens + other.tokens,
            self.loss + other.loss,
            self.divergence + other.divergence,
            self.agreed + other.agreed,
        )


def _evaluation(
    predictor: Predictor,
    windows: Windows,
    measure: Predictor | None,
    errors: tuple[float, ...],
    texts: Sequence[int],
) -> Evaluation:
    sums = [_of_window(predictor, windows, window, measure) for window in range(len(windows))]

    def evaluation(part: list[_Sums], texts: tuple[Evaluation, ...] = ()) -> Evaluation:
        whole = sum(part, start=_Sums())
        difference = None
        if measure:
            difference = Divergence(
                whole.divergence / whole.tokens, whole.agreed / whole.tokens, errors
            )
        return Evaluation(
            predictor.stored.directory,
            predictor.weights_bytes,
            whole.tokens,
            exp(whole.loss / whole.tokens),
            difference,
            texts,
        )

    ends = list(accumulate(texts))
    parts = zip([0, *ends], ends, strict=False)
    return evaluation(sums, tuple(evaluation(sums[start:stop]) for start, stop in parts))


def _of_window(
    predictor: Predictor, windows: Windows, window: int, measure: Predictor | None
) -> _Sums:
    sums, token_ids = _Sums(), windows.token_ids[window]
    for start, stop in _places(windows.first, len(token_ids)):
        log_probabilities = predictor.log_probabilities(window, start, stop)
        wanted = token_ids[start + 1 : stop + 1].to(log_probabilities.device)
        sums.tokens += stop - start
        sums.loss -= log_probabilities.gather(1, wanted[:, None]).double().sum().item()
        if measure:
            reference = measure.log_probabilities(window, start, stop)
            difference = reference.exp() * (reference - log_probabilities)
            sums.divergence += difference.sum(-1).double().sum().item()
            sums.agreed += (reference.argmax(-1) == log_probabilities.argmax(-1)).sum().item()
    return sums


def _places(first: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield runs, (start, stop), of the places of a window whose next token is predicted."""
    last = length - 1
    for start in range(first - 1, last, POSITIONS_AT_ONCE):
        yield start, min(start + POSITIONS_AT_ONCE, last)


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

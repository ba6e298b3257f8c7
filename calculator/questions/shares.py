"""Layers divided among several cards, which need not be alike: each card runs a range of layers.

The first card also holds the embedding, and the last one the final norm and the head.
"""

from collections.abc import Mapping
from dataclasses import field, replace

from calculator.cards.card import Card
from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.memory.plan import MemoryPlan, Planner
from calculator.memory.settings import Settings
from calculator.model.architecture import Weight
from calculator.questions.subject import Subject


@dataclass(frozen=True)
class Share:
    """The layers of one card, and the plan of what it holds."""

    card: Card
    layers: range
    plan: MemoryPlan

    @property
    def margin_bytes(self) -> int:
        """What the card has beyond its plan; below 0 where it lacks memory."""
        return self.card.usable_bytes - self.plan.compute_bytes


@dataclass(frozen=True)
class LayerSplit:
    """Divides the layers of one model among these cards, for any settings."""

    subject: Subject
    cards: tuple[Card, ...]
    _planners: dict[tuple[int, int], Planner] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        layers = self.subject.config.num_hidden_layers
        if len(self.cards) > layers:
            raise OptionError(f"gpus must be at most the model's {layers} layers")

    def shares(self, settings: Settings) -> tuple[Share, ...]:
        """Give each next layer to the card that has the most memory left."""
        total, count = self.subject.config.num_hidden_layers, len(self.cards)
        layer_bytes = self._need(0, 2, settings) - self._need(0, 1, settings)
        left = [
            card.usable_bytes - self._need(*self._ends(place, 1), settings)
            for place, card in enumerate(self.cards)
        ]
        counts = [1] * count
        for _ in range(total - count):
            place = max(range(count), key=lambda each: left[each])
            counts[place] += 1
            left[place] -= layer_bytes
        shares, first = [], 0
        for card, layers in zip(self.cards, counts, strict=True):
            plan = self._planner(first, first + layers).plan(settings)
            shares.append(Share(card, range(first, first + layers), plan))
            first += layers
        return tuple(shares)

    def _ends(self, place: int, layers: int) -> tuple[int, int]:
        """A range of so many layers that stands where the card's own range will stand."""
        total = self.subject.config.num_hidden_layers
        if place == 0:
            return 0, layers
        if place == len(self.cards) - 1:
            return total - layers, total
        return 1, 1 + layers

    def _need(self, first: int, stop: int, settings: Settings) -> int:
        return self._planner(first, stop).plan(settings).compute_bytes

    def _planner(self, first: int, stop: int) -> Planner:
        if (first, stop) not in self._planners:
            subject = self.subject
            formats = {
                weight: weight_format
                for weight, weight_format in subject.formats.items()
                if self._is_held(weight, first, stop, subject.formats)
            }
            config = replace(subject.config, num_hidden_layers=stop - first)
            is_tied = all(weight.role != "head" for weight in subject.formats)
            self._planners[first, stop] = Planner(
                config, formats, source=subject.source, tied=is_tied
            )
        return self._planners[first, stop]

    def _is_held(
        self, weight: Weight, first: int, stop: int, formats: Mapping[Weight, object]
    ) -> bool:
        if weight.layer is not None:
            return first <= weight.layer < stop
        is_last = stop == self.subject.config.num_hidden_layers
        if weight.role != "embedding":
            return is_last
        is_tied = all(other.role != "head" for other in formats)
        return first == 0 or (is_last and is_tied)

"""Choose one level for each item so that the cost is least within a budget of bytes.

This is the multiple-choice knapsack problem. A greedy walk along the lower convex hulls of the
items (https://doi.org/10.1287/opre.27.3.503) gives a choice and the bound of the relaxed problem,
in which an item may be divided. From there a search goes through the items one by one, keeps every
beginning that no other one beats in bytes and cost, and drops what cannot beat the greedy choice by
more than a thousandth.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

TOLERANCE = 1e-3
"""A choice is not searched that saves less than this share of the cost: costs are estimates."""
MOST_BEGINNINGS = 2000
"""Beginnings kept after an item, those of the best bounds; tens are usual for a model."""


class Level(NamedTuple):
    """One way to keep an item."""

    bytes: int
    cost: float


class _Step(NamedTuple):
    """One move along the hull of an item: to a level, for more bytes and less cost."""

    item: int
    level: int
    bytes: int
    gain: float


class _Beginning(NamedTuple):
    """Levels of the first items."""

    bytes: int
    cost: float
    levels: tuple[int, ...]


def choose_levels(items: Sequence[Sequence[Level]], budget: int) -> tuple[int, ...] | None:
    """Return the place of the chosen level of each item; None where no choice is so small.

    The choice is the best but for TOLERANCE, where MOST_BEGINNINGS do; the same question has always
    the same answer. No single item can be raised within what is left of the budget.
    """
    least = tuple(_least(levels) for levels in items)
    if sum(levels[place].bytes for levels, place in zip(items, least, strict=True)) > budget:
        return None
    greedy = raise_greedily(items, least, budget)
    better = _search(items, budget, _cost(items, greedy) * (1 - TOLERANCE))
    return raise_greedily(items, better or greedy, budget)


def raise_greedily(
    items: Sequence[Sequence[Level]], chosen: Sequence[int], budget: int
) -> tuple[int, ...]:
    """Raise items to better levels, by falling gain a byte, while that fits."""
    places = list(chosen)
    left = budget - sum(levels[place].bytes for levels, place in zip(items, places, strict=True))
    while True:
        steps = [
            _Step(item, place, level.bytes - now.bytes, now.cost - level.cost)
            for item, levels in enumerate(items)
            for now in (levels[places[item]],)
            for place, level in enumerate(levels)
            if level.cost < now.cost and level.bytes - now.bytes <= left
        ]
        if not steps:
            return tuple(places)
        best = max(steps, key=lambda step: (_density(step), step.gain, -step.item))
        places[best.item] = best.level
        left -= best.bytes


def _search(items: Sequence[Sequence[Level]], budget: int, limit: float) -> tuple[int, ...] | None:
    """Return the levels of the least cost below `limit`; None where there are none."""
    least = [levels[_least(levels)] for levels in items]
    hulls = [_hull(item, levels) for item, levels in enumerate(items)]
    bounds = [_Bound(least[first:], hulls[first:]) for first in range(len(items) + 1)]
    beginnings = [_Beginning(0, 0.0, ())]
    for number, levels in enumerate(items):
        bound = bounds[number + 1]
        longer = (
            _Beginning(old.bytes + level.bytes, old.cost + level.cost, (*old.levels, place))
            for old in beginnings
            for place, level in enumerate(levels)
        )
        bounded = [
            (reached, each)
            for each in longer
            if (reached := each.cost + bound.least(budget - each.bytes)) < limit
        ]
        if len(bounded) > MOST_BEGINNINGS:
            bounded = sorted(bounded)[:MOST_BEGINNINGS]
        beginnings = _undominated([each for _, each in bounded])
    best = min(beginnings, key=lambda each: (each.cost, each.bytes, each.levels), default=None)
    return best.levels if best else None


class _Bound:
    """The least cost of the relaxed problem over some items, for any budget."""

    def __init__(self, least: Sequence[Level], hulls: Sequence[Sequence[_Step]]) -> None:
        """least: the level of the fewest bytes of each item; hulls: the moves from there."""
        self._bytes = sum(level.bytes for level in least)
        self._cost = sum(level.cost for level in least)
        steps = [step for hull in hulls for step in hull]
        steps.sort(key=_density, reverse=True)
        self._steps = steps
        self._bytes_after = list(accumulate((step.bytes for step in steps), initial=0))
        self._gain_after = list(accumulate((step.gain for step in steps), initial=0.0))

    def least(self, budget: int) -> float:
        left = budget - self._bytes
        if left < 0:
            return float("inf")
        whole = bisect_left(self._bytes_after, left + 1) - 1
        gain = self._gain_after[whole]
        if whole < len(self._steps):
            gain += _density(self._steps[whole]) * (left - self._bytes_after[whole])
        return self._cost - gain


def _hull(item: int, levels: Sequence[Level]) -> list[_Step]:
    """List the moves along the lower convex hull of an item, the densest gain first."""
    steps: list[_Step] = []
    place = _least(levels)
    while True:
        now = levels[place]
        further = [
            _Step(item, other, level.bytes - now.bytes, now.cost - level.cost)
            for other, level in enumerate(levels)
            if level.cost < now.cost
        ]
        if not further:
            return steps
        steps.append(max(further, key=lambda step: (_density(step), step.bytes)))
        place = steps[-1].level


def _undominated(beginnings: list[_Beginning]) -> list[_Beginning]:
    """Keep the beginnings that none of fewer or equal bytes beats in cost."""
    kept: list[_Beginning] = []
    for each in sorted(beginnings):
        if not kept or each.cost < kept[-1].cost:
            kept.append(each)
    return kept


def _least(levels: Sequence[Level]) -> int:
    """Return the place of the level of the fewest bytes, the cheapest of equals."""
    return min(range(len(levels)), key=lambda place: levels[place])


def _density(step: _Step) -> float:
    return step.gain / step.bytes if step.bytes > 0 else float("inf")


def _cost(items: Sequence[Sequence[Level]], chosen: Sequence[int]) -> float:
    return sum(levels[place].cost for levels, place in zip(items, chosen, strict=True))

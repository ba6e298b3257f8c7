"""How long each part of calibrating a layer takes: the seconds of functions that are named here."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch

from glm4q.model.linear import Linear
from quantize.calibrate.walk import CalibrationWalk
from quantize.methods import choice, gptq, moments, rtn

PARTS: dict[str, list[tuple[Any, str]]] = {
    "both streams through the linears": [(Linear, "forward")],
    "what outputs lack": [(CalibrationWalk, "_lack")],
    "sums over tokens": [(moments, "_add_products")],
    "choosing damping, ridge and trust": [(choice, "choose_shrinkage")],
    "targets": [(moments.Moments, "target")],
    "factors of Hessians": [(gptq, "factor")],
    "clip search": [(rtn, "quantize")],
    "GPTQ's rounding": [(gptq, "compensate")],
    "coordinate descent": [(gptq, "refine")],
    "reported errors": [(moments.Moments, "relative_error")],
}
OTHER = "all else: norms, attention, files, copies"


class Clock:
    """Seconds of each part, without those of parts that it calls: of the clock, and of the CPU."""

    def __init__(self) -> None:
        self.seconds = {name: [0.0, 0.0] for name in (*PARTS, OTHER)}
        self._running = [OTHER]
        self._since = _now()

    def _switch(self) -> None:
        now = _now()
        for place in range(2):
            self.seconds[self._running[-1]][place] += now[place] - self._since[place]
        self._since = now

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Count the time of a function as that of the named part."""

        def run(*arguments: Any, **named: Any) -> Any:
            self._switch()
            self._running.append(name)
            try:
                return function(*arguments, **named)
            finally:
                self._switch()
                self._running.pop()

        return run

    def whole(self) -> list[float]:
        """The seconds of all parts: of the clock, and of the CPU."""
        self._switch()
        return [sum(part[place] for part in self.seconds.values()) for place in range(2)]

    def table(self) -> str:
        """The parts and their sum, as Markdown."""
        whole = self.whole()
        lines = ["| part | seconds | share | CPU seconds |", "|---|---:|---:|---:|"]
        for name, (wall, cpu) in {**self.seconds, "all": whole}.items():
            lines.append(f"| {name} | {wall:.1f} | {wall / whole[0]:.0%} | {cpu:.1f} |")
        return "\n".join(lines)


def _now() -> tuple[float, float]:
    """The clock and the CPU's time, when a card has done what was begun."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


@contextmanager
def clocked() -> Iterator[Clock]:
    """Time the parts for as long as the context lasts."""
    with ExitStack() as stack:
        clock = Clock()
        for name, functions in PARTS.items():
            for owner, function in functions:
                timed = clock.timed(name, getattr(owner, function))
                stack.enter_context(patch.object(owner, function, timed))
        yield clock

"""A kernel about to start: what a card would run, and what tests compile and interpret."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import triton
import triton.language as tl
from torch import Tensor

Argument = Tensor | int | float | None
Constant: TypeAlias = "int | bool | str | tl.dtype"


@dataclass(frozen=True)
class Launch:
    """One kernel, its grid, its arguments, and the constants that it is compiled for."""

    kernel: triton.JITFunction
    grid: tuple[int, ...]
    arguments: Mapping[str, Argument]
    constants: Mapping[str, Constant]
    warps: int = 4
    stages: int = 1

    def run(self) -> None:
        """Start the kernel on the arguments' device. The first start compiles it."""
        self.kernel[self.grid](
            **self.arguments, **self.constants, num_warps=self.warps, num_stages=self.stages
        )


def run_all(launches: list[Launch]) -> None:
    """Start launches one after another, because they depend on each other."""
    for launch in launches:
        launch.run()

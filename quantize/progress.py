"""The progress bar of `glm4q quantize`."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from calculator.architecture import Weight, num_parameters
from calculator.stored import StoredModel


class QuantizeProgress:
    """Advances by the numbers of each finished weight; on stderr, and only on a terminal."""

    def __init__(self, stored: StoredModel) -> None:
        self._begun = 0
        console = Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("quantizing", total=num_parameters(stored.config))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin(self, weight: Weight) -> None:
        """A weight is begun: those before it are done."""
        self._bar.update(self._task, completed=self._begun, description=weight.module)
        self._begun += weight.numel

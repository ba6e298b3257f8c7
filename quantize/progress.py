"""The progress bar of `glm4q quantize`."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from quantize.pipeline import Progress as Place


class QuantizeProgress:
    """Advances part by part; on stderr, and only on a terminal."""

    def __init__(self) -> None:
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
        self._task = self._bar.add_task("quantizing", total=None)

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

    def begin(self, place: Place) -> None:
        """A part is begun: those before it are done."""
        error = place.output_error
        told = place.name if error is None else f"{place.name}, error {error:.2%} before it"
        self._bar.update(self._task, completed=place.part, total=place.parts, description=told)

    def measure(self, done: int, of: int) -> None:
        """Layers through which the held-out text has gone."""
        self._bar.update(self._task, completed=done, total=of, description="measuring quality")

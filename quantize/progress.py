"""The progress of `glm4q quantize`: a bar on a terminal, a line for each layer elsewhere."""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TextIO

from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from calculator.units import human_bytes
from glm4q.terminal.screen.console import Console
from quantize.parts import PartProgress

QUALITY_LINES = 4
"""Lines about the healing, and about measuring quality, where there is no terminal."""

WRITING_LINES = 10
"""Lines about the samples that the source writes, which takes hours, where there is no terminal."""


class QuantizeProgress(ExitStack):
    """Shows which part is begun, the error before it, and the time that is left.

    Leaving the context removes the bar.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._stream = stream or sys.stderr
        console = Console(file=self._stream)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.enter_context(self._bar)
        self._task = self._bar.add_task("quantizing", total=None)
        self._fetching: TaskID | None = None
        self._clock = clock
        self._written = -1
        """How many of WRITING_LINES the samples' tokens so far make."""
        self._begun: tuple[int, float] | None = None  # the first layer of this run, and its time

    def begin(self, progress: PartProgress) -> None:
        """Show that a part is begun; those before it are finished."""
        if progress.is_resumed:
            self._print(f"goes on with {progress.name}: an earlier run finished what is before it")
        error = progress.output_error
        line = progress.name if error is None else f"{progress.name}, error {error:.2%} before it"
        self._bar.update(
            self._task, completed=progress.part, total=progress.parts, description=line
        )
        if self._bar.disable:
            place = f"part {min(progress.part + 1, progress.parts)} of {progress.parts}"
            self._print(f"{place}, {line}{self._time_left(progress)}")

    def measure(self, done: int, of: int) -> None:
        """Show through how many layers the held-out text has passed."""
        self._show("measuring quality", "layer", done, of)

    def heal(self, done: int, of: int) -> None:
        """Show how many steps of the training are done."""
        self._show("training scales and norms", "step", done, of)

    def sense(self, done: int, of: int) -> None:
        """Show how far it is measured what each matrix costs."""
        self._show("measuring what matrices cost", "step", done, of)

    def write(self, done: int, of: int) -> None:
        """Show how many tokens the source has written for its samples."""
        self._bar.update(self._task, completed=done, total=of, description="the source writes")
        part = done * WRITING_LINES // of
        if self._bar.disable and part > self._written:
            self._print(f"the source writes samples: {done:,} of {of:,} tokens")
            self._written = part

    def _show(self, what: str, unit: str, done: int, of: int) -> None:
        self._bar.update(self._task, completed=done, total=of, description=what)
        if self._bar.disable and done * QUALITY_LINES // of > (done - 1) * QUALITY_LINES // of:
            self._print(f"{what}: {unit} {done} of {of}")

    def fetched(self, name: str, there: int, size: int) -> None:
        """Show how much of a file has come; a thread of its own calls this."""
        line = f"{name}, {human_bytes(there)} of {human_bytes(size)}"
        if self._bar.disable:
            if there == size:
                self._print(f"fetched {name}, {human_bytes(size)}")
            return
        if self._fetching is None:
            self._fetching = self._bar.add_task("", total=size)
        self._bar.update(self._fetching, completed=there, total=size, description=line)

    def _time_left(self, progress: PartProgress) -> str:
        """The time left, from the layers of this run: an embedding takes much less than they."""
        now = self._clock()
        if self._begun is None:
            if progress.name.startswith("layer"):
                self._begun = progress.part, now
            return ""
        first, begun = self._begun
        each = (now - begun) / (progress.part - first)
        return f", {duration(each * (progress.parts - progress.part))} left"

    def _print(self, line: str) -> None:
        if self._bar.disable:
            print(line, file=self._stream, flush=True)
        else:
            self._bar.console.print(line, highlight=False, markup=False)


def duration(seconds: float) -> str:
    """A time as a person names it.

    >>> duration(8.2), duration(130), duration(7500)
    ('8 s', '2 min', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

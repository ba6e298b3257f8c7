"""The options of `glm4q chat` about tools: what the model may call, and who is asked."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from calculator.errors import OptionError
from glm4q.terminal.consent import TerminalConsent
from glm4q.terminal.screen.console import Console
from glm4q.tools.functions import Tool, Toolbox, load_tools
from glm4q.tools.python_tool import python_tool

BUILT_IN = ("python",)
DEFAULT_FILES = Path("glm4q-files")


@dataclass(frozen=True)
class ChosenTools:
    """Tools that are offered, and the question that is asked before one runs."""

    tools: Sequence[Tool]
    consent: TerminalConsent


@contextmanager
def choose_tools(
    files: Sequence[Path], built_in: Sequence[str], allowed: Sequence[str], directory: Path
) -> Iterator[ChosenTools]:
    """Load the tools that the options name, until the `with` block ends. Raises OptionError."""
    notes = Console(file=sys.stderr)
    for name in built_in:
        if name not in BUILT_IN:
            raise OptionError(f"--tool must be {' or '.join(BUILT_IN)}, not {name!r}")
    tools = [tool for file in files for tool in load_tools(file)]
    with ExitStack() as opened:
        if built_in:
            announce = partial(notes.print, markup=False, highlight=False)
            tools.append(opened.enter_context(python_tool(directory, announce)))
        names = sorted(Toolbox(tools).names)  # refuses two of one name
        for name in allowed:
            if name not in names:
                known = ", ".join(names) or "none: --tools FILE.py or --tool python offers some"
                raise OptionError(
                    f"--yes-tools {name}: there is no such tool; the tools are {known}"
                )
        can_ask = sys.stdin.isatty() and sys.stderr.isatty()
        yield ChosenTools(tools, TerminalConsent(notes, allowed=allowed, can_ask=can_ask))

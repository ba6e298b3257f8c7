"""The options of `glm4q chat` about tools: what the model may call, and who is asked."""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from calculator.errors import OptionError
from glm4q.chat.reply_grammar import honoured
from glm4q.terminal.consent import TerminalConsent
from glm4q.terminal.screen.console import Console
from glm4q.tools.browser.browser import browser_tools
from glm4q.tools.functions import AUTO, Tool, Toolbox, load_tools
from glm4q.tools.mcp.server import mcp_tools
from glm4q.tools.python_tool import python_tool

BUILT_IN = ("python", "browser")
BROWSER = ("simple_browser", "search", "mclick", "open_url")
"""What calls of the tool browser are named, by dialects."""
DEFAULT_FILES = Path("glm4q-files")


@dataclass(frozen=True)
class ChosenTools:
    """Tools that are offered, and the question that is asked before one runs."""

    tools: Sequence[Tool]
    consent: TerminalConsent


@dataclass(frozen=True)
class ToolOptions:
    """What the command line says about tools."""

    files: Sequence[Path] = ()
    built_in: Sequence[str] = ()
    servers: Sequence[str] = ()
    """MCP servers: commands and URLs."""
    search_url: str | None = None
    allowed: Sequence[str] = ()
    """Tools that run without a question."""
    choice: str = AUTO
    """Which of them the first reply to a question must call."""
    written: Path = DEFAULT_FILES
    """Where the python tool's files go."""

    def __post_init__(self) -> None:
        for name in self.built_in:
            if name not in BUILT_IN:
                raise OptionError(f"--tool must be {' or '.join(BUILT_IN)}, not {name!r}")
        if self.search_url is not None and "browser" not in self.built_in:
            raise OptionError("--search-url is for --tool browser, which is not asked for")


@contextmanager
def choose_tools(options: ToolOptions) -> Iterator[ChosenTools]:
    """Load the tools that the options name, until the `with` block ends. Raises OptionError."""
    notes = Console(file=sys.stderr)
    announce = partial(notes.print, markup=False, highlight=False, soft_wrap=True)
    tools = [tool for file in options.files for tool in load_tools(file)]
    with ExitStack() as opened:
        if "python" in options.built_in:
            tools.append(opened.enter_context(python_tool(options.written, announce)))
        if "browser" in options.built_in:
            tools += browser_tools(options.search_url)
        for place in options.servers:
            tools += opened.enter_context(mcp_tools(place))
        toolbox = Toolbox(tools)  # refuses two of one name
        allowed = _allowed(options.allowed, toolbox.names | set(options.built_in))
        toolbox.chosen(options.choice)  # refuses a name that no tool has
        for reason in honoured(toolbox.offers, "metadata")[1]:
            announce(f"glm4q: {reason}; its calls are checked only when they run")
        can_ask = sys.stdin.isatty() and sys.stderr.isatty()
        yield ChosenTools(tools, TerminalConsent(notes, allowed=allowed, can_ask=can_ask))


def _allowed(names: Sequence[str], known: Collection[str]) -> set[str]:
    """Return the names of calls that run without a question. Raises OptionError."""
    allowed: set[str] = set()
    for name in names:
        if name not in known:
            listed = ", ".join(sorted(known))
            offered = listed or "none: --tools FILE.py, --mcp or --tool python offers some"
            raise OptionError(f"--yes-tools {name}: there is no such tool; the tools are {offered}")
        allowed.update(BROWSER if name == "browser" else [name])
    return allowed

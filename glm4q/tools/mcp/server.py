"""An MCP server, started as a command or reached by its URL, whose tools are offered.

The protocol is spoken by the official package `mcp`, on an event loop of its own thread.
"""

import logging
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from calculator.errors import OptionError, ToolError
from calculator.extras import require_packages
from glm4q.tools.calls import NAME
from glm4q.tools.functions import TOOL_SECONDS, Tool
from glm4q.tools.mcp.results import result_text

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import Tool as ServerTool

CONNECT_SECONDS = 20.0
"""How long a server may take for the answer to each request before its tools are known."""
MOST_TOOLS = 128
MOST_PAGES = 128
"""Pages of a list of tools: a server may send empty ones without end."""
LATER = 5.0
"""Seconds after the package gives a call up until we do: its reason is the better one."""

Run = Callable[..., Any]
"""Runs a coroutine function on the event loop, and waits for what it returns."""


@contextmanager
def mcp_tools(place: str, seconds: float = TOOL_SECONDS) -> Iterator[list[Tool]]:
    """Offer a server's tools until the `with` block ends, which ends the server's process too.

    place: a URL, or a command with its arguments. seconds: how long a call may take. Raises
    OptionError where the server does not answer, or offers what a model cannot call.
    """
    require_packages("--mcp", "mcp")
    with ExitStack() as opened:
        client, run = _connected(place, opened)
        tools = _reached(place, lambda: run(_list_tools, client))
        if not tools:
            raise OptionError(f"--mcp {place}: the server offers no tools")
        yield [_tool(place, tool, partial(run, client.call_tool), seconds) for tool in tools]


def _connected(place: str, opened: ExitStack) -> "tuple[Client, Run]":
    from anyio.from_thread import start_blocking_portal
    from mcp import Client, StdioServerParameters, stdio_client

    for name in ("mcp", "httpx2"):  # a line for each failure, which we say ourselves
        logging.getLogger(name).addHandler(logging.NullHandler())
    stderr: TextIO | None = None
    if place.startswith(("http://", "https://")):
        client = Client(place, read_timeout_seconds=CONNECT_SECONDS)
    else:
        command, *arguments = _words(place)
        written = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        stderr = opened.enter_context(written)
        parameters = StdioServerParameters(command=command, args=arguments)
        transport = stdio_client(parameters, errlog=stderr)
        client = Client(transport, read_timeout_seconds=CONNECT_SECONDS)
    portal = opened.enter_context(start_blocking_portal())
    opening = portal.wrap_async_context_manager(client)
    reached = _reached(place, opening.__enter__, stderr)
    opened.callback(_close, opening)
    return reached, portal.call


def _close(opening: AbstractContextManager[Any]) -> None:
    """Say goodbye to a server, which may have died meanwhile, and end its process."""
    with suppress(ExceptionGroup, OSError):
        opening.__exit__(None, None, None)


def _words(place: str) -> list[str]:
    try:
        words = shlex.split(place)
    except ValueError as error:
        raise OptionError(f"--mcp {place}: the command cannot be read: {error}") from None
    if not words:
        raise OptionError("--mcp needs a command or a URL, not an empty text")
    return words


def _reached(place: str, act: Callable[[], Any], stderr: TextIO | None = None) -> Any:
    """Say in one line why a server cannot be used, with the last line that it wrote itself."""
    from mcp import MCPError

    try:
        return act()
    except (MCPError, OSError, ValueError, ExceptionGroup) as error:
        reason = _reason(error)
    if stderr is not None:
        stderr.seek(0)
        lines = [line.strip() for line in stderr if line.strip()]
        reason += f"; it wrote: {lines[-1][:200]}" if lines else ""
    raise OptionError(f"--mcp {place}: the server cannot be used: {reason}")


def _reason(error: BaseException) -> str:
    """Return the first of the errors of tasks that failed together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split()) or type(error).__name__


async def _list_tools(client: "Client") -> "list[ServerTool]":
    """Ask for all pages of the list. Raises ValueError where it is too long."""
    page = await client.list_tools()
    tools = list(page.tools)
    for _ in range(MOST_PAGES):
        if len(tools) > MOST_TOOLS:
            raise ValueError(f"it offers more than {MOST_TOOLS} tools")
        if not page.next_cursor:
            return tools
        page = await client.list_tools(cursor=page.next_cursor)
        tools += page.tools
    raise ValueError(f"its list of tools does not end after {MOST_PAGES} pages")


def _tool(place: str, offered: "ServerTool", call: Run, seconds: float) -> Tool:
    if not NAME.fullmatch(offered.name):
        raise OptionError(
            f"--mcp {place}: the server's tool {offered.name!r} has a name that no call can spell"
        )
    schema = {
        "name": offered.name,
        "description": offered.description or offered.title or offered.name,
        "parameters": offered.input_schema,
    }
    answer = partial(_answer, call, offered.name, seconds)
    return Tool(offered.name, schema, answer, seconds=seconds + LATER)


def _answer(call: Run, name: str, seconds: float, arguments: Mapping[str, Any]) -> str:
    """Call the server. Raises ToolError for what the model should read."""
    from mcp import MCPError

    try:
        return result_text(call(name, dict(arguments), seconds))
    except (MCPError, OSError, RuntimeError, ValueError, ExceptionGroup) as error:
        raise ToolError(f"the server of {name}: {_reason(error)}") from None

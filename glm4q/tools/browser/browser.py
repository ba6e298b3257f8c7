"""The browser of a conversation: what a search found, and the pages that were opened.

GLM-4 knows it as `simple_browser`, and writes lines such as `search("GPTQ")`. Other models are
offered its three functions. Results have the form of the authors' own browser:
https://github.com/zai-org/GLM-4/tree/main/demo/composite_demo/browser
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from calculator.errors import OptionError, ToolError
from calculator.extras import require_packages
from glm4q.tools.browser.fetch import Fetcher
from glm4q.tools.browser.page_text import title_and_text
from glm4q.tools.browser.search import SearchResult, search
from glm4q.tools.calls import RAW_ARGUMENT
from glm4q.tools.functions import Tool

FIRST_QUOTE = 7
"""The number of the first page, as the model was trained."""
MOST_PAGES = 10
MOST_CALLS = 4
"""Lines of one call."""
SCHEMA = {
    "name": "simple_browser",
    "parameters": {"type": "object", "properties": {RAW_ARGUMENT: {"type": "string"}}},
}


class Browser:
    """Searches and opens pages."""

    def __init__(self, engine: str | None, pages: Fetcher, engines: Fetcher) -> None:
        """engine: the URL of the search engine. pages and engines: what reaches each of them."""
        self._engine, self._pages, self._engines = engine, pages, engines
        self._results: list[SearchResult] = []
        self._quotes = FIRST_QUOTE

    def search(self, query: str, recency_days: int = -1) -> str:
        """Search the web, and list what is found with an id for each result.

        recency_days: only pages of so many days.
        """
        if self._engine is None:
            raise ToolError("there is no search engine here; open_url opens pages")
        self._results = search(self._engines, self._engine, query, recency_days)
        lines = [
            f" # 【{number}†{result.title}†{urlsplit(result.url).hostname}】\n{result.snippet}"
            for number, result in enumerate(self._results)
        ]
        return "\n".join(lines) or "nothing is found"

    def mclick(self, ids: list[int]) -> str:
        """Open results of the last search by their ids, and read the text of their pages."""
        texts = []
        for number in ids[:MOST_PAGES]:
            if not 0 <= number < len(self._results):
                texts.append(f"error: the last search has no result {number}")
                continue
            try:
                texts.append(self._quote(self._results[number].url))
            except ToolError as error:
                texts.append(f"error: {error}")
        return "\n\n".join(texts) or "error: mclick needs ids of the last search"

    def open_url(self, url: str) -> str:
        """Open a page by its URL, and read its text."""
        return self._quote(url)

    def run(self, arguments: Mapping[str, Any]) -> str:
        """Run the lines that GLM-4 writes. Nothing is evaluated: arguments are literals."""
        functions: dict[str, Callable[..., str]] = {
            function.__name__: function for function in (self.search, self.mclick, self.open_url)
        }
        calls = _calls(str(arguments[RAW_ARGUMENT]))
        return "\n\n".join(
            Tool.from_function(functions[name]).run(_named(functions[name], given, named))
            if name in functions
            else f"error: the browser has search, mclick and open_url, not {name}"
            for name, given, named in calls
        )

    def _quote(self, url: str) -> str:
        page = self._pages.fetch(url)
        title, text = title_and_text(page)
        number, self._quotes = self._quotes, self._quotes + 1
        heading = f"TITLE: {title}\n" if title else ""
        return f"[{number}†source]\n{heading}URL: {page.url}\n{text}"


def browser_tools(
    engine: str | None,
    *,
    pages: Fetcher | None = None,
) -> list[Tool]:
    """Offer a browser. Raises OptionError.

    engine: the URL of a search engine, which may be on this machine. pages: what reaches pages.
    """
    require_packages("--tool browser", "trafilatura", "lxml_html_clean")
    if engine is not None and not engine.startswith(("http://", "https://")):
        raise OptionError(f"--search-url must begin with http:// or https://, not {engine!r}")
    browser = Browser(engine, pages or Fetcher(), Fetcher(permit=lambda address: True))
    native = Tool("simple_browser", SCHEMA, browser.run, kind="simple_browser")
    functions: Sequence[Callable[..., str]] = (browser.search, browser.mclick, browser.open_url)
    offered = functions if engine is not None else (browser.open_url,)
    return [_replaced(Tool.from_function(function), native) for function in offered]


def _replaced(tool: Tool, native: Tool) -> Tool:
    return Tool(tool.name, tool.schema, tool.answer, native=native)


def _calls(code: str) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """Return the calls of some lines: name, values, and named values. Raises ToolError."""
    try:
        body = ast.parse(code.strip()).body
        if not 0 < len(body) <= MOST_CALLS:
            raise ValueError(f"1 to {MOST_CALLS} calls may come, not {len(body)}")
        return [_call(statement) for statement in body]
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        problem = " ".join(str(error).split())
        raise ToolError(
            f'write search("..."), mclick([0, 1]) or open_url("..."): {problem}'
        ) from None


def _call(statement: ast.stmt) -> tuple[str, list[Any], dict[str, Any]]:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        raise ValueError("a line is no call")
    named = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords if word.arg}
    return call.func.id, [ast.literal_eval(value) for value in call.args], named


def _named(
    function: Callable[..., str], given: Sequence[Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Give values without names those of the parameters, in their order."""
    names = list(function.__annotations__)
    return {**dict(zip(names, given, strict=False)), **named}

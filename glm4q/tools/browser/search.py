"""Asks a search engine that speaks SearXNG's API: https://docs.searxng.org/dev/search_api.html."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from calculator.errors import ToolError
from glm4q.tools.browser.fetch import Fetcher

MOST_RESULTS = 10
RANGES = ((1, "day"), (7, "week"), (31, "month"), (366, "year"))
"""What the API calls the last so many days."""


@dataclass(frozen=True)
class SearchResult:
    """One result."""

    title: str
    url: str
    snippet: str


def search(fetcher: Fetcher, engine: str, query: str, recency_days: int) -> list[SearchResult]:
    """Return the first results. Raises ToolError.

    fetcher: reaches the engine, which the user chose, wherever it is.
    """
    fields = {"q": query, "format": "json"}
    age = next((name for days, name in RANGES if 0 < recency_days <= days), None)
    if age is not None:
        fields["time_range"] = age
    base = engine.rstrip("/").removesuffix("/search")
    try:
        page = fetcher.fetch(f"{base}/search?{urlencode(fields)}")
        results = json.loads(page.text)["results"]
        return [_read(result) for result in results[:MOST_RESULTS] if result.get("url")]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ToolError(
            f"the search engine {base} gives no JSON: its settings must allow the format json"
        ) from None


def _read(result: dict[str, Any]) -> SearchResult:
    texts = (result.get(name) or "" for name in ("title", "url", "content"))
    return SearchResult(*(" ".join(str(text).split()) for text in texts))

"""An MCP server without a library, that lists its tools in pages.

Arguments: how many tools it has, how many a page has (0 makes a list that never ends), and a file
to which it writes its process id.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

COUNT, PAGE = int(sys.argv[1]), int(sys.argv[2])
UNFOLLOWED = {"type": "object", "properties": {"word": {"not": {"const": "no"}}}}
"""A schema that no grammar here can follow."""


def tool(number: int) -> dict[str, Any]:
    """The first tool has such parameters."""
    parameters = {"type": "object"} if number else UNFOLLOWED
    return {"name": f"tool_{number}", "description": "A tool.", "inputSchema": parameters}


def answer(method: str, parameters: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        return {
            "protocolVersion": parameters["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "paged", "version": "1"},
        }
    if method == "tools/list":
        first = int(parameters.get("cursor") or 0)
        last = min(first + PAGE, COUNT)
        page: dict[str, Any] = {"tools": [tool(number) for number in range(first, last)]}
        return page if last == COUNT else {**page, "nextCursor": str(last)}
    if method == "tools/call":
        text = json.dumps([parameters["name"], parameters.get("arguments")])
        return {"content": [{"type": "text", "text": text}], "isError": False}
    return None


def main() -> None:
    if len(sys.argv) > 3:
        Path(sys.argv[3]).write_text(str(os.getpid()))
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        result = answer(request["method"], request.get("params") or {})
        reply = {"jsonrpc": "2.0", "id": request["id"]}
        reply |= {"error": {"code": -32601, "message": "no such method"}} if result is None else {}
        reply |= {} if result is None else {"result": result}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()

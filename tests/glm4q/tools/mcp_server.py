"""A small MCP server of tests. Arguments: stdio, or http and a port."""

import os
import sys
import time
from typing import Any

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("test", log_level="CRITICAL")


@server.tool()
def add(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


@server.tool(structured_output=False)
def picture() -> Any:
    """Draw a picture."""
    return ["a red square", Image(data=b"PNG", format="png")]


@server.tool()
def fail() -> str:
    """Fail."""
    raise ToolError("the disk is on fire")


@server.tool()
def sleep(seconds: float) -> str:
    """Wait."""
    time.sleep(seconds)
    return "awake"


@server.tool()
def die() -> str:
    """End the server."""
    os._exit(3)


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        print("the server says hello", file=sys.stderr)
        server.run()
    else:
        server.run("streamable-http", port=int(sys.argv[2]))

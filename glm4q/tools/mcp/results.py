"""What an MCP server answers to a call, as the model reads it: text, and names of all else."""

import json
from typing import TYPE_CHECKING

from calculator.errors import ToolError

if TYPE_CHECKING:
    from mcp.types import CallToolResult, ContentBlock


def result_text(result: "CallToolResult") -> str:
    """Return the text of a result. Raises ToolError where the server says that the call failed."""
    text = "\n".join(_block_text(block) for block in result.content)
    if not text and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False)
    if result.is_error:
        raise ToolError(text or "the server says no more than that the call failed")
    return text


def _block_text(block: "ContentBlock") -> str:
    """Return one part of a result. The model reads text alone."""
    if block.type == "text":
        return block.text
    if block.type in ("image", "audio"):
        return f"[{block.type} of type {block.mime_type} is left out: only text can be read]"
    if block.type == "resource_link":
        return f"[link to {block.uri}]"
    resource = getattr(block, "resource", None)
    text = getattr(resource, "text", None)
    if isinstance(text, str):
        return text
    return f"[resource {getattr(resource, 'uri', '')} is left out: only text can be read]"

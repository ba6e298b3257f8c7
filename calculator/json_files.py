"""Read the small JSON files of a checkpoint; every error names the file."""

from pathlib import Path
from typing import Any

from calculator.errors import ConfigError, Glm4qError
from calculator.git_lfs import about_lfs_pointer, is_lfs_pointer

MAX_CONFIG_BYTES = 1 << 20
MAX_TOKENIZER_BYTES = 1 << 28
"""GLM-4's tokenizer.json has 20 MB, and a list of added tokens can take several MB as well."""


def read_json_object(
    path: Path, *, limit: int = MAX_CONFIG_BYTES, error: type[Glm4qError] = ConfigError
) -> dict[str, Any]:
    """Read a JSON file of at most `limit` bytes that holds one object. Raises `error`."""
    import json  # 1 ms of a cold start, and presets need no file

    try:
        size = path.stat().st_size
        if size > limit:
            raise error(f"{path} has {size:,} bytes, and at most {limit:,} are read")
        # Editors on Windows begin a file with a byte order mark, which "utf-8-sig" skips.
        parsed = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as fault:
        raise error(f"{path} cannot be read: {fault.strerror}") from None
    except (ValueError, RecursionError) as fault:
        if is_lfs_pointer(path):
            raise error(about_lfs_pointer(path)) from None
        raise error(f"{path} is not JSON: {fault}") from None
    if not isinstance(parsed, dict):
        raise error(f"{path} must hold a JSON object, not a {type(parsed).__name__}")
    return parsed

"""Options of what is kept on disk: conversations, and the cache of what was read."""

from pathlib import Path
from typing import Annotated, Any

from glm4q.commands.options.declare import option

KEEPING = "Kept on disk"


def _keeping(text: str, default: str | bool) -> Any:
    return option(text, topic=KEEPING, default=default)


Session = Annotated[
    str | None,
    _keeping("Go on with the conversation of this name, and save it after each answer.", False),
]
PrefixStore = Annotated[
    Path | None,
    _keeping(
        "The directory of cached prompts, which later runs begin from.", "~/.cache/glm4q/prefixes"
    ),
]
ServedPrefixStore = Annotated[
    Path | None,
    _keeping(
        "Keep the cache of prompts that requests share in this directory, over restarts.", False
    ),
]
PrefixStoreSize = Annotated[
    str,
    _keeping(
        "The most that cached prompts may take, in GiB (8) or MiB (600M); the least recently "
        "used go first.",
        True,
    ),
]
Remove = Annotated[
    list[str] | None,
    option("Remove the conversation of this name; may be given again.", default=False),
]
DEFAULT_SIZE = "8"
